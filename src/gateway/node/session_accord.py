"""
The sessions whose connections are here, and keeping the store of the same opinion.

The store may lose what it had, a step may be lost with a connection to it, and another instance may
have taken a session over while nobody could hear us. So partition by partition, slowly and for ever,
both are compared and what differs is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.node.together import together
from gateway.ports.sessions import Event, SessionRecord, SessionStore

__all__ = ["Accord", "Held"]

AUDITED: Final = 4
"""Partitions compared with the store at once."""

RESTORED: Final = 500
"""Sessions announced anew together."""


class Held:
    """
    Sessions whose connection is on this instance, by partition.
    """

    def __init__(self) -> None:
        self._parts: tuple[dict[str, SessionRecord], ...] = tuple({} for _ in range(PARTITIONS))

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[SessionRecord]:
        for part in self._parts:
            yield from part.values()

    def put(self, record: SessionRecord) -> None:
        """Hold *record*."""
        self._parts[partition_of(record.id)][record.id] = record

    def drop(self, record: SessionRecord) -> None:
        """Hold it no more, if it is still held for the same connection."""
        if self.has(record):
            del self._parts[partition_of(record.id)][record.id]

    def has(self, record: SessionRecord) -> bool:
        """Whether it is held for the same connection."""
        mine = self._parts[partition_of(record.id)].get(record.id)
        return mine is not None and mine.client == record.client

    def part(self, partition: int) -> Mapping[str, SessionRecord]:
        """Those of a partition."""
        return self._parts[partition]


class Accord:
    """
    What is held here against what the store says.

    Args:
        note: What must be known of a connection if this instance dies, by its public id.
        started: What is told of a session's beginning.
        taken: Called with a session that another instance has now, though its connection is here.
    """

    def __init__(
        self,
        store: SessionStore,
        held: Held,
        *,
        note: Callable[[str], bytes],
        started: Callable[[SessionRecord], Event | None],
        taken: Callable[[SessionRecord], None],
    ) -> None:
        self._store = store
        self._held = held
        self._note = note
        self._started = started
        self._taken = taken
        self._lately: dict[str, tuple[SessionRecord, float, float]] = {}
        self._strange: dict[str, str] = {}
        self._next = 0

    def lost(self, record: SessionRecord, now: float, window_s: float) -> None:
        """
        Remember a session whose connection was lost here at *now*, as long as it may be resumed.
        """
        lately = self._lately
        while lately and next(iter(lately.values()))[2] <= now:
            del lately[next(iter(lately))]
        lately.pop(record.id, None)
        lately[record.id] = (record, now, now + window_s)

    def lately(self, now: float) -> Sequence[tuple[SessionRecord, float]]:
        """
        List the sessions whose connection was lost here and that may still be resumed, each with when that was.
        """
        return [(record, at) for record, at, until in self._lately.values() if until > now]

    async def announce(self, instance: str, seconds: Callable[[], float]) -> None:
        """
        Write every session that is held here, or was until lately, where the store does not have it.

        Args:
            seconds: A monotonic clock.

        Raises:
            StoreUnavailable: not all were written.
        """
        records = list(self._held)
        for begin in range(0, len(records), RESTORED):
            await self._restore(instance, records[begin : begin + RESTORED])
        now = seconds()
        lately = [(record, at, until) for record, at, until in self._lately.values() if until > now]
        for begin in range(0, len(lately), RESTORED):
            some = lately[begin : begin + RESTORED]
            there = await together(self._store.get(record.id) for record, _, _ in some)
            gone = [each for each, found in zip(some, there, strict=True) if found is None]
            refused = await self._write(instance, [record for record, _, _ in gone])
            await together(
                self._store.suspend(
                    record.id, record.client, until - at, cause="lost", ago_s=seconds() - at, past=record.past
                )
                for record, at, until in gone
                if record.id not in refused
            )

    def begin_anew(self) -> None:
        """
        Sessions that were lost here are no longer ours to speak of.
        """
        self._lately.clear()

    async def _restore(self, instance: str, records: Sequence[SessionRecord]) -> None:
        mine = {record.id: record for record in records if self._held.has(record)}
        for session in await self._write(instance, list(mine.values())):
            self._lose(mine[session])

    async def _write(self, instance: str, records: Sequence[SessionRecord]) -> Collection[str]:
        """Write *records* as open; return those that are somebody else's."""
        if not records:
            return ()
        return await self._store.restore(
            [
                (replace(record, instance=instance, note=self._note(record.client)), self._started(record))
                for record in records
            ]
        )

    async def audit(self, instance: str, window_s: float) -> None:
        """
        Compare the next partitions, and mend what differs.

        Args:
            window_s: How long sessions may be resumed that the store has as ours and we do not.

        Raises:
            StoreUnavailable: the next call begins with the same.
        """
        for _ in range(AUDITED):
            await self._audit(self._next, instance, window_s)
            self._next = (self._next + 1) % PARTITIONS

    async def _audit(self, partition: int, instance: str, window_s: float) -> None:
        before = dict(self._held.part(partition))
        audit = await self._store.audit(
            partition, instance, {session: record.client for session, record in before.items()}
        )
        await self._restore(instance, [before[session] for session in audit.missing])
        for session in audit.taken:
            self._lose(before[session])
        held = self._held.part(partition)
        strange = {session: client for session, client in audit.strange.items() if session not in held}
        for session, client in strange.items():
            # Only what is strange twice: its opening or its end may be under way.
            if self._strange.get(session) == client:
                await self._store.suspend(session, client, window_s, cause="lost")
        for session in [each for each in self._strange if partition_of(each) == partition]:
            del self._strange[session]
        self._strange.update(strange)

    def _lose(self, record: SessionRecord) -> None:
        if self._held.has(record):
            self._taken(record)
