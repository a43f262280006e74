"""
The rules of Connect Four, pure: a board, and what a disc does to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["COLUMNS", "ROWS", "Board", "Illegal"]

COLUMNS = 7
ROWS = 6
TO_WIN = 4
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


class Illegal(ValueError):
    """
    A move that the rules do not allow.
    """


@dataclass(slots=True)
class Board:
    """
    Seven columns of up to six discs; the side that begins is ``R``.

    Attributes:
        columns: From the left, each from the bottom.
        moves: Columns in the order they were played.
        winner: ``R`` or ``Y`` once four of it stand in a line.
    """

    columns: list[str] = field(default_factory=lambda: [""] * COLUMNS)
    moves: list[int] = field(default_factory=list)
    winner: str = ""

    @property
    def turn(self) -> str:
        """Whose disc is next."""
        return "RY"[len(self.moves) % 2]

    @property
    def full(self) -> bool:
        """No column takes another disc."""
        return len(self.moves) == ROWS * COLUMNS

    def drop(self, column: int) -> None:
        """
        Let the side whose turn it is drop a disc.

        Raises:
            Illegal: there is no such column, it is full, or the game is over.
        """
        if self.winner or self.full:
            raise Illegal("the game is over")
        if not 0 <= column < COLUMNS:
            raise Illegal(f"columns are 0 to {COLUMNS - 1}")
        if len(self.columns[column]) == ROWS:
            raise Illegal(f"column {column} is full")
        disc = self.turn
        self.columns[column] += disc
        self.moves.append(column)
        if self._wins(column, len(self.columns[column]) - 1, disc):
            self.winner = disc

    def rows(self) -> list[str]:
        """
        Show the board, the top row first.
        """
        return [
            "".join(column[row] if row < len(column) else "." for column in self.columns)
            for row in range(ROWS - 1, -1, -1)
        ]

    def _at(self, column: int, row: int) -> str:
        if not 0 <= column < COLUMNS or not 0 <= row < len(self.columns[column]):
            return ""
        return self.columns[column][row]

    def _wins(self, column: int, row: int, disc: str) -> bool:
        for across, up in _DIRECTIONS:
            length = 1
            for sign in (1, -1):
                step = 1
                while self._at(column + sign * step * across, row + sign * step * up) == disc:
                    length += 1
                    step += 1
            if length >= TO_WIN:
                return True
        return False
