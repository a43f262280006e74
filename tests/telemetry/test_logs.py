"""
Lines leave the process whole, neutral, and without stopping it.
"""

import gc
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from autobahn.twisted import websocket as autobahn
from tests.node.recording import Recorded, head
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from gateway.core.identity import Identity
from gateway.core.path import Target
from gateway.core.privacy import Privacy
from gateway.core.routes import RouteTable
from gateway.core.trace import new
from gateway.node.edge import Edge
from gateway.node.http_spans import RequestSpans
from gateway.node.journal import HttpJournal
from gateway.node.plan import Plan, ServedRoute
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.access import AccessLine, AccessLog
from gateway.telemetry.logs import MAX_TEXT, Logs, LogsBridge
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sink import Sink
from gateway.telemetry.spans import Spans


@contextmanager
def writing(path: Path) -> Iterator[Sink]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = Sink(descriptor)
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()
        os.close(descriptor)


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    """
    Every line written before the stop is in the file, in order.
    """
    with writing(tmp_path / "log") as sink:
        for number in range(10_000):
            sink.write(b"%d\n" % number)
    assert (tmp_path / "log").read_bytes() == b"".join(b"%d\n" % number for number in range(10_000))
    assert sink.dropped == 0


def test_lines_before_the_start_are_kept(tmp_path: Path) -> None:
    """
    What is logged before twistd has forked appears once the sink runs.
    """
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    sink = Sink(descriptor)
    sink.write(b"early\n")
    sink.start()
    sink.stop()
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == b"early\n"


def test_nobody_reading_drops_and_counts() -> None:
    """
    A pipe that nobody reads costs lines beyond the bound, never time.
    """
    reader, writer = os.pipe()
    sink = Sink(writer, max_bytes=100_000)
    sink.start()
    line = b"x" * 999 + b"\n"
    for _ in range(2_000):
        sink.write(line)
    assert sink.dropped >= 1_500
    received = 0
    done = threading.Event()

    def read() -> None:
        nonlocal received
        while data := os.read(reader, 65536):
            received += len(data)
        done.set()

    threading.Thread(target=read, daemon=True).start()
    sink.stop(timeout_s=10)
    os.close(writer)
    assert done.wait(10)
    assert received == (2_000 - sink.dropped) * 1000


def test_a_stuck_reader_does_not_hold_the_stop() -> None:
    """
    Stopping gives up on a reader that takes nothing.
    """
    reader, writer = os.pipe()
    sink = Sink(writer)
    sink.start()
    sink.write(b"x" * 1_000_000)
    before = time.monotonic()
    sink.stop(timeout_s=0.2)
    assert time.monotonic() - before < 5
    os.close(reader)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_everything_is_json(tmp_path: Path) -> None:
    """
    Our events, twisted's, tracebacks and the standard library's become one JSON object a line.
    """
    with writing(tmp_path / "log") as sink:
        logs = Logs(sink, pretty=False)
        bridge = LogsBridge(logs)
        logs.logger(instance="i-1").info("gateway.started", port=4000)
        logger = Logger(observer=bridge)
        logger.warn("twisted {what}", what="line\nbroken")  # noqa: G010  # Twisted's name for it
        try:
            raise ValueError("bad")
        except ValueError:
            logger.failure("while testing", Failure())
        standard = logging.getLogger("test.grpc")
        standard.addHandler(bridge)
        standard.error("standard %s", "text")
        standard.removeHandler(bridge)
    events = lines_of(tmp_path / "log")
    assert [event["event"] for event in events] == [
        "gateway.started",
        "twisted line\nbroken",
        "while testing",
        "standard text",
    ]
    assert events[0]["instance"] == "i-1"
    assert "ValueError: bad" in str(events[2]["exception"])
    assert [event["level"] for event in events] == ["info", "warning", "critical", "error"]


def test_level_filters(tmp_path: Path) -> None:
    """
    Lines below the level are not written, and the level can change while running.
    """
    with writing(tmp_path / "log") as sink:
        logs = Logs(sink, pretty=False, level="warning")
        log = logs.logger()
        log.info("hidden")
        log.warning("shown")
        logs.set_level("debug")
        log.debug("also shown")
    assert [event["event"] for event in lines_of(tmp_path / "log")] == ["shown", "also shown"]


