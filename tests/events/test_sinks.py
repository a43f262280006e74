"""
Whoever is told: a real gRPC service, a real web server, a stream in a real Redis.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
from tests.redis.fixtures import redis, redis_cluster, redis_of, redis_on_cluster, redis_server
from tests.upstream.asked import TRACE, over_grpc, over_http, running
from tests.upstream.grpc_backends import grpc_backend

from bench.event_service import Recorder, serve
from demo.ports import free_port
from gateway.config.checks.events import EVENT_ROOTS
from gateway.config.events_section import EVENT_CALL, Events
from gateway.core.privacy import Privacy
from gateway.core.session_use import SessionUse
from gateway.events.content import Content, told_of
from gateway.events.sinks import BackendSink
from gateway.ports.events import EventSink, NotTaken, Refusal, ToldEvent
from gateway.ports.sessions import OutboxEvent, SessionRecord
from gateway.protos.event.v1 import events_pb2

__all__ = ["redis", "redis_cluster", "redis_on_cluster", "redis_server"]

USE = SessionUse(3, 200, 120, 5000, 2, ("lobby", "table:{id}"), 1000)
RECORD = SessionRecord(
    "0" * 30 + "05",
    "alice",
    "phone",
    "instance-1",
    "client-1",
    1.8e9,
    1.8e9,
    {
        "name": "tetris-ios",
        "version": "5.4",
        "user_agent": "tetris/1.2 CFNetwork/1490.0.4 Darwin/23.2.0",
        "address": "203.0.113.9",
        "transport": "websocket",
        "app_version": "1.2.3",
        "country": "DE",
        "trace": TRACE.header().decode(),
    },
    past=USE.encode(),
)


def told(privacy: Privacy | None = None) -> list[ToldEvent]:
    """A session's three events."""
    content = Content(15.0, privacy or Privacy())
    content.configure(Events(), on=True)
    made = [content.started(RECORD), content.resumed(RECORD), content.ended(RECORD, "closed")]
    return [
        told_of(OutboxEvent(str(number), event.id, RECORD.id, 1.8e9 + number * 1.25, 1.8e9, min(number, 1), event.data))
        for number, event in enumerate(made)
        if event is not None
    ]


@pytest_twisted.ensureDeferred
async def test_a_grpc_service_gets_every_field(tmp_path: Path) -> None:
    """
    Events arrive as the proto has them, by the ordinary call path: with key, trace and what the configuration sets.
    """
    recorder = Recorder(tmp_path / "events")
    port = free_port()
    server = serve(port, recorder)
    upstream = over_grpc(port)
    try:
        async with running(upstream) as started:
            make = started.asking.maker([upstream], started.calls.schemas())
            sink = BackendSink(make(Events(upstream="grpc", call=EVENT_CALL), EVENT_ROOTS, lenient=True))
            assert await sink.tell(told(), "key-1", TRACE) == []
    finally:
        server.stop(0).wait(5)
    (metadata,) = recorder.calls
    assert metadata["idempotency-key"] == "key-1"
    assert TRACE.trace_id in metadata["traceparent"]
    started_, resumed, ended = map(json.loads, (tmp_path / "events").read_text().splitlines())
    assert (started_["kind"], resumed["kind"]) == ("SESSION_STARTED", "SESSION_RESUMED")
    assert (started_["id"], resumed["id"]) == (f"{RECORD.id}-started", "client-1-resumed")
    assert "ended_at" not in started_
    del ended["told"]
    assert ended == {
        "id": f"{RECORD.id}-ended",
        "kind": "SESSION_ENDED",
        "session": RECORD.id,
        "user": "alice",
        "at": "2027-01-15T08:00:02.500Z",
        "started_at": "2027-01-15T08:00:00Z",
        "ended_at": "2027-01-15T08:00:02.500Z",
        "duration_s": 2.5,
        "cause": "closed",
        "close_code": 1000,
        "resumes": 1,
        "client_type": "mobile",
        "os": "iOS",
        "app_version": "1.2.3",
        "sdk_name": "tetris-ios",
        "sdk_version": "5.4",
        "transport": "websocket",
        "instance": "instance-1",
        "connection": "client-1",
        "country": "DE",
        "address": "203.0.113.9",
        "frames_in": "3",
        "frames_out": "200",
        "bytes_in": "120",
        "bytes_out": "5000",
        "channels": ["lobby", "table:{id}"],
        "subscriptions": 2,
        "traceparent": TRACE.header().decode(),
    }


