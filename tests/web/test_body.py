"""
How bodies are delimited: exact lengths, exact chunks, bounded extensions and trailers.
"""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.web.body import MAX_CHUNK_LINE, MAX_EXTENSIONS, MAX_TRAILER_LINES, MAX_TRAILERS, ChunkedBody, LengthBody


def decode(data: bytes, size: int = 0, room: int = 10**6) -> tuple[bytes, bytes, str]:
    """Feed *data* in pieces of *size*; give body, rest and what became of it."""
    body = ChunkedBody(room)
    whole = rest = b""
    for at in range(0, len(data), size or len(data) or 1):
        piece = data[at : at + (size or len(data))]
        if body.ended:
            rest += piece
            continue
        got, rest = body.feed(piece)
        whole += got
        if body.fault is not None:
            return whole, b"", str(body.fault)
    return whole, rest, "ended" if body.ended else "open"


BAD = "400 bad_request"

BODIES = [
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", "ended"),
    (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET", b"hello world", "ended"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", "ended"),
    (b"a\r\n0123456789\r\n00\r\n\r\n", b"0123456789", "ended"),
    (b"5;a=b;c\r\nhello\r\n0;x\r\n\r\n", b"hello", "ended"),
    (b'5;a="b c"\r\nhello\r\n0\r\n\r\n', b"hello", "ended"),
    (b"5\r\nhel", b"hel", "open"),
    (b"5\r\nhello\r\n", b"hello", "open"),
    (b"0x5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"+5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"-5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"0_5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b" 5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5 \r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5 ;a\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"\xd9\xa5\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"g\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5\nhello\n0\n\n", b"", BAD),
    (b"5\r\nhello\n0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello!\r\n0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello0\r\n\r\n", b"hello", BAD),
    (b"5\r\nhello\r0\r\n\r\n", b"hello", BAD),
    (b"5;\x00\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"ffffffffffffffff\r\n", b"", BAD),
    (b"fffffffffffffff\r\n", b"", "413 body_too_large"),
    (b"5;" + b"a" * MAX_CHUNK_LINE + b"\r\nhello\r\n0\r\n\r\n", b"", BAD),
    (b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n", b"x", "ended"),
    ((b"1;" + b"a" * 200 + b"\r\nx\r\n") * (MAX_EXTENSIONS // 200 + 1), b"x" * 80, BAD),
    (b"0\r\nX: a\r\nY:b\r\n\r\nrest", b"", "ended"),
    (b"0\r\nX : a\r\n\r\n", b"", BAD),
    (b"0\r\n X: a\r\n\r\n", b"", BAD),
    (b"0\r\nX: a\r\n b\r\n\r\n", b"", BAD),
    (b"0\r\nno colon\r\n\r\n", b"", BAD),
    (b"0\r\nX: a\x00\r\n\r\n", b"", BAD),
    (b"0\r\nX: a\n\r\n", b"", BAD),
    (b"0\r\nX: a\rb\r\n\r\n", b"", BAD),
    (b"0\r\nContent-Length: 5\r\n\r\n", b"", BAD),
    (b"0\r\ntransfer-encoding: chunked\r\n\r\n", b"", BAD),
    (b"0\r\nAuthorization: Bearer x\r\n\r\n", b"", BAD),
    (b"0\r\nHost: b\r\n\r\n", b"", BAD),
    (b"0\r\nX: " + b"a" * MAX_TRAILERS + b"\r\n\r\n", b"", "431 head_too_large"),
    (b"0\r\n" + b"X: a\r\n" * (MAX_TRAILER_LINES + 1) + b"\r\n", b"", "431 head_too_large"),
]


@pytest.mark.parametrize(("data", "expected", "outcome"), BODIES, ids=[repr(each[0][:40]) for each in BODIES])
@pytest.mark.parametrize("size", [0, 1, 7])
def test_chunks(data: bytes, expected: bytes, outcome: str, size: int) -> None:
    """
    Chunks are read exactly, however they are split; what came before a fault is body.
    """
    body, _, found = decode(data, size)
    assert (body, found) == (expected, outcome)


def test_rest_is_the_next_request() -> None:
    """
    What follows the end of a body is not part of it.
    """
    assert decode(b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1")[1] == b"GET / HTTP/1.1"
    body = LengthBody(5)
    assert body.feed(b"hel") == (b"hel", b"")
    assert body.feed(b"loGET") == (b"lo", b"GET")
    assert body.ended


def test_too_large_is_told_at_the_size_line() -> None:
    """
    A chunk that would exceed the room is refused before its first byte.
    """
    assert decode(b"3\r\nabc\r\n8\r\n", room=10) == (b"abc", b"", "413 body_too_large")
    assert decode(b"3\r\nabc\r\n7\r\n1234567\r\n0\r\n\r\n", room=10)[2] == "ended"


def test_trailers() -> None:
    """
    Trailers are kept in order; those with an underscore are dropped.
    """
    body = ChunkedBody(10)
    body.feed(b"0\r\nX-Sum: 1 \r\nX_Sum: 2\r\nX-sum:3\r\n\r\n")
    assert body.ended
    assert body.trailers == [(b"X-Sum", b"1"), (b"X-sum", b"3")]


@given(data=st.data(), chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=8))
@settings(max_examples=200, deadline=None)
def test_splits_change_nothing(data: st.DataObject, chunks: list[bytes]) -> None:
    """
    Any split of any mutation of a chunked body decodes as the whole does.
    """
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    at = data.draw(st.integers(0, len(wire)))
    wire = wire[:at] + data.draw(st.binary(max_size=3)) + wire[data.draw(st.integers(at, len(wire))) :]
    size = data.draw(st.integers(1, max(1, len(wire))))
    assert decode(wire, size) == decode(wire)


@given(wire=st.text(alphabet="0123aF;= \r\n\tx+_", max_size=40))
@settings(max_examples=500, deadline=None)
def test_no_laxer_than_llhttp(wire: str) -> None:
    """
    What is taken for a whole body is one for llhttp too, with the same bytes in it.
    """
    data = wire.encode()
    body, _, outcome = decode(data)
    if outcome != "ended":
        return
    seen: list[bytes] = []
    ends: list[bool] = []

    class Oracle:
        def on_body(self, piece: bytes) -> None:
            seen.append(piece)

        def on_message_complete(self) -> None:
            ends.append(True)

    parser = httptools.HttpRequestParser(Oracle())
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except httptools.HttpParserError:
        # It goes on to what follows the body, which need not be a request.
        pass
    assert ends
    assert b"".join(seen) == body
