"""
The sessions of every instance, in Redis.

Each of 64 partitions has its keys in one slot, so that every step is one script, with what is to be
told of it. A session's id says its partition. Scripts of several partitions leave together in one write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.ports.sessions import MOST_EVENTS, MOST_OF_DEVICE, Audit, Contested, Event, Opened, SessionRecord
from gateway.redis.client import Store
from gateway.redis.connection import Part, together
from gateway.redis.scripts import load
from gateway.redis.session_records import body_of, device_of, facts_of, record_of, tally_of

__all__ = ["RedisSessions"]

QUICKLY_S: Final = 0.1
"""Answers that took longer say too little of a server's clock."""

_NO_EVENT: Final = Event("", b"")
_SESSIONS, _SUSPENDED, _HELD, _DEVICES = "sessions", "suspended", "held", "devices"
_EVENTS, _OWED, _OVERFLOW = "events", "owed", "overflow"


class RedisSessions:
    """
    The ``ports.sessions.SessionStore`` in Redis.

    Args:
        most: Events that may wait, in all partitions together.
        seconds: A monotonic clock. With it a step has the time at which it was sent, though a server that
            hung makes it much later.
    """

    def __init__(self, redis: Store, *, most: int = MOST_EVENTS, seconds: Callable[[], float] | None = None) -> None:
        self._redis = redis
        self._seconds = seconds
        self._ahead_s: float | None = None
        self._most = most // PARTITIONS
        self._names: dict[tuple[int, tuple[str, ...]], list[str]] = {}

    def _keys(self, partition: int, *kinds: str) -> list[str]:
        names = self._names.get((partition, kinds))
        if names is None:
            names = [self._redis.keys.partition(kind, partition) for kind in kinds]
            self._names[(partition, kinds)] = names
        return names

    def _when(self, ago_s: float) -> int:
        """When something happened *ago_s* seconds ago, as scripts take it."""
        if self._seconds is None or self._ahead_s is None:
            return -_ms(ago_s)
        return _ms(self._seconds() + self._ahead_s - ago_s)

    def _compare(self, sent_at: float, now_ms: int) -> None:
        """Learn how far the servers' clock is ahead of ours, if the answer came quickly."""
        if self._seconds is not None:
            took_s = self._seconds() - sent_at
            if took_s < QUICKLY_S:
                self._ahead_s = now_ms / 1000 - sent_at - took_s / 2

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
        event, resumed = event or _NO_EVENT, resumed or _NO_EVENT
        reply = await self._redis.run(
            load("session_open"),
            self._keys(partition_of(record.id), _SESSIONS, _SUSPENDED, _HELD, _DEVICES, _EVENTS, _OWED, _OVERFLOW),
            [
                *(record.id, record.instance, record.client, device_of(record), body_of(record), facts_of(record)),
                *(record.note, self._when(ago_s), int(resume)),
                *((over.id, over.client) if over is not None else ("", "")),
                *(event.id, event.data, resumed.id, resumed.data, self._most, MOST_OF_DEVICE),
                *beside,
            ],
        )
        if reply[0] == b"contested":
            return Contested(_records(reply[1:]))
        return Opened(record_of(reply[1], reply[2]), goes_on=reply[0] == b"goes on")

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
        event = event or _NO_EVENT
        done: int = await self._redis.run(
            load("session_suspend"),
            self._keys(partition_of(session), _SESSIONS, _SUSPENDED, _HELD, _EVENTS, _OVERFLOW),
            [session, client, _ms(window_s), cause, self._when(ago_s), event.id, event.data, self._most, past],
        )
        return done == 1

    async def close(self, session: str, client: str, *, ago_s: float = 0.0, event: Event | None = None) -> bool:
        """
        End a session.
        """
        event = event or _NO_EVENT
        done: int = await self._redis.run(
            load("session_close"),
            self._keys(partition_of(session), _SESSIONS, _SUSPENDED, _HELD, _DEVICES, _EVENTS, _OVERFLOW),
            [session, client, self._when(ago_s), event.id, event.data, self._most],
        )
        return done == 1

    async def get(self, session: str) -> SessionRecord | None:
        """
        Read a session.
        """
        (sessions,) = self._keys(partition_of(session), _SESSIONS)
        found: bytes | None = await self._redis.call("HGET", sessions, session)
        return record_of(session.encode(), found) if found is not None else None

    async def note(self, notes: Mapping[str, tuple[str, bytes]]) -> None:
        """
        Write notes of open sessions.
        """
        parts: dict[int, list[Part]] = {}
        for session, (client, note) in notes.items():
            parts.setdefault(partition_of(session), []).extend((session, client, note))
        script = load("session_note")
        await together(self._redis.run(script, self._keys(n, _SESSIONS), args) for n, args in parts.items())

    async def lapsing(self, partitions: Collection[int], limit: int = 50) -> Sequence[SessionRecord]:
        """
        List the sessions that nobody resumed in time.
        """
        script = load("session_lapsing")
        sent_at = self._seconds() if self._seconds is not None else 0.0
        replies = await together(
            self._redis.run(script, self._keys(n, _SESSIONS, _SUSPENDED), [limit]) for n in partitions
        )
        if replies:
            self._compare(sent_at, replies[0][0])
        return [record for reply in replies for record in _records(reply[1:])]

    async def lapse(self, ends: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[SessionRecord]:
        """
        End them.
        """
        parts: dict[int, list[tuple[SessionRecord, Event]]] = {}
        for record, event in ends:
            parts.setdefault(partition_of(record.id), []).append((record, event or _NO_EVENT))
        script = load("session_lapse")
        replies = await together(
            self._redis.run(
                script,
                self._keys(n, _SESSIONS, _SUSPENDED, _DEVICES, _EVENTS, _OVERFLOW),
                [self._most, *(part for r, event in some for part in (r.id, r.client, event.id, event.data))],
            )
            for n, some in parts.items()
        )
        return [
            record
            for some, reply in zip(parts.values(), replies, strict=True)
            for (record, _), ended in zip(some, reply, strict=True)
            if ended
        ]

    async def lose(self, instance: str, seen_at: float, until: float, *, limit: int = 200) -> int:
        """
        Suspend what a dead instance held.
        """
        script = load("session_lose")
        args: list[Part] = [instance, _ms(seen_at), _ms(until), limit, self._most]
        replies = await together(
            self._redis.run(script, self._keys(n, _SESSIONS, _SUSPENDED, _HELD, _OWED, _OVERFLOW), args)
            for n in range(PARTITIONS)
        )
        return sum(replies)

    async def restore(self, records: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[str]:
        """
        Write sessions that are open here.
        """
        parts: dict[int, list[tuple[SessionRecord, Event]]] = {}
        for record, event in records:
            parts.setdefault(partition_of(record.id), []).append((record, event or _NO_EVENT))
        script = load("session_restore")
        replies = await together(
            self._redis.run(
                script,
                self._keys(n, _SESSIONS, _SUSPENDED, _HELD, _DEVICES, _EVENTS, _OVERFLOW),
                [self._most, *(part for record, event in some for part in _restored(record, event))],
            )
            for n, some in parts.items()
        )
        return [
            record.id
            for some, reply in zip(parts.values(), replies, strict=True)
            for (record, _), done in zip(some, reply, strict=True)
            if not done
        ]

    async def audit(self, partition: int, instance: str, held: Mapping[str, str]) -> Audit:
        """
        Compare what *instance* holds with what stands here.
        """
        missing, taken, strange = await self._redis.run(
            load("session_audit"),
            self._keys(partition, _SESSIONS, _HELD),
            [instance, *(part for pair in held.items() for part in pair)],
        )
        found = [each.decode() for each in strange]
        return Audit(
            [each.decode() for each in missing],
            [each.decode() for each in taken],
            dict(zip(found[::2], found[1::2], strict=True)),
        )

    async def holders(self) -> Collection[str]:
        """
        Name the instances that hold sessions.
        """
        script = load("session_holders")
        replies = await together(self._redis.run(script, self._keys(n, _HELD), []) for n in range(PARTITIONS))
        return {name.decode() for reply in replies for name in reply}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _records(reply: Sequence[bytes]) -> list[SessionRecord]:
    return [record_of(id_, value) for id_, value in zip(reply[::2], reply[1::2], strict=True)]


def _restored(record: SessionRecord, event: Event) -> tuple[Part, ...]:
    started = _ms(record.started_at)
    mine = (record.id, record.instance, record.client, device_of(record), started, body_of(record))
    return (*mine, tally_of(record), record.note, event.id, event.data)
