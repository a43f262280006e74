"""
The access line and the counts of an exchange.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.identity import Identity
from gateway.core.message import RequestHead
from gateway.core.path import canonical
from gateway.core.trace import TraceContext
from gateway.node.http_spans import RequestSpans
from gateway.node.journal import HttpJournal
from gateway.node.plan import ServedRoute
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.access import AccessLog
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sink import Sink
from gateway.telemetry.spans import Spans

WALL = 1_790_000_000.25


class Answered:
    """A downstream after its answer."""

    def __init__(self, head: RequestHead, *, tls: bool) -> None:
        self.head = head
        self.peer = Peer("198.51.100.7", 5, tls=tls)
        self.bytes_in = 0
        self.bytes_out = 17
        self.started = True
        self.max_body_bytes = 0
        self.trailers: list[Any] = []


def exchanged(target: bytes = b"/api/players/1", *, tls: bool = False, **fields: bytes) -> Exchange:
    """A usual exchange with a backend."""
    headers = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    head = RequestHead(b"GET", target, headers, dict(headers))
    downstream: Any = Answered(head, tls=tls)
    exchange = Exchange(downstream, 10.0)
    handler: Any = None
    exchange.route = ServedRoute("players", handler)
    exchange.target = canonical(target)
    exchange.client_host = "203.0.113.9"
    exchange.status = 200
    exchange.trace = TraceContext("0" * 31 + "1", "0" * 15 + "2", sampled=False)
    exchange.request_id = "given-by-a-proxy"
    exchange.upstream, exchange.upstream_target, exchange.attempts = "b", "127.0.0.1:1", 1
    exchange.upstream_started_at, exchange.upstream_ttfb_s = 10.001, 0.0015
    exchange.identity = Identity("p-1", "i", 0.0)
    return exchange


class Kept:
    """A journal that writes into a file, and what stands there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log"
        self.metrics = Metrics()
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY)
        self._sink = Sink(self._descriptor)
        self.logs = Logs(self._sink, pretty=False)
        self.access = AccessLog(self.logs, lambda: WALL)
        self.journal = HttpJournal(self.metrics, self.access, None, RequestSpans(Spans.off()))

    def lines(self) -> list[dict[str, Any]]:
        self._sink.stop()
        os.close(self._descriptor)
        return [msgspec.json.decode(line) for line in self.path.read_bytes().splitlines()]


CASES: dict[str, Any] = {
    "usual": lambda exchange: None,
    "no identity": lambda exchange: setattr(exchange, "identity", None),
    "no body": lambda exchange: setattr(exchange.downstream, "bytes_out", 0),
    "a subject with quotes": lambda exchange: setattr(
        exchange, "identity", Identity('"},\n\u2028\U0001f600', "i", 0.0)
    ),
    "half a character": lambda exchange: setattr(exchange, "identity", Identity("\ud800", "i", 0.0)),
    "a server that is broken": lambda exchange: setattr(exchange, "status", 503),
    "HTTP/1.0": lambda exchange: setattr(exchange.head, "minor", 0),
    "tried twice": lambda exchange: setattr(exchange, "attempts", 2),
    "a body": lambda exchange: setattr(exchange.downstream, "bytes_in", 5),
    "a flag": lambda exchange: setattr(exchange, "flag", "UR"),
    "a long path": lambda exchange: setattr(exchange, "target", canonical(b"/" + b"a" * 2000)),
    "an escaped path": lambda exchange: setattr(exchange, "target", canonical(b'/%22"%0b'.replace(b"%0b", b"{}"))),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("agent", [b"", b"plain/1.0", b'"q\\', b"\xe4\xff" * 200])
def test_the_line_is_the_struct(name: str, tls: bool, agent: bytes, signed: bool, tmp_path: Path) -> None:
    """
    Whether a line is joined from prepared text or encoded as a whole, it says the same.
    """
    kept = Kept(tmp_path)
    exchange = exchanged(tls=tls, user_agent=agent) if agent else exchanged(tls=tls)
    CASES[name](exchange)
    if signed:
        kept.logs.sign(worker="2", instance="i-1")
    kept.journal.request(exchange, 10.0123456, whole=True)
    line = kept.journal._line(kept.access, exchange, "players", "GET", 0.0123456, whole=True)
    expected = {
        key: value for key in line.__struct_fields__ if (value := getattr(line, key)) not in ("", 0, False, None)
    }
    expected.pop("whole")
    if name == "half a character":
        expected["sub"] = "\\ud800"
    if signed:
        expected |= {"worker": "2", "instance": "i-1"}
    assert kept.lines() == [expected]
    assert (expected["duration_ms"], expected["ts"]) == (12.346, "2026-09-21T14:13:20.250Z")


def test_counts(tmp_path: Path) -> None:
    """
    Each exchange is counted by route, method and status, with its bytes and its upstream's time.
    """
    kept = Kept(tmp_path)
    for status in (200, 200, 404):
        exchange = exchanged()
        exchange.status = status
        kept.journal.request(exchange, 10.5, whole=True)
    kept.journal.request(exchanged(), 10.5, whole=False)
    metrics = kept.metrics
    assert metrics.requests.value("players", "GET", "200") == 3
    assert metrics.requests.value("players", "GET", "404") == 1
    assert metrics.request_seconds.count("players") == 4
    assert metrics.upstream_seconds.count("b") == 4
    assert metrics.response_bytes.value() == 68
    assert [line.get("whole", True) for line in kept.lines()] == [True, True, True, False]
