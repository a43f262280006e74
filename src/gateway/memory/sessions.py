"""
The open and resumable sessions of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.memory.outbox import MemoryOutbox
from gateway.ports.sessions import MOST_OF_DEVICE, Audit, Contested, Event, Opened, SessionRecord
from gateway.ports.spool import Session, Spool

__all__ = ["MemorySessions"]


class MemorySessions:
    """
    The ``ports.sessions.SessionStore`` of a process; several nodes in it may share one.

    Args:
        wall: Seconds since the epoch: the store's clock.
        events: Where what is to be told goes.
        owed: Where the notes of lost connections go.
        spool: Where sessions are written down.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        events: MemoryOutbox | None = None,
        owed: MemoryOutbox | None = None,
        spool: Spool | None = None,
    ) -> None:
        self._spool = spool
        self._wall = wall
        self._events = events if events is not None else MemoryOutbox(wall)
        self._owed = owed if owed is not None else MemoryOutbox(wall)
        self._records: dict[str, SessionRecord] = {}
        self._first: dict[str, Mapping[str, Any]] = {}
        self._until: dict[str, float] = {}
        self._held: list[dict[str, None]] = [{} for _ in range(PARTITIONS)]
        self._devices: dict[tuple[str, str], dict[str, None]] = {}

    async def open(
        self,
        record: SessionRecord,
        *,
        ago_s: float = 0.0,
        beside: Collection[str] = (),
        over: SessionRecord | None = None,
        resume: bool = True,
        event: Event | None = None,
        resumed: Event | None = None,
    ) -> Opened | Contested:
        """
        Open a session, or go on with an earlier one.
        """
        opened = self._open(record, ago_s, beside, over, event, resumed, resume=resume)
        if self._spool is not None:
            await self._spool.settled()  # A client knows no session that a crash would forget.
        return opened

    def _open(
        self,
        record: SessionRecord,
        ago_s: float,
        beside: Collection[str],
        over: SessionRecord | None,
        event: Event | None,
        resumed: Event | None,
        *,
        resume: bool,
    ) -> Opened | Contested:
        partition_of(record.id)  # A store that keeps them apart would refuse it; so does this one.
        there = self._records.get(record.id)
        if there is not None:
            return Opened(there, goes_on=False)
        now = self._wall()
        rivals = []
        newest = reversed(self._devices.get((record.user, record.device), {}) if resume else {})
        for session in islice(newest, MOST_OF_DEVICE):
            earlier = self._records[session]
            until = self._until.get(session)
            if until is not None:
                if until > now - ago_s:
                    return self._go_on(earlier, record, now - ago_s, resumed)
            elif over is not None and session == over.id and earlier.client == over.client:
                self._owe(earlier, now)
                return self._go_on(earlier, record, now - ago_s, resumed)
            elif session not in beside and earlier.instance != record.instance:
                rivals.append(earlier)
        if rivals:
            return Contested(rivals)
        began = now - ago_s
        record = replace(record, started_at=began, seen_at=began, cause="", resumes=0, past=b"")
        self._put(record)
        self._events.append(record, event, began)
        return Opened(record, goes_on=False)

    def _go_on(self, earlier: SessionRecord, record: SessionRecord, at: float, event: Event | None) -> Opened:
        if self._until.pop(earlier.id, None) is not None:
            self._held[partition_of(earlier.id)][earlier.id] = None
        facts = {**record.facts, **self._first[earlier.id]}
        record = replace(
            record,
            id=earlier.id,
            started_at=earlier.started_at,
            seen_at=at,
            facts=facts,
            cause="",
            resumes=earlier.resumes + 1,
            past=earlier.past,
        )
        self._records[record.id] = record
        self._tell_spool(record.id)
        self._events.append(record, event, at)
        return Opened(record, goes_on=True)

    async def suspend(
        self,
        session: str,
        client: str,
        window_s: float,
        *,
        cause: str,
        ago_s: float = 0.0,
        past: bytes = b"",
        event: Event | None = None,
    ) -> bool:
        """
        Let the session be taken over for a while.
        """
        record = self._mine(session, client)
        if record is None or session in self._until:
            return False
        lost_at = self._wall() - ago_s
        self._suspend(replace(record, past=past), lost_at, lost_at + window_s, cause)
        self._events.append(record, event, lost_at)
        return True

    async def close(self, session: str, client: str, *, ago_s: float = 0.0, event: Event | None = None) -> bool:
        """
        End a session.
        """
        record = self._mine(session, client)
        if record is None:
            return False
        self._drop(session)
        self._events.append(record, event, self._wall() - ago_s)
        return True

    async def get(self, session: str) -> SessionRecord | None:
        """
        Read a session.
        """
        return self._records.get(session)

    async def note(self, notes: Mapping[str, tuple[str, bytes]]) -> None:
        """
        Write notes of open sessions.
        """
        for session, (client, note) in notes.items():
            record = self._mine(session, client)
            if record is not None and session not in self._until:
                self._records[session] = replace(record, note=note)

    async def lapsing(self, partitions: Collection[int], limit: int = 50) -> Sequence[SessionRecord]:
        """
        List the sessions that nobody resumed in time.
        """
        now = self._wall()
        due = [
            session for session, until in self._until.items() if until <= now and partition_of(session) in partitions
        ]
        return [self._records[session] for session in due[:limit]]

    async def lapse(self, ends: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[SessionRecord]:
        """
        End them.
        """
        now = self._wall()
        ended = []
        for record, event in ends:
            mine = self._mine(record.id, record.client)
            if mine is not None and self._until.get(record.id, now + 1.0) <= now:
                self._drop(record.id)
                self._events.append(mine, event, mine.seen_at)
                ended.append(mine)
        return ended

    async def lose(self, instance: str, seen_at: float, until: float, *, limit: int = 200) -> int:
        """
        Suspend what a dead instance held.
        """
        lost = 0
        for held in self._held:
            some = [record for record in map(self._records.__getitem__, held) if record.instance == instance][:limit]
            for record in some:
                self._owe(record, seen_at)
                self._suspend(record, seen_at, until, "instance_lost")
            lost += len(some)
        return lost

    async def restore(self, records: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[str]:
        """
        Write sessions that are open here.
        """
        refused = []
        for record, event in records:
            there = self._records.get(record.id)
            if there is not None and there.client != record.client and record.id not in self._until:
                refused.append(record.id)
            elif there is None or there.client != record.client or record.id in self._until:
                self._until.pop(record.id, None)
                self._put(replace(record, cause=""))
                if there is None:
                    self._events.append(record, event, record.started_at)
            elif there.instance != record.instance:
                self._records[record.id] = replace(there, instance=record.instance)
                self._tell_spool(record.id)
        return refused

    async def audit(self, partition: int, instance: str, held: Mapping[str, str]) -> Audit:
        """
        Compare what *instance* holds with what stands here.
        """
        missing = [session for session in held if session not in self._records]
        taken = [
            session
            for session, client in held.items()
            if (record := self._records.get(session)) is not None
            and (record.client != client or session in self._until)
        ]
        strange = {
            record.id: record.client
            for record in map(self._records.__getitem__, self._held[partition])
            if record.instance == instance and record.id not in held
        }
        return Audit(missing, taken, strange)

    async def holders(self) -> Collection[str]:
        """
        Name the instances that hold sessions.
        """
        return {self._records[session].instance for held in self._held for session in held}

    def _mine(self, session: str, client: str) -> SessionRecord | None:
        record = self._records.get(session)
        return record if record is not None and record.client == client else None

    def _owe(self, record: SessionRecord, at: float) -> None:
        if record.note:
            self._owed.append(record, Event(record.client, record.note), at)

    def _put(self, record: SessionRecord) -> None:
        self._records[record.id] = record
        self._held[partition_of(record.id)][record.id] = None
        self._first.setdefault(record.id, record.facts)
        if record.user:
            self._devices.setdefault((record.user, record.device), {})[record.id] = None
        self._tell_spool(record.id)

    def _suspend(self, record: SessionRecord, seen_at: float, until: float, cause: str) -> None:
        self._records[record.id] = replace(record, seen_at=seen_at, cause=cause, note=b"")
        self._until[record.id] = until
        self._held[partition_of(record.id)].pop(record.id, None)
        self._tell_spool(record.id)

    def _tell_spool(self, session: str) -> None:
        if self._spool is not None:
            self._spool.put(self._records[session], self._until.get(session))

    def contents(self) -> Sequence[Session]:
        """
        List all sessions, the oldest first.
        """
        return [(record, self._until.get(record.id)) for record in self._records.values()]

    def take_back(self, left: Sequence[Session], alive_at: float, window_s: float, grace_s: float) -> None:
        """
        Take sessions of an earlier process, which was last known alive at *alive_at*: none has a connection any more.

        Those that were open are lost, and may be resumed within *window_s* of that, and *grace_s* from now.
        """
        now = self._wall()
        for record, until in left:
            if record.id in self._records:
                continue
            if until is not None:
                self._put_back(record, until)
            else:
                seen_at = min(now, max(record.seen_at, alive_at))
                lost = replace(record, seen_at=seen_at, cause="instance_lost")
                self._put_back(lost, max(seen_at + window_s, now + min(window_s, grace_s)))

    def _put_back(self, record: SessionRecord, until: float) -> None:
        self._records[record.id] = record
        self._first[record.id] = record.facts
        self._until[record.id] = until
        if record.user:
            self._devices.setdefault((record.user, record.device), {})[record.id] = None

    def _drop(self, session: str) -> None:
        """Forget a session."""
        record = self._records.pop(session)
        if self._spool is not None:
            self._spool.drop(session)
        del self._first[session]
        self._until.pop(session, None)
        self._held[partition_of(session)].pop(session, None)
        device = self._devices.get((record.user, record.device))
        if device is not None:
            device.pop(session, None)
            if not device:
                del self._devices[(record.user, record.device)]