@pytest_twisted.ensureDeferred
async def test_a_grpc_service_refuses() -> None:
    """
    It may refuse single events or a whole batch; that it is not there is another thing.
    """
    answers: list[Any] = [
        events_pb2.PublishEventsResponse(refused=[{"id": "a", "reason": "no"}, {"id": "b", "try_again": True}]),
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAVAILABLE,
    ]

    def answer(_request: bytes, context: Any) -> bytes:
        said = answers.pop(0)
        if isinstance(said, grpc.StatusCode):
            context.abort(said, "not so")
        return bytes(said.SerializeToString())

    with grpc_backend(answer) as (port, _):
        upstream = over_grpc(port, timeout_s=1.0)
        async with running(upstream) as started:
            make = started.asking.maker([upstream], started.calls.schemas())
            sink = BackendSink(make(Events(upstream="grpc", call=EVENT_CALL), EVENT_ROOTS, lenient=True))
            assert await sink.tell(told(), "k", TRACE) == [Refusal("a", "no", False), Refusal("b", "", True)]
            assert await refused(sink) is True
            answers.extend([grpc.StatusCode.UNAVAILABLE] * 9)
            assert await refused(sink) is False


async def refused(sink: EventSink) -> bool:
    """Tell what is not taken; whether somebody answered."""
    with pytest.raises(NotTaken) as raised:
        await sink.tell(told(), "k", TRACE)
    assert raised.value.reason
    return raised.value.refused


@contextmanager
def webhook(answers: list[tuple[int, bytes]]) -> Iterator[tuple[int, list[tuple[dict[str, str], Any]]]]:
    """
    A web server, and what it was sent.
    """
    seen: list[tuple[dict[str, str], Any]] = []

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            status, text = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()


@pytest_twisted.ensureDeferred
async def test_a_webhook() -> None:
    """
    Any 2xx takes a batch, whatever else it says; 4xx refuses it, and anything else is no answer.
    """
    answers = [(204, b""), (200, b"OK"), (200, b'{"refused":[{"id":"a","tryAgain":true}]}'), (400, b"bad"), (500, b"")]
    with webhook(answers) as (port, seen):
        upstream = over_http(port, retry=over_http(1).retry.__class__(attempts=1))
        async with running(upstream) as started:
            make = started.asking.maker([upstream], {})
            sink = BackendSink(make(Events(upstream="http", http="POST /sessions"), EVENT_ROOTS, lenient=True))
            assert await sink.tell(told(Privacy("short", "hash", b"k" * 16)), "key-1", TRACE) == []
            assert not await sink.tell(told(), "k", TRACE)
            assert await sink.tell(told(), "k", TRACE) == [Refusal("a", "", True)]
            assert await refused(sink) is True
            assert await refused(sink) is False
    headers, body = seen[0]
    assert (headers["content-type"], headers["idempotency-key"]) == ("application/json", "key-1")
    first, _, last = body["events"]
    assert (first["kind"], last["duration_s"], last["frames_in"]) == ("SESSION_STARTED", 2.5, 3)
    assert first["address"] == "203.0.113.0/24"
    assert len(first["user"]) == 24
    assert "browser" not in first


@pytest.fixture(params=["redis", "cluster"])
def store(request: pytest.FixtureRequest) -> Any:
    """One server, and several."""
    return redis_of(request)


@pytest_twisted.ensureDeferred
async def test_a_stream(store: Any) -> None:
    """
    Each event is an entry, in order and whole; the stream is cut to about its length.
    """
    from gateway.redis.event_stream import EventStream

    sink = EventStream(store, "sessions", 100)
    assert await sink.tell(told(), "k", TRACE) == ()
    key = store.keys.one("stream", "sessions")
    entries = await store.call("XRANGE", key, "-", "+")
    fields = [dict(zip(entry[::2], entry[1::2], strict=True)) for _, entry in entries]
    assert [each[b"kind"] for each in fields] == [b"SESSION_STARTED", b"SESSION_RESUMED", b"SESSION_ENDED"]
    assert json.loads(fields[2][b"event"])["duration_s"] == 2.5
    assert fields[0][b"session"].decode() == RECORD.id
    more = told() * 10
    for _ in range(20):
        await sink.tell(more, "k", TRACE)
    assert await store.call("XLEN", key) < 300
