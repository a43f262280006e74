"""
Mutated requests in every split: the channel never raises, and splitting changes nothing.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.web.harness import Collected, Memory, hello, request

from gateway.ports.http import Exchange

SEEDS = [
    request(),
    request("Connection: close"),
    request("Content-Length: 5", "Content-Type: text/plain", method="POST") + b"hello",
    request("Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
    request("Accept: */*", "X_Y: z", "Connection: keep-alive, x", target="/a/b?c=d"),
    request("Cookie: a=b", "cookie: c=d", "Authorization: Bearer x.y.z"),
    b"GET / HTTP/1.0\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n",
    b"\r\n" + request(method="HEAD"),
    b"OPTIONS * HTTP/1.1\r\nHost: a:1\r\n\r\n",
    request("Connection: Upgrade", "Upgrade: h2c"),
]
SPLICES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x00", b"\xff", b"0", b"_", b"#", b",", b"\r\n ",
    b"Host: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: +5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"Connection: close\r\n", b"x" * 300,
]  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some requests one after the other, cut and spliced in places."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 8)))
        data = data[:at] + draw(st.sampled_from(SPLICES) | st.binary(max_size=3)) + data[until:]
    return data


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    marks = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]


def collecting(seen: list[Any]) -> Any:
    def answer(exchange: Exchange) -> None:
        head = exchange.head

        def done(body: bytes) -> None:
            seen.append((head.method, head.target, head.headers, head.minor, body, exchange.downstream.trailers))
            exchange.start(200, b"", b"", len(body), body, ended=True)

        exchange.downstream.receive(Collected(exchange, done))

    return answer


def outcome(pieces: list[bytes]) -> Any:
    """Everything that can be seen of a connection that received *pieces*."""
    seen: list[Any] = []
    memory = Memory(collecting(seen), max_head_bytes=1000, max_target_bytes=200, max_body_bytes=200)
    for piece in pieces:
        if piece:
            memory.feed(piece)
    handler = memory.handler
    assert len(handler.ended_as) <= len(handler.begun) <= len(handler.ended_as) + 1
    return (
        seen,
        memory.sent,
        [each[:2] for each in handler.refusals],
        [(exchange.status, exchange.reason, whole) for exchange, whole in handler.ended_as],
        # Whether it lingers before it closes depends on what the client has already sent.
        memory.transport.over or memory.transport.half,
    )


@given(data=st.data(), stream=streams())
@settings(max_examples=400, deadline=None)
def test_splitting_changes_nothing(data: st.DataObject, stream: bytes) -> None:
    """
    What is understood, answered and refused depends on the bytes alone.
    """
    pieces = data.draw(splits(stream))
    assert outcome(pieces) == outcome([stream])


@given(stream=streams())
@settings(max_examples=100, deadline=None)
def test_byte_by_byte(stream: bytes) -> None:
    """
    One byte at a time is a split like any other.
    """
    assert outcome([stream[at : at + 1] for at in range(len(stream))]) == outcome([stream])


@given(stream=st.binary(max_size=400))
@example(b"\x16\x03\x01")
@example(b"\r")
@example(b"\r\n\r")
@settings(max_examples=200, deadline=None)
def test_anything_at_all(stream: bytes) -> None:
    """
    Any bytes are refused or waited for, and never raise.
    """
    assert outcome([stream])[0] == []


@given(data=st.data(), stream=streams())
@settings(max_examples=200, deadline=None)
def test_handler_that_reads_nothing(data: st.DataObject, stream: bytes) -> None:
    """
    Bodies nobody receives never raise, nor are they taken for requests.
    """
    memory = Memory(hello)
    for piece in data.draw(splits(stream)):
        if piece:
            memory.feed(piece)
    memory.pass_time(200, step=10)
    assert memory.transport.over
    assert len(memory.handler.ended_as) == len(memory.handler.begun)
