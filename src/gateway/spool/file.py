"""
The file of a spool: SQLite with a write-ahead log, one writer.

``synchronous`` is NORMAL: a commit is handed to the kernel and survives the end of the process, however that
ends; the disk has it with the next ``beat``, so that a power cut costs what was committed since the last one. What is
there is consistent in both cases. The file is locked while it is open: two processes never write one.

Everything here blocks and belongs to one thread.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from gateway.ports.sessions import OutboxEvent, SessionRecord
from gateway.ports.spool import Contents, Session

__all__ = ["NAME", "Changes", "SpoolFault", "SpoolFile"]

NAME: Final = "sessions.sqlite3"

APPLICATION: Final = 0x67775350
"""In the head of the file: it is ours."""

VERSION: Final = 1

LOCK_S: Final = 0.2
"""How long another process is waited for that has the file."""

LOG_BYTES: Final = 4 * 1024 * 1024
"""What the write-ahead log may keep of the disk once it is copied."""

_SCHEMA: Final = (
    "CREATE TABLE sessions (id TEXT PRIMARY KEY, until REAL, record BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE events (number INTEGER PRIMARY KEY, event BLOB NOT NULL)",
    "CREATE TABLE alive (only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL, owner TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_BROKEN: Final = frozenset(("SQLITE_CORRUPT", "SQLITE_NOTADB"))

_ENCODER = msgspec.msgpack.Encoder()
_RECORD = msgspec.msgpack.Decoder(SessionRecord)
_EVENT = msgspec.msgpack.Decoder(OutboxEvent)


class SpoolFault(Exception):
    """
    The file cannot be read or written; the text says why in a line.

    Attributes:
        kind: ``locked``, ``full``, ``corrupt``, ``foreign``, ``gone`` or ``unusable``.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(slots=True)
class Changes:
    """
    What happened in one turn of the reactor, each session as it is at its end.

    Attributes:
        sessions: By id; None for one that is over.
        last: The number of the newest event, 0 for none.
        at: When; epoch seconds.
    """

    sessions: dict[str, Session | None] = field(default_factory=dict)
    events: dict[int, OutboxEvent] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    last: int = 0
    at: float = 0.0

    def __len__(self) -> int:
        return len(self.sessions) + len(self.events) + len(self.done)


