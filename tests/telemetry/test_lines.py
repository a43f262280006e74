"""
Whatever is in a line, it is one line, and bounded; and what cannot be written is told afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.recording import Recorded

from gateway.core.identity import Identity
from gateway.core.message import RequestHead
from gateway.core.trace import new
from gateway.node.http_spans import RequestSpans
from gateway.node.journal import HttpJournal
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.access import AccessLog
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sink import Sink
from gateway.telemetry.spans import Spans

LONGEST = 64 * 1024

rough = st.text(max_size=40) | st.sampled_from(
    ['"}\n{"event":"forged"}', "\x1b[2J", "\r\n", "\x00", "\ud800", "\u2028", "é" * 9000, "\x01" * 9000]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | rough | st.binary(max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=200) | st.dictionaries(rough, inner, max_size=200), max_leaves=300
)
octets = st.binary(max_size=3000)


def written(logs: Logs) -> bytes:
    """What has been given to its sink."""
    return b"".join(logs.sink._lines)


def logs(*, pretty: bool = False) -> Logs:
    """One whose lines stay in memory."""
    return Logs(Sink(-1), pretty=pretty, level="debug")


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["user", "reason", "names", "exception", "notes", "x"]), values), rough)
def test_whatever_is_told_is_one_bounded_line(fields: dict[str, Any], event: str) -> None:
    """
    Values of any kind and length make one line of JSON, with the event that was told.
    """
    log = logs()
    log.logger().info(event, **fields)
    line = written(log)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= LONGEST
    assert not any(octet < 32 for octet in line[:-1])
    told = json.loads(line)
    assert told["level"] == "info"
    assert told.keys() - {"event", "level", "ts"} == fields.keys()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["user", "reason", "names"]), values), rough)
def test_whatever_is_told_to_a_terminal_is_one_line(fields: dict[str, Any], event: str) -> None:
    """
    The pretty form has no line end and no control of a terminal but its own.
    """
    log = logs(pretty=True)
    log.logger().info(event, **fields)
    line = written(log).decode()
    assert line.count("\n") == 1
    assert "\r" not in line
    assert "\x1b[2J" not in line
    assert "\x00" not in line


@settings(max_examples=80, deadline=None)
@given(octets, octets, octets, rough, rough, st.booleans(), st.booleans())
def test_whatever_is_asked_is_one_bounded_access_line(
    method: bytes, path: bytes, agent: bytes, user: str, reason: str, usual: bool, whole: bool
) -> None:
    """
    An access line is one line of JSON whatever a client sends and whoever a token says it is.
    """
    log = logs()
    journal = HttpJournal(Metrics(), AccessLog(log, lambda: 1.8e9), log.logger(), RequestSpans(Spans.off()))
    pairs = [(b"User-Agent", agent)]
    head = RequestHead(method, path, pairs, {b"user-agent": agent})
    exchange = Exchange(Recorded(head, Peer("2001:db8::1", 1)), 0.0)
    exchange.trace = new(lambda _: 1)
    exchange.identity = Identity(user or "x", "i", 2e9)
    exchange.status, exchange.attempts, exchange.reason = 200, 1, "" if usual else reason
    journal.request(exchange, 1.0, whole=whole)
    journal.malformed(Peer("2001:db8::1", 1), 400, "bad_request", method + b" " + path)
    lines = written(log)
    assert lines.count(b"\n") == 2
    assert all(len(line) <= LONGEST // 2 for line in lines.splitlines())
    assert [json.loads(line)["event"] for line in lines.splitlines()] == ["request", "request"]


def test_what_was_dropped_is_told_once_lines_are_taken_again() -> None:
    """
    A reader that comes back reads whole lines, and how many are missing between them.
    """
    reader, writer = os.pipe()
    sink = Sink(writer, max_bytes=100_000)
    log = Logs(sink, pretty=False).logger()
    sink.start()
    for number in range(2_000):
        log.info("test.line", number=number, text="x" * 900)
    dropped = sink.dropped
    assert dropped >= 1_500
    received = b""
    done = threading.Event()

    def read() -> None:
        nonlocal received
        while data := os.read(reader, 65536):
            received += data
        done.set()

    threading.Thread(target=read, daemon=True).start()
    sink.stop(10)
    os.close(writer)
    assert done.wait(10)
    os.close(reader)
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["lines"] for line in lines if line["event"] == "log.dropped"] == [dropped]
    assert len(lines) == 2_000 - dropped + 1
    assert len(received) <= 100_000 + 2 * 1024, "what is being written counts as waiting"


FULL = """
import os, resource, sys, time
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink
sink = Sink(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), linger_s=0.001)
log = Logs(sink, pretty=False).logger()
sink.start()
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
for number in range(200):
    log.info("test.line", number=number, text="x" * 900)
while sink.dropped < 185:
    time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.info("test.after")
sink.stop(10)
print(sink.dropped)
"""


def test_a_full_disk_costs_lines_and_no_line_after_it(tmp_path: Path) -> None:
    """
    Lines are lost and counted while there is no room; the first one after it is whole although the last before was cut.
    """
    path = tmp_path / "log"
    made = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, check=True, timeout=60)
    lines = path.read_text().splitlines()
    assert [line for line in lines if not line.endswith("}")] == [lines[10]]
    told = [json.loads(line) for line in lines if line.endswith("}")]
    assert [line.get("number") for line in told] == [*range(10), None, None]
    assert (told[-2]["event"], told[-1]["event"], told[-1]["lines"]) == ("test.after", "log.dropped", 190)
    assert int(made.stdout) == 190
