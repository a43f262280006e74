"""
Rate limits that all instances count together, in Redis.

One number for each key, by the server's clock; it is gone when its key may spend all again. What is asked in
one turn of the reactor leaves as one script, where one server has all keys, and comes back as one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import ceil, inf
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.ports.limits import Charge, LocalLimiter, Quota, Verdict, Verdicts
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["RedisLimiter"]

ANSWER_S: Final = 0.02
"""A store that has not answered by then is away, as far as a verdict is concerned: somebody waits for it."""

LATE_LOOKS: Final = 3
"""How often an answer is given its time anew because this process itself was late to look."""

SILENT_S: Final = 0.25
"""How long nobody waits for a store that did not answer in time; then one step is tried again."""

AGAIN_S: Final = 1.0
"""When whoever is refused because the store is away may try again."""

MOST_AT_ONCE: Final = 256
"""Charges in one script."""

MOST_WAITING: Final = 20_000
"""Charges whose answers are waited for; beyond it the store is as good as away."""

LONGEST_KEY: Final = 100
_US: Final = 1_000_000


class _Spend(NamedTuple):
    """One charge on its way."""

    charge: Charge
    step: _Step
    place: int


class _Step:
    """
    What one caller asked together.
    """

    __slots__ = ("answer", "left", "verdicts")

    def __init__(self, number: int) -> None:
        self.answer: Deferred[Verdicts] = Deferred(_leave)
        self.left = number
        self.verdicts: list[Any] = [None] * number

    def told(self, place: int, verdict: Verdict) -> None:
        """Take one verdict; with the last one the caller is answered."""
        self.verdicts[place] = verdict
        self.left -= 1
        if not self.left and not self.answer.called:
            self.answer.callback(self.verdicts)


class RedisLimiter:
    """
    The ``ports.limits.RateLimiter`` in Redis. A rate is exact to a microsecond between two units.

    Args:
        local: Counts here while Redis is away.
        event: Called with the name and fields of what operators should know.

    Attributes:
        answer_s: How long a verdict may be waited for.
        instances: How many there are: while Redis is away each has its part of what is counted ``local``.
    """

    def __init__(
        self,
        redis: Store,
        clock: IReactorTime,
        local: LocalLimiter,
        *,
        event: Callable[[str, dict[str, Any]], None] = lambda _name, _fields: None,
    ) -> None:
        self.answer_s = ANSWER_S
        self._redis = redis
        self._clock = clock
        self._local = local
        self.instances: Callable[[], int] = lambda: 1
        self._event = event
        self._script = load("limit")
        self._gathered: list[_Spend] = []
        self._flushing: IDelayedCall | None = None
        self._waiting = 0
        self._silent_until = 0.0
        self._told_away = False

    @property
    def away(self) -> bool:
        """Nobody waits for Redis now."""
        return not self._redis.available or self._clock.seconds() < self._silent_until

    def spend(self, charges: Sequence[Charge]) -> Verdicts | Deferred[Verdicts]:
        """
        Spend each; all of this turn are asked in one write.
        """
        if not charges:
            return ()
        if self.away or self._waiting + len(charges) > MOST_WAITING:
            self._tell_away("it cannot be reached")
            return [self._without(charge) for charge in charges]
        step = _Step(len(charges))
        gathered = self._gathered
        for place, charge in enumerate(charges):
            gathered.append(_Spend(charge, step, place))
        self._waiting += len(charges)
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)
        return step.answer

    async def forget(self, charges: Sequence[Charge]) -> None:
        """
        Let each key spend all again, here and everywhere.
        """
        await self._local.forget(charges)
        for charge in charges:
            await self._redis.call("DEL", self._key(charge))

    # On the way.

    def _flush(self) -> None:
        self._flushing = None
        gathered, self._gathered = self._gathered, []
        size = MOST_AT_ONCE if self._redis.single else 1
        for start in range(0, len(gathered), size):
            _Batch(self, gathered[start : start + size], self._clock)

    def ask(self, spends: Sequence[_Spend]) -> Deferred[Any]:
        """
        Send the script for *spends*.
        """
        keys = [self._key(spend.charge) for spend in spends]
        args: list[int] = []
        for spend in spends:
            unit, burst = _scale(spend.charge.quota)
            args += (burst, unit * spend.charge.cost)
        return Deferred.fromCoroutine(self._redis.run(self._script, keys, args))

    def answered(self, spends: Sequence[_Spend], told: list[int]) -> None:
        """
        Give everybody what the store said.
        """
        self._waiting -= len(spends)
        if self._told_away:
            self._told_away = False
            self._event("limits.together", {})
        at = 0
        for (quota, _, cost), step, place in spends:
            allowed, spent, early = told[at : at + 3]
            at += 3
            unit, burst = _scale(quota)
            retry_after_s = early / _US if unit * cost <= burst else inf
            step.told(place, Verdict(bool(allowed), (burst - spent) // unit, retry_after_s, spent / _US))

    def failed(self, spends: Sequence[_Spend], why: str, *, silent: bool) -> None:
        """
        Give everybody what holds without the store.
        """
        self._waiting -= len(spends)
        if silent:
            self._silent_until = self._clock.seconds() + SILENT_S
        self._tell_away(why)
        for charge, step, place in spends:
            step.told(place, self._without(charge))

    def _tell_away(self, why: str) -> None:
        if not self._told_away:
            self._told_away = True
            self._event("limits.apart", {"reason": why})

    def _without(self, charge: Charge) -> Verdict:
        quota = charge.quota
        if quota.when_away == "local":
            verdict = self._local.one(charge._replace(quota=_part(quota, max(1, self.instances()))))
            return verdict._replace(away=True)
        most = quota.burst or quota.number
        if quota.when_away == "open":
            return Verdict(True, most, 0.0, 0.0, True)
        return Verdict(False, 0, AGAIN_S, AGAIN_S, True)

    def _key(self, charge: Charge) -> str:
        name = f"{len(charge.quota.name)}:{charge.quota.name}:{charge.key}"
        if len(name) > LONGEST_KEY:
            name = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._redis.keys.one("limit", name)


class _Batch:
    """
    Charges of one script, until they are answered or given up.
    """

    __slots__ = ("_clock", "_due", "_limiter", "_looks", "_spends", "_timer")

    def __init__(self, limiter: RedisLimiter, spends: Sequence[_Spend], clock: IReactorTime) -> None:
        self._limiter = limiter
        self._clock = clock
        self._spends: Sequence[_Spend] = spends
        self._looks = 0
        self._timer: IDelayedCall | None = None
        asked = limiter.ask(spends)
        if not asked.called:
            self._wait()
        asked.addCallbacks(self._answered, self._failed)

    def _wait(self) -> None:
        self._due = self._clock.seconds() + self._limiter.answer_s
        self._timer = self._clock.callLater(self._limiter.answer_s, self._overdue)

    def _taken(self) -> Sequence[_Spend]:
        spends, self._spends = self._spends, ()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return spends

    def _answered(self, told: list[int]) -> None:
        spends = self._taken()
        if spends:
            self._limiter.answered(spends, told)

    def _failed(self, failure: Failure) -> None:
        # Whatever it was: somebody waits, and the policy says what holds without a verdict.
        spends = self._taken()
        if spends:
            self._limiter.failed(spends, str(failure.value), silent=not failure.check(StoreUnavailable))

    def _overdue(self) -> None:
        self._timer = None
        late_s = self._clock.seconds() - self._due
        if late_s > self._limiter.answer_s / 2 and self._looks < LATE_LOOKS:
            # This process stood still, and nobody has looked since: perhaps not even the question has left.
            self._looks += 1
            self._wait()
            return
        self._limiter.failed(self._taken(), "no answer in time", silent=True)


def _leave(_: Deferred[Any]) -> None:
    """Cancelled: what was asked is spent, and nobody is told."""


@lru_cache(maxsize=1024)
def _scale(quota: Quota) -> tuple[int, int]:
    """Microseconds between two units, and of the whole burst."""
    unit = max(1, round(quota.per_s * _US / quota.number))
    return unit, unit * (quota.burst or quota.number)


@lru_cache(maxsize=1024)
def _part(quota: Quota, instances: int) -> Quota:
    """What one of so many instances may let pass by itself."""
    if instances == 1:
        return quota
    burst = ceil((quota.burst or quota.number) / instances)
    return quota._replace(per_s=quota.per_s * instances, burst=burst)
