"""
What may happen a thousand times a second, and is worth a line now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["EVERY_S", "Seldom"]

EVERY_S: Final = 10.0
"""The shortest time between two lines about the same."""

_MOST: Final = 256


class Seldom:
    """
    Says of the first time that it is to be told, and then at most once in ``EVERY_S``.

    Args:
        seconds: A monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def times(self, *words: str) -> int:
        """
        Say for how many times a line about *words*, of a closed set, stands now; 0 for none yet.
        """
        now = self._seconds()
        due, times = self._said.get(words, (now, 0))
        if now < due:
            self._said[words] = (due, times + 1)
            return 0
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[words] = (now + EVERY_S, 0)
        return times + 1
