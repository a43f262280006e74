"""
Users who may not publish for a while, by an operator's word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.core.verdicts import ClientError, ErrorCode

__all__ = ["MOST_MUTED", "Muted"]

MOST_MUTED: Final = 10_000


class Muted:
    """
    Who is muted on this instance.

    Args:
        seconds: The monotonic clock.

    Attributes:
        users: Until which second of the clock, by user; empty when nobody is, which is all that publishing looks at.
    """

    __slots__ = ("_seconds", "users")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.users: dict[str, float] = {}

    def mute(self, user: str, for_s: float) -> bool:
        """
        Let *user* publish nothing for so long from now on, 0 lets it again; False if too many are muted already.
        """
        now = self._seconds()
        self.users = {each: until for each, until in self.users.items() if until > now and each != user}
        if for_s <= 0:
            return True
        if len(self.users) >= MOST_MUTED:
            return False
        self.users[user] = now + for_s
        return True

    def left_s(self, user: str) -> float:
        """
        How much longer *user* is muted, in seconds; 0 if it is not.
        """
        return max(0.0, self.users.get(user, 0.0) - self._seconds())

    def check(self, user: str) -> None:
        """
        Let a publication of *user* pass.

        Raises:
            ClientError: it is muted; the reply says for how much longer.
        """
        left_s = self.left_s(user)
        if left_s:
            raise ClientError(ErrorCode.PERMISSION_DENIED, f"muted for {left_s:.0f} s more")
