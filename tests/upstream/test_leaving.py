"""
Clients that leave: what runs for them at a backend ends at once.
"""

import gc
import socket
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Gate, head_of, route, upstream
from tests.web.harness import RawClient, eventually, pause

from gateway.core.problems import Problem
from gateway.ports.http import Exchange
from gateway.upstream.call import Call
from gateway.upstream.passing import Passing
from gateway.upstream.request_body import RequestBody


def gate(backend: Lying, **changes: Any) -> Gate:
    return Gate([upstream(backend.target, **changes)], [route()])


WAITING = {
    "for the head": (head_of("/lie/stall"), b""),
    "for the body": (head_of("/lie/stall_body"), b"begun"),
    "within a body": (head_of("/lie/pour"), b"xxx"),
    "while sending": (head_of("/lie/stall", "Content-Length: 100000", method="POST") + b"x" * 1000, b""),
    "while both speak": (
        head_of("/lie/echo", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n",
        b"hello",
    ),
}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("when", WAITING)
@pytest_twisted.ensureDeferred
async def test_the_backend_is_let_go(when: str, how: str, lying: Lies) -> None:
    """
    Whenever a client leaves, its request at the backend is given up within a second and nothing is left of it.
    """
    sent, until = WAITING[when]
    backend = lying()
    async with gate(backend, timeout_s=60.0, idle_body_timeout_s=60.0) as subject:
        client = await subject.connect()
        client.send(sent)
        await eventually(backend.seen)
        await client.until(lambda: until in client.data)
        if how == "reset":
            client.reset()
        else:
            client.transport.loseConnection()
        await eventually(lambda: not subject.edge.open, within=3)
        [member] = subject.cluster().members
        assert (member.in_flight, member.value.open, len(member.value.active)) == (0, 0, 0)
        [(exchange, whole)] = subject.journal.ended
        assert (whole, exchange.flag) == (False, "DC")
        assert exchange.status == (200 if until else 499)
        assert subject.metrics.upstream_attempts.value("backend", "cancelled") == 1
        if when not in {"while sending", "while both speak"}:
            await eventually(lambda: backend.seen()[0]["gone"] is not None)


@pytest_twisted.ensureDeferred
async def test_while_connecting() -> None:
    """
    A connection that is still being made for somebody who left is given up.
    """
    with ExitStack() as sockets:
        # A backlog that is full answers nobody.
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003
            waiting.connect_ex(full.getsockname())
        target = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with Gate([upstream(target, connect_timeout_s=60.0, timeout_s=60.0)], [route()]) as subject:
            client = await subject.connect()
            client.send(head_of("/"))
            await eventually(lambda: subject.cluster().active)
            await pause(0.1)
            [member] = subject.cluster().members
            assert (len(member.value.active), member.value.open) == (1, 0)
            client.reset()
            await eventually(lambda: not subject.edge.open, within=3)
            assert (len(member.value.active), member.in_flight) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_the_node_gives_up(lying: Lies) -> None:
    """
    When the instance leaves, who still waits is answered, and the backend is let go.
    """
    backend = lying()
    async with gate(backend, timeout_s=60.0) as subject:
        client = await subject.connect()
        client.send(head_of("/lie/stall"))
        await eventually(backend.seen)
        [exchange] = subject.edge.open
        subject.edge.give_up(exchange, Problem("draining"))
        assert (await client.containing(b"draining")).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: backend.seen()[0]["gone"] is not None)


@pytest_twisted.ensureDeferred
async def test_many_at_once(lying: Lies) -> None:
    """
    A hundred clients that leave at any moment leave nothing behind.
    """
    backend = lying()
    async with gate(backend, timeout_s=60.0, breaker__min_requests=10_000) as subject:
        clients: list[RawClient] = []
        for number in range(100):
            client = await subject.connect()
            client.send(list(WAITING.values())[number % 5][0])
            clients.append(client)
            if number % 3 == 0:
                clients.pop(0).reset()
        await pause(0.1)
        for client in clients:
            client.reset()
        await eventually(lambda: not subject.edge.open, within=5)
        [member] = subject.cluster().members
        assert (member.in_flight, len(member.value.active)) == (0, 0)
        assert (await subject.ask("/")).status == 200


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_for_the_collector(lying: Lies) -> None:
    """
    What a request is made of is freed when it ends, well or badly, without waiting for the garbage collector.
    """
    backend = lying()
    async with gate(
        backend,
        timeout_s=0.2,
        idle_body_timeout_s=0.2,
        retry__attempts=2,
        retry__backoff_base_s=0.0,
        breaker__min_requests=1000,
    ) as subject:
        asked = ["/", "/lie/trailers", "/lie/pour?mib=1", "/lie/cut_length", "/lie/reset", "/lie/two_lengths"]
        for target in asked:
            await subject.ask(target)
        gc.collect()
        gc.disable()
        try:
            subject.journal.ended.clear()
            for target in asked:
                await subject.ask(target)
                await subject.ask(target, method="POST", body=b"x" * 70_000)
            for target in ("/lie/stall", "/lie/deaf", "/lie/stall_body", "/lie/early"):
                await subject.ask(target)
                await subject.ask(target, method="POST", body=b"x" * 70_000)
                client = await subject.connect()
                client.send(head_of(target, "Content-Length: 100", method="POST") + b"x")
                await pause(0.02)
                client.reset()
            await eventually(lambda: not subject.edge.open)
            subject.journal.ended.clear()
            subject.journal.refusals.clear()
            await pause(0.01)
            made = (Passing, RequestBody, Call, Exchange)
            left = [thing for thing in gc.get_objects() if isinstance(thing, made)]
            assert left == []
        finally:
            gc.enable()
