"""
Presence on a real Redis: dead instances, races, outages, data that is lost, and what it costs.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.contract.halls import InRedis, in_redis
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from gateway.core.publications import ClientInfo
from gateway.ports.realtime import Occupancy, StoreUnavailable

ALICE, BOB = ClientInfo("alice", "a1", b"{}"), ClientInfo("bob", "b1")
HERE = {"announced": True}
SETTLE_S = 2.0


async def together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    return list(await gatherResults([Deferred.fromCoroutine(step) for step in steps]))


async def keys_of(hall: InRedis) -> list[bytes]:
    """What is stored, but for the lineage."""
    redis = hall.links[0]
    base = redis.keys.one("lineage").partition("{")[0]
    found: list[bytes] = await redis.call("KEYS", base.replace("[", "?") + "*", key="any")
    return sorted(key for key in found if b"lineage" not in key)


def commands(hall: InRedis, number: int = 0) -> Any:
    """Counts what a link has sent."""
    sent = [0]
    redis = hall.links[number]
    for name in ("run", "call"):
        before = getattr(redis, name)

        def counting(*args: Any, before: Any = before, **more: Any) -> Any:
            sent[0] += 1
            return before(*args, **more)

        setattr(redis, name, counting)
    return sent


@pytest_twisted.async_yield_fixture
async def hall(redis_server: RedisServer) -> AsyncIterator[InRedis]:
    async for made in in_redis(redis_server.url):
        yield made


@pytest_twisted.async_yield_fixture
async def fallible(tmp_path: Path) -> AsyncIterator[tuple[InRedis, RedisServer]]:
    server = RedisServer(tmp_path / "redis").start()
    async for made in in_redis(server.url, settle_s=SETTLE_S):
        yield made, server
    server.stop()


@pytest.mark.parametrize("seed", range(12))
@pytest_twisted.ensureDeferred
async def test_a_user_comes_once_and_goes_once(hall: InRedis, seed: int) -> None:
    """
    Three tabs on two instances enter, leave, are cut off and come back in any order and at the same time: joins and leaves alternate.
    """
    rng = random.Random(seed)
    stores = (hall.presences.one, hall.presences.two)
    at: dict[int, Any] = {}
    number = 0
    for _ in range(12):
        steps = []
        for tab in rng.sample(range(3), rng.randint(1, 3)):
            store, client = at.get(tab, (None, ""))
            if store is None:
                number += 1
                at[tab] = store, client = rng.choice(stores), f"c{number}"
                steps.append(store.enter("t", f"s{tab}", ClientInfo("carol", client), **HERE))
            elif rng.random() < 0.5:
                del at[tab]
                steps.append(store.leave("t", f"s{tab}", client))
            else:
                number += 1
                at[tab] = other, again = rng.choice(stores), f"c{number}"
                steps.append(store.hold("t", f"s{tab}", client, 30.0))
                steps.append(other.enter("t", f"s{tab}", ClientInfo("carol", again), **HERE))
        await together(*steps)
        members = await stores[0].members("t")
        assert sorted(members) == sorted(client for _, client in at.values())
        assert await stores[1].occupancy("t") == Occupancy(len(at), int(bool(at)))
    told = [kind for kind, _, _ in await hall.presences.take()]
    assert told == (["join", "leave"] * len(told))[: len(told)]
    assert bool(len(told) % 2) is bool(at)
    await together(*(store.leave("t", f"s{tab}", client) for tab, (store, client) in at.items()))
    await hall.presences.pass_time(0.01)
    held = await hall.links[0].call("ZCARD", hall.links[0].keys.channel("held", "presence"))
    assert held <= number, "what was held is looked at once more, when its time has come"


@pytest_twisted.ensureDeferred
async def test_nothing_is_left(hall: InRedis) -> None:
    """
    When everybody has left, or was ended, no key is there.
    """
    one, two = hall.presences.one, hall.presences.two
    for number in range(30):
        store, session, client = (one, two)[number % 2], f"s{number}", f"c{number}"
        info = ClientInfo(f"u{number % 7}", client)
        for channel in ("t", f"own{number}"):
            await store.enter(channel, session, info, **HERE)
    assert len(await keys_of(hall)) == 2 + 2 * 30 + 1
    for number in range(30):
        store, session, client = (one, two)[number % 2], f"s{number}", f"c{number}"
        for channel in ("t", f"own{number}"):
            if number % 3:
                await store.leave(channel, session, client)
            elif number % 2:
                await store.hold(channel, session, client, 0.1)
    await two.reap("one", lambda _: 0.1)
    await hall.presences.pass_time(0.3)
    assert len(await two.expired()) == 20
    assert await keys_of(hall) == []
    assert one.unwritten == two.unwritten == 0


@pytest_twisted.ensureDeferred
async def test_two_survivors_race(hall: InRedis) -> None:
    """
    Two that tidy up after the same dead instance, step by step at the same time and once more: each leave is told once.
    """
    one, two = hall.presences.one, hall.presences.two
    dead = "dead"
    one.own(dead)
    infos = {f"s{number}": ClientInfo(f"u{number}", f"c{number}") for number in range(700)}
    await together(*(one.enter("t", session, info, **HERE) for session, info in infos.items()))
    await together(*(one.enter(f"table{n % 150}", f"s{n}", infos[f"s{n}"], **HERE) for n in range(700)))
    one.own("one")
    assert len(await hall.presences.take()) == 700
    counts = await together(one.reap(dead, lambda _: 0.2), two.reap(dead, lambda _: 0.2))
    assert sum(counts) == 1400
    assert await two.reap(dead, lambda _: 0.2) == 0
    back = {f"s{number}": ClientInfo(f"u{number}", f"d{number}") for number in range(0, 700, 7)}
    assert all(await together(*(two.enter("t", session, info, **HERE) for session, info in back.items())))
    await hall.presences.pass_time(0.5)
    ended: list[tuple[str, ClientInfo]] = []
    for _ in range(6):
        for found in await together(one.expired(400), two.expired(400)):
            ended += found
    assert len(ended) == len(set(ended)) == 1400 - 100
    told = await hall.presences.take()
    assert sorted(told) == sorted(("leave", "t", f"u{number}") for number in range(700) if number % 7)
    assert await one.occupancy("t") == Occupancy(100, 100)
    assert set(await one.owners()) == {"two"}


@pytest_twisted.ensureDeferred
async def test_a_survivor_dies_too(hall: InRedis) -> None:
    """
    Whoever goes on where another stopped in the middle ends all of it.
    """
    one, two = hall.presences.one, hall.presences.two
    one.own("dead")
    for number in range(60):
        await one.enter(f"table{number}", f"s{number}", ClientInfo(f"u{number}", f"c{number}"), **HERE)
    one.own("one")
    left = 60
    steps = 0

    def few(_channel: str) -> float:
        nonlocal steps
        steps += 1
        if steps == 30:
            raise ZeroDivisionError
        return 0.0

    with pytest.raises(ZeroDivisionError):
        await one.reap("dead", few)
    await hall.presences.pass_time(0.05)
    first = await together(one.expired(10), two.reap("dead", lambda _: 0.0))
    await hall.presences.pass_time(0.05)
    left -= len(first[0]) + len(await two.expired()) + len(await one.expired())
    assert left == 0
    assert await keys_of(hall) == []


@pytest_twisted.ensureDeferred
async def test_who_was_ended_and_does_not_know(hall: InRedis) -> None:
    """
    What an instance enters after it was tidied up after, because it had stood still, is found as its own again.
    """
    one, two = hall.presences.one, hall.presences.two
    await one.enter("t", "s1", ALICE, **HERE)
    await hall.presences.pass_time(0.6)  # More than half a lease.
    assert await two.reap("one", lambda _: 0.0) == 1
    assert set(await two.owners()) == set()
    await one.enter("t", "s2", BOB, **HERE)
    assert set(await two.owners()) == {"one"}
    assert await two.reap("one", lambda _: 0.0) == 1


@pytest_twisted.ensureDeferred
async def test_who_gives_up_waiting(hall: InRedis) -> None:
    """
    A client that is gone before it is in has left, whatever was on its way; and the last word counts.
    """
    one = hall.presences.one
    for number in range(20):
        entering = Deferred.fromCoroutine(one.enter("t", f"s{number}", ClientInfo("u", f"c{number}"), **HERE))
        entering.addErrback(lambda failure: failure.trap(CancelledError))
        entering.cancel()
        await one.leave("t", f"s{number}", f"c{number}")
    await together(
        one.enter("t", "s", ALICE, **HERE),
        one.leave("t", "s", "a1"),
        one.enter("t", "s", ALICE, **HERE),
        one.hold("t", "s", "a1", 60),
        one.enter("t", "s", ClientInfo("alice", "a2"), **HERE),
    )
    assert set(await one.members("t")) == {"a2"}
    assert one.unwritten == 0


@pytest_twisted.ensureDeferred
async def test_what_it_costs(hall: InRedis) -> None:
    """
    One command to enter, one to leave, with what is told of it; one more for an instance's first and last in a channel, none to stay.
    """
    one = hall.presences.one
    sent = commands(hall)
    await one.enter("t", "s1", ALICE, **HERE)
    assert sent[0] == 2
    await one.enter("t", "s2", BOB, **HERE)
    assert sent[0] == 3
    await one.restore()
    assert sent[0] == 3
    await one.leave("t", "s1", "a1")
    assert sent[0] == 4
    await one.leave("t", "s2", "b1")
    assert sent[0] == 6
    await together(*(one.enter("t", f"s{n}", ClientInfo(f"u{n}", f"c{n}"), **HERE) for n in range(200)))
    # Beside them the link may have looked once or twice for places whose time is over.
    assert 6 + 201 <= sent[0] <= 6 + 203


# Redis is away.


async def away(hall: InRedis) -> None:
    await until(lambda: not any(link.available for link in hall.links))


async def back(hall: InRedis) -> None:
    await until(lambda: all(link.available and link.hearing for link in hall.links))


async def restored(hall: InRedis) -> None:
    """Both have written what they have."""
    for _ in range(200):
        await together(hall.presences.one.restore(), hall.presences.two.restore())
        if not hall.presences.one.unwritten and not hall.presences.two.unwritten:
            return
        await hall.presences.pass_time(0.02)
    raise AssertionError("it is not written")


@pytest_twisted.ensureDeferred
async def test_an_outage(fallible: tuple[InRedis, RedisServer]) -> None:
    """
    While Redis hangs clients come and go, and questions are refused; afterwards it is as they left it, told once.
    """
    hall, server = fallible
    one, two = hall.presences.one, hall.presences.two
    for number in range(5):
        await one.enter("t", f"s{number}", ClientInfo(f"u{number}", f"c{number}"), **HERE)
    await two.enter("t", "s9", ClientInfo("u1", "c9"), **HERE)
    assert len(await hall.presences.take()) == 5
    server.pause()
    entering = Deferred.fromCoroutine(one.enter("t", "new", ClientInfo("new", "n"), **HERE))
    leaving = Deferred.fromCoroutine(one.leave("t", "s0", "c0"))
    assert await entering is False
    await leaving
    await away(hall)
    assert await one.enter("t", "brief", ClientInfo("brief", "b"), **HERE) is False
    await one.leave("t", "brief", "b")
    await one.leave("t", "s1", "c1")
    await one.hold("t", "s2", "c2", 30.0)
    await one.hold("t", "s3", "c3", 0.1)
    await two.enter("t", "later", ClientInfo("later", "l"), **HERE)
    assert one.unwritten == 6
    for question in (one.members("t"), one.occupancy("t"), one.expired(), one.reap("x", lambda _: 0.0), one.owners()):
        with pytest.raises(StoreUnavailable):
            await question
    for listener in hall.presences.heard:
        listener.gaps_allowed = True
    server.resume()
    await back(hall)
    await hall.presences.pass_time(0.1)
    await restored(hall)
    await hall.presences.pass_time(0.01)
    await one.expired()
    assert set(await two.members("t")) == {"n", "c2", "c4", "c9", "l"}
    assert await two.occupancy("t") == Occupancy(5, 5)


@pytest_twisted.ensureDeferred
async def test_data_that_is_lost(fallible: tuple[InRedis, RedisServer]) -> None:
    """
    After a restart that kept nothing everybody who is here is there again, without a word; who went meanwhile has left, once.
    """
    hall, server = fallible
    one, two = hall.presences.one, hall.presences.two
    infos = {f"s{number}": ClientInfo(f"u{number}", f"c{number}") for number in range(600)}
    await together(*(one.enter("t", session, info, **HERE) for session, info in infos.items()))
    await together(*(two.enter(f"table{n}", f"s{n}", infos[f"s{n}"], **HERE) for n in range(600)))
    await two.enter("t", "tab", ClientInfo("u1", "tab"), **HERE)
    await one.hold("t", "s2", "c2", 0.2)
    await one.hold("t", "s3", "c3", 30.0)
    await hall.presences.take()
    server.kill()
    await away(hall)
    await one.leave("t", "s0", "c0")
    await one.leave("t", "s1", "c1")
    await two.enter("t", "new", ClientInfo("new", "n"), **HERE)
    await two.enter("t", "s4", ClientInfo("u4", "moved"), **HERE)
    await one.hold("t", "s4", "c4", 30.0)
    for listener in hall.presences.heard:
        listener.gaps_allowed = True
    server.start()
    await back(hall)
    await together(one.restore(), two.restore())
    assert await hall.presences.take() == []
    assert len(await two.members("table77")) == 1
    await hall.presences.pass_time(SETTLE_S)
    await restored(hall)
    await hall.presences.pass_time(0.1)
    await together(one.expired(), two.expired())
    assert sorted(await hall.presences.take()) == [("join", "t", "new"), ("leave", "t", "u0"), ("leave", "t", "u2")]
    members = set(await one.members("t"))
    assert members == {f"c{number}" for number in range(600)} - {"c0", "c1", "c2", "c4"} | {"tab", "n", "moved"}
    assert await two.occupancy("t") == Occupancy(599, 599)
    assert set(await one.owners()) == {"one", "two"}


@pytest_twisted.ensureDeferred
async def test_a_flush_that_nobody_notices_at_once(hall: InRedis) -> None:
    """
    Keys that vanish under a running gateway are written again as soon as the link knows of it.
    """
    one, two = hall.presences.one, hall.presences.two
    await one.enter("t", "s1", ALICE, **HERE)
    await two.enter("t", "s2", BOB, **HERE)
    await together(one.restore(), two.restore())
    keys = [*await keys_of(hall), hall.links[0].keys.one("lineage").encode()]
    chain = hall.links[0].chain
    await hall.links[0].call("DEL", *keys, key="any")
    await until(lambda: all(link.chain != chain for link in hall.links))
    await restored(hall)
    assert set(await one.members("t")) == {"a1", "b1"}
    assert await hall.presences.take() == [("join", "t", "alice"), ("join", "t", "bob")]
    await one.leave("t", "s1", "a1")
    await hall.presences.pass_time(0.5)
    await together(one.restore(), two.expired())
    assert await hall.presences.take() == [("leave", "t", "alice")]


@pytest_twisted.ensureDeferred
async def test_data_that_went_back(hall: InRedis) -> None:
    """
    Entries of ours that stand again though they were left, because the data is older, are ended.
    """
    one, two = hall.presences.one, hall.presences.two
    redis = hall.links[0]
    await one.enter("t", "s1", ALICE, **HERE)
    await one.enter("t", "s2", BOB, **HERE)
    await one.restore()
    kinds = [("p", "HGETALL"), ("u", "HGETALL")]
    saved = {redis.keys.channel(kind, "t"): await redis.call(get, redis.keys.channel(kind, "t")) for kind, get in kinds}
    await one.leave("t", "s1", "a1")
    assert len(await hall.presences.take()) == 3
    chain = redis.chain
    for key, fields in saved.items():
        await redis.call("DEL", key)
        await redis.call("HSET", key, *fields)
    await redis.call("DEL", redis.keys.one("lineage"))
    assert set(await two.members("t")) == {"a1", "b1"}
    await until(lambda: redis.chain != chain)
    await restored(hall)
    await hall.presences.pass_time(0.5)
    await two.expired()
    assert set(await two.members("t")) == {"b1"}
    assert await hall.presences.take() == [("leave", "t", "alice")]


@pytest_twisted.ensureDeferred
async def test_what_waits_is_bounded(fallible: tuple[InRedis, RedisServer]) -> None:
    """
    Beyond a bound what was left while Redis was away is forgotten here, found by comparing, and ended all the same.
    """
    hall, server = fallible
    one: Any = hall.presences.one
    one._roster._most_gone = 10
    for number in range(40):
        await one.enter("t", f"s{number}", ClientInfo(f"u{number}", f"c{number}"), **HERE)
    await one.restore()
    await hall.presences.take()
    server.pause()
    await away(hall)
    for number in range(39):
        await one.leave("t", f"s{number}", f"c{number}")
    assert one.unwritten == 10
    for listener in hall.presences.heard:
        listener.gaps_allowed = True
    server.resume()
    await back(hall)
    await restored(hall)
    await hall.presences.pass_time(SETTLE_S)
    await one.expired()
    assert set(await one.members("t")) == {"c39"}
    assert len(await hall.presences.take()) == 39


@pytest_twisted.ensureDeferred
async def test_a_full_server(fallible: tuple[InRedis, RedisServer]) -> None:
    """
    A server that takes no more (OOM) delays who enters, not who leaves.
    """
    hall, server = fallible
    one = hall.presences.one
    await one.enter("t", "s1", ALICE, **HERE)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert await one.enter("t", "s2", BOB, **HERE) is False
    await one.leave("t", "s1", "a1")
    assert one.unwritten == 1
    assert dict(await one.members("t")) == {}
    server.ask("CONFIG", "SET", "maxmemory", "0")
    await restored(hall)
    assert set(await one.members("t")) == {"b1"}
    assert await hall.presences.take() == [("join", "t", "alice"), ("leave", "t", "alice"), ("join", "t", "bob")]
