"""
Results that must not be made twice, in this process.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.ports.realtime import StoreUnavailable

__all__ = ["MemoryIdempotency"]

MAX_BYTES = 64 * 1024 * 1024


class MemoryIdempotency:
    """
    The ``ports.realtime.IdempotencyStore`` of a process: at most 64 MiB of results, the oldest forgotten first.

    Args:
        wall: Seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float], *, max_bytes: int = MAX_BYTES) -> None:
        self._wall = wall
        self._max_bytes = max_bytes
        self._results: dict[str, tuple[float, bytes | None]] = {}
        self._bytes = 0

    async def begin(self, key: str, until: float) -> bytes | None:
        """
        Claim *key*.
        """
        found = self._results.get(key)
        if found is not None and found[0] > self._wall():
            if found[1] is None:
                raise StoreUnavailable("the first request with this key is still running")
            return found[1]
        self._put(key, until, None)
        return None

    async def finish(self, key: str, result: bytes, until: float) -> None:
        """
        Store the result.
        """
        self._put(key, until, result)

    async def release(self, key: str) -> None:
        """
        Give *key* up.
        """
        self._take(key)

    def _put(self, key: str, until: float, result: bytes | None) -> None:
        self._take(key)
        self._results[key] = (until, result)
        self._bytes += len(key) + len(result or b"")
        while self._bytes > self._max_bytes and len(self._results) > 1:
            self._take(next(iter(self._results)))

    def _take(self, key: str) -> None:
        found = self._results.pop(key, None)
        if found is not None:
            self._bytes -= len(key) + len(found[1] or b"")
