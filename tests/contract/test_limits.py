"""
What every rate limiter promises.
"""

import random
from collections.abc import Sequence
from math import inf

import pytest
import pytest_twisted
from tests.contract.conftest import Limits
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import Clock

from gateway.core import gcra
from gateway.memory.limits import MemoryLimiter
from gateway.ports.limits import Charge, Quota, RateLimiter, Verdicts

HOURLY = Quota("hourly", 1, 3600.0, burst=100)


def spent(limiter: RateLimiter, charges: Sequence[Charge]) -> Deferred[Verdicts]:
    answer: Deferred[Verdicts] = Deferred()
    now = limiter.spend(charges, answer.callback)
    return answer if now is None else succeed(now)


@pytest_twisted.ensureDeferred
async def test_a_hundred_of_many(limits: Limits) -> None:
    """
    Of many that ask at once, on two instances, exactly as many pass as the burst has.
    """
    asked = [spent(limiter, [Charge(HOURLY, "alice")]) for _ in range(75) for limiter in (limits.one, limits.two)]
    verdicts = [verdict for [verdict] in await gatherResults(asked)]
    assert sum(verdict.allowed for verdict in verdicts) == 100
    assert sorted(verdict.remaining for verdict in verdicts if verdict.allowed) == list(range(100))
    assert all(3590 < verdict.retry_after_s <= 3600 for verdict in verdicts if not verdict.allowed)
    assert all(verdict.retry_after_s == 0 for verdict in verdicts if verdict.allowed)
    [other] = await spent(limits.two, [Charge(HOURLY, "bob")])
    assert (other.allowed, other.remaining) == (True, 99)
    assert 3590 < other.full_after_s <= 3600


@pytest_twisted.ensureDeferred
async def test_it_fills_again(limits: Limits) -> None:
    """
    What was spent comes back evenly, and never more than the burst.
    """
    quota = Quota("q", 10, 1.0, burst=3)
    for _ in range(3):
        assert (await spent(limits.one, [Charge(quota, "k")]))[0].allowed
    [refused] = await spent(limits.two, [Charge(quota, "k")])
    assert not refused.allowed
    assert refused.remaining == 0
    assert 0 < refused.retry_after_s <= 0.1
    await limits.pass_time(0.11)
    assert (await spent(limits.one, [Charge(quota, "k")]))[0].allowed
    await limits.pass_time(1.0)
    assert [(await spent(limits.one, [Charge(quota, "k")]))[0].remaining for _ in range(3)] == [2, 1, 0]


@pytest_twisted.ensureDeferred
async def test_several_at_once(limits: Limits) -> None:
    """
    Each charge stands for itself: one that is refused costs nothing, and the others are spent.
    """
    small, large = Quota("small", 1, 3600.0), Quota("large", 5, 3600.0)
    charges = [Charge(small, "k"), Charge(large, "k"), Charge(large, "k", 3), Charge(large, "k", 2)]
    first = await spent(limits.one, charges)
    assert [(verdict.allowed, verdict.remaining) for verdict in first] == [(True, 0), (True, 4), (True, 1), (False, 1)]
    second = await spent(limits.two, charges[:2])
    assert [(verdict.allowed, verdict.remaining) for verdict in second] == [(False, 0), (True, 0)]
    assert len(await spent(limits.one, [])) == 0


@pytest_twisted.ensureDeferred
async def test_more_than_there_ever_is(limits: Limits) -> None:
    """
    What costs more than the burst is never allowed, and says so.
    """
    quota = Quota("q", 5, 1.0)
    [verdict] = await spent(limits.one, [Charge(quota, "k", 6)])
    assert (verdict.allowed, verdict.remaining, verdict.retry_after_s) == (False, 5, inf)
    assert (await spent(limits.one, [Charge(quota, "k", 5)]))[0].allowed


@pytest_twisted.ensureDeferred
async def test_any_key(limits: Limits) -> None:
    """
    Keys and names are any text, and none is another's.
    """
    for name, key in (("a", "b:c"), ("a:b", "c"), ("a", "{b}"), ("a", "}{"), ("\u20ac", "\n\x00")):
        verdicts = [(await spent(limits.one, [Charge(Quota(name, 1, 60.0), key)]))[0] for _ in range(2)]
        assert [verdict.allowed for verdict in verdicts] == [True, False]


@pytest_twisted.ensureDeferred
async def test_looking_and_forgetting(limits: Limits) -> None:
    """
    A cost of nothing tells how a key stands and spends nothing; what is forgotten may spend all again, everywhere.
    """
    quota = Quota("q", 2, 3600.0)
    [fresh] = await spent(limits.two, [Charge(quota, "k", 0)])
    assert (fresh.allowed, fresh.remaining, fresh.full_after_s) == (True, 2, 0.0)
    await spent(limits.one, [Charge(quota, "k", 2)])
    for _ in range(2):
        [spoilt] = await spent(limits.two, [Charge(quota, "k", 0)])
        assert spoilt.remaining == 0
        assert 3590 < spoilt.full_after_s <= 3600
    await limits.two.forget([Charge(quota, "k")])
    [again] = await spent(limits.one, [Charge(quota, "k", 2)])
    assert again.allowed


def test_memory_is_bounded() -> None:
    """
    In memory a bounded number of keys is kept, those charged last; what may spend all again is not kept.
    """
    clock = Clock()
    limiter, quota = MemoryLimiter(clock.seconds, most_keys=1000), Quota("q", 2, 60.0)
    for number in range(5000):
        [verdict] = limiter.spend([Charge(quota, str(number))], print)
        assert verdict.remaining == 1
        [again] = limiter.spend([Charge(quota, str(max(0, number - 200)))], print)
        assert again.remaining == 0
        assert len(limiter) <= 1000
    assert limiter.forgotten >= 4000 - 1000
    limiter.spend([Charge(quota, "refused", 3)], print)
    before = len(limiter)
    clock.advance(121)
    limiter.spend([Charge(quota, "4999", 3)], print)
    assert len(limiter) <= before


def test_memory_does_as_the_rules_say() -> None:
    """
    What is decided in one go in memory is what ``core.gcra`` says, whatever the rate, the cost and the pauses.
    """
    chance, clock = random.Random(7), Clock()
    clock.advance(1000.0)
    limiter = MemoryLimiter(clock.seconds)
    for number in range(30):
        quota = Quota(
            str(number), chance.randint(1, 20), chance.choice((0.1, 1.0, 7.0, 3600.0)), chance.choice((0, 1, 7, 50))
        )
        rule = (quota.number, quota.per_s, quota.burst)
        at = 0.0
        for _ in range(100):
            cost, now = chance.randint(0, 4), clock.seconds()
            due = gcra.spend(at, now, *rule, cost=cost)
            at = due.at
            made = limiter.one(Charge(quota, "k", cost))
            assert made.allowed == due.allowed
            assert made.remaining == gcra.remaining(at, now, *rule)
            assert made.full_after_s == pytest.approx(max(0.0, at - now))
            if made.retry_after_s != inf:
                assert made.retry_after_s == pytest.approx(due.retry_after_s)
            clock.advance(chance.random() * quota.per_s / quota.number)
