"""
How many retries may be under way: a share of the requests under way, so that retries can
never become the load that keeps a backend down.
"""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """
    One upstream's budget.

    Attributes:
        retrying: Retries under way.
    """

    __slots__ = ("_minimum", "_percent", "retrying")

    def __init__(self, *, percent: int, minimum: int) -> None:
        self._percent = percent
        self._minimum = minimum
        self.retrying = 0

    def take(self, active: int) -> bool:
        """
        Begin a retry if it may; *active* requests are under way. ``give_back`` ends it.
        """
        if self.retrying >= max(self._minimum, active * self._percent // 100):
            return False
        self.retrying += 1
        return True

    def give_back(self) -> None:
        """
        A retry is over.
        """
        self.retrying -= 1
