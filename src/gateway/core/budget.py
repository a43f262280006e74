"""
How many retries there may be, so that they can never become the load that keeps a backend down.

Two bounds, as Envoy and gRPC have them: at once, a share of the requests under way; over time,
one retry for ten requests that succeeded, and a few in store for when a failure begins
(gRFC A6, "throttling retry attempts").
"""

from __future__ import annotations

__all__ = ["RetryBudget"]

_MOST = 100
_FLOOR = _MOST // 2
_COST = 10
"""In tokens, of which each success earns one."""


class RetryBudget:
    """
    One upstream's budget.

    Attributes:
        retrying: Retries under way.
        tokens: Spent by failures, earned by successes; no retry that would leave less than half of them.
    """

    __slots__ = ("_minimum", "_percent", "retrying", "tokens")

    def __init__(self, *, percent: int, minimum: int) -> None:
        self._percent = percent
        self._minimum = minimum
        self.retrying = 0
        self.tokens = _MOST

    def take(self, active: int) -> bool:
        """
        Begin a retry if it may; *active* requests are under way. ``give_back`` ends it.
        """
        tokens = self.tokens - _COST
        self.tokens = max(0, tokens)
        if tokens < _FLOOR or self.retrying >= max(self._minimum, active * self._percent // 100):
            return False
        self.retrying += 1
        return True

    def give_back(self) -> None:
        """
        A retry is over.
        """
        self.retrying -= 1

    def earn(self) -> None:
        """
        A request succeeded.
        """
        if self.tokens < _MOST:
            self.tokens += 1
