"""
How often things may be done, counted in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from gateway.core.gcra import ROUNDED, TOO_LITTLE
from gateway.ports.limits import Charge, Told, Verdict

__all__ = ["MemoryLimiter"]

MOST_KEYS: Final = 100_000


class MemoryLimiter:
    """
    The ``ports.limits.RateLimiter`` of a process.

    At most *most_keys* are kept; beyond that those that were not charged for longest are forgotten, and may
    spend as if they were new.

    Args:
        seconds: A monotonic clock.

    Attributes:
        forgotten: Keys given up so far because there were too many.
    """

    def __init__(self, seconds: Callable[[], float], *, most_keys: int = MOST_KEYS) -> None:
        self.forgotten = 0
        self._seconds = seconds
        self._half = most_keys // 2
        # In two halves: when the newer one is full it becomes the older, and what was the older is forgotten.
        self._newer: dict[tuple[str, str], float] = {}
        self._older: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def spend(self, charges: Sequence[Charge], told: Told) -> list[Verdict]:  # noqa: ARG002  # Nobody waits.
        """
        Spend each, now.
        """
        now = self._seconds()
        return [self._spend(charge, now) for charge in charges]

    def one(self, charge: Charge) -> Verdict:
        """
        Spend one, now.
        """
        return self._spend(charge, self._seconds())

    def _spend(self, charge: Charge, now: float) -> Verdict:
        quota, key, cost = charge
        name = (quota.name, key)
        at = self._newer.get(name)
        if at is None:
            at = self._older.pop(name, 0.0) if self._older else 0.0
        # As core.gcra does it, in one go: this is done for each request.
        interval = quota.per_s / quota.number
        most = interval * (quota.burst or quota.number)
        start = max(now, at)
        after = start + interval * cost
        early = after - most - now
        if early > TOO_LITTLE:
            if start > now:
                self._keep(name, start)
            left = int((most - (start - now)) / interval + ROUNDED)
            return Verdict(False, max(0, left), inf if interval * cost > most else early, start - now)
        if after > now:
            self._keep(name, after)
        return Verdict(True, max(0, int((most - (after - now)) / interval + ROUNDED)), 0.0, after - now)

    def _keep(self, name: tuple[str, str], at: float) -> None:
        self._newer[name] = at
        if len(self._newer) >= self._half:
            self.forgotten += len(self._older)
            self._newer, self._older = {}, self._newer

    def behind(self, charge: Charge, full_after_s: float) -> None:
        """
        Take from elsewhere how much of a key is spent; what is known here counts if it is more.
        """
        name = (charge.quota.name, charge.key)
        at = self._seconds() + full_after_s
        known = max(self._newer.get(name, 0.0), self._older.pop(name, 0.0))
        self._keep(name, max(known, at))

    async def forget(self, charges: Sequence[Charge]) -> None:
        """
        Let each key spend all again.
        """
        for quota, key, _ in charges:
            self._newer.pop((quota.name, key), None)
            self._older.pop((quota.name, key), None)
