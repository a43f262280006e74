"""
Responses read without a parser are told exactly as with it.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstream.test_response_bytes import fed

from gateway.core.headers import response_block
from gateway.upstream.response import PlainHeads

LINES = [
    b"Content-Length: 2", b"content-length:2", b"Content-Length: 02", b"CONTENT-LENGTH: 2", b"Content-Length: 3", b"Content-Length: 2, 2",
    b"Content-Length: 2 ", b"Content-Length:", b"Content-Length: +2", b"X-Content-Length: 2", b"Content-Length: " + b"0" * 19 + b"2",
    b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: close", b"Connection: keep-alive, x-a", b"X-A: b", b"Connection:",
    b"Proxy-Connection: close", b"Keep-Alive: timeout=5", b"Upgrade: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity",
    b"Trailer: x", b"Server: a", b"Date: now", b"Set-Cookie: a=b", b"set-cookie: c=d", b"A: \xc3\xa4\tb", b"A:", b"A: b ", b"A:\tb\t", b"A_b: c",
    b" folded", b"A : b", b"A\xe9: b", b": b", b"A", b"A: b\x00", b"A: b\rc", b"A: b\nc", b"A: \x7f", b"A: \x0b", b"X-Request-Id: 7",
]  # fmt: skip
STARTS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 599 x", b"HTTP/1.1 600 x", b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 Not", b"HTTP/1.1 205 Reset", b"HTTP/1.1 103 Early", b"HTTP/1.1 101 x", b"HTTP/1.0 200 OK", b"HTTP/1.1  200 OK", b"RTSP/1.0 200 OK",
    b"HTTP/1.1 20 OK", b"HTTP/1.1 200 \xc3\xa4", b"HTTP/1.1 200 O\tK", b"HTTP/1.1 200 O\x7fK", b"\r\nHTTP/1.1 200 OK",
]  # fmt: skip
SPLICES = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"\xff", b"\x0b", b"\x0c", b"0", b","]


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response with a body of two bytes, most of them good, some cut and spliced."""
    start = draw(st.just(STARTS[0]) | st.sampled_from(STARTS))
    lines = draw(st.lists(st.sampled_from(LINES), max_size=6))
    if draw(st.booleans()):
        lines.insert(0, LINES[0])
    data = b"\r\n".join([start, *lines, b"", b"ok"])
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(SPLICES) | st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=1000, deadline=None)
@given(responses(), st.sampled_from([b"GET", b"HEAD"]))
def test_a_parser_says_the_same(data: bytes, method: bytes) -> None:
    """
    In one piece a usual response is not shown to llhttp; in two it always is; nobody can tell.
    """
    assert fed([data], method=method, close=True) == fed([data[:7], data[7:]], method=method, close=True)


def test_a_head_is_made_once() -> None:
    """
    The same head is the same object, with its block for the client made; another is another.
    """
    heads = PlainHeads(1000)
    raw = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nA: b\r\nContent-Length: 2\r\n\r\n"
    first = heads.read(raw + b"ok", len(raw))
    assert first is not None
    assert first is heads.read(raw + b"no", len(raw))
    assert (first.status, first.body_length, response_block(first)) == (200, 2, b"A: b\r\n")
    assert response_block(first, frozenset((b"a",))) == b""
    other = heads.read(raw.replace(b"b", b"c"), len(raw))
    assert other is not None
    assert response_block(other) == b"A: c\r\n"


def test_memory_is_bounded() -> None:
    """
    However many heads differ, a fixed number is remembered, and no large ones; one beyond the limit is the parser's affair.
    """
    heads = PlainHeads(5000)
    for number in range(1000):
        raw = b"HTTP/1.1 200 OK\r\nETag: %d\r\nContent-Length: 2\r\n\r\n" % number
        assert heads.read(raw, len(raw)) is not None
    assert len(heads._known) <= 256
    for size, taken in ((4000, True), (5000, False)):
        raw = b"HTTP/1.1 200 OK\r\nA: %b\r\nContent-Length: 2\r\n\r\n" % (b"a" * size)
        assert (heads.read(raw, len(raw)) is not None) is taken
        assert raw not in heads._known
