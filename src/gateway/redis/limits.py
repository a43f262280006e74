"""
Rate limits that all instances count together, in Redis.

One number for each key, by the server's clock; it is gone when its key may spend all again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import inf
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as NoAnswer
from twisted.internet.interfaces import IReactorTime

from gateway.ports.limits import Charge, Quota, RateLimiter, Verdict
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.connection import all_of
from gateway.redis.scripts import load

__all__ = ["RedisLimiter"]

ANSWER_S: Final = 0.5
"""A store that has not answered by then is away, as far as a verdict is concerned: somebody waits for it."""

AGAIN_S: Final = 1.0
"""When whoever is refused because the store is away may try again."""

LONGEST_KEY: Final = 100
_US: Final = 1_000_000


class RedisLimiter:
    """
    The ``ports.limits.RateLimiter`` in Redis. A rate is exact to a microsecond between two units.

    Args:
        local: Counts here while Redis is away.
    """

    def __init__(self, redis: Store, clock: IReactorTime, local: RateLimiter) -> None:
        self._redis = redis
        self._clock = clock
        self._local = local
        self._script = load("limit")

    async def spend(self, charges: Sequence[Charge]) -> Sequence[Verdict]:
        """
        Spend each; all are asked in one write.
        """
        return await all_of([Deferred.fromCoroutine(self._spend(charge)) for charge in charges])

    async def _spend(self, charge: Charge) -> Verdict:
        quota, cost = charge.quota, charge.cost
        unit = _unit(quota)
        burst = unit * (quota.burst or quota.number)
        asked = Deferred.fromCoroutine(self._redis.run(self._script, [self._key(charge)], [unit, burst, unit * cost]))
        asked.addTimeout(ANSWER_S, self._clock)
        try:
            allowed, spent, early = await asked
        except (StoreUnavailable, NoAnswer):
            return await self._without(charge)
        retry_after_s = early / _US if unit * cost <= burst else inf
        return Verdict(bool(allowed), (burst - spent) // unit, retry_after_s, spent / _US)

    async def _without(self, charge: Charge) -> Verdict:
        quota = charge.quota
        if quota.when_away == "local":
            [verdict] = await self._local.spend([charge])
            return verdict
        most = quota.burst or quota.number
        if quota.when_away == "open":
            return Verdict(True, most, 0.0, 0.0)
        return Verdict(False, 0, AGAIN_S, AGAIN_S)

    def _key(self, charge: Charge) -> str:
        name = f"{len(charge.quota.name)}:{charge.quota.name}:{charge.key}"
        if len(name) > LONGEST_KEY:
            name = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._redis.keys.one("limit", name)


def _unit(quota: Quota) -> int:
    return max(1, round(quota.per_s * _US / quota.number))
