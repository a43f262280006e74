"""
Clusters under contract: instances that hear each other, in this process or through a real Redis.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import KINDS, link, url_of
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from gateway.memory.bus import MemoryBus, MemoryCluster
from gateway.ports.cluster import MOST_ANSWER, ClusterBus

__all__ = ["Buses", "buses"]

Failed = Callable[[str, Failure], None]


@dataclass
class Buses:
    """
    A cluster: how instances of it are made and time passes, and what they heard, answer and failed at.

    Attributes:
        answers: By instance, what ``find`` has there: an answer, a failure, or one that is still to come.
    """

    make: Callable[[Failed], Awaitable[ClusterBus]]
    pass_time: Callable[[float], Awaitable[None]]
    heard: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    answers: dict[str, bytes | Exception | Deferred[bytes]] = field(default_factory=dict)
    failed: list[tuple[str, Failure]] = field(default_factory=list)

    async def joined(self, number: int) -> list[ClusterBus]:
        """So many instances that are heard."""
        return [await self.join(f"i{count}") for count in range(1, number + 1)]

    async def join(self, instance: str) -> ClusterBus:
        """One more."""
        bus = await self.make(lambda name, failure: self.failed.append((name, failure)))
        heard = self.heard[instance] = []

        async def echo(sender: str, body: bytes) -> bytes:
            heard.append((sender, body))
            return body

        async def find(sender: str, body: bytes) -> bytes:
            del sender, body
            answer = self.answers.get(instance, b"found")
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, bytes) else await answer

        async def flood(sender: str, body: bytes) -> bytes:
            del sender, body
            return bytes(MOST_ANSWER + 1)

        def fail(sender: str, body: bytes) -> None:
            raise ZeroDivisionError

        bus.obey("note", lambda sender, body: heard.append((sender, body)))
        bus.obey("fail", fail)
        bus.answer("echo", echo)
        bus.answer("find", find)
        bus.answer("flood", flood)
        await bus.join(instance)
        return bus

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        for _ in range(1000):
            if true():
                return
            await self.pass_time(0.01)
        raise AssertionError("it did not happen")


@pytest_twisted.async_yield_fixture(params=KINDS)
async def buses(request: pytest.FixtureRequest) -> AsyncIterator[Buses]:
    if request.param == "memory":
        clock = Clock()
        cluster = MemoryCluster()

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        async def in_memory(failed: Failed) -> ClusterBus:
            return MemoryBus(cluster, clock, failed)

        yield Buses(in_memory, advance)
        return
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.bus import RedisBus

    url, prefix = url_of(request), "t" + secrets.token_hex(4)
    made: list[tuple[Any, RedisBus]] = []
    here: Any = reactor

    async def peers() -> list[str]:
        return [bus.instance for _, bus in made if bus.instance]

    async def in_redis(failed: Failed) -> ClusterBus:
        redis = await link(url, prefix)
        made.append((redis, RedisBus(redis, here, peers, failed)))
        return made[-1][1]

    async def wait(seconds: float) -> None:
        await deferLater(here, seconds)

    yield Buses(in_redis, wait)
    for redis, bus in made:
        await bus.leave()
        await redis.stop()
