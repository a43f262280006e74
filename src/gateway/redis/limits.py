"""
Rate limits that all instances count together, in Redis.

One number for each key, by the server's clock; it is gone when its key may spend all again. What is asked in
one turn of the reactor leaves as one script, where one server has all keys, and comes back as one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from math import ceil, inf
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.ports.limits import Charge, LocalLimiter, Quota, Told, Verdict, Verdicts
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["RedisLimiter"]

ANSWER_S: Final = 0.02
"""A store that has not answered by then is away, as far as a verdict is concerned: somebody waits for it."""

LATE_LOOKS: Final = 3
"""How often an answer is given its time anew because this process itself was late to look."""

SILENT_AFTER: Final = 5
"""For so many times ``answer_s`` a store must have answered nothing to be taken for silent: a busy one is only late."""

SILENT_S: Final = 0.25
"""How long nobody waits for a silent store; then one step is tried again."""

KNOWN_PART: Final = 4
"""From this part of a burst on it is remembered here how much of it is spent: should the store go away, that still holds."""

AGAIN_S: Final = 1.0
"""When whoever is refused because the store is away may try again."""

MOST_AT_ONCE: Final = 256
"""Charges in one script."""

MOST_WAITING: Final = 20_000
"""Charges whose answers are waited for; beyond it the store is as good as away."""

MOST_KNOWN: Final = 1000
LONGEST_KEY: Final = 100
_US: Final = 1_000_000


class _Known(NamedTuple):
    """
    A quota as Redis is asked about it.

    Attributes:
        key: How its keys begin.
        unit_us: Microseconds between two units.
        burst_us: The whole burst in microseconds.
    """

    key: str
    unit_us: int
    burst_us: int


class _Step:
    """
    Several charges of one caller.
    """

    __slots__ = ("_left", "_told", "_verdicts")

    def __init__(self, told: Told, number: int) -> None:
        self._told = told
        self._left = number
        self._verdicts: list[Any] = [None] * number

    def told(self, place: int, verdict: Verdict) -> None:
        """Take one verdict; with the last one the caller is told."""
        self._verdicts[place] = verdict
        self._left -= 1
        if not self._left:
            self._told(self._verdicts)


# One charge on its way: what is asked, how, and who is told. No class: there is one for each request.
_Spend = tuple[Charge, _Known, Told]


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
        self._known: dict[Quota, _Known] = {}
        self._gathered: list[_Spend] = []
        self._flushing: IDelayedCall | None = None
        self._waiting = 0
        self._silent_until = 0.0
        self._answered_at = 0.0
        self._told_away = False

    def spend(self, charges: Sequence[Charge], told: Told) -> Verdicts | None:
        """
        Spend each; all of this turn are asked in one write.
        """
        if not charges:
            return ()
        if (
            not self._redis.available
            or self._waiting + len(charges) > MOST_WAITING
            or (self._silent_until and self._still_silent())
        ):
            self._tell_away("it cannot be reached")
            return [self._without(charge) for charge in charges]
        if len(charges) == 1:
            charge = charges[0]
            self._gathered.append((charge, self._known.get(charge.quota) or self._learn(charge.quota), told))
        else:
            step = _Step(told, len(charges))
            for place, charge in enumerate(charges):
                known = self._known.get(charge.quota) or self._learn(charge.quota)
                self._gathered.append((charge, known, partial(_place, step, place)))
        self._waiting += len(charges)
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)
        return None

    def _still_silent(self) -> bool:
        if self._clock.seconds() < self._silent_until:
            return True
        self._silent_until = 0.0
        return False

    def _learn(self, quota: Quota) -> _Known:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        unit, burst = _scale(quota)
        known = self._known[quota] = _Known(f"{len(quota.name)}:{quota.name}:", unit, burst)
        return known

    async def forget(self, charges: Sequence[Charge]) -> None:
        """
        Let each key spend all again, here and everywhere.
        """
        await self._local.forget(charges)
        for charge in charges:
            begins = (self._known.get(charge.quota) or self._learn(charge.quota)).key
            await self._redis.call("DEL", self._redis.keys.one("limit", _short(begins + charge.key)))

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
        keys = []
        args: list[int] = []
        name_of = self._redis.keys.one
        for charge, (begins, unit, burst), _ in spends:
            keys.append(name_of("limit", _short(begins + charge.key)))
            args.append(burst)
            args.append(unit * charge.cost)
        return Deferred.fromCoroutine(self._redis.run(self._script, keys, args))

    def answered(self, spends: Sequence[_Spend], told: list[int]) -> None:
        """
        Give everybody what the store said.
        """
        self._waiting -= len(spends)
        self._answered_at = self._clock.seconds()
        if self._told_away:
            self._told_away = False
            self._event("limits.together", {})
        numbers = iter(told)
        for (charge, (_, unit, burst), tell), allowed, spent, early in zip(
            spends, numbers, numbers, numbers, strict=True
        ):
            if allowed:
                verdict = Verdict(True, (burst - spent) // unit, 0.0, spent / _US)
            else:
                again_s = early / _US if unit * charge.cost <= burst else inf
                verdict = Verdict(False, (burst - spent) // unit, again_s, spent / _US)
            if spent * KNOWN_PART > burst:
                self._local.behind(charge, spent / _US)
            self._tell(tell, verdict)

    def failed(self, spends: Sequence[_Spend], why: str, *, silent: bool) -> None:
        """
        Give everybody what holds without the store.
        """
        self._waiting -= len(spends)
        now = self._clock.seconds()
        if silent and now - self._answered_at > SILENT_AFTER * self.answer_s:
            self._silent_until = now + SILENT_S
        self._tell_away(why)
        for charge, _, tell in spends:
            self._tell(tell, self._without(charge))

    def _tell(self, told: Told, verdict: Verdict) -> None:
        try:
            told((verdict,))
        except Exception:  # The others wait for theirs.
            self._event("limits.failed", {"exception": Failure().getTraceback()})

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


def _place(step: _Step, place: int, verdicts: Verdicts) -> None:
    step.told(place, verdicts[0])


def _short(name: str) -> str:
    if len(name) <= LONGEST_KEY:
        return name
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


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
