"""
Traces of requests: continued, begun, linked, recorded, and told as spans.
"""

from __future__ import annotations

import random
from ipaddress import ip_network
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.node.recording import Recorded, head
from twisted.internet.defer import Deferred

from gateway.core.address import AddressRule
from gateway.core.identity import Identity
from gateway.core.privacy import Privacy
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.node.edge import Edge
from gateway.node.filters import Chosen, ClientAddress, Credentials, Match, Trace
from gateway.node.http_spans import RequestSpans
from gateway.node.journal import HttpJournal
from gateway.node.plan import Filter, Plan, ServedRoute
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.span_bytes import request_of
from gateway.telemetry.spans import SCOPE, Spans

PROXY = Peer("10.0.0.1", 4711)
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "rojo=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}


class Site:
    """
    An edge with a route or two, and the spans that it told.
    """

    def __init__(
        self, sample: float = 1.0, users: tuple[str, ...] = (), *, on: bool = True, certified: bool = False
    ) -> None:
        self.frames: list[bytes] = []
        self.now = 10.0
        self.spans = Spans(lambda: self.now, lambda: 1.8e9 + self.now, random.Random(3).getrandbits, lambda: 0.5)
        self.spans.configure(self.frames.append if on else None, sample, users)
        self.recorded = RequestSpans(self.spans)
        self.asked: list[Exchange] = []
        self.status = 200
        player = ServedRoute("players", self, auth=True, template="/api/players/{id}")
        public = ServedRoute("public", self, auth=False, template="/public/**")
        table = RouteTable([Entry("/api/players/{id}", frozenset(), player), Entry("/public/**", frozenset(), public)])
        filters: tuple[Filter, ...] = (
            ClientAddress(AddressRule((ip_network("10.0.0.0/8"),))),
            Trace(random.Random(7).getrandbits, self.recorded, certified=certified),
            Match(table),
            Credentials(self, self, lambda *_: None, lambda: 1.8e9),  # type: ignore[arg-type]  # a test's shorthand
            Chosen(self.recorded),
        )
        self.edge = Edge(Plan(filters, table), lambda: self.now, HttpJournal(Metrics(), None, None, self.recorded))

    def __call__(self, exchange: Exchange, places: tuple[str, ...]) -> bytes:
        """Take the token."""
        return exchange.head.fields.get(b"authorization", b"")

    def clean(self, exchange: Exchange) -> None:
        """There is none."""

    def authenticate(self, token: bytes, now: float) -> Identity | Deferred[Identity]:
        """Believe it."""
        if not token:
            raise Problem("credential_missing")
        return Identity(token.decode(), "i", 2e9)

    def handle(self, exchange: Exchange) -> None:
        """Answer."""
        self.asked.append(exchange)
        if self.status >= 500:
            raise Problem("upstream_reset", reason="reset: gone")
        exchange.start(self.status, b"", b"", 2, b"ok", ended=True)

    def ask(
        self, target: str, headers: dict[str, str] | None = None, peer: Peer | None = None, **more: Any
    ) -> Exchange:
        """Send one request through, to its end."""
        downstream = Recorded(head(more.pop("method", "GET"), target, headers or {}, **more), peer)
        exchange = self.edge.begin(downstream)
        self.now += 0.25
        self.edge.ended(exchange, whole=True)
        return exchange

    def told(self) -> list[Any]:
        """The spans."""
        request = ExportTraceServiceRequest.FromString(request_of({}, "", SCOPE, self.frames))
        return list(request.resource_spans[0].scope_spans[0].spans)


