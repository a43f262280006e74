"""
Profiles in SQLite.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

__all__ = ["EDITABLE", "Profiles"]

EDITABLE = ("name", "country", "motto")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS player (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    country TEXT NOT NULL,
    motto TEXT NOT NULL,
    rating INTEGER NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    updated_at REAL NOT NULL
) WITHOUT ROWID
"""

_FIRST = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "trent")
_COUNTRIES = ("DE", "NL", "PT", "JP", "BR")


class Profiles:
    """
    A connection to the database, with players in it from the start.

    Every method blocks: for one thread that is not the reactor's.

    Args:
        path: The file; it is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA busy_timeout = 2000")
        self._db.execute(_SCHEMA)
        self._db.executemany(
            "INSERT OR IGNORE INTO player (id, name, country, motto, rating, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (name, name.capitalize(), _COUNTRIES[index % len(_COUNTRIES)], "", 1200 + 37 * index % 400, time.time())
                for index, name in enumerate(_FIRST)
            ],
        )

    def page(self, after: str, limit: int) -> list[dict[str, Any]]:
        """
        Return the next *limit* players behind the id *after*, by id.
        """
        rows = self._db.execute("SELECT * FROM player WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [dict(row) for row in rows]

    def count(self) -> int:
        """
        Return how many players there are.
        """
        return int(self._db.execute("SELECT count(*) FROM player").fetchone()[0])

    def get(self, player_id: str) -> dict[str, Any] | None:
        """
        Return one profile.
        """
        row = self._db.execute("SELECT * FROM player WHERE id = ?", (player_id,)).fetchone()
        return dict(row) if row else None

    def update(self, player_id: str, fields: dict[str, str]) -> dict[str, Any] | None:
        """
        Change *fields* (of ``EDITABLE``) of one profile; return it, or None if there is none.
        """
        columns = "".join(f"{name} = ?, " for name in fields)
        self._db.execute(
            f"UPDATE player SET {columns} version = version + 1, updated_at = ? WHERE id = ?",
            (*fields.values(), time.time(), player_id),
        )
        return self.get(player_id)

    def close(self) -> None:
        """
        Close the file; its write-ahead log is folded in.
        """
        self._db.close()
