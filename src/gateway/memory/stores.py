"""
The whole set of stores of a single process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.instances import MemoryInstances
from gateway.memory.outbox import MOST_BYTES, MemoryOutbox
from gateway.memory.presence import Attendance, MemoryPresence
from gateway.memory.sessions import MemorySessions
from gateway.ports.cluster import ClusterBus
from gateway.ports.sessions import MOST_EVENTS
from gateway.ports.spool import Contents, Spool
from gateway.ports.stores import Stores

__all__ = ["SpooledStores", "memory_stores"]


GRACE_S: Final = 5.0
"""A session that was lost with an earlier process may be resumed at least this long after the start, if it may be at all."""


def memory_stores(
    channels: MemoryChannels,
    bus: ClusterBus,
    wall: Callable[[], float],
    spool: Spool | None = None,
    *,
    most_events: int = MOST_EVENTS,
    most_bytes: int = MOST_BYTES,
) -> Stores:
    """
    Make one of each; nodes that are to share them have a broker, a presence and a bus of their own.

    Args:
        wall: Seconds since the epoch.
        spool: Where sessions and events are written down.
        most_events: That wait to be told.
        most_bytes: What they may take.
    """
    events = MemoryOutbox(wall, most=most_events, most_bytes=most_bytes, spool=spool)
    owed = MemoryOutbox(wall)
    return Stores(
        broker=MemoryBroker(channels),
        presence=MemoryPresence(Attendance(channels, wall)),
        sessions=MemorySessions(wall, events, owed, spool),
        idempotency=MemoryIdempotency(wall),
        bus=bus,
        instances=MemoryInstances(wall),
        events=events,
        owed=owed,
    )


class SpooledStores:
    """
    The ``ports.spool.Spooled`` of stores in memory.

    Args:
        stores: Made by ``memory_stores``.
        window_s: How long a session may be resumed.
    """

    def __init__(self, stores: Stores, window_s: float) -> None:
        assert isinstance(stores.sessions, MemorySessions)
        assert isinstance(stores.events, MemoryOutbox)
        self._sessions = stores.sessions
        self._events = stores.events
        self._window_s = window_s

    def contents(self) -> Contents:
        """
        Everything as it is now.
        """
        return Contents(self._sessions.contents(), self._events.contents())

    def take_back(self, left: Contents) -> None:
        """
        What an earlier process left.
        """
        self._events.take_back([event for _, event in left.events])
        self._sessions.take_back(left.sessions, left.alive_at, self._window_s, GRACE_S)
