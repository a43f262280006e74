"""
The stores under contract: each fixture gives every implementation in turn.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.contract.buses import buses
from tests.redis.fixtures import redis, redis_server
from twisted.internet.task import Clock, deferLater

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.instances import MemoryInstances
from gateway.memory.outbox import MemoryOutbox
from gateway.memory.presence import MemoryPresence
from gateway.memory.sessions import MemorySessions
from gateway.ports.instances import InstanceRegistry
from gateway.ports.realtime import Broker, IdempotencyStore, PresenceStore
from gateway.ports.sessions import EventOutbox, SessionStore

__all__ = ["buses", "redis", "redis_server"]


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
