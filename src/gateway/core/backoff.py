"""
How long to wait before the next attempt: full jitter, so that many who failed together do not
come back together.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["backoff"]

_MOST_DOUBLINGS = 30


def backoff(attempt: int, base_s: float, most_s: float, random: Callable[[], float]) -> float:
    """
    Draw seconds to wait after *attempt* attempts (1 after the first), evenly from 0 to the doubled base.

    Args:
        random: Evenly from 0 to 1, as ``random.random``.
    """
    ceiling: float = min(most_s, base_s * 2 ** min(attempt - 1, _MOST_DOUBLINGS))
    return random() * ceiling
