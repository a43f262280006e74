"""
Events that wait to be told, in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from math import inf
from operator import itemgetter
from typing import Final

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.ports.sessions import MOST_EVENTS, TAKEN_S, Backlog, Event, OutboxEvent, SessionRecord
from gateway.ports.spool import Spool

__all__ = ["MOST_BYTES", "MemoryOutbox"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""What the events of an outbox may take if nothing else is said."""

EVENT_BYTES: Final = 400
"""What an event takes beside its data, about."""


class MemoryOutbox:
    """
    The ``ports.sessions.EventOutbox`` of a process.

    Args:
        wall: Seconds since the epoch.
        most: Events that wait, a 64th of them in each partition.
        most_bytes: What they may take, all together.
        spool: Where what waits is written down; nothing is given away that does not stand there.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        *,
        most: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
        spool: Spool | None = None,
    ) -> None:
        self._wall = wall
        self._spool = spool
        self._most = max(1, most // PARTITIONS)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._queues: list[deque[OutboxEvent]] = [deque() for _ in range(PARTITIONS)]
        self._takers: dict[int, tuple[str, float]] = {}
        self._last = 0
        self._lost = [0] * PARTITIONS

    def append(self, record: SessionRecord, event: Event | None, at: float) -> None:
        """
        Put *event* behind the others of its partition; for stores, as a part of what they do.
        """
        if event is None:
            return
        partition = partition_of(record.id)
        queue = self._queues[partition]
        size = EVENT_BYTES + len(event.data)
        if len(queue) >= self._most or self._bytes + size > self._most_bytes:
            self._lost[partition] += 1
            return
        self._bytes += size
        self._last += 1
        ref = f"{partition}:{self._last}"
        queue.append(OutboxEvent(ref, event.id, record.id, at, record.started_at, record.resumes, event.data))
        if self._spool is not None:
            self._spool.append(self._last, queue[-1])

    def take_back(self, events: Sequence[OutboxEvent]) -> None:
        """
        Put behind the others what an earlier process was not rid of.
        """
        for event in events:
            self._last += 1
            self._bytes += _size(event)
            partition = partition_of(event.session)
            self._queues[partition].append(replace(event, ref=f"{partition}:{self._last}"))

    def contents(self) -> Sequence[tuple[int, OutboxEvent]]:
        """
        List all that waits, with their numbers, the oldest first.
        """
        return sorted(((_number(event.ref), event) for queue in self._queues for event in queue), key=itemgetter(0))

    async def take(
        self, by: str, partitions: Collection[int], limit: int, *, for_s: float = TAKEN_S
    ) -> Sequence[OutboxEvent]:
        """
        Return the oldest events of *partitions*.
        """
        now = self._wall()
        written = inf
        if self._spool is not None:
            await self._spool.settled()
            written = self._spool.written
        found: list[OutboxEvent] = []
        for partition in partitions:
            if not self._queues[partition]:
                continue
            taker, until = self._takers.get(partition, (by, 0.0))
            if taker != by and now < until:
                continue
            self._takers[partition] = (by, now + for_s)
            some = islice(self._queues[partition], limit)
            found.extend(some if written == inf else takewhile(lambda event: _number(event.ref) <= written, some))
        return found

    async def release(self, by: str, partitions: Collection[int]) -> None:
        """
        Let *partitions* go.
        """
        for partition in partitions:
            if self._takers.get(partition, ("", 0.0))[0] == by:
                del self._takers[partition]

    async def done(self, refs: Sequence[str]) -> None:
        """
        Forget events.
        """
        if self._spool is not None:
            self._spool.done([_number(ref) for ref in refs])
        gone = set(refs)
        for partition in {int(ref.partition(":")[0]) for ref in refs}:
            queue = self._queues[partition]
            while queue and queue[0].ref in gone:
                event = queue.popleft()
                gone.remove(event.ref)
                self._bytes -= _size(event)
            if gone:  # Told out of turn; a rare thing, and the only one that costs.
                self._bytes -= sum(_size(event) for event in queue if event.ref in gone)
                self._queues[partition] = deque(event for event in queue if event.ref not in gone)

    async def backlog(self, partitions: Collection[int] = range(PARTITIONS)) -> Backlog:
        """
        Count what waits, and what did not fit.
        """
        queues = [self._queues[partition] for partition in partitions]
        oldest = min((queue[0].at for queue in queues if queue), default=0.0)
        return Backlog(sum(map(len, queues)), sum(self._lost[partition] for partition in partitions), oldest)


def _size(event: OutboxEvent) -> int:
    return EVENT_BYTES + len(event.data)


def _number(ref: str) -> int:
    return int(ref.partition(":")[2])
