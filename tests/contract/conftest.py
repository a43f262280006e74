"""
The stores under contract: each fixture gives every implementation in turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from twisted.internet.task import Clock

from gateway.core.publications import ClientInfo, Publication
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.presence import MemoryPresence
from gateway.memory.sessions import MemorySessions
from gateway.ports.realtime import Broker, IdempotencyStore, PresenceStore, SessionStore


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


@pytest.fixture(params=["memory"])
def sessions(request: pytest.FixtureRequest) -> SessionStore:
    return MemorySessions()


@pytest.fixture(params=["memory"])
def idempotency(request: pytest.FixtureRequest) -> IdempotencyStore:
    return MemoryIdempotency(lambda: 1000.0)