class SpoolFile:
    """
    One file, open or not.

    Args:
        folder: Where it is; made if only it is missing.
        owner: A name that no other process has.

    Attributes:
        path: The file.
        moved: Where the last one that was corrupt is now; None if none was.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self.path = folder / NAME
        self.moved: Path | None = None
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def open(self) -> Contents:
        """
        Open the file unless it is open, make it if there is none, and read what another process left in it.

        One that is corrupt is moved aside, in the place of an earlier one, and a new one is made.

        Raises:
            SpoolFault: none of this can be done.
        """
        if self._db is not None:
            return Contents()
        try:
            return self._open()
        except SpoolFault as fault:
            self.close()
            if fault.kind != "corrupt":
                raise
        self._move_aside()
        try:
            return self._open()
        except SpoolFault:
            self.close()
            raise

    def _open(self) -> Contents:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            # Users' ids stand in it: for its owner alone, also the log beside it, which takes the file's mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._inode = self.path.stat().st_ino
        except OSError as error:
            raise SpoolFault(_kind_of(error), f"{self.path}: {error.strerror}") from error
        try:
            # The thread that opens is not always the one that closes: at the end nobody waits for it for ever.
            self._db = db = sqlite3.connect(self.path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")  # What is over leaves nothing of its user behind.
            db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            db.execute("BEGIN IMMEDIATE")
            self._check(db)
            contents = _read(db, self._owner)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from error
        except msgspec.MsgspecError as error:
            raise SpoolFault("corrupt", f"{self.path}: {error}") from error
        return contents

    def _check(self, db: sqlite3.Connection) -> None:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not application and not tables:
            for statement in _SCHEMA:
                db.execute(statement)
        elif application != APPLICATION:
            raise SpoolFault("foreign", f"{self.path}: is a database of something else")
        elif version != VERSION:
            raise SpoolFault("foreign", f"{self.path}: was written by another version ({version}, ours is {VERSION})")
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise SpoolFault("corrupt", f"{self.path}: {found}")

    def _move_aside(self) -> None:
        aside = self.path.with_name(f"{NAME}.corrupt")
        try:
            for suffix in ("-wal", "-shm"):
                self.path.with_name(NAME + suffix).unlink(missing_ok=True)
            self.path.replace(aside)
        except OSError as error:
            raise SpoolFault("unusable", f"{self.path}: is corrupt, and: {error.strerror}") from error
        self.moved = aside

    def write(self, several: Sequence[Changes]) -> None:
        """
        Write what happened, all of it or nothing.

        Raises:
            SpoolFault: nothing was written.
        """
        self._commit(several, None)

    def renew(self, contents: Contents) -> None:
        """
        Write *contents* in the place of everything that was there.

        Raises:
            SpoolFault: nothing was changed.
        """
        self._commit((), contents)

    def _commit(self, several: Sequence[Changes], contents: Contents | None) -> None:
        db = self._db
        if db is None:
            raise SpoolFault("gone", f"{self.path}: is not open")
        try:
            db.execute("BEGIN IMMEDIATE")
            if contents is not None:
                db.execute("DELETE FROM sessions")
                db.execute("DELETE FROM events")
                _put(db, contents.sessions)
                _append(db, contents.events)
            for changes in several:
                _put(db, [entry for entry in changes.sessions.values() if entry is not None])
                gone = [(session,) for session, entry in changes.sessions.items() if entry is None]
                db.executemany("DELETE FROM sessions WHERE id = ?", gone)
                _append(db, changes.events.items())
                db.executemany("DELETE FROM events WHERE number = ?", [(number,) for number in changes.done])
            at = contents.alive_at if contents is not None else several[-1].at
            db.execute("INSERT OR REPLACE INTO alive VALUES (1, ?, ?)", (at, self._owner))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            fault = self._fault(error)
            if fault.kind == "corrupt":
                self.close()
            raise fault from error

    def beat(self, at: float) -> None:
        """
        Write that the process lives, and see that the disk has everything written so far.

        Raises:
            SpoolFault: it could not be, or the file is not where it was.
        """
        try:
            there = self.path.stat().st_ino
        except OSError:
            there = 0
        if there != self._inode:
            self.close()
            raise SpoolFault("gone", f"{self.path}: was taken away")
        self.write([Changes(at=at)])
        assert self._db is not None
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """
        Close the file, if it is open; somebody else may have it now.
        """
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _fault(self, error: sqlite3.Error) -> SpoolFault:
        name = getattr(error, "sqlite_errorname", "")
        kind = "unusable"
        if name in _BROKEN or name.startswith("SQLITE_CORRUPT"):
            kind = "corrupt"
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return SpoolFault("locked", f"{self.path}: another process has it")
        elif name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):
            kind = "full"
        return SpoolFault(kind, f"{self.path}: {error}")


def _kind_of(error: OSError) -> str:
    return "full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "unusable"


def _put(db: sqlite3.Connection, sessions: Iterable[Session]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
        [(record.id, until, _ENCODER.encode(replace(record, note=b""))) for record, until in sessions],
    )


def _append(db: sqlite3.Connection, events: Iterable[tuple[int, OutboxEvent]]) -> None:
    db.executemany(
        "INSERT INTO events VALUES (?, ?)",
        [(number, _ENCODER.encode(event)) for number, event in events],
    )


def _read(db: sqlite3.Connection, owner: str) -> Contents:
    alive = db.execute("SELECT at, owner FROM alive").fetchone()
    if alive and alive[1] == owner:  # It was ours until it could not be written: all of it is in our stores.
        return Contents()
    sessions = [(_RECORD.decode(record), until) for until, record in db.execute("SELECT until, record FROM sessions")]
    sessions.sort(key=lambda session: session[0].started_at)
    events = [(number, _EVENT.decode(event)) for number, event in db.execute("SELECT * FROM events ORDER BY number")]
    return Contents(sessions, events, alive[0] if alive else 0.0)
