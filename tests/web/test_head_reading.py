"""
The two ways by which a head is read, and the one they are held against: llhttp calling back for each line.
"""

from __future__ import annotations

from typing import Any

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.headers import request_block
from gateway.core.message import RequestHead
from gateway.web.head import METHODS, HeadReader, Refused

LIMITS = {"max_target": 60, "max_head": 700, "max_headers": 12}
LINES = [
    b"Host: a.example", b"host:b.example:80", b"Host:", b"Accept: */*", b"accept:\t\ta \t b\t ", b"X-Empty:", b"X-Space:   ",
    b"User-Agent: Mozilla/5.0 (X11)", b"Authorization: Bearer a.b_c.d", b"authorization: Basic x", b"X_User_Id: m", b"_: x",
    b"Cookie: a=b", b"Cookie: c=d", b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: close",
    b"Connection: keep-alive, x-a", b"connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5", b"Content-Length: 0",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Proxy-Connection: close", b"X: a:b: c", b"X: \xc3\xa4\x80",
    b"Keep-Alive: timeout=5", b"TE: trailers", b"X-Request-Id: 7", b" folded", b"\tfolded", b"X : a", b": a", b"X", b"X(: a",
    b"X: a\x00b", b"X: a\rb", b"X: a\nY: b", b"X: a\x7f", b"X: a\x0b", b"X: " + b"a" * 300, b"",
]  # fmt: skip
TARGETS = [
    b"/",
    b"/a/b?c=d",
    b"/%2e",
    b"/a#b",
    b"*",
    b"a",
    b"http://a/",
    b"/\x80",
    b"/\x01",
    b"/a b",
    b"",
    b"/" + b"a" * 60,
]
TARGETS += [bytes([47, sign]) for sign in range(256)]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"RTSP/1.0", b""]
SPLICES = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"\xff",
    b"_",
    b"#",
    b",",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\x1c",
]


class Called:
    """Keeps what llhttp calls back with."""

    def __init__(self) -> None:
        self.target = b""
        self.lines: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Header lines and the empty line, most of them good, some cut and spliced."""
    data = b"\r\n".join([*draw(st.lists(st.sampled_from(LINES), max_size=8)), b"", b""])
    if draw(st.booleans()):
        data = b"Host: a.example\r\n" + data
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(SPLICES) | st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    # What is read is the first head of a stream, so that its only empty line is at its end.
    return data[: data.find(b"\r\n\r\n") + 4] if b"\r\n\r\n" in data else data.rstrip(b"\r\n") + b"\r\n\r\n"


def requests() -> st.SearchStrategy[bytes]:
    methods = st.sampled_from([*sorted(METHODS), b"TRACE", b"CONNECT", b"get", b"G(T"])
    parts = st.tuples(methods, st.sampled_from(TARGETS), st.sampled_from(VERSIONS))
    return st.one_of(st.just(b"GET / HTTP/1.1"), parts.map(b" ".join)).map(lambda line: line + b"\r\n")


def told(reader: HeadReader, data: bytes) -> Any:
    """All that *reader* says about *data*."""
    try:
        head = reader.read(data)
    except Refused as refused:
        return str(refused)
    slots = [name for name in RequestHead.__slots__ if name != "memo"]
    return [getattr(head, name) for name in slots] + [request_block(head, frozenset())]


@settings(max_examples=400, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=4), blocks())
@example([b"GET / HTTP/1.1\r\n", b"GET /\x80 HTTP/1.1\r\n", b"TRACE / HTTP/1.1\r\n"], b"Host: a\r\n\r\n")
@example([b"GET / HTTP/1.1\r\n", b"GET /\n HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n"], b"Host: a\r\n\r\n")
def test_what_is_remembered_changes_nothing(starts: list[bytes], block: bytes) -> None:
    """
    A reader that has seen the same header lines before says the same as one that has seen nothing.
    """
    warm = HeadReader(**LIMITS)
    for start in [*starts, *starts]:
        assert told(warm, start + block) == told(HeadReader(**LIMITS), start + block)


@settings(max_examples=400, deadline=None)
@given(requests(), blocks())
def test_only_what_llhttp_reads_alike_is_taken(start: bytes, block: bytes) -> None:
    """
    A head that is taken is one that llhttp takes, with the same target and the same lines.
    """
    reader = HeadReader(**LIMITS)
    for _ in range(2):
        try:
            head = reader.read(start + block)
        except Refused:
            return
        called = Called()
        try:
            httptools.HttpRequestParser(called).feed_data(start + block)
        except httptools.HttpParserUpgrade:
            pass
        lines = [(name, value.rstrip(b" \t")) for name, value in called.lines if b"_" not in name]
        assert head.target == called.target
        assert head.headers == lines
        assert head.fields == {name.lower(): value for name, value in lines}


def test_memory_is_bounded() -> None:
    """
    However many different headers come, no more than a fixed number is remembered, and no large ones.
    """
    reader = HeadReader(max_target=60, max_head=9000, max_headers=100)
    for number in range(3000):
        reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nX-%d: %d\r\n\r\n" % (number % 70, number))
    assert len(reader._blocks) <= 1024
    for more in (b"X: " + b"a" * 2048 + b"\r\n", b"".join([b"X-%d: a\r\n" % number for number in range(40)])):
        assert reader.read(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % more).memo is None


def test_heads_of_one_request_are_not_remembered() -> None:
    """
    Header lines that frame a body, upgrade, or differ in each request are read anew each time.
    """
    reader = HeadReader(**LIMITS)
    for line in (
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Upgrade: x",
        b"Connection: close",
        b"Traceparent: 0",
    ):
        assert reader.read(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % line).memo is None
    assert reader.read(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").memo is not None
