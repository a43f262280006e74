"""
Requests through the filters to their handlers and to exactly one line each.
"""

import json
import random
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from tests.node.recording import Recorded, head
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gateway.core.address import AddressRule
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.node.edge import Edge
from gateway.node.filters import ClientAddress, Credentials, Match, Rule, Trace
from gateway.node.http_spans import RequestSpans
from gateway.node.plan import Filter, Plan, ServedRoute
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.spans import Spans

ALICE = Identity("alice", "https://id.example", expires_at=2e9, scopes=frozenset({"play"}))
PROXY = Peer("10.0.0.1", 4711)


class Remembering:
    """
    A journal that keeps what it is told.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[Exchange, bool]] = []
        self.problems: list[Problem] = []
        self.crashes: list[Failure] = []
        self.unreadable: list[tuple[int, str]] = []

    def request(self, exchange: Exchange, ended_at: float, *, whole: bool) -> None:
        self.requests.append((exchange, whole))

    def malformed(self, peer: Peer, status: int, code: str, head: bytes) -> None:
        self.unreadable.append((status, code))

    def refused(self, problem: Problem) -> None:
        self.problems.append(problem)

    def crashed(self, exchange: Exchange, failure: Failure) -> None:
        self.crashes.append(failure)


class Answering:
    """
    A handler that answers 200 and remembers what reached it.
    """

    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    def handle(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        exchange.start(200, b"", b"X-Backend: yes\r\n", 2, b"ok", ended=True)


class Tokens:
    """
    An authenticator that knows one token, and one whose keys are still to be fetched.
    """

    def __init__(self) -> None:
        self.waiting: Deferred[Identity] = Deferred()

    def authenticate(self, token: bytes, now: float) -> Identity | Deferred[Identity]:
        if token == b"good":
            return ALICE
        if token == b"later":
            return self.waiting
        raise Problem("token_invalid", reason="signature")

    def ready(self) -> bool:
        return True


class Bearer:
    def __call__(self, exchange: Exchange, places: tuple[str, ...]) -> bytes:
        value = exchange.head.fields.get(b"authorization")
        if value is None:
            raise Problem("credential_missing", headers=((b"WWW-Authenticate", b"Bearer"),))
        return value.removeprefix(b"Bearer ")

    def clean(self, exchange: Exchange) -> None:
        exchange.query = b"cleaned"


def scopes(identity: Identity, wanted: tuple[str, ...]) -> None:
    if not identity.scopes.issuperset(wanted):
        raise Problem("scope_missing")


class Site:
    """
    An edge with two routes, built the way the application builds it.
    """

    def __init__(self, *, rule: Callable[[Exchange], None] | None = None, wanted: tuple[str, ...] = ()) -> None:
        self.journal = Remembering()
        self.handler = Answering()
        self.tokens = Tokens()
        secured = ServedRoute("players", self.handler, scopes=wanted, allows=rule, max_body_bytes=100)
        public = ServedRoute("public", self.handler, auth=False)
        routes = RouteTable(
            [
                Entry("/api/players/{id}", frozenset(), secured),
                Entry("/public/**", frozenset({b"GET"}), public),
            ]
        )
        filters: tuple[Filter, ...] = (
            ClientAddress(AddressRule((ip_network("10.0.0.0/8"),))),
            Trace(random.Random(7).getrandbits, RequestSpans(Spans.off())),
            Match(routes),
            Credentials(self.tokens, Bearer(), scopes, lambda: 1e9),
            Rule(),
        )
        self.edge = Edge(Plan(filters, routes), lambda: 12.0, self.journal)

    def ask(
        self, method: str, target: str, headers: dict[str, str] | None = None, peer: Peer | None = None, **more: Any
    ) -> tuple[Recorded, Exchange]:
        downstream = Recorded(head(method, target, headers, **more), peer)
        exchange = self.edge.begin(downstream)
        if downstream.ended or downstream.aborted:
            self.edge.ended(exchange, whole=downstream.ended)
        return downstream, exchange


GOOD = {"Authorization": "Bearer good"}


def test_known_caller_reaches_the_handler() -> None:
    """
    A valid token on a known route reaches the handler with identity, variables and ids.
    """
    site = Site()
    answer, exchange = site.ask("GET", "/api/players/7?full=1", GOOD)
    assert (answer.status, answer.body) == (200, b"ok")
    assert exchange.identity is ALICE
    assert exchange.params == {"id": "7"}
    assert exchange.query == b"full=1"
    assert exchange.client_host == "192.0.2.7"
    assert exchange.deadline == 12.0 + 10.0
    assert b"X-Request-Id: " + exchange.request_id.encode() in answer.block
    assert exchange.trace.trace_id == exchange.request_id
    assert b"X-Forwarded-For: 192.0.2.7\r\n" in exchange.outbound_block
    assert site.journal.requests == [(exchange, True)]
    assert site.edge.open == set()


@pytest.mark.parametrize(
    ("method", "target", "headers", "status", "code"),
    [
        ("GET", "/api/players/7", {}, 401, "credential_missing"),
        ("GET", "/api/players/7", {"Authorization": "Bearer bad"}, 401, "token_invalid"),
        ("GET", "/nowhere", GOOD, 404, "no_route"),
        ("POST", "/public/x", {}, 405, "method_not_allowed"),
        ("GET", "/api/players/..%2f", GOOD, 400, "bad_path"),
    ],
)
def test_refusals_are_problems_and_never_reach_the_handler(
    method: str, target: str, headers: dict[str, str], status: int, code: str
) -> None:
    """
    Whatever is refused is answered as a problem with its ids, logged once, and not handled.
    """
    site = Site()
    answer, exchange = site.ask(method, target, headers)
    assert answer.status == status
    body = json.loads(answer.body)
    assert (body["code"], body["status"], body["request_id"]) == (code, status, exchange.request_id)
    assert b"Content-Type: application/problem+json\r\n" in answer.block
    assert b"X-Gateway-Error: " in answer.block
    assert site.handler.seen == []
    assert len(site.journal.requests) == 1
    assert [problem.kind.code for problem in site.journal.problems] == [code]


def test_a_route_without_auth_gives_no_identity() -> None:
    """
    On ``auth = "none"`` even a valid token identifies nobody, and what stood in cookie or query is taken out.
    """
    site = Site()
    answer, exchange = site.ask("GET", "/public/x", GOOD)
    assert answer.status == 200
    assert exchange.identity is None
    assert exchange.query == b"cleaned"


def test_announced_body_is_refused_before_it_comes() -> None:
    """
    A body longer than the route takes is a 413 at the end of the headers, before any token is looked at.
    """
    site = Site()
    answer, _ = site.ask("PUT", "/api/players/7", body_length=101)
    assert answer.status == 413


def test_scope_and_rule() -> None:
    """
    A token without the scope, or a rule that does not allow, is a 403.
    """

    def deny(exchange: Exchange) -> None:
        raise Problem("forbidden", reason="missing_claim")

    assert Site(wanted=("admin",)).ask("GET", "/api/players/7", GOOD)[0].status == 403
    assert Site(wanted=("play",)).ask("GET", "/api/players/7", GOOD)[0].status == 200
    assert Site(rule=deny).ask("GET", "/api/players/7", GOOD)[0].status == 403


def test_waiting_for_keys() -> None:
    """
    A request whose issuer's keys are being fetched goes on where it stopped.
    """
    site = Site()
    answer, exchange = site.ask("GET", "/api/players/7", {"Authorization": "Bearer later"})
    assert not answer.started
    site.tokens.waiting.callback(ALICE)
    assert answer.status == 200
    assert exchange.identity is ALICE


def test_waiting_for_keys_that_do_not_come() -> None:
    """
    Keys that cannot be had are a 503, not a 401.
    """
    site = Site()
    answer, _ = site.ask("GET", "/api/players/7", {"Authorization": "Bearer later"})
    site.tokens.waiting.errback(Failure(Problem("keys_unavailable")))
    assert answer.status == 503


def test_client_leaves_while_waiting() -> None:
    """
    A client that leaves cancels what it waited for; the request is logged once, as 499.
    """
    site = Site()
    answer, exchange = site.ask("GET", "/api/players/7", {"Authorization": "Bearer later"})
    cancelled: list[Failure] = []
    site.tokens.waiting.addErrback(cancelled.append)
    site.edge.ended(exchange, whole=False)
    site.edge.ended(exchange, whole=False)
    assert not answer.started
    assert [entry[0].status for entry in site.journal.requests] == [499]
    assert exchange.flag == "DC"
    assert site.handler.seen == []


def test_our_own_failure_is_reported_once() -> None:
    """
    A bug is a 500 without any inner text, and its traceback goes to the log.
    """

    def crash(exchange: Exchange) -> None:
        raise ValueError("inner text")

    site = Site(rule=crash)
    answer, exchange = site.ask("GET", "/api/players/7", GOOD)
    assert answer.status == 500
    assert b"inner text" not in answer.body
    assert exchange.request_id.encode() in answer.body
    assert "ValueError: inner text" in site.journal.crashes[0].getTraceback()


def test_a_problem_after_the_head_cuts_the_answer() -> None:
    """
    An answer that has begun cannot become a problem; it is cut so that nobody takes it for whole.
    """
    site = Site()
    downstream = Recorded(head("GET", "/public/x"))

    class Half:
        def handle(self, exchange: Exchange) -> None:
            exchange.start(200, b"", b"", 100, b"half", ended=False)
            raise Problem("upstream_reset")

    route = ServedRoute("public", Half(), auth=False)
    routes = RouteTable([Entry("/public/**", frozenset(), route)])
    plan = site.edge.plan
    site.edge.plan = Plan((*plan.filters[:2], Match(routes), *plan.filters[3:]), routes)
    site.edge.begin(downstream)
    assert downstream.aborted
    assert downstream.body == b"half"


def test_trusted_peer_continues_trace_and_request_id() -> None:
    """
    A trusted proxy's trace and request id are continued; an unlucky stranger's are not.
    """
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "X-Request-Id": "abc-1",
        "X-Forwarded-For": "198.51.100.9",
    }
    site = Site()
    _, trusted = site.ask("GET", "/public/x", sent, PROXY)
    assert trusted.trace.trace_id == "0af7651916cd43dd8448eb211c80319c"
    # No span of ours is between theirs and the backend's: none are made here.
    assert trusted.trace.parent_id == "b7ad6b7169203331"
    assert trusted.request_id == "abc-1"
    assert trusted.client_host == "198.51.100.9"
    _, stranger = site.ask("GET", "/public/x", sent)
    assert stranger.trace.trace_id != "0af7651916cd43dd8448eb211c80319c"
    assert stranger.request_id == stranger.trace.trace_id
    assert stranger.client_host == "192.0.2.7"


def test_giving_up_cancels_and_answers() -> None:
    """
    The node can end an exchange that waits: what runs for it is cancelled, the client gets the problem.
    """
    site = Site()
    answer, exchange = site.ask("GET", "/api/players/7", {"Authorization": "Bearer later"})
    outcome: list[Any] = []
    site.tokens.waiting.addErrback(outcome.append)
    site.edge.give_up(exchange, Problem("draining"))
    assert answer.status == 503
    assert not outcome or isinstance(outcome[0].value, CancelledError)


def test_unreadable_requests_are_counted() -> None:
    """
    What the channel refuses gets a problem body and a line of its own.
    """
    site = Site()
    body = site.edge.refused(Peer("192.0.2.7", 1), 431, "head_too_large", b"GET / HTTP/1.1")
    assert json.loads(body)["code"] == "head_too_large"
    assert site.journal.unreadable == [(431, "head_too_large")]
