"""
The arithmetic of a rate limit: one number for each key, no timers, no lists.

The generic cell rate algorithm (ITU-T I.371, annex A): a key's *theoretical arrival time* moves on
by one interval for each event, and an event that comes more than the burst's tolerance before it is
one too many.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["ROUNDED", "TOO_LITTLE", "Verdict", "remaining", "spend"]

TOO_LITTLE: Final = 1e-9
"""Seconds too early that are nobody's but the arithmetic's."""

ROUNDED: Final = 1e-6
"""The part of a unit by which what is left may be wrong."""


class Verdict(NamedTuple):
    """
    What became of an event.

    Attributes:
        allowed: It may be.
        at: The key's new theoretical arrival time, to be kept; unchanged for one that is refused.
        retry_after_s: When it would be allowed; 0 if it was.
    """

    allowed: bool
    at: float
    retry_after_s: float


def spend(at: float, now: float, number: int, per_s: float, burst: int = 0, cost: int = 1) -> Verdict:
    """
    Spend *cost* events of *number* in *per_s* seconds.

    Args:
        at: What was kept of the key; 0 for a new one.
        burst: Events that may come at once; 0 is *number*.
    """
    interval = per_s / number
    start = max(at, now)
    after = start + interval * cost
    early = after - interval * (burst or number) - now
    if early > TOO_LITTLE:
        return Verdict(False, at, early)
    return Verdict(True, after, 0.0)


def remaining(at: float, now: float, number: int, per_s: float, burst: int = 0) -> int:
    """
    How many events of cost 1 would be allowed now; for the arguments see ``spend``.
    """
    interval = per_s / number
    return max(0, int(((burst or number) * interval - max(0.0, at - now)) / interval + ROUNDED))