@pytest.mark.parametrize("pretty", [False, True])
def test_values_cannot_forge_lines(tmp_path: Path, *, pretty: bool) -> None:
    """
    Line ends and terminal escapes inside a value stay inside the value.
    """
    with writing(tmp_path / "log") as sink:
        Logs(sink, pretty=pretty).logger().info("login", user='eve\n{"event":"forged"}\x1b[2J\r')
    raw = (tmp_path / "log").read_text()
    assert raw.count("\n") == 1
    assert "\x1b[2J" not in raw
    assert "\r" not in raw


def test_long_values_are_cut(tmp_path: Path) -> None:
    """
    No value is longer than the bound.
    """
    with writing(tmp_path / "log") as sink:
        Logs(sink, pretty=False).logger().info("long", value="x" * 100_000)
    (event,) = lines_of(tmp_path / "log")
    assert len(str(event["value"])) == MAX_TEXT + 1


def test_access_line_omits_what_is_not_there(tmp_path: Path) -> None:
    """
    An access line has the fields that say something, and a UTC time with milliseconds.
    """
    with writing(tmp_path / "log") as sink:
        access = AccessLog(Logs(sink, pretty=False), lambda: 1_800_000_000.1239)
        access.write(
            AccessLine("request", "info", access.stamp(), "GET", "/x", 200, 1.5, route="r", bytes_out=7, sub="alice")
        )
    assert lines_of(tmp_path / "log") == [
        {
            "event": "request",
            "level": "info",
            "ts": "2027-01-15T08:00:00.123Z",
            "method": "GET",
            "path": "/x",
            "status": 200,
            "duration_ms": 1.5,
            "route": "r",
            "bytes_out": 7,
            "sub": "alice",
        }
    ]


def test_a_writer_signs_each_line(tmp_path: Path) -> None:
    """
    Where several processes write, each line says whose it is, access lines and twisted's included.
    """
    with writing(tmp_path / "log") as sink:
        logs = Logs(sink, pretty=False)
        access = AccessLog(logs, lambda: 1_800_000_000.0)
        logs.sign(worker="2")
        logs.logger(port=4000).info("early")
        logs.sign(instance='i-"1"')
        LogsBridge(logs)({"log_format": "from twisted", "log_level": LogLevel.warn})
        access.write(AccessLine("request", "info", access.stamp(), "GET", "/x", 200, 1.5))
        access.put('{"event":"request","path":"/y"')
        logs.logger().info("instance.lost", instance="i-2")
    lines = lines_of(tmp_path / "log")
    assert [line["event"] for line in lines] == ["early", "from twisted", "request", "request", "instance.lost"]
    assert {line["worker"] for line in lines} == {"2"}
    assert [line.get("instance") for line in lines] == [None, 'i-"1"', 'i-"1"', 'i-"1"', "i-2"]


WRITER = """
import os, sys
from gateway.telemetry.sink import Sink
name, turns = sys.argv[1], int(sys.argv[2])
sink = Sink(1, turns=turns, linger_s=0.001)
sink.start()
for number in range(60):
    sink.write((f"{name} {number} " + name * (1 + number * 1771) + "\\n").encode())
sink.stop(60)
sys.exit(sink.dropped)
"""


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    """
    However long lines are, and however slowly the pipe is read, none stands within another.
    """
    turns = os.memfd_create("turns")
    reader, writer = os.pipe()
    names = ("a", "b", "c")
    writing = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, str(turns)], stdout=writer, pass_fds=(turns,))
        for name in names
    ]
    os.close(writer)
    data = b""
    while some := os.read(reader, 50_000):
        data += some
    assert [process.wait(60) for process in writing] == [0, 0, 0]
    os.close(reader)
    os.close(turns)
    seen: dict[str, list[int]] = {name: [] for name in names}
    for line in data.decode().splitlines():
        name, number, text = line.split(" ")
        assert text == name * (1 + int(number) * 1771)
        seen[name].append(int(number))
    assert seen == {name: list(range(60)) for name in names}


