"""
Who has failed too often to be heard for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.core.address import group

__all__ = ["Lockout"]

MOST: Final = 4096
"""Addresses, and pairs of address and user, that are remembered."""

ANY: Final = 4
"""An address may fail so many times as often for all users together."""

Key = tuple[str, str]


class Lockout:
    """
    Failed tries, by address and user, and by address.

    A user is never kept out everywhere: whoever knows a name could keep its owner away at 3 a.m.

    Args:
        tries: So many failures of an address for a user.
        for_s: How long they are held against it, from the last one.
        seconds: The monotonic clock.
    """

    def __init__(self, tries: int, for_s: float, seconds: Callable[[], float]) -> None:
        self.tries = tries
        self.for_s = for_s
        self._seconds = seconds
        self._failed: dict[Key, tuple[int, float]] = {}

    def locked(self, address: str, user: str) -> bool:
        """
        Whether *user* is not even looked at from *address*.
        """
        address = group(address)
        return self._count((address, user)) >= self.tries or self._count((address, "")) >= ANY * self.tries

    def failed(self, address: str, user: str) -> None:
        """
        Count a failed try.
        """
        address = group(address)
        self._add((address, user))
        self._add((address, ""))

    def succeeded(self, address: str, user: str) -> None:
        """
        Forget what *user* failed from *address*; what others did there is not forgotten.
        """
        self._failed.pop((group(address), user), None)

    def _count(self, key: Key) -> int:
        count, until = self._failed.get(key, (0, 0.0))
        return count if until > self._seconds() else 0

    def _add(self, key: Key) -> None:
        now = self._seconds()
        count = self._count(key) + 1
        # Put at the end: what was added to longest ago stands first.
        self._failed.pop(key, None)
        if len(self._failed) >= MOST:
            self._failed = {each: known for each, known in self._failed.items() if known[1] > now}
            while len(self._failed) >= MOST:
                del self._failed[next(iter(self._failed))]
        self._failed[key] = (count, now + self.for_s)
