"""
Bodies on their way: nothing is gathered, whoever is slow holds the other back.
"""

import gc
import os
from pathlib import Path
from typing import Any

import pytest_twisted
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Answer, Gate, head_of, route, upstream
from tests.web.harness import RawClient, eventually, pause

from gateway.upstream.request_body import RequestBody

MIB = 1 << 20
MAY_GROW = 8 * MIB


def gate(backend: Lying, **changes: Any) -> Gate:
    return Gate([upstream(backend.target, **changes)], [route()])


def resident() -> int:
    """Bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Forgetful:
    """
    Counts what a client receives and keeps only the end of it.
    """

    def __init__(self, client: RawClient) -> None:
        self.bytes = 0
        self.end = b""
        client.dataReceived = self.take  # type: ignore[method-assign]

    def take(self, data: bytes) -> None:
        self.bytes += len(data)
        self.end = (self.end + data)[-64:]


@pytest_twisted.ensureDeferred
async def test_a_large_answer_streams(lying: Lies) -> None:
    """
    An answer of 64 MiB passes whole, in little memory.
    """
    backend = lying()
    async with gate(backend) as subject:
        await subject.ask("/lie/pour?mib=4")
        before = resident()
        client = await subject.connect()
        taken = Forgetful(client)
        client.send(head_of("/lie/pour?mib=64"))
        await eventually(lambda: taken.end.endswith(b"\r\n0\r\n\r\n"), within=30)
        assert taken.bytes > 64 * MIB
        assert resident() - before < MAY_GROW


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_reading_stops_the_backend(lying: Lies) -> None:
    """
    An endless answer waits for its client: the gateway keeps no more than a bound, and goes on when the client does.
    """
    backend = lying()
    async with gate(backend, idle_body_timeout_s=0.2) as subject:
        client = await subject.connect()
        taken = Forgetful(client)
        client.send(head_of("/lie/pour"))
        await eventually(lambda: taken.bytes > MIB)
        client.transport.pauseProducing()
        await pause(0.3)
        sent = backend.seen()[0]["body_bytes"]
        before = resident()
        await pause(0.7)
        # Kernel buffers on both sides have filled; nothing moves any more, and the idle time-out does not count.
        assert backend.seen()[0]["body_bytes"] - sent < 8 * MIB
        assert resident() - before < MAY_GROW
        paused_at = taken.bytes
        client.transport.resumeProducing()
        await eventually(lambda: taken.bytes > paused_at + 16 * MIB)


@pytest_twisted.ensureDeferred
async def test_a_backend_that_stops_reading_stops_the_client(lying: Lies) -> None:
    """
    A body that the backend does not take stays with its client, but for a bound.
    """
    backend = lying()
    async with gate(backend, timeout_s=1.0) as subject:
        before = resident()
        client = await subject.connect()
        client.send(head_of("/lie/deaf", f"Content-Length: {60 * MIB}", method="POST"))
        sent = 0
        while not subject.journal.ended:
            # As much as is taken off our hands: what this transport queues is not.
            if not client.transport.dataBuffer and not client.transport._tempDataBuffer and sent < 60 * MIB:
                client.send(b"x" * 65536)
                sent += 65536
            await pause(0)
        answer = Answer(await client.containing(b"upstream_timeout"))
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert sent < 32 * MIB
        assert resident() - before < MAY_GROW


@pytest_twisted.ensureDeferred
async def test_both_ways_at_once(lying: Lies) -> None:
    """
    A body may come back while it still goes up, in pieces, byte for byte.
    """
    backend = lying()
    async with gate(backend, timeout_s=0.4) as subject:
        client = await subject.connect()
        client.send(head_of("/lie/echo", "Transfer-Encoding: chunked", "Connection: close", method="POST"))
        for number in range(8):
            piece = b"piece %d;" % number
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.containing(piece)
            # The answer has begun: nothing is kept for another attempt.
            [body] = [thing for thing in gc.get_objects() if isinstance(thing, RequestBody)]
            assert body._kept == []
            await pause(0.1)
        client.send(b"0\r\n\r\n")
        answer = Answer(await client.closed())
        assert answer.whole
        assert answer.body == b"".join(b"piece %d;" % number for number in range(8))


@pytest_twisted.ensureDeferred
async def test_a_large_body_goes_up_whole(lying: Lies) -> None:
    """
    A body of 32 MiB reaches a slow reader whole, though it takes longer than the route's time.
    """
    backend = lying()
    async with gate(backend, timeout_s=0.5) as subject:
        await subject.ask("/")
        client = await subject.connect()
        size = 32 * MIB
        client.send(head_of("/lie/count?pause=0.02", f"Content-Length: {size}", "Connection: close", method="PUT"))
        piece = b"x" * MIB
        for _ in range(32):
            client.send(piece)
            await pause(0.03)
        answer = Answer(await client.closed())
        assert (answer.status, answer.body) == (200, str(size).encode())


@pytest_twisted.ensureDeferred
async def test_a_flood_of_interim_answers_is_cut(lying: Lies) -> None:
    """
    Interim responses and heads without end cost the gateway no memory.
    """
    backend = lying()
    async with gate(backend, retry__attempts=1, breaker__min_requests=1000) as subject:
        await subject.ask("/lie/flood")
        before = resident()
        for _ in range(10):
            assert (await subject.ask("/lie/flood")).status == 502
            assert (await subject.ask("/lie/huge_head")).status == 502
        assert resident() - before < MAY_GROW
