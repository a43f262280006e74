"""
Much, a little at a time: what looks at everything lets the reactor turn in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.task import deferLater

__all__ = ["PIECE", "in_pieces"]

PIECE: Final = 500
"""Things that are looked at in one turn: a millisecond at most."""

_T = TypeVar("_T")


async def in_pieces(clock: Any, things: Sequence[_T], size: int = PIECE) -> AsyncIterator[Sequence[_T]]:
    """
    Cut *things*; between two pieces the reactor has a turn.
    """
    for begin in range(0, len(things), size):
        if begin:
            await deferLater(clock, 0)
        yield things[begin : begin + size]
