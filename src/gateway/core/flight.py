"""
What a connection did last: kept while it lives, told when it ends badly.

Cheap enough for every command: an entry is a moment, a word and a name that is there anyway, and nothing is
formatted until somebody looks.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Flight"]

KEPT: Final = 16
"""Operations that are kept; they take about 3 KiB."""

LONGEST: Final = 96
"""Signs of a name that are told: channels and methods may be long."""

_PREFIXES: Final = ("c:", "m:")


class Flight(deque[tuple[float, "str | type", str]]):
    """
    The last operations of one connection, as (moment, what, about what). Appended to as it is, on the way of each command.

    A moment is in seconds of the clock; *what* is a word, or the class of a command; it is about a channel or a
    method, a lane's name (``c:lobby``) will do.

    Args:
        began: When the connection came.
    """

    __slots__ = ("_began",)

    def __init__(self, began: float) -> None:
        super().__init__(maxlen=KEPT)
        self._began = began

    def told(self) -> list[str]:
        """
        Write what is kept, the oldest first: seconds since the connection came, what, about what.
        """
        return [
            f"{at - self._began:.3f} {what if isinstance(what, str) else what.__name__.lower()} {_name(about)}".rstrip()
            for at, what, about in self
        ]


def _name(about: str) -> str:
    if about == ".":
        return ""
    about = about[2:] if about.startswith(_PREFIXES) else about
    return about if len(about) <= LONGEST else f"{about[:LONGEST]}…"
