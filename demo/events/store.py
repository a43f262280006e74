"""
Sessions in SQLite, made of the events that came.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.protos.event.v1 import events_pb2

__all__ = ["SessionTable"]

_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS event (
        id TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        kind INTEGER NOT NULL,
        at REAL NOT NULL,
        number INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS session (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        client_type TEXT NOT NULL,
        os TEXT NOT NULL,
        browser TEXT NOT NULL,
        app_version TEXT NOT NULL,
        transport TEXT NOT NULL,
        country TEXT NOT NULL,
        instance TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        duration_s REAL,
        accuracy_s REAL,
        cause TEXT NOT NULL DEFAULT '',
        close_code INTEGER NOT NULL DEFAULT 0,
        resumes INTEGER NOT NULL DEFAULT 0,
        frames INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS session_by_start ON session (started_at)",
    "CREATE INDEX IF NOT EXISTS session_by_user ON session (user, started_at)",
    "CREATE INDEX IF NOT EXISTS session_by_end ON session (ended_at)",
)
_KNOWN = (events_pb2.SESSION_STARTED, events_pb2.SESSION_RESUMED, events_pb2.SESSION_ENDED)


class SessionTable:
    """
    A connection to the database; may be used from any thread.

    Args:
        path: The file; it is made if it is not there.

    Attributes:
        taken: Events that were new, since this process began.
        again: Events that had come before.
    """

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        # An event that was answered for is not sent again: it has to be on the disk by then.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 2000")
        for statement in _SCHEMA:
            self._db.execute(statement)
        (self._number,) = self._db.execute("SELECT coalesce(max(number), 0) FROM event").fetchone()
        self.taken = 0
        self.again = 0

    def take(self, events: Iterable[Any]) -> dict[str, str]:
        """
        Keep *events*, all in one step; one that was here before changes nothing.

        Returns:
            Why some were not taken, by their ids: they never will be.

        Raises:
            sqlite3.Error: nothing was kept.
        """
        refused: dict[str, str] = {}
        new = before = 0
        with self._turn:
            number = self._number
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for event in events:
                    if not event.id or not event.session or event.kind not in _KNOWN:
                        refused[event.id] = "an event has an id, a session, and a kind that is known"
                        continue
                    kept = self._db.execute(
                        "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?)",
                        (event.id, event.session, event.kind, _seconds(event.at), number + 1),
                    ).rowcount
                    if not kept:
                        before += 1
                        continue
                    new, number = new + 1, number + 1
                    self._apply(event)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._number = number
            self.taken += new
            self.again += before
        return refused

    def _apply(self, event: Any) -> None:
        started_at = _seconds(event.started_at) or _seconds(event.at)
        # Whichever comes first makes the row: a beginning may have been lost where there was no room for it.
        self._db.execute(
            "INSERT OR IGNORE INTO session"
            " (id, user, client_type, os, browser, app_version, transport, country, instance, started_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(event.session, event.user, event.client_type or "other", event.os, event.browser),
                *(event.app_version, event.transport, event.country, event.instance, started_at),
            ),
        )
        if event.kind == events_pb2.SESSION_RESUMED:
            self._db.execute(
                "UPDATE session SET resumes = max(resumes + 1, ?), instance = ? WHERE id = ?",
                (event.resumes, event.instance, event.session),
            )
        elif event.kind == events_pb2.SESSION_ENDED:
            ended_at = _seconds(event.ended_at) or _seconds(event.at)
            self._db.execute(
                "UPDATE session SET ended_at = ?, duration_s = ?, accuracy_s = ?, cause = ?, close_code = ?,"
                " resumes = max(resumes, ?), frames = ?, bytes = ? WHERE id = ?",
                (
                    *(ended_at, event.duration_s or max(0.0, ended_at - started_at), event.accuracy_s, event.cause),
                    *(event.close_code, event.resumes, event.frames_in + event.frames_out),
                    *(event.bytes_in + event.bytes_out, event.session),
                ),
            )

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """
        Read what *statement* selects.
        """
        with self._turn:
            return [dict(row) for row in self._db.execute(statement, values)]

    def close(self) -> None:
        """
        Close the file; its write-ahead log is folded in.
        """
        with self._turn:
            self._db.close()


def _seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)