def said(span: Any) -> dict[str, Any]:
    """Its attributes."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_recorded_request_is_a_span() -> None:
    """
    A span by the conventions: name and route by the template, who asked, what was answered, how long it took.
    """
    site = Site()
    exchange = site.ask(
        "/api/players/7?full=1&token=abc",
        {"Authorization": "alice", "Host": "play.example:8443", "User-Agent": "curl/8"},
        Peer("192.0.2.7", 5000, tls=True),
    )
    (span,) = site.told()
    assert (span.name, span.kind, span.status.code) == ("GET /api/players/{id}", 2, 0)
    assert (span.trace_id.hex(), span.span_id.hex()) == (exchange.trace.trace_id, exchange.trace.parent_id)
    assert span.parent_span_id == b""
    assert abs(span.end_time_unix_nano - span.start_time_unix_nano - 250_000_000) < 1000
    assert said(span) == {
        "http.request.method": "GET",
        "http.route": "/api/players/{id}",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/api/players/7",
        "url.query": "full=1&token=REDACTED",
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 5000,
        "network.protocol.version": "1.1",
        "server.address": "play.example",
        "server.port": 8443,
        "user_agent.original": "curl/8",
        "user.id": "alice",
    }


def test_failures_are_errors_and_refusals_are_not() -> None:
    """
    An answer from 500 on is an error of the span; one below is not, and says why it was refused.
    """
    site = Site()
    site.status = 503
    site.ask("/public/x")
    site.ask("/api/players/7")
    site.ask("/nowhere", method="BREW")
    failed, refused, lost = site.told()
    assert (failed.status.code, refused.status.code, lost.status.code) == (2, 0, 0)
    assert (said(failed)["error.type"], said(failed)["gateway.reason"]) == ("UR", "reset: gone")
    assert (said(refused)["http.response.status_code"], "error.type" in said(refused)) == (401, False)
    assert (lost.name, said(lost)["http.request.method_original"]) == ("_OTHER", "BREW")
    assert "http.route" not in said(lost)


@pytest.mark.parametrize("headers", [SAMPLED, UNSAMPLED])
def test_a_stranger_s_trace_is_linked(headers: dict[str, str]) -> None:
    """
    A context that anybody sent is neither continued nor believed: a new trace begins here, with a link to it.
    """
    site = Site()
    exchange = site.ask("/public/x", headers)
    assert exchange.trace.trace_id != TRACE
    assert exchange.trace.state == b""
    (span,) = site.told()
    assert span.parent_span_id == b""
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(TRACE, SPAN)]
    assert not Site(sample=0.0).ask("/public/x", headers).trace.sampled


@pytest.mark.parametrize(
    ("peer", "certified"), [(PROXY, False), (Peer("192.0.2.7", 1, certificate_subject="CN=mesh"), True)]
)
def test_a_trusted_peer_s_trace_is_continued(peer: Peer, certified: bool) -> None:
    """
    A trusted peer's context is continued with its decision, whatever the share is, and its span is ours' parent.
    """
    site = Site(sample=0.0, certified=certified)
    exchange = site.ask("/public/x", SAMPLED, peer)
    (span,) = site.told()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.span_id.hex() == exchange.trace.parent_id != SPAN
    assert (exchange.trace.state, span.trace_state) == (b"rojo=1", "rojo=1")
    assert list(span.links) == []
    site = Site(sample=1.0, certified=certified)
    exchange = site.ask("/public/x", UNSAMPLED, peer)
    assert (exchange.trace.trace_id, exchange.trace.sampled) == (TRACE, False)
    assert site.told() == []


def test_certificates_are_believed_only_if_that_is_configured() -> None:
    """
    Without the option a client certificate says nothing about traces.
    """
    peer = Peer("192.0.2.7", 1, certificate_subject="CN=mesh")
    assert Site().ask("/public/x", SAMPLED, peer).trace.trace_id != TRACE


def test_where_no_spans_are_made_a_trusted_trace_passes_as_it_came() -> None:
    """
    No span that nobody tells of stands between a trusted peer's and the backend's.
    """
    exchange = Site(on=False).ask("/public/x", SAMPLED, PROXY)
    assert exchange.trace.block() == f"traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: rojo=1\r\n".encode()


def test_chosen_users_are_recorded_from_the_beginning() -> None:
    """
    Of a user who is chosen every request is recorded as a whole, also below a parent that is not; of others none.
    """
    site = Site(sample=0.0, users=("alice",))
    exchange = site.ask("/api/players/7", {"Authorization": "alice"})
    site.ask("/api/players/7", {"Authorization": "bob"})
    site.ask("/public/x", {"Authorization": "alice"})
    site.ask("/api/players/7", {"Authorization": "alice", **UNSAMPLED}, PROXY)
    first, second = site.told()
    assert exchange.trace.sampled
    assert abs(first.start_time_unix_nano - (1.8e9 + 10.0) * 1e9) < 1000
    assert (second.trace_id.hex(), second.parent_span_id.hex()) == (TRACE, SPAN)
    site.spans.sampling.choose("bob", 60)
    assert site.ask("/api/players/7", {"Authorization": "bob"}).trace.sampled


def test_a_share_is_recorded() -> None:
    """
    Of requests that nobody chose as many are recorded as the share says.
    """
    site = Site(sample=0.25)
    exchanges = [site.ask("/public/x") for _ in range(400)]
    recorded = [exchange for exchange in exchanges if exchange.trace.sampled]
    assert 60 < len(recorded) < 140
    assert [span.trace_id.hex() for span in site.told()] == [exchange.trace.trace_id for exchange in recorded]


def test_a_request_that_goes_on_is_told_meanwhile() -> None:
    """
    A request under way for a minute is told then, and not again at its end; so is a stream when it begins.
    """
    site = Site()
    waiting = site.edge.begin(Recorded(head("GET", "/public/x", {})))
    stream = site.edge.begin(Recorded(head("GET", "/public/stream", {})))
    site.recorded.opened(stream, site.now)
    assert [said(span)["url.path"] for span in site.told()] == ["/public/stream"]
    site.recorded.sweep(site.now + 59)
    assert len(site.told()) == 1
    site.recorded.sweep(site.now + 61)
    assert [said(span)["url.path"] for span in site.told()] == ["/public/stream", "/public/x"]
    for exchange in (waiting, stream):
        site.edge.ended(exchange, whole=False)
    assert len(site.told()) == 2


def test_people_are_written_as_the_configuration_says() -> None:
    """
    A span has neither the whole address nor the user's own id where those are not to be kept.
    """
    site = Site()
    site.spans.privacy = privacy = Privacy("short", "hash", b"correct-horse-battery-staple")
    site.ask("/api/players/7", {"Authorization": "alice"}, Peer("192.0.2.7", 5000))
    told = said(site.told()[0])
    assert (told["client.address"], told["network.peer.address"]) == ("192.0.2.0/24", "192.0.2.0/24")
    assert told["user.id"] == privacy.user("alice")
