"""
Which traces are recorded: a share of those that begin here, and all of users who were chosen.

A trace that somebody believed began keeps that one's decision; nobody else has a say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from gateway.core.trace import below_of

__all__ = ["MOST_CHOSEN", "Sampling"]

MOST_CHOSEN: Final = 1000
"""Users chosen at the same time, beside those of the configuration."""


class Sampling:
    """
    The decision, for one instance.

    Args:
        seconds: The monotonic clock.

    Attributes:
        ratio: The share, from 0 to 1.
        below: The same as ``core.trace.new`` takes it.
        users: Who is chosen, and until which second of the clock; empty when nobody is, which is all that a
            hot path looks at.
    """

    __slots__ = ("_configured", "_seconds", "below", "ratio", "users")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._configured: frozenset[str] = frozenset()
        self.ratio = 0.0
        self.below = ""
        self.users: dict[str, float] = {}

    def configure(self, ratio: float, users: Iterable[str] = ()) -> None:
        """
        Take another share, and other users of the configuration; those chosen meanwhile stay so.
        """
        self.ratio = ratio
        self.below = below_of(ratio)
        before, self._configured = self._configured, frozenset(users)
        kept = {user: until for user, until in self.users.items() if user not in before or until != math.inf}
        self.users = kept | dict.fromkeys(self._configured, math.inf)

    def choose(self, user: str, for_s: float) -> bool:
        """
        Record everything that *user* does, for so many seconds from now on; False if too many are chosen already.
        """
        self._forget_old()
        if user in self._configured:
            return True
        if user not in self.users and len(self.users) >= MOST_CHOSEN + len(self._configured):
            return False
        self.users[user] = self._seconds() + for_s
        return True

    def let_go(self, user: str) -> bool:
        """
        Choose *user* no more; False if nobody had, or the configuration does.
        """
        return user not in self._configured and self.users.pop(user, None) is not None

    def chosen(self) -> dict[str, float]:
        """
        Tell who is chosen, and for how many seconds yet (infinite: by the configuration).
        """
        self._forget_old()
        now = self._seconds()
        return {user: until - now for user, until in self.users.items()}

    def wants(self, user: str) -> bool:
        """
        Whether *user* is chosen.
        """
        until = self.users.get(user)
        if until is None:
            return False
        if until > self._seconds():
            return True
        del self.users[user]
        return False

    def _forget_old(self) -> None:
        now = self._seconds()
        self.users = {user: until for user, until in self.users.items() if until > now}
