"""
Events that wait to be told, in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.ports.sessions import Backlog, Event, OutboxEvent

__all__ = ["MOST_EVENTS", "TAKER_S", "MemoryOutbox"]

MOST_EVENTS = 1_000_000
"""Beyond it what happens is not told, and counted."""

TAKER_S = 15.0
"""How long a partition stays with whoever took from it last."""


class MemoryOutbox:
    """
    The ``ports.sessions.EventOutbox`` of a process.

    Args:
        wall: Seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float], *, most: int = MOST_EVENTS) -> None:
        self._wall = wall
        self._most = most // PARTITIONS
        self._queues: list[deque[OutboxEvent]] = [deque() for _ in range(PARTITIONS)]
        self._takers: dict[int, tuple[str, float]] = {}
        self._last = 0
        self._lost = 0

    def append(self, session: str, event: Event | None, at: float) -> None:
        """
        Put *event* behind the others of its partition; for stores, as a part of what they do.
        """
        if event is None:
            return
        queue = self._queues[partition_of(session)]
        if len(queue) >= self._most:
            self._lost += 1
            return
        self._last += 1
        queue.append(OutboxEvent(f"{partition_of(session)}:{self._last}", event.id, session, at, event.data))

    async def take(self, by: str, partitions: Collection[int], limit: int) -> Sequence[OutboxEvent]:
        """
        Return the oldest events of *partitions*.
        """
        now = self._wall()
        found: list[OutboxEvent] = []
        for partition in partitions:
            taker, until = self._takers.get(partition, (by, 0.0))
            if taker != by and now < until:
                continue
            self._takers[partition] = (by, now + TAKER_S)
            found.extend(islice(self._queues[partition], limit))
        return found

    async def done(self, refs: Sequence[str]) -> None:
        """
        Forget events.
        """
        gone = set(refs)
        for partition in {int(ref.partition(":")[0]) for ref in refs}:
            queue = self._queues[partition]
            while queue and queue[0].ref in gone:
                gone.remove(queue.popleft().ref)
            if gone:  # Told out of turn; a rare thing, and the only one that costs.
                self._queues[partition] = deque(event for event in queue if event.ref not in gone)

    async def backlog(self) -> Backlog:
        """
        Count what waits, and what did not fit.
        """
        return Backlog(sum(len(queue) for queue in self._queues), self._lost)
