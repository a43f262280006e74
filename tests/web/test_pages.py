"""
Health, and resource trees of twisted.web behind the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.web.harness import body_of, eventually, pause, request, serve, statuses
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import Data, File

from gateway.core.problems import Problem
from gateway.ports.http import Exchange
from gateway.web.health import Alive, Ready
from gateway.web.resources import ResourceHandler

CLOSE = "Connection: close"


class Form(Resource):
    """Says what it was sent."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        return repr((request.path, request.args, request.getHeader("x-thing"), request.isSecure())).encode()


class Waiting(Resource):
    """Answers later, in pieces."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.gone: list[Any] = []

    def render_GET(self, request: Any) -> int:
        request.notifyFinish().addErrback(self.gone.append)
        self.requests.append(request)
        return NOT_DONE_YET


class Broken(Resource):
    """Fails."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        raise ZeroDivisionError


def tree(**children: Any) -> Callable[[Exchange], None]:
    root = Resource()
    for name, child in children.items():
        root.putChild(name.encode(), child)
    handler = ResourceHandler(root, prefix=b"/demo")
    return handler.handle


@pytest_twisted.ensureDeferred
async def test_page() -> None:
    """
    A page has its type and length, HEAD its head; a path that is none is 404; the connection stays.
    """
    served = await serve(tree(page=Data(b"<p>hello", "text/html")))
    client = await served.connect()
    client.send(request(target="/demo/page?x=1") + request(method="HEAD", target="/demo/page"))
    client.send(request(target="/demo/none") + request(CLOSE, method="POST", target="/demo/page"))
    data = await client.closed()
    assert statuses(data) == [200, 200, 404, 405]
    assert data.count(b"Content-Type: text/html\r\n") >= 2
    assert data.count(b"Content-Length: 8\r\n") == 2
    assert data.count(b"<p>hello") == 1
    assert data.count(b"Server: gateway\r\n") == 4
    assert data.count(b"Date: ") == 4
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_form() -> None:
    """
    A small body reaches the tree whole, by length or in chunks; a large one is refused.
    """
    served = await serve(tree(form=Form()))
    client = await served.connect()
    typed = ("Content-Type: application/x-www-form-urlencoded", "X-Thing: 7")
    client.send(request(*typed, "Content-Length: 7", method="POST", target="/demo/form?q=1") + b"a=1&a=2")
    client.send(request(*typed, "Transfer-Encoding: chunked", CLOSE, method="POST", target="/demo/form"))
    client.send(b"3\r\na=1\r\n0\r\n\r\n")
    data = await client.closed()
    assert statuses(data) == [200, 200]
    assert b"(b'/form', {b'q': [b'1'], b'a': [b'1', b'2']}, '7', False)" in data
    assert b"(b'/form', {b'a': [b'1']}, '7', False)" in data
    chunked = request("Transfer-Encoding: chunked", method="POST", target="/demo/form")
    assert statuses(await served.ask(chunked + b"fffff\r\n")) == [413]
    bad = request("Content-Type: multipart/form-data", "Content-Length: 3", CLOSE, method="POST", target="/demo/form")
    assert statuses(await served.ask(bad + b"abc")) == [400]
    await served.stop()


def test_announced_body_too_large() -> None:
    """
    A body announced as too large is the node's problem to answer with.
    """

    class Downstream:
        max_body_bytes = 10**9

    exchange: Any = Exchange.__new__(Exchange)
    exchange.downstream = Downstream()
    exchange.head = type("Head", (), {"body_length": 10**6})()
    with pytest.raises(Problem) as caught:
        ResourceHandler(Resource()).handle(exchange)
    assert caught.value.kind.status == 413


@pytest_twisted.ensureDeferred
async def test_answer_in_pieces() -> None:
    """
    A page may answer later and in pieces; one whose client has left is told.
    """
    waiting = Waiting()
    served = await serve(tree(later=waiting))
    client = await served.connect()
    client.send(request(CLOSE, target="/demo/later"))
    await eventually(lambda: waiting.requests)
    waiting.requests[0].write(b"one")
    await client.containing(b"3\r\none\r\n")
    waiting.requests[0].write(b"two")
    waiting.requests[0].finish()
    assert (await client.closed()).endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    client = await served.connect()
    client.send(request(target="/demo/later"))
    await eventually(lambda: len(waiting.requests) == 2)
    client.reset()
    await eventually(lambda: waiting.gone)
    assert served.handler.outcomes == [True, False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_file(tmp_path: Path) -> None:
    """
    A large file is held back while the client does not read, and arrives whole.
    """
    size = 10_000_000
    (tmp_path / "file.bin").write_bytes(b"x" * size)
    served = await serve(tree(files=File(str(tmp_path))))
    client = await served.connect()
    client.transport.pauseProducing()
    client.send(request(CLOSE, target="/demo/files/file.bin"))
    await eventually(lambda: served.site._stalled)
    await pause(0.05)
    client.transport.resumeProducing()
    data = await client.closed()
    assert f"Content-Length: {size}\r\n".encode() in data
    assert len(body_of(data)) == size
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_broken_page() -> None:
    """
    A page that fails is a 500 without a traceback in it.
    """
    served = await serve(tree(broken=Broken()))
    data = await served.ask(request(CLOSE, target="/demo/broken"))
    assert statuses(data) == [500]
    assert b"ZeroDivisionError" not in data
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_health() -> None:
    """
    Alive answers always; ready answers unless there is a reason not to, and does not tell it.
    """
    reason = ""
    ready = Ready(lambda: reason)
    caught: list[Problem] = []

    def answer(exchange: Exchange) -> None:
        try:
            (ready if exchange.head.target == b"/ready" else Alive()).handle(exchange)
        except Problem as problem:
            caught.append(problem)
            exchange.start(503, b"", b"", 0, b"", ended=True)

    served = await serve(answer)
    assert body_of(await served.ask(request(CLOSE, target="/health"))) == b'{"status":"ok"}'
    assert statuses(await served.ask(request(CLOSE, target="/ready"))) == [200]
    reason = "draining"
    assert statuses(await served.ask(request(CLOSE, target="/ready"))) == [503]
    assert (caught[0].kind.code, caught[0].reason, str(caught[0])) == (
        "not_ready",
        "draining",
        "This instance is not ready",
    )
    await served.stop()
