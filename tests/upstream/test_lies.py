"""
Backends that lie, cut, flood and never end.
"""

from typing import Any

import pytest
import pytest_twisted
from tests.backends.lying import CUT, MALFORMED, WHOLE
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Gate, head_of, route, upstream
from tests.web.harness import eventually
from twisted.internet.defer import Deferred, gatherResults


def gate(backend: Lying, **changes: Any) -> Gate:
    strict: dict[str, Any] = {"retry__attempts": 1, "idle_body_timeout_s": 0.5}
    return Gate([upstream(backend.target, **strict | changes)], [route()])


async def is_clean(subject: Gate, *, kept: int = 0) -> None:
    """The pool has no connection with remains of a lie, and the next request is answered well."""
    [member] = subject.cluster().members
    assert member.value.idle <= kept
    for _ in range(2):
        answer = await subject.ask("/")
        assert (answer.status, answer.whole) == (200, True)
        assert b"evil" not in answer.body


@pytest.mark.parametrize("name", CUT)
@pytest_twisted.ensureDeferred
async def test_a_cut_body_is_never_whole(name: str, lying: Lies) -> None:
    """
    A body that is not whole reaches no client as if it were, and its connection is not used again.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask(f"/lie/{name}")
        # What came in one piece with its fault is told apart before anything was relayed.
        assert (answer.status, answer.whole) in {(200, False), (502, True)}
        [(exchange, _)] = subject.journal.ended
        assert exchange.flag in {"UR", "UPE"}
        assert exchange.reason.startswith(("reset", "malformed"))
        await is_clean(subject)


@pytest.mark.parametrize("name", ["stall_body", "cut_length"])
@pytest_twisted.ensureDeferred
async def test_a_cut_body_is_cut_for_every_client(name: str, lying: Lies) -> None:
    """
    Also a client of HTTP/1.0, for whom the end of the connection is the end of a body, can see that it is not whole.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(f"GET /lie/{name} HTTP/1.0\r\nHost: gw.example\r\n\r\n".encode())
        data = await client.closed()
        assert b"Content-Length: 100\r\n" in data
        assert client.lost is not None
        await is_clean(subject)


@pytest.mark.parametrize("name", [*MALFORMED, "flood", "huge_head"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_cannot_be_read_is_a_502(name: str, lying: Lies) -> None:
    """
    Nothing of an ambiguous or broken answer reaches the client, and its connection is not used again.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask(f"/lie/{name}")
        assert (answer.status, answer.whole) == (502, True)
        assert answer.code in {"upstream_malformed", "upstream_reset"}
        assert b"hello" not in answer.body
        assert answer.header("x-gateway-error") in {"UPE", "UR"}
        assert answer.header("upgrade") is None
        await is_clean(subject)


@pytest.mark.parametrize("name", WHOLE)
@pytest_twisted.ensureDeferred
async def test_an_odd_answer_with_a_whole_body_passes(name: str, lying: Lies) -> None:
    """
    What is whole passes, without what belongs to the backend's connection, and nothing after it does.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask(f"/lie/{name}")
        assert (answer.status, answer.body, answer.rest) == (200, b"ten bytes!", b"")
        assert answer.header("upgrade") is None
        assert answer.header("connection") == "close"
        assert subject.journal.ended[0][1]
        await is_clean(subject, kept=1 if name == "upgrade_200" else 0)


@pytest.mark.parametrize("name", ["switch", "switch_then_ok", "upgrade_200"])
@pytest_twisted.ensureDeferred
async def test_no_tunnel_is_opened(name: str, lying: Lies) -> None:
    """
    A client that asks to switch protocols, on a route that does not, gets no tunnel: not even by a backend that agrees.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(
            head_of(
                f"/lie/{name}",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: websocket, h2c",
                "HTTP2-Settings: AAMAAABkAAQAAP__",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version: 13",
            )
            # A tunnel would carry this; here it is the next request.
            + b"GET /admin HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n"
        )
        data = await client.closed()
        assert b" 101 " not in data
        assert data.count(b"HTTP/1.1 ") == 2
        await is_clean(subject, kept=1)
    asked, after = backend.seen()[:2]
    assert after["target"] == "/admin"
    assert not {key.lower() for key, _ in asked["headers"]} & {"upgrade", "connection", "http2-settings"}


@pytest_twisted.ensureDeferred
async def test_lies_among_good_answers(lying: Lies) -> None:
    """
    Clients whose requests are answered well are not touched by others' whose are not.
    """
    backend = lying()
    async with Gate([upstream(backend.target, retry__attempts=1, breaker__min_requests=1000)], [route()]) as subject:
        bodies = {name: name.encode() * 500 for name in (*CUT, *MALFORMED)}
        lies = [Deferred.fromCoroutine(subject.ask(f"/lie/{name}")) for name in bodies]
        good = [Deferred.fromCoroutine(subject.ask("/lie/echo", method="POST", body=body)) for body in bodies.values()]
        for lie in await gatherResults(lies):
            assert (lie.status, lie.whole) in {(200, False), (502, True)}
        for answer, body in zip(await gatherResults(good), bodies.values(), strict=True):
            assert (answer.status, answer.body, answer.whole) == (200, body, True)


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_not_there(lying: Lies) -> None:
    """
    Without a connection the answer is 503 with Retry-After, told apart from a backend that failed.
    """
    backend = lying()
    backend.refuse()
    try:
        async with gate(backend) as subject:
            answer = await subject.ask("/")
            assert (answer.status, answer.code, answer.header("x-gateway-error")) == (503, "upstream_unreachable", "UF")
            assert answer.header("retry-after") == "1"
            assert "127.0.0.1" not in answer.body.decode()
            [(exchange, _)] = subject.journal.ended
            assert exchange.reason.startswith("connect: ConnectionRefusedError")
    finally:
        backend.listen()


@pytest.mark.parametrize("name", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_backend_that_hangs_up(name: str, lying: Lies) -> None:
    """
    A connection closed before the answer is a 502.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask(f"/lie/{name}")
        assert (answer.status, answer.code) == (502, "upstream_reset")
        await is_clean(subject)


@pytest_twisted.ensureDeferred
async def test_a_body_that_stops_is_cut(lying: Lies) -> None:
    """
    A body that brings nothing for the idle time-out ends visibly unfinished.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask("/lie/stall_body")
        assert (answer.status, answer.body, answer.whole) == (200, b"begun", False)
        [(exchange, _)] = subject.journal.ended
        assert (exchange.flag, exchange.reason) == ("UT", "timeout: no more of the body")
        await eventually(lambda: backend.seen()[0]["gone"] is not None)
