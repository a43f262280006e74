"""
Results that must not be made twice, in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.ports.realtime import StillRunning

__all__ = ["MemoryIdempotency"]

MAX_BYTES = 64 * 1024 * 1024


class _Claim(NamedTuple):
    until: float
    mine: str
    result: bytes | None

    def size(self, key: str) -> int:
        return len(key) + len(self.mine) + len(self.result or b"")


class MemoryIdempotency:
    """
    The ``ports.realtime.IdempotencyStore`` of a process: at most 64 MiB of results, the oldest forgotten first.

    Args:
        wall: Seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float], *, max_bytes: int = MAX_BYTES) -> None:
        self._wall = wall
        self._max_bytes = max_bytes
        self._claims: dict[str, _Claim] = {}
        self._bytes = 0

    async def begin(self, key: str, mine: str, claim_s: float) -> bytes | None:
        """
        Claim *key*.
        """
        found = self._there(key)
        if found is not None and found.result is not None:
            return found.result
        if found is not None and found.mine != mine:
            raise StillRunning
        self._put(key, _Claim(self._wall() + claim_s, mine, None))
        return None

    async def finish(self, key: str, mine: str, result: bytes, keep_s: float) -> bool:
        """
        Store the result.
        """
        found = self._there(key)
        if found is not None and found.mine != mine:
            return False
        self._put(key, _Claim(self._wall() + keep_s, mine, result))
        return True

    async def release(self, key: str, mine: str) -> None:
        """
        Give *key* up.
        """
        found = self._there(key)
        if found is not None and found.mine == mine and found.result is None:
            self._take(key)

    def _there(self, key: str) -> _Claim | None:
        found = self._claims.get(key)
        return found if found is not None and found.until > self._wall() else None

    def _put(self, key: str, claim: _Claim) -> None:
        self._take(key)
        self._claims[key] = claim
        self._bytes += claim.size(key)
        while self._bytes > self._max_bytes and len(self._claims) > 1:
            self._take(next(iter(self._claims)))

    def _take(self, key: str) -> None:
        found = self._claims.pop(key, None)
        if found is not None:
            self._bytes -= found.size(key)