def test_who_dies_in_its_turn_gives_it_back() -> None:
    """
    A process that is killed while it writes holds up nobody.
    """
    turns = os.memfd_create("turns")
    stuck, unread = os.pipe()
    holder = subprocess.Popen(
        [sys.executable, "-c", WRITER, "a", str(turns)], stdout=unread, pass_fds=(turns,), stderr=subprocess.DEVNULL
    )
    while not select.select([stuck], [], [], 0.1)[0]:
        assert holder.poll() is None
    reader, writer = os.pipe()
    sink = Sink(writer, turns=turns)
    sink.start()
    sink.write(b"mine\n")
    # Its turn does not end: nobody reads its pipe.
    assert not select.select([reader], [], [], 0.3)[0]
    holder.kill()
    holder.wait(10)
    assert os.read(reader, 100) == b"mine\n"
    sink.stop()
    for descriptor in (turns, stuck, unread, reader, writer):
        os.close(descriptor)


@pytest.mark.parametrize("pretty", [False, True])
def test_people_are_written_as_the_configuration_says(tmp_path: Path, *, pretty: bool) -> None:
    """
    Neither a whole address nor a user's own id is in a line, in whichever of its fields they stand.
    """
    privacy = Privacy("short", "hash", b"correct-horse-battery-staple")
    with writing(tmp_path / "log") as sink:
        logs = Logs(sink, pretty=pretty, privacy=privacy)
        logs.logger().info("client.malformed", address="203.0.113.77", user="alice", peer="2001:db8::1")
        logs.logger().info("admin.revoke", subject="alice")
        access = AccessLog(logs, lambda: 1_800_000_000.0)
        journal = HttpJournal(Metrics(), access, logs.logger(), RequestSpans(Spans.off()))
        edge = Edge(Plan((Known(),), RouteTable([]), ""), lambda: 1.0, journal)
        for usual in (True, False):
            exchange = edge.begin(Recorded(head("GET", "/x"), Peer("203.0.113.77", 1)))
            exchange.flag = "" if usual else "UT"
            edge.ended(exchange, whole=True)
        journal.malformed(Peer("203.0.113.77", 1), 400, "bad_request", b"nonsense")
    text = (tmp_path / "log").read_text()
    assert "alice" not in text
    assert ".77" not in text
    assert text.count(privacy.user("alice")) == 4
    assert text.count("203.0.113.0/24") == 7
    assert text.count("2001:db8::/48") == 1


class Known:
    """A filter that knows who asks, as those of the gateway do, and has the backend's answer."""

    def __call__(self, exchange: Exchange) -> None:
        exchange.client_host = exchange.peer.host
        exchange.identity = Identity("alice", "test", 2e9)
        exchange.trace = new(lambda _: 1)
        exchange.target = Target(b"/x", ("x",), b"", b"/x")
        exchange.route = ServedRoute("x", self, auth=False)
        exchange.status, exchange.attempts = 200, 1

    def handle(self, exchange: Exchange) -> None:
        """Answered before."""


def test_libraries_are_heard(tmp_path: Path) -> None:
    """
    What Autobahn, grpcio and Twisted say of a fault is a line like any other, from whichever thread.
    """
    with writing(tmp_path / "log") as sink:
        bridge = LogsBridge(Logs(sink, pretty=False))
        globalLogPublisher.addObserver(bridge)
        logging.getLogger().addHandler(bridge)
        try:
            factory: Any = autobahn.WebSocketServerFactory()
            factory.protocol = autobahn.WebSocketServerProtocol
            protocol = factory.buildProtocol(None)
            transport = StringTransport()
            transport.registerProducer(protocol, True)
            protocol.makeConnection(transport)
            protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: \nodd\r\n\r\n")
            _ask_a_broken_server()
            Deferred.fromCoroutine(_fails())
            gc.collect()
        finally:
            logging.getLogger().removeHandler(bridge)
            globalLogPublisher.removeObserver(bridge)
    told: dict[str, str] = {}
    for line in lines_of(tmp_path / "log"):
        source = str(line["source"]).partition(".")[0]
        told[source] = told.get(source, "") + str(line)
    assert told.keys() >= {"autobahn", "grpc", "twisted"}
    assert "failing WebSocket opening handshake" in told["autobahn"]
    assert "our fault" in told["grpc"]
    assert "our fault" in told["twisted"]


async def _fails() -> None:
    raise ZeroDivisionError("our fault")


def _ask_a_broken_server() -> None:
    """Call a method of a real gRPC server that raises."""

    def broken(_request: bytes, _context: object) -> bytes:
        raise ZeroDivisionError("our fault")

    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.method_handlers_generic_handler("a", {"b": grpc.unary_unary_rpc_method_handler(broken)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/a/b", None, None)(b"", timeout=10)
    server.stop(0).wait()
