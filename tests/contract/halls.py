"""
Presence under contract: two instances that share who is where, and hear what is told of it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import pytest_twisted
from tests.redis.fixtures import KINDS, Marks, link, url_of
from twisted.internet.task import Clock, deferLater

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.presence import Attendance, MemoryPresence
from gateway.ports.realtime import PresenceStore

__all__ = ["Comings", "InRedis", "Presences", "in_redis", "presences"]


@dataclass
class Comings:
    """
    Who hears a channel (``ports.realtime.BrokerListener``): users that came and went, in order.
    """

    told: list[tuple[str, str, str]] = field(default_factory=list)
    gaps_allowed: bool = False

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        raise AssertionError("nothing is published here")

    def joined(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("join", channel, info.user))

    def left(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("leave", channel, info.user))

    def interrupted(self, channels: object) -> None:
        assert self.gaps_allowed, "no link is lost here"

    def take(self) -> list[tuple[str, str, str]]:
        """What was told since this was last asked."""
        told, self.told = self.told, []
        return told


@dataclass
class Presences:
    """
    Two instances, ``one`` and ``two``, and somebody on each who hears the channel ``t``.
    """

    one: PresenceStore
    two: PresenceStore
    heard: tuple[Comings, Comings]
    pass_time: Callable[[float], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]

    async def take(self) -> list[tuple[str, str, str]]:
        """What both heard since this was last asked: the same."""
        await self.settle()
        one, two = (heard.take() for heard in self.heard)
        assert one == two
        return one


@pytest_twisted.async_yield_fixture(params=KINDS)
async def presences(request: pytest.FixtureRequest) -> AsyncIterator[Presences]:
    if request.param != "memory":
        async for made in in_redis(url_of(request)):
            yield made.presences
        return
    clock = Clock()

    def wall() -> float:
        return 1.8e9 + clock.seconds()

    channels = MemoryChannels(clock.seconds, wall)
    attendance = Attendance(channels, wall)
    heard = (Comings(), Comings())
    for each in heard:
        broker = MemoryBroker(channels)
        broker.listen(each)
        await broker.subscribe("t")

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    async def settle() -> None:
        """What is told is heard before the call returns."""

    one, two = MemoryPresence(attendance), MemoryPresence(attendance)
    one.own("one")
    two.own("two")
    yield Presences(one, two, heard, pass_time, settle)


@dataclass
class InRedis:
    """
    The same on a real Redis, and the links that they have.
    """

    presences: Presences
    links: list[Any]
    failed: list[Any]


async def in_redis(url: str, lease_s: float = 1.0, settle_s: float = 0.3) -> AsyncIterator[InRedis]:
    """Two instances with a link each; nothing of theirs may have failed in the end."""
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.broker import RedisBroker
    from gateway.redis.presence import RedisPresence

    here, prefix = cast(Any, reactor), "t" + secrets.token_hex(4)
    links = [await link(url, prefix), await link(url, prefix)]
    odd: list[str] = []
    heard = (Comings(), Comings())
    marks = Marks(links, prefix)
    await marks.listen()
    for each, listener in zip(links, heard, strict=True):
        broker = RedisBroker(each, lambda: 1.8e9, lambda: secrets.token_hex(4), odd.append)
        broker.listen(listener)
        await broker.subscribe("t")
    failed: list[Any] = []
    one, two = (
        RedisPresence(each, here, lease_s=lease_s, settle_s=settle_s, failed=lambda *fault: failed.append(fault))
        for each in links
    )
    one.own("one")
    two.own("two")

    async def wait(seconds: float) -> None:
        await deferLater(here, seconds)

    yield InRedis(Presences(one, two, heard, wait, marks.settle), links, failed)
    for each in links:
        await each.stop()
    assert not failed
    assert not odd
