"""
Results that must not be made twice, on whichever instance they are asked for: in Redis.
"""

from __future__ import annotations

from hashlib import blake2b

from gateway.ports.realtime import StillRunning
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["RedisIdempotency"]


class RedisIdempotency:
    """
    The ``ports.realtime.IdempotencyStore`` in Redis. Each key is one string that expires.
    """

    def __init__(self, redis: Store) -> None:
        self._redis = redis

    async def begin(self, key: str, mine: str, claim_s: float) -> bytes | None:
        """
        Claim *key*.
        """
        told = await self._redis.run(load("once_begin"), [self._key(key)], [mine, _ms(claim_s)])
        if told[0] == b"running":
            raise StillRunning
        result: bytes | None = told[1] if told[0] == b"done" else None
        return result

    async def finish(self, key: str, mine: str, result: bytes, keep_s: float) -> bool:
        """
        Store the result.
        """
        return bool(await self._redis.run(load("once_finish"), [self._key(key)], [mine, result, _ms(keep_s)]))

    async def release(self, key: str, mine: str) -> None:
        """
        Give *key* up.
        """
        await self._redis.run(load("once_release"), [self._key(key)], [mine])

    def _key(self, key: str) -> str:
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._redis.keys.one("once", digest)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
