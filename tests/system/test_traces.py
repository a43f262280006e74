"""
One trace, followed on the bytes that reach a collector: from a request, a command or a publication into both kinds of
backend; and a collector that is unwell, which nobody notices.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from google.protobuf import descriptor_pb2
from tests.sdk.backend import Backend, serving
from tests.system.processes import SECRET, Running, ask, eventually, running
from tests.telemetry.collector import Collector, Seen, over_grpc, over_http
from tests.upstream.asked import SCHEMA, Answer
from tests.upstream.grpc_backends import Served, grpc_backend
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parents[2]
TWISTD = str(Path(sys.executable).with_name("twistd"))
CHECKOUT = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
KEY = "a-key-of-the-system-tests"

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THEIRS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "rojo=1"}

ROUTES = f"""
[[admin.key]]
name = "test"
secret = "{KEY}"
scopes = ["*"]

[[route]]
path = "/api/http/**"
upstream = "http"
[[route]]
path = "/api/ask/{{n}}"
methods = ["POST"]
upstream = "grpc"
call = "t.Rules/Ask"
body = "*"

[[websocket]]
path = "/ws"

[channels."table:{{table_id}}"]
subscribe = {{ upstream = "grpc", call = "t.Rules/Ask", set = {{ user = "claims.sub" }} }}
snapshot = {{ upstream = "http", http = "POST /state" }}
history = {{ size = 10, ttl = "1m" }}
"""


@dataclass
class Scene:
    """A gateway between backends of both kinds, and a collector."""

    gateway: Running
    http: Backend
    grpc: Served
    collector: Collector

    def post(self, path: str, headers: dict[str, str] | None = None, *, port: int = 0, **body: Any) -> Any:
        """Send one request; its answer must be a success."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.gateway.port, timeout=30)
        try:
            known = {"Authorization": f"Bearer {token() if not port else KEY}", "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), {**known, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)
        finally:
            connection.close()

    def count(self, name: str) -> float:
        """Read a metric; 0 if it is not there."""
        for line in ask(self.gateway.admin, "/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0


def token(user: str = "alice") -> str:
    """Make a token."""
    now = time.time()
    claims = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": now, "exp": now + 600}
    return jwt.encode(claims, SECRET, "HS256")


@contextmanager
def scene(folder: Path, tracing: str, collector: Collector, *, listen: str = "") -> Iterator[Scene]:
    """
    Start everything but the collector.
    """
    folder.mkdir(exist_ok=True)
    files = descriptor_pb2.FileDescriptorSet()
    SCHEMA.method("t.Rules/Ask").descriptor.input_type.file.CopyToProto(files.file.add())
    (folder / "t.binpb").write_bytes(files.SerializeToString())
    with ExitStack() as stack:
        port, served = stack.enter_context(grpc_backend(lambda *_: Answer(said="yes").SerializeToString()))
        backend = stack.enter_context(serving())
        backend.answers["/api/http/x"] = backend.answers["/api/http/x?a=1&token=no"] = lambda *_: (200, {"ok": 1})
        backend.answers["/state"] = lambda *_: (200, {"n": 1})
        upstreams = f"""
[upstream.http]
http = ["http://127.0.0.1:{backend.port}"]
[upstream.grpc]
grpc = ["127.0.0.1:{port}"]
descriptors = "t.binpb"
"""
        body = upstreams + ROUTES + "[tracing]\n" + tracing
        gateway = stack.enter_context(running(TWISTD, folder, body, extra=CHECKOUT, listen=listen))
        yield Scene(gateway, backend, served, collector)


SERVERS: dict[str, Any] = {"grpc": over_grpc, "http": over_http}


@pytest.fixture(scope="module", params=SERVERS)
def play(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Everything is recorded, and sent over either protocol."""
    with SERVERS[request.param]() as collector:
        tracing = (
            f'otlp = "http://127.0.0.1:{collector.port}"\nprotocol = "{request.param}"\nsample = 1\ndelay = "50ms"\n'
        )
        with scene(tmp_path_factory.mktemp("traces"), tracing, collector) as made:
            yield made


def ids(traceparent: str) -> tuple[str, str]:
    """Trace and span."""
    _, trace, span, flags = traceparent.split("-")
    assert flags == "01"
    return trace, span


def below(parent: Seen, child: Seen) -> bool:
    """Whether *child* is directly below *parent*."""
    return (child.trace, child.parent) == (parent.trace, parent.id)


@contextmanager
def client(port: int, user: str) -> Iterator[ClientConnection]:
    """Connect a real-time client."""
    with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=THEIRS) as socket_:
        say(socket_, connect={"token": token(user)})
        yield socket_


def say(connection: ClientConnection, **request: Any) -> Any:
    """Send a command and return its reply."""
    connection.send(json.dumps({"id": 1, **request}))
    while True:
        for line in str(connection.recv(20)).splitlines():
            reply = json.loads(line)
            if reply.get("id") == 1:
                assert "error" not in reply, reply
                return reply


def test_a_request_to_an_http_backend(play: Scene) -> None:
    """
    The request's span begins a trace with a link to the stranger's; the attempt's is below it, and is what the backend was told.
    """
    assert play.post("/api/http/x?a=1&token=no", THEIRS) == {"ok": 1}
    told = play.http.of("/api/http/x?a=1&token=no")
    trace, span = ids(told[-1].headers["traceparent"])
    assert "tracestate" not in told[-1].headers
    request = play.collector.one("POST /api/http/**", **{"url.path": "/api/http/x"})
    attempt = play.collector.one("POST", **{"gateway.upstream": "http", "http.response.status_code": 200})
    assert (request.parent, request.kind, request.links) == ("", SERVER, ((TRACE, SPAN),))
    assert below(request, attempt)
    assert (attempt.trace, attempt.id, attempt.kind) == (trace, span, CLIENT)
    assert request.said["url.query"] == "a=1&token=REDACTED"
    assert attempt.said["url.full"] == f"http://127.0.0.1:{play.http.port}/api/http/x?a=1&token=REDACTED"
    assert request.said["user.id"] == "alice"
    assert request.resource["service.name"] == "gateway"
    line = next(event for event in play.gateway.events("request") if event.get("trace_id") == trace)
    assert line["route"] == "/api/http/**"


def test_a_request_to_a_grpc_backend(play: Scene) -> None:
    """
    The same where the request becomes a call: the metadata has the attempt's span.
    """
    assert play.post("/api/ask/3", text="hi") == {"said": "yes"}
    trace, span = ids(play.grpc.metadata[-1]["traceparent"])
    request = play.collector.one("POST /api/ask/{n}")
    attempt = play.collector.wait("the attempt", lambda spans: next((each for each in spans if each.id == span), None))
    assert below(request, attempt)
    assert (attempt.trace, attempt.name, attempt.kind) == (trace, "t.Rules/Ask", CLIENT)
    assert attempt.said["rpc.system.name"] == "grpc"
    assert attempt.said["rpc.response.status_code"] == "OK"
    assert attempt.said["server.address"] == "127.0.0.1"


def test_a_command_that_asks_both_backends(play: Scene) -> None:
    """
    A subscription decided by the gRPC backend, with a snapshot by the HTTP one: one short trace, linked to the opening.
    """
    with client(play.gateway.port, "bob") as bob:
        say(bob, subscribe={"channel": "table:both"})
    command = play.collector.one("subscribe table:{table_id}", **{"messaging.destination.name": "table:both"})
    decided, span = ids(play.grpc.metadata[-1]["traceparent"])
    shown, other = ids(play.http.of("/state")[-1].headers["traceparent"])
    assert decided == shown == command.trace
    attempts = play.collector.wait(
        "both attempts", lambda spans: (found := [each for each in spans if below(command, each)])[1:] and found
    )
    assert {attempt.id for attempt in attempts} == {span, other}
    assert {attempt.name for attempt in attempts} == {"t.Rules/Ask", "POST"}
    opening = play.collector.one("GET /ws", **{"http.response.status_code": 101, "url.path": "/ws"})
    assert command.links == ((opening.trace, opening.id),)
    assert opening.links == ((TRACE, SPAN),)
    assert opening.lasted_s < 5
    assert command.said["user.id"] == "bob"


def test_a_publication(play: Scene) -> None:
    """
    What a backend publishes with its trace is followed from its span to the delivery.
    """
    with client(play.gateway.port, "carol") as carol:
        say(carol, subscribe={"channel": "table:news"})
        play.post("/api/publish", THEIRS, port=play.gateway.admin, channel="table:news", data={"n": 1})
        assert "pub" in json.loads(carol.recv(20))["push"]
    operation = play.collector.one("POST /api/publish")
    published = play.collector.one("publish table:{table_id}")
    delivered = play.collector.one("deliver table:{table_id}")
    assert (operation.trace, operation.parent, operation.kind) == (TRACE, SPAN, SERVER)
    assert below(operation, published)
    assert below(published, delivered)
    assert (published.kind, delivered.kind) == (PRODUCER, CONSUMER)
    assert delivered.said["gateway.deliveries"] == 1


def test_what_was_told_is_counted_and_a_reload_changes_it(play: Scene) -> None:
    """
    The metrics know how many arrived; a reload to a share of none stops it, but for the chosen.
    """
    eventually("all sent", lambda: play.count("gateway_spans_waiting") == 0)
    assert play.count('gateway_spans_total{outcome="sent"}') == len(play.collector.spans())
    file = play.gateway.folder / "gateway.toml"
    before = file.read_text()
    file.write_text(before.replace("sample = 1\n", 'sample = 0\nusers = ["dave"]\n'))
    play.gateway.signal(signal.SIGHUP)
    play.gateway.hear("config.taken")
    known = len(play.collector.spans())
    play.post("/api/http/x")
    assert play.http.asked[-1].headers["traceparent"].endswith("-00")
    play.post("/api/http/x", {"Authorization": f"Bearer {token('dave')}"})
    assert play.http.asked[-1].headers["traceparent"].endswith("-01")
    play.collector.wait("both spans", lambda spans: len(spans) == known + 2)
    assert play.collector.spans()[-1].said.get("user.id", "dave") == "dave"


def test_a_trusted_peer_s_trace_goes_on_and_the_end_tells_what_waits(tmp_path: Path) -> None:
    """
    A trace of a trusted peer is continued into the backend; spans that still gather when the process ends are sent.
    """
    with over_grpc() as collector:
        tracing = f'otlp = "http://127.0.0.1:{collector.port}"\nsample = 0\ndelay = "60s"\n'
        trusted = 'trusted_proxies = ["127.0.0.1/32"]\n'
        with scene(tmp_path, tracing, collector, listen=trusted) as play:
            play.post("/api/http/x", {**THEIRS, "X-Forwarded-For": "198.51.100.7"})
            told = play.http.asked[-1].headers
            assert told["tracestate"] == "rojo=1"
            assert ids(told["traceparent"])[0] == TRACE
            assert collector.spans() == []
            assert play.gateway.end() == 0
        request, attempt = collector.one("POST /api/http/**"), collector.one("POST")
        assert (request.trace, request.parent, request.links) == (TRACE, SPAN, ())
        assert below(request, attempt)
        assert attempt.id == ids(told["traceparent"])[1]
        assert request.said["client.address"] == "198.51.100.7"


@contextmanager
def unwell(how: str) -> Iterator[int]:
    """Run a collector that is of no use; the port."""
    with ExitStack() as stack:
        if how == "down":
            with socket.create_server(("127.0.0.1", 0)) as once:
                port: int = once.getsockname()[1]
            yield port
            return
        if how == "silent":
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            held: list[socket.socket] = []
            threading.Thread(target=_accept, args=(listener, held), daemon=True).start()
            yield listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)
            return
        collector = stack.enter_context(over_grpc() if how.startswith("grpc") else over_http())
        if how.endswith("hangs"):
            collector.answer = collector.hang
        else:
            import grpc

            collector.answer = lambda: grpc.StatusCode.UNAUTHENTICATED if how.startswith("grpc") else 401
        yield collector.port


def _accept(listener: socket.socket, held: list[socket.socket]) -> None:
    while True:
        try:
            held.append(listener.accept()[0])
        except OSError:
            return


@pytest.mark.parametrize("how", ["grpc hangs", "http hangs", "grpc refuses", "http refuses", "down", "silent"])
def test_a_collector_that_is_unwell_is_felt_by_nobody(how: str, tmp_path: Path) -> None:
    """
    Requests are answered as fast as ever, spans beyond the bound are dropped and counted, and the end comes in time.
    """
    with unwell(how) as port:
        protocol = "http" if how.startswith("http") else "grpc"
        tracing = (
            f'otlp = "http://127.0.0.1:{port}"\nprotocol = "{protocol}"\nsample = 1\n'
            'delay = "10ms"\ntimeout = "1s"\nqueue = 100\nbatch = 20\n'
        )
        with scene(tmp_path, tracing, Collector()) as play:
            connection = http.client.HTTPConnection("127.0.0.1", play.gateway.port, timeout=10)
            lasted = []
            for _ in range(150):
                began = time.monotonic()
                connection.request("POST", "/api/http/x", "{}", {"Authorization": f"Bearer {token()}"})
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b'{"ok": 1}')
                lasted.append(time.monotonic() - began)
            connection.close()
            assert sorted(lasted)[140] < 0.5
            lost = ("overflow", "refused", "unsent")
            eventually(
                "drops are counted",
                lambda: sum(play.count(f'gateway_spans_total{{outcome="{each}"}}') for each in lost) >= 100,
            )
            assert play.count('gateway_spans_total{outcome="sent"}') == 0
            play.gateway.hear("tracing.unsent")
            assert play.count("gateway_spans_waiting") <= 100
            began = time.monotonic()
            assert play.gateway.end() == 0
            assert time.monotonic() - began < 15
            assert len(play.gateway.events("tracing.unsent")) == 1
            assert play.gateway.events("background.failed") == []
