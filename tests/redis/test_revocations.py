"""
Revocations in a real Redis: restarts, outages, lost data and missed messages let nobody back in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from tests.contract.revokers import in_redis
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from tests.web.harness import pause
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.core.identity import Identity, Revocation
from gateway.redis.revocations import PAGE


def holds(revocations: Any, token_id: str) -> bool:
    """Whether a token is revoked."""
    revoked: bool = revocations.is_revoked(Identity("alice", "https://id.example", 4e9, token_id=token_id))
    return revoked


def order(token_id: str, for_s: float = 600.0) -> Revocation:
    return Revocation(time.time() + for_s, token_id=token_id)


class Town:
    """
    Instances on one Redis.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.links: list[Any] = []
        self.made: list[Any] = []
        self.failed: list[tuple[str, Failure]] = []

    async def add(self) -> Any:
        """One more instance, that has read what there is."""
        redis = await link(self.url, self.prefix)
        self.links.append(redis)
        made = in_redis(redis, lambda name, failure: self.failed.append((name, failure)))
        self.made.append(made)
        await made.start()
        return made

    async def close(self) -> None:
        """End all."""
        for redis, made in zip(self.links, self.made, strict=True):
            await made.stop()
            await redis.stop()
        assert not self.failed


@pytest_twisted.async_yield_fixture
async def town(redis_server: RedisServer) -> AsyncIterator[Town]:
    made = Town(redis_server.url)
    yield made
    await made.close()


@pytest_twisted.async_yield_fixture
async def fallible(tmp_path: Path) -> AsyncIterator[tuple[Town, RedisServer]]:
    server = RedisServer(tmp_path / "redis").start()
    made = Town(server.url)
    yield made, server
    await made.close()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_who_starts_later_knows_all(town: Town) -> None:
    """
    An instance that starts has read every revocation, in pages, before it goes on; also after all others have gone.
    """
    first = await town.add()
    for begin in range(0, PAGE + 300, 100):
        await Deferred.fromCoroutine(first._send([order(f"t{number}") for number in range(begin, begin + 100)]))
    await first.stop()
    later = await town.add()
    assert later.complete
    assert all(holds(later, f"t{number}") for number in range(PAGE + 300))


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_when_all_have_ended(town: Town) -> None:
    """
    Keys go by themselves with the last revocation, and single ones with those that come after.
    """
    one = await town.add()
    keys = one._keys
    await one.revoke(order("short", 0.3))
    await one.revoke(order("longer", 60))
    await until(lambda: not holds(one, "short"))
    await one.revoke(order("third", 60))
    assert await town.links[0].call("HKEYS", keys[0]) == [b"t:longer", b"t:third"]
    assert [await town.links[0].call("ZCARD", key) for key in keys[1:3]] == [2, 2]
    left = [await town.links[0].call("TTL", key) for key in keys]
    assert all(0 < ttl <= 61 for ttl in left), left


@pytest_twisted.ensureDeferred
async def test_a_message_that_is_missed(town: Town) -> None:
    """
    Whoever did not hear of a revocation knows it within a second all the same.
    """
    one, two = await town.add(), await town.add()
    await town.links[1].unsubscribe(two._topic)  # As if its link were cut and nobody had noticed.
    began = time.monotonic()
    await one.revoke(order("t"))
    await until(lambda: holds(two, "t"))
    assert time.monotonic() - began < 2.0


@pytest_twisted.ensureDeferred
async def test_topics_are_cut_while_revoking(town: Town) -> None:
    """
    Connections that are cut all the time delay nothing beyond a second.
    """
    one, two = await town.add(), await town.add()
    slowest = 0.0
    for number in range(5):
        await town.links[0].call("CLIENT", "KILL", "TYPE", "pubsub")
        began = time.monotonic()
        await one.revoke(order(f"t{number}"))
        await until(lambda number=number: holds(two, f"t{number}"))
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2.0


@pytest_twisted.ensureDeferred
async def test_redis_away(fallible: tuple[Town, RedisServer]) -> None:
    """
    While Redis is away what is known holds, and what is revoked holds here and is said to be pending; others know it when it is back.
    """
    town, server = fallible
    one, two = await town.add(), await town.add()
    assert await one.revoke(order("before"))
    await until(lambda: holds(two, "before"))
    server.kill()
    await until(lambda: not town.links[0].available and not town.links[1].available)
    assert not await one.revoke(order("meanwhile"))
    assert holds(one, "meanwhile")
    assert holds(two, "before")
    assert not holds(two, "meanwhile")
    server.start()  # It kept nothing: the instances give back what they know.
    await until(lambda: holds(two, "meanwhile"))
    later = await town.add()
    await until(lambda: holds(later, "before") and holds(later, "meanwhile"))


@pytest_twisted.ensureDeferred
async def test_data_that_is_lost_is_given_back(town: Town) -> None:
    """
    After Redis was emptied, or went back, the instances write what they know; who starts then knows it.
    """
    one, _ = await town.add(), await town.add()
    for number in range(250):
        await one.revoke(order(f"t{number}"))
    for key in one._keys:
        await town.links[0].call("DEL", key)
    later = await town.add()
    await until(lambda: all(holds(later, f"t{number}") for number in range(250)))
    # The others are through with giving back as well.
    tops: list[Any] = [None]
    while tops[-1] is None or tops[-1] != tops[-2]:
        tops.append(await town.links[0].call("HGET", one._keys[3], "top"))
        await pause(0.7)
    await town.links[0].call("HDEL", one._keys[0], "t:t7")
    await town.links[0].call("ZREM", one._keys[1], "t:t7")
    await town.links[0].call("HINCRBY", one._keys[3], "top", -5)
    again = await town.add()
    await until(lambda: holds(again, "t7"))


@pytest_twisted.ensureDeferred
async def test_who_starts_without_redis(fallible: tuple[Town, RedisServer]) -> None:
    """
    An instance that starts while Redis is away does not wait, and says that it does not know everything, until it does.
    """
    town, server = fallible
    one = await town.add()
    redis = await link(server.url, town.prefix)
    late = in_redis(redis, lambda name, failure: town.failed.append((name, failure)))
    town.links.append(redis)
    town.made.append(late)
    server.kill()
    await until(lambda: not redis.available)
    await late.start()
    await one.revoke(order("t"))
    assert not late.complete
    server.start()
    await until(lambda: late.complete and holds(late, "t"))
