"""
Rate limits on a real Redis: exact over instances, gone when they are full again, and what passes without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from tests.contract.test_limits import spent
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from twisted.internet.defer import gatherResults

from gateway.memory.limits import MemoryLimiter
from gateway.ports.limits import Charge, Quota


def limiter(redis: Any, instances: Callable[[], int] = lambda: 1) -> Any:
    from twisted.internet import reactor  # pytest-twisted has installed one.

    from gateway.redis.limits import RedisLimiter

    here = cast(Any, reactor)
    made = RedisLimiter(redis, here, MemoryLimiter(here.seconds))
    made.instances = instances
    return made


async def passed(limiter: Any, quota: Quota, times: int) -> int:
    verdicts = [(await spent(limiter, [Charge(quota, "k")]))[0] for _ in range(times)]
    return sum(verdict.allowed for verdict in verdicts)


@pytest_twisted.ensureDeferred
async def test_nothing_is_left(redis: Any) -> None:
    """
    A key is there for as long as it holds something back, and no longer.
    """
    quota = Quota("q", 10, 1.0)
    await spent(limiter(redis), [Charge(quota, "k" * 300), Charge(quota, "short", 5)])
    keys = sorted(await redis.call("KEYS", redis.keys.one("limit", "*")[:-1] + "*", key="any"))
    assert len(keys) == 2
    assert all(len(key) < 160 for key in keys)
    assert sorted([await redis.call("PTTL", key) > 150 for key in keys]) == [False, True]
    await until_gone(redis, keys)


async def until_gone(redis: Any, keys: list[bytes]) -> None:
    while await redis.call("EXISTS", *keys, key="any"):
        await redis.call("PING", key="any")


@pytest_twisted.ensureDeferred
async def test_a_clock_that_was_ahead(redis: Any) -> None:
    """
    What another server's clock wrote holds nobody back longer than the burst would.
    """
    quota = Quota("q", 10, 1.0)
    made = limiter(redis)
    ahead = str(int((time.time() + 7200) * 1_000_000))
    await redis.call("SET", redis.keys.one("limit", "1:q:k"), ahead)
    [refused] = await spent(made, [Charge(quota, "k")])
    assert not refused.allowed
    assert refused.retry_after_s <= 0.1


@pytest_twisted.ensureDeferred
async def test_redis_away(tmp_path: Path) -> None:
    """
    Without Redis each instance counts by itself, lets everything pass or nothing, as the quota says; at once, also if it hangs.
    """
    server = RedisServer(tmp_path / "redis").start()
    redis = await link(server.url)
    try:
        one, two = limiter(redis), limiter(redis)
        local, open_, closed = (Quota(way, 5, 3600.0, 0, way) for way in ("local", "open", "closed"))
        assert await passed(one, local, 3) == 3
        server.pause()
        began = time.monotonic()
        charges = [Charge(quota, "k") for quota in (local, open_, closed)]
        verdicts = await spent(one, charges)
        assert [verdict.allowed for verdict in verdicts] == [True, True, False]
        assert [verdict.away for verdict in verdicts] == [True] * 3
        assert verdicts[2].retry_after_s > 0
        assert time.monotonic() - began < 0.3
        await until(lambda: not redis.available)
        assert await passed(one, local, 8) == 1, "it is known here how much was spent before"
        assert await passed(two, local, 8) == 5
        assert await passed(two, open_, 8) == 8
        assert await passed(two, closed, 8) == 0
        server.resume()
        await until(lambda: redis.available)
        assert await passed(two, closed, 8) in (4, 5), "what was not answered may have been spent"
        assert await passed(one, local, 8) in (1, 2), "likewise"
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_exact_over_two_links(redis_server: RedisServer) -> None:
    """
    A hundred and fifty callers on two instances with links of their own, at a burst of 100 refilled one an hour: 100 pass.
    """
    links = [await link(redis_server.url, "limits"), await link(redis_server.url, "limits")]
    quota = Quota("hourly", 1, 3600.0, burst=100)
    asked = [spent(made, [Charge(quota, "exact")]) for _ in range(75) for made in [limiter(each) for each in links]]
    verdicts = [verdict for [verdict] in await gatherResults(asked)]
    assert sum(verdict.allowed for verdict in verdicts) == 100
    await links[0].call("DEL", links[0].keys.one("limit", "6:hourly:exact"))
    for each in links:
        await each.stop()


@pytest_twisted.ensureDeferred
async def test_parts_of_what_was_shared(redis_server: RedisServer) -> None:
    """
    Without Redis each of four instances lets a quarter pass, rounded up, and told so once; no verdict costs time then.
    """
    redis = await link(redis_server.url, "parts")
    told: list[str] = []
    made = limiter(redis, lambda: 4)
    made._event = lambda name, _fields: told.append(name)
    await redis.stop()
    assert await passed(made, Quota("q", 1, 3600.0, burst=10), 10) == 3
    assert isinstance(made.spend([Charge(Quota("q", 1, 3600.0), "k")], print), list)
    assert told == ["limits.apart"]
