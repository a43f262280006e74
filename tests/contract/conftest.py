"""
The stores under contract: each fixture gives every implementation in turn.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import pytest_twisted
from tests.contract.buses import buses
from tests.contract.halls import presences
from tests.contract.revokers import revokers
from tests.redis.clusters import Cluster
from tests.redis.fixtures import KINDS, Marks, least_rights, link, redis, redis_of, redis_on_cluster, url_of
from tests.redis.server import RedisServer
from tests.spool.spools import Emptiness, spool_in
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.instances import MemoryInstances
from gateway.memory.limits import MemoryLimiter
from gateway.memory.outbox import MemoryOutbox
from gateway.memory.sessions import MemorySessions
from gateway.ports.instances import InstanceRegistry
from gateway.ports.limits import RateLimiter
from gateway.ports.realtime import Broker, IdempotencyStore
from gateway.ports.sessions import EventOutbox, SessionStore

__all__ = ["buses", "presences", "redis", "redis_on_cluster", "revokers"]

RIGHTS = ["resetkeys", "resetchannels", "-@all", *least_rights("t")]
"""What docs/redis.md says that we need, and nothing else: all these tests live with it."""


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server, which lets us do what we need."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    assert server.ask("ACL", "SETUSER", "default", *RIGHTS) == b"+OK\r\n"
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters, which let us do what we need."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), timeout_ms=15_000)
    try:
        made.start()
        for node in made.nodes:
            made.ask(node, "ACL", "SETUSER", "default", *RIGHTS)
        yield made
    finally:
        made.stop()


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
    pass_time: Callable[[float], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]
    """Waits until everything that was published has been heard."""


REMEMBER_S = 0.5
"""How long idempotency keys hold in these tests."""


@pytest_twisted.async_yield_fixture(params=KINDS)
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[Brokers]:
    if request.param != "memory":
        async for made in _redis_brokers(url_of(request)):
            yield made
        return
    clock = Clock()
    channels = MemoryChannels(clock.seconds, lambda: 1.8e9 + clock.seconds(), remember_s=REMEMBER_S)

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    async def settle() -> None:
        """What is published is heard before the call returns."""

    yield Brokers(MemoryBroker(channels), MemoryBroker(channels), pass_time, settle)


async def _redis_brokers(url: str) -> AsyncIterator[Brokers]:
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.broker import RedisBroker

    prefix = "t" + secrets.token_hex(4)
    links = [await link(url, prefix), await link(url, prefix)]
    marks = Marks(links, prefix)
    await marks.listen()

    def odd(text: str) -> None:
        raise AssertionError(text)

    one, two = (
        RedisBroker(each, lambda: 1.8e9, lambda: secrets.token_hex(4), odd, remember_s=REMEMBER_S) for each in links
    )

    async def pass_time(seconds: float) -> None:
        await deferLater(reactor, seconds)

    yield Brokers(one, two, pass_time, marks.settle)
    for each in links:
        await each.stop()


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


@pytest.fixture(params=[*KINDS, "spooled"])
def halls(request: pytest.FixtureRequest) -> Iterator[Halls]:
    if request.param not in ("memory", "spooled"):
        yield _redis_halls(redis_of(request))
        return
    clock = Clock()

    def wall() -> float:
        return 1.8e9 + clock.seconds()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    spool = spool_in(request.getfixturevalue("tmp_path"), wall) if request.param == "spooled" else None
    events, owed = MemoryOutbox(wall, spool=spool), MemoryOutbox(wall)
    sessions = MemorySessions(wall, events, owed, spool)
    if spool is not None:
        pytest_twisted.blockon(Deferred.fromCoroutine(spool.start(Emptiness(), 5.0)))
    yield Halls(sessions, MemoryInstances(wall), events, owed, pass_time)
    if spool is not None:
        pytest_twisted.blockon(Deferred.fromCoroutine(spool.stop(5.0)))


def _redis_halls(redis: Any) -> Halls:
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.instances import RedisInstances
    from gateway.redis.outbox import RedisOutbox
    from gateway.redis.sessions import RedisSessions

    async def pass_time(seconds: float) -> None:
        await deferLater(reactor, seconds)

    return Halls(
        RedisSessions(redis, seconds=reactor.seconds),
        RedisInstances(redis),
        RedisOutbox(redis, "events"),
        RedisOutbox(redis, "owed"),
        pass_time,
    )


@dataclass
class Results:
    """
    What two instances keep of results, and the time they live in.
    """

    one: IdempotencyStore
    two: IdempotencyStore
    pass_time: Callable[[float], Awaitable[None]]


@pytest.fixture(params=KINDS)
def results(request: pytest.FixtureRequest) -> Results:
    if request.param != "memory":
        from gateway.redis.idempotency import RedisIdempotency

        redis = redis_of(request)
        return Results(RedisIdempotency(redis), RedisIdempotency(redis), _wait)
    clock = Clock()
    store = MemoryIdempotency(lambda: 1.8e9 + clock.seconds())
    return Results(store, store, _advancing(clock))


@dataclass
class Limits:
    """
    Two instances that count together, and the time they live in.
    """

    one: RateLimiter
    two: RateLimiter
    pass_time: Callable[[float], Awaitable[None]]


@pytest.fixture(params=KINDS)
def limits(request: pytest.FixtureRequest) -> Limits:
    clock = Clock()
    local = MemoryLimiter(clock.seconds)
    if request.param != "memory":
        from twisted.internet import reactor  # pytest-twisted has installed one.

        from gateway.redis.limits import RedisLimiter

        redis, here = redis_of(request), cast(Any, reactor)
        return Limits(RedisLimiter(redis, here, local), RedisLimiter(redis, here, local), _wait)
    return Limits(local, local, _advancing(clock))


def _advancing(clock: Clock) -> Callable[[float], Awaitable[None]]:
    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    return pass_time


async def _wait(seconds: float) -> None:
    from twisted.internet import reactor  # pytest-twisted has installed one.

    await deferLater(reactor, seconds)
