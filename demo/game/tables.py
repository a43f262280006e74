"""
The tables, in memory: who sits where, what was played, who waits for changes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from demo.game.rules import Board, Illegal

__all__ = ["Refused", "Table", "Tables"]

MOST_TABLES = 10_000
MOST_RESULTS = 100_000
RED, YELLOW = 1, 2
WAITING, PLAYING, WON, DRAWN = 1, 2, 3, 4
SIGNS = {"R": RED, "Y": YELLOW}


class Refused(Exception):
    """
    What a caller asked for cannot be.

    Attributes:
        status: The name of a gRPC status.
        reason: A word that a program can act on.
    """

    def __init__(self, status: str, reason: str, text: str, field_path: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.field = field_path


@dataclass(slots=True)
class Table:
    """
    One table. Changed under the lock of ``Tables`` only.
    """

    id: str
    name: str
    created_at: float
    changed_at: float
    version: int = 1
    seats: dict[int, str] = field(default_factory=dict)
    board: Board = field(default_factory=Board)
    winner: int = 0
    over: bool = False

    @property
    def phase(self) -> int:
        """Waiting, playing, won or drawn."""
        if self.winner:
            return WON
        if self.board.full:
            return DRAWN
        return PLAYING if len(self.seats) == len(SIGNS) else WAITING


class Tables:
    """
    Every table; calls come from many threads.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.moved = threading.Condition(self.lock)
        self.version = 0
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._results: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        self._changed: Callable[[Table], None] = lambda _table: None

    def watch(self, changed: Callable[[Table], None]) -> None:
        """
        Have *changed* told of each table that has changed, within the lock.
        """
        self._changed = changed

    def once(self, method: str, user: str, key: str, make: Callable[[], bytes]) -> bytes:
        """
        Make a result, or give the one that the same call with the same *key* had before.
        """
        with self.lock:
            if not key:
                return make()
            name = (method, user, key)
            if name not in self._results:
                self._results[name] = make()
                if len(self._results) > MOST_RESULTS:
                    self._results.popitem(last=False)
            return self._results[name]

    def create(self, name: str) -> Table:
        """Open a table."""
        name = name.strip()
        if not 1 <= len(name) <= 40:
            raise Refused("INVALID_ARGUMENT", "BAD_NAME", "a name has 1 to 40 characters", "table.name")
        with self.lock:
            if len(self._tables) >= MOST_TABLES:
                raise Refused("RESOURCE_EXHAUSTED", "TOO_MANY_TABLES", "there are too many tables")
            now = time.time()
            table = Table(secrets.token_hex(4), name, now, now)
            self._tables[table.id] = table
            self._touch(table)
            return table

    def get(self, table_id: str) -> Table:
        """Find a table."""
        table = self._tables.get(table_id)
        if table is None:
            raise Refused("NOT_FOUND", "NO_TABLE", "there is no such table")
        return table

    def newest(self) -> list[Table]:
        """List all, the newest first."""
        with self.lock:
            return list(reversed(self._tables.values()))

    def rename(self, table_id: str, user: str, name: str) -> Table:
        """Give a table another name; whoever sits there may."""
        with self.lock:
            table = self.get(table_id)
            if user not in table.seats.values():
                raise Refused("PERMISSION_DENIED", "NOT_SEATED", "only players of the table rename it")
            name = name.strip()
            if not 1 <= len(name) <= 40:
                raise Refused("INVALID_ARGUMENT", "BAD_NAME", "a name has 1 to 40 characters", "table.name")
            table.name = name
            self._touch(table)
            return table

    def sit(self, table_id: str, user: str, seat: int) -> Table:
        """Take a seat; sitting where one sits already changes nothing."""
        with self.lock:
            table = self.get(table_id)
            if seat not in (RED, YELLOW):
                raise Refused("INVALID_ARGUMENT", "BAD_SEAT", "a seat is RED or YELLOW", "seat")
            if table.seats.get(seat) == user:
                return table
            if seat in table.seats:
                raise Refused("ALREADY_EXISTS", "SEAT_TAKEN", "somebody sits there")
            if user in table.seats.values():
                raise Refused("FAILED_PRECONDITION", "SEATED", "you sit at this table already")
            if table.over:
                raise Refused("FAILED_PRECONDITION", "GAME_OVER", "the game is over")
            table.seats[seat] = user
            self._touch(table)
            return table

    def leave(self, table_id: str, user: str) -> None:
        """Give a seat up; during a game the other side wins."""
        with self.lock:
            table = self.get(table_id)
            seat = next((seat for seat, sitting in table.seats.items() if sitting == user), None)
            if seat is None:
                raise Refused("FAILED_PRECONDITION", "NOT_SEATED", "you do not sit at this table")
            if table.phase == PLAYING and table.board.moves:
                table.winner = RED + YELLOW - seat
                table.over = True
            else:
                del table.seats[seat]
            self._touch(table)

    def drop(self, table_id: str, user: str, column: int) -> Table:
        """Play a disc."""
        with self.lock:
            table = self.get(table_id)
            seat = next((seat for seat, sitting in table.seats.items() if sitting == user), None)
            if seat is None:
                raise Refused("PERMISSION_DENIED", "NOT_SEATED", "you do not sit at this table")
            if table.phase != PLAYING:
                raise Refused("FAILED_PRECONDITION", "NOT_PLAYING", "no game is under way")
            if SIGNS[table.board.turn] != seat:
                raise Refused("FAILED_PRECONDITION", "NOT_YOUR_TURN", "it is not your turn")
            try:
                table.board.drop(column)
            except Illegal as illegal:
                raise Refused("INVALID_ARGUMENT", "ILLEGAL_MOVE", str(illegal), "column") from illegal
            if table.board.winner:
                table.winner = SIGNS[table.board.winner]
            table.over = bool(table.winner) or table.board.full
            self._touch(table)
            return table

    def _touch(self, table: Table) -> None:
        self.version += 1
        table.version += 1
        table.changed_at = time.time()
        self._changed(table)
        self.moved.notify_all()
