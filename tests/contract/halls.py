"""
Presence under contract: two instances that share who is where, and hear what is told of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.presence import Attendance, MemoryPresence
from gateway.ports.realtime import PresenceStore

__all__ = ["Comings", "Presences", "presences"]


@dataclass
class Comings:
    """
    Who hears a channel (``ports.realtime.BrokerListener``): users that came and went, in order.
    """

    told: list[tuple[str, str, str]] = field(default_factory=list)

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        raise AssertionError("nothing is published here")

    def joined(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("join", channel, info.user))

    def left(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("leave", channel, info.user))

    def interrupted(self, channels: object) -> None:
        raise AssertionError("no link is lost here")

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


@pytest_twisted.async_yield_fixture(params=["memory"])
async def presences(request: pytest.FixtureRequest) -> AsyncIterator[Presences]:
    del request
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
