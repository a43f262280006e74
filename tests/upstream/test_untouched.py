"""
The proxy keeps nothing between callers and interprets nothing of what it passes.
"""

import gzip
import socket

import pytest_twisted
from tests.upstream.gate import Gate, route, upstream
from tests.upstream.raw import RawBackend, Script, backend

PAGE = gzip.compress(b"a hundred times the same " * 100, mtime=0)


def heads_of(connection: socket.socket) -> bytes:
    """Read one request without a body."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            raise OSError("closed")
        data += received
    return data


def answering(seen: list[bytes], lines: str, body: bytes) -> Script:
    """Write every request down and answer it with *lines* and *body*."""

    def script(connection: socket.socket) -> None:
        while True:
            seen.append(heads_of(connection))
            connection.sendall(f"HTTP/1.1 {lines}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return script


def gate(running: RawBackend) -> Gate:
    """A gateway in front of it."""
    return Gate([upstream(f"http://127.0.0.1:{running.port}")], [route()])


@pytest_twisted.ensureDeferred
async def test_a_cookie_stays_with_its_caller() -> None:
    """
    Z1: a cookie that a backend sets reaches its caller, and no later request to that backend carries it.
    """
    seen: list[bytes] = []
    with backend(answering(seen, "200 OK\r\nSet-Cookie: session=of-the-first", b"ok")) as running:
        async with gate(running) as subject:
            first = await subject.ask("/login")
            await subject.ask("/page")
            await subject.ask("/page", "Cookie: session=of-the-second")
    assert first.header("set-cookie") == "session=of-the-first"
    cookies = [[line for line in head.split(b"\r\n") if line.lower().startswith(b"cookie:")] for head in seen]
    assert cookies == [[], [], [b"Cookie: session=of-the-second"]]


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_for_the_caller() -> None:
    """
    Z2: a redirect passes as it is; the gateway asks nobody else for it.
    """
    seen: list[bytes] = []
    with backend(answering(seen, "302 Found\r\nLocation: http://127.0.0.1:1/internal", b"")) as running:
        async with gate(running) as subject:
            answer = await subject.ask("/moved")
    assert (answer.status, answer.header("location")) == (302, "http://127.0.0.1:1/internal")
    assert len(seen) == 1


@pytest_twisted.ensureDeferred
async def test_an_encoded_body_passes_encoded() -> None:
    """
    Z3: what is compressed stays so, byte for byte; nobody is asked for a coding that the caller does not take.
    """
    seen: list[bytes] = []
    with backend(answering(seen, "200 OK\r\nContent-Encoding: gzip", PAGE)) as running:
        async with gate(running) as subject:
            answer = await subject.ask("/page")
    assert (answer.header("content-encoding"), answer.header("content-length")) == ("gzip", str(len(PAGE)))
    assert answer.body == PAGE
    assert b"accept-encoding" not in seen[0].lower()
