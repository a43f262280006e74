"""
The stores under contract: each fixture gives every implementation in turn.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.redis.fixtures import redis, redis_server
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.bus import MemoryBus, MemoryCluster
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.instances import MemoryInstances
from gateway.memory.outbox import MemoryOutbox
from gateway.memory.presence import MemoryPresence
from gateway.memory.sessions import MemorySessions
from gateway.ports.cluster import MOST_ANSWER, ClusterBus
from gateway.ports.instances import InstanceRegistry
from gateway.ports.realtime import Broker, IdempotencyStore, PresenceStore
from gateway.ports.sessions import EventOutbox, SessionStore

__all__ = ["redis", "redis_server"]


@dataclass
class Hearing:
    """
    A listener that keeps what it heard.
    """

    publications: list[tuple[str, Publication, str]] = field(default_factory=list)
    comings: list[tuple[str, str, ClientInfo]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        self.publications.append((channel, publication, epoch))

    def joined(self, channel: str, info: ClientInfo) -> None:
        self.comings.append(("join", channel, info))

    def left(self, channel: str, info: ClientInfo) -> None:
        self.comings.append(("leave", channel, info))

    def interrupted(self, channels: Sequence[str]) -> None:
        self.gaps.extend(channels)


@dataclass
class Brokers:
    """
    Two nodes on the same channels, and the time they live in.
    """

    one: Broker
    two: Broker
    pass_time: Callable[[float], None]


@pytest.fixture(params=["memory"])
def brokers(request: pytest.FixtureRequest) -> Brokers:
    clock = Clock()
    channels = MemoryChannels(clock.seconds, lambda: 1.8e9 + clock.seconds())
    return Brokers(MemoryBroker(channels), MemoryBroker(channels), clock.advance)


@pytest.fixture(params=["memory"])
def presence(request: pytest.FixtureRequest) -> PresenceStore:
    return MemoryPresence()


@dataclass
class Halls:
    """
    What is kept of sessions and instances, and the time it lives in.
    """

    sessions: SessionStore
    instances: InstanceRegistry
    events: EventOutbox
    owed: EventOutbox
    pass_time: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
def halls(request: pytest.FixtureRequest) -> Halls:
    if request.param == "redis":
        return _redis_halls(request.getfixturevalue("redis"))
    clock = Clock()

    def wall() -> float:
        return 1.8e9 + clock.seconds()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    events, owed = MemoryOutbox(wall), MemoryOutbox(wall)
    return Halls(MemorySessions(wall, events, owed), MemoryInstances(wall), events, owed, pass_time)


def _redis_halls(redis: Any) -> Halls:
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.instances import RedisInstances
    from gateway.redis.outbox import RedisOutbox
    from gateway.redis.sessions import RedisSessions

    async def pass_time(seconds: float) -> None:
        await deferLater(reactor, seconds)

    return Halls(
        RedisSessions(redis), RedisInstances(redis), RedisOutbox(redis, "events"), RedisOutbox(redis, "owed"), pass_time
    )


@pytest.fixture(params=["memory"])
def idempotency(request: pytest.FixtureRequest) -> IdempotencyStore:
    return MemoryIdempotency(lambda: 1000.0)


@dataclass
class Buses:
    """
    A cluster: how instances of it are made and time passes, and what they heard, answer and failed at.

    Attributes:
        answers: By instance, what ``find`` has there: an answer, a failure, or one that is still to come.
    """

    make: Callable[[Callable[[str, Failure], None]], ClusterBus]
    pass_time: Callable[[float], Awaitable[None]]
    heard: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    answers: dict[str, bytes | Exception | Deferred[bytes]] = field(default_factory=dict)
    failed: list[tuple[str, Failure]] = field(default_factory=list)

    async def joined(self, number: int) -> list[ClusterBus]:
        """So many instances that are heard."""
        return [await self._join(f"i{count}") for count in range(1, number + 1)]

    async def _join(self, instance: str) -> ClusterBus:
        bus = self.make(lambda name, failure: self.failed.append((name, failure)))
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
        for _ in range(200):
            if true():
                return
            await self.pass_time(0.01)
        raise AssertionError("it did not happen")


@pytest.fixture(params=["memory"])
def buses(request: pytest.FixtureRequest) -> Buses:
    clock = Clock()
    cluster = MemoryCluster()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    return Buses(lambda failed: MemoryBus(cluster, clock, failed), pass_time)
