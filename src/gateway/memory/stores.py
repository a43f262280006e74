"""
The whole set of stores of a single process.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.idempotency import MemoryIdempotency
from gateway.memory.instances import MemoryInstances
from gateway.memory.outbox import MemoryOutbox
from gateway.memory.presence import Attendance, MemoryPresence
from gateway.memory.sessions import MemorySessions
from gateway.ports.cluster import ClusterBus
from gateway.ports.stores import Stores

__all__ = ["memory_stores"]


def memory_stores(channels: MemoryChannels, bus: ClusterBus, wall: Callable[[], float]) -> Stores:
    """
    Make one of each; nodes that are to share them have a broker, a presence and a bus of their own.

    Args:
        wall: Seconds since the epoch.
    """
    events, owed = MemoryOutbox(wall), MemoryOutbox(wall)
    return Stores(
        broker=MemoryBroker(channels),
        presence=MemoryPresence(Attendance(channels, wall)),
        sessions=MemorySessions(wall, events, owed),
        idempotency=MemoryIdempotency(wall),
        bus=bus,
        instances=MemoryInstances(wall),
        events=events,
        owed=owed,
    )
