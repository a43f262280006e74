"""
How many real-time connections an instance opens in a second: a herd is served at the rate that it can hold.

Whoever is refused is told a moment of its own to come back at, in the order in which they came, so that those
who heed it do not meet again. Those who do not are refused for next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.config.units import Rate
from gateway.core.gcra import spend
from gateway.core.problems import Problem
from gateway.core.rate_headers import REDUCED_CAPACITY

__all__ = ["Admission"]

LONGEST_WAIT_S = 60.0
"""Beyond that moments are told again from the beginning."""


class Admission:
    """
    The openings of one instance.

    Attributes:
        refused: How many were told to come back.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.refused = 0
        self._seconds = seconds
        self._rate: Rate | None = None
        self._at = 0.0
        self._queue_end = 0.0

    def configure(self, rate: Rate | None) -> None:
        """
        Take another rate; None: no limit.
        """
        self._rate = rate

    def take(self) -> None:
        """
        Let one in.

        Raises:
            Problem: ``too_many_openings``.
        """
        rate = self._rate
        if rate is None:
            return
        now = self._seconds()
        interval = rate.per_s / rate.number
        # Up to a twentieth of the rate at once: what comes evenly is never refused, and no turn is long.
        verdict = spend(self._at, now, rate.number, rate.per_s, max(1, rate.number // 20))
        if verdict.allowed:
            self._at = verdict.at
            return
        self.refused += 1
        end = max(self._queue_end, now + verdict.retry_after_s) + interval
        self._queue_end = end if end - now <= LONGEST_WAIT_S else now + verdict.retry_after_s + interval
        seconds = max(1, round(self._queue_end - now))
        raise Problem(
            "too_many_openings",
            f"Come back in {seconds} s.",
            headers=((b"Retry-After", b"%d" % seconds),),
            extra={"type": REDUCED_CAPACITY},
        )
