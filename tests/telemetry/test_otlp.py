"""
Spans over OTLP to real collectors, well and unwell.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
import structlog
from tests.telemetry.collector import over_grpc, over_http
from tests.web.certificates import Authority
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from demo.ports import free_port
from gateway.config.fields import Secret
from gateway.config.sections import Tracing as Section
from gateway.config.sections import UpstreamTls
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import SERVER
from gateway.tracing import Tracing

reactor: Any = installed

QUICK = Section(delay_s=0.02, timeout_s=0.5, retry_s=30.0, sample=1.0)
SERVERS: dict[str, Any] = {"grpc": over_grpc, "http": over_http}


class Made:
    """Tracing on the real reactor, and what it reported."""

    def __init__(self, section: Section) -> None:
        self.metrics = Metrics()
        self.crashes: list[Failure] = []
        self.stopping: list[Deferred[None]] = []
        self.log = structlog.testing.CapturingLogger()
        self.tracing = Tracing(
            reactor,
            wall=lambda: 1.8e9,
            metrics=self.metrics,
            log=self.log,
            spawn=lambda _, coroutine: self.stopping.append(Deferred.fromCoroutine(coroutine)),
            failed=lambda _, failure: self.crashes.append(failure),
        )
        self.tracing.configure(section)

    def tell(self, name: str) -> None:
        """Tell a span."""
        spans = self.tracing.spans
        spans.tell(name, SERVER, spans.begin(), 1.0, 2.0, {"n": 1})

    def count(self, outcome: str) -> float:
        """How many spans came to this."""
        return self.metrics.spans.value(outcome)

    def settled(self) -> bool:
        """Whether something has become of a span."""
        return bool(self.count("sent") or self.count("unsent"))

    def events(self) -> list[str]:
        """What the log was told."""
        return [call.args[0] for call in self.log.calls]


async def until(look: Callable[[], Any], what: str = "") -> None:
    """Wait for something to become true."""
    for _ in range(2000):
        if look():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError(f"never: {what}")


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest_twisted.ensureDeferred
async def test_a_collector_reads_them(protocol: Any, compression: Any) -> None:
    """
    Spans arrive with who made them, over either protocol, compressed or not, with the headers that were configured.
    """
    with SERVERS[protocol]() as collector:
        section = replace(
            QUICK,
            otlp=f"http://127.0.0.1:{collector.port}",
            protocol=protocol,
            compression=compression,
            headers=(("X-Tenant", Secret("t-1")),),
            service="edge",
            attributes=(("deployment.environment.name", "test"),),
        )
        made = Made(section)
        for number in range(300):
            made.tell(f"s{number}")
        await until(lambda: len(collector.spans()) == 300)
        assert sorted(span.name for span in collector.spans()) == sorted(f"s{number}" for number in range(300))
        assert collector.headers[0]["x-tenant"] == "t-1"
        resource = collector.spans()[0].resource
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("edge", "test")
        assert resource["telemetry.sdk.name"] == "opentelemetry"
        if protocol == "http":
            assert collector.headers[0][""] == "/v1/traces"
        await made.tracing.stop()
        assert made.count("sent") == 300
        assert (made.events(), made.crashes) == ([], [])


@pytest.mark.parametrize("protocol", SERVERS)
@pytest_twisted.ensureDeferred
async def test_a_collector_that_is_down_gets_them_when_it_is_back(protocol: Any) -> None:
    """
    What could not be sent waits for the collector; its outage is told once, and so is its end.
    """
    port = free_port()
    made = Made(replace(QUICK, otlp=f"http://127.0.0.1:{port}", protocol=protocol))
    made.tell("early")
    await until(lambda: made.metrics.span_exports.value("failed") >= 2)
    with SERVERS[protocol](port) as collector:
        made.tell("late")
        await until(lambda: len(collector.spans()) == 2)
        assert [span.name for span in collector.spans()] == ["early", "late"]
        await until(lambda: "tracing.resumed" in made.events())
        assert made.events() == ["tracing.unsent", "tracing.resumed"]
        await made.tracing.stop()


@pytest.mark.parametrize("protocol", SERVERS)
@pytest_twisted.ensureDeferred
async def test_a_collector_that_hangs_holds_nothing_up(protocol: Any) -> None:
    """
    Each attempt ends at its deadline, what waits is bounded, and the end comes in time.
    """
    with SERVERS[protocol]() as collector:
        collector.answer = collector.hang
        made = Made(replace(QUICK, otlp=f"http://127.0.0.1:{collector.port}", protocol=protocol, queue=50, batch=10))
        for number in range(100):
            made.tell(f"s{number}")
        await until(lambda: made.metrics.span_exports.value("failed") >= 1)
        assert made.count("overflow") == 50
        began = reactor.seconds()
        await made.tracing.stop()
        assert reactor.seconds() - began < 4
        assert made.count("overflow") + made.count("stopped") + made.count("unsent") == 100
        assert made.crashes == []


@pytest.mark.parametrize(
    ("protocol", "answer", "outcome"),
    [
        ("grpc", grpc.StatusCode.INVALID_ARGUMENT, "refused"),
        ("grpc", grpc.StatusCode.UNAUTHENTICATED, "refused"),
        ("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED, "refused"),
        ("grpc", grpc.StatusCode.UNAVAILABLE, "unsent"),
        ("http", 400, "refused"),
        ("http", 401, "refused"),
        ("http", 500, "refused"),
        ("http", 503, "unsent"),
        ("http", 429, "unsent"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answers_mean_what_the_protocol_says(protocol: Any, answer: Any, outcome: str) -> None:
    """
    What the collector will never take is dropped at once, what it may take later is tried again for a while.
    """
    with SERVERS[protocol]() as collector:
        collector.answer = lambda: answer
        made = Made(replace(QUICK, otlp=f"http://127.0.0.1:{collector.port}", protocol=protocol, retry_s=0.3))
        made.tell("s")
        await until(lambda: made.count(outcome) == 1, outcome)
        await made.tracing.stop()


@pytest.mark.parametrize("protocol", SERVERS)
@pytest_twisted.ensureDeferred
async def test_who_is_no_collector_gets_nothing(protocol: Any) -> None:
    """
    A server that speaks something else, or nothing sensible, costs the spans and nothing more.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

    threading.Thread(target=serve, daemon=True).start()
    try:
        made = Made(
            replace(QUICK, otlp=f"http://127.0.0.1:{listener.getsockname()[1]}", protocol=protocol, retry_s=0.3)
        )
        made.tell("s")
        await until(lambda: made.count("refused") + made.count("unsent") == 1)
        assert made.events() == ["tracing.unsent"]
        await made.tracing.stop()
        assert made.crashes == []
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest_twisted.ensureDeferred
async def test_a_reload_changes_over() -> None:
    """
    Another collector gets what comes from now on, the former one what waited; the share changes without either noticing.
    """
    with over_grpc() as first, over_http() as second:
        section = replace(QUICK, otlp=f"http://127.0.0.1:{first.port}", delay_s=5.0)
        made = Made(section)
        made.tell("a")
        made.tracing.configure(replace(section, sample=0.5, users=("alice",)))
        assert made.tracing.spans.sampling.wants("alice")
        made.tell("b")
        made.tracing.configure(replace(QUICK, otlp=f"http://127.0.0.1:{second.port}", protocol="http"))
        made.tell("c")
        await until(lambda: first.spans() and second.spans())
        assert [span.name for span in first.spans()] == ["a", "b"]
        assert [span.name for span in second.spans()] == ["c"]
        made.tracing.configure(Section())
        assert not made.tracing.spans.on
        await made.tracing.stop()
        for stopping in made.stopping:
            await stopping


@pytest.mark.parametrize("protocol", SERVERS)
@pytest_twisted.ensureDeferred
async def test_collectors_are_verified(protocol: Any, tmp_path: Path) -> None:
    """
    Over TLS a collector is sent spans if the configured authority vouches for it, and told why not otherwise.
    """
    authority, other = Authority(tmp_path), Authority(tmp_path, "another authority")
    made_of = authority.make("localhost", addresses=("127.0.0.1",))
    (tmp_path / "nothing.pem").write_text("nothing")
    with SERVERS[protocol](certificate=made_of) as collector:
        section = replace(QUICK, otlp=f"https://127.0.0.1:{collector.port}", protocol=protocol, retry_s=0.3)
        for file, arrives in ((authority.file, True), (other.file, False), (tmp_path / "nothing.pem", False)):
            made = Made(replace(section, tls=UpstreamTls(ca_file=file)))
            made.tell("s")
            await until(made.settled, file.name)
            assert bool(made.count("sent")) is arrives
            await made.tracing.stop()
            assert made.crashes == []
        assert len(collector.spans()) == 1
