"""
The open and resumable sessions of this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.ports.realtime import SessionRecord

__all__ = ["MemorySessions"]


class MemorySessions:
    """
    The ``ports.realtime.SessionStore`` of a process.
    """

    def __init__(self) -> None:
        self._records: dict[str, SessionRecord] = {}
        self._suspended: dict[str, float] = {}
        self._resumable: dict[tuple[str, str], str] = {}

    async def open(self, record: SessionRecord) -> SessionRecord:
        """
        Open a session, or take over the one left abnormally.
        """
        earlier_id = self._resumable.get((record.user, record.device)) if record.user else None
        if earlier_id is not None and self._suspended[earlier_id] > record.seen_at:
            self._settle(earlier_id)
            earlier = self._records[earlier_id]
            record = replace(
                record, id=earlier.id, started_at=earlier.started_at, facts={**record.facts, **earlier.facts}
            )
        self._records[record.id] = record
        return record

    async def suspend(self, session: str, resume_until: float, now: float) -> bool:
        """
        Let the session be taken over until *resume_until*.
        """
        record = self._records.get(session)
        if record is None or session in self._suspended:
            return False
        self._records[session] = replace(record, seen_at=now)
        self._suspended[session] = resume_until
        self._resumable[(record.user, record.device)] = session
        return True

    async def close(self, session: str, now: float) -> bool:
        """
        End a session.
        """
        if session not in self._records:
            return False
        if session in self._suspended:
            self._settle(session)
        del self._records[session]
        return True

    async def lapsed(self, now: float, limit: int = 1000) -> Sequence[SessionRecord]:
        """
        End the sessions that nobody resumed in time.
        """
        due = [session for session, until in self._suspended.items() if until <= now][:limit]
        ended: list[SessionRecord] = []
        for session in due:
            self._settle(session)
            ended.append(self._records.pop(session))
        return ended

    async def of_user(self, user: str) -> Sequence[SessionRecord]:
        """
        List the sessions of *user*.
        """
        return [record for record in self._records.values() if record.user == user]

    def _settle(self, session: str) -> None:
        """Let nobody take *session* over any more."""
        del self._suspended[session]
        record = self._records[session]
        if self._resumable.get((record.user, record.device)) == session:
            del self._resumable[(record.user, record.device)]
