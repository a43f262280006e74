"""
How long to wait before the next attempt: full jitter, so that many who failed together do not
come back together; never sooner than the backend asked for.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["backoff", "retry_after_s"]

_MOST_DOUBLINGS = 30
_MOST_DIGITS = 9


def backoff(
    attempt: int, base_s: float, most_s: float, random: Callable[[], float], *, at_least_s: float = 0.0
) -> float:
    """
    Draw seconds to wait after *attempt* attempts (1 after the first), evenly from 0 to the doubled base.

    Args:
        random: Evenly from 0 to 1, as ``random.random``.
        at_least_s: What the backend asked for; also beyond *most_s*.
    """
    ceiling: float = min(most_s, base_s * 2 ** min(attempt - 1, _MOST_DOUBLINGS))
    return max(at_least_s, random() * ceiling)


def retry_after_s(value: bytes | None) -> float | None:
    """
    Read a ``Retry-After`` (RFC 9110, section 10.2.3) in seconds; 0 without one.

    None when it says no number of seconds: a date, which needs a clock set alike on both sides, or nonsense.
    """
    if value is None:
        return 0.0
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        return None
    return float(value)
