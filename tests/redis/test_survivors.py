"""
What survivors make of the dead on a real Redis, and what an outage leaves.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.realtime.neighbours import Telling
from tests.redis.instances import LEASE_S, WINDOW_S, Instance, Town, until
from tests.redis.server import RedisServer
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from gateway.core.partitions import PARTITIONS
from gateway.node.leases import Lost
from gateway.ports.instances import Standing


@pytest_twisted.async_yield_fixture
async def town(redis_server: RedisServer) -> AsyncIterator[Town]:
    made = Town(redis_server.url)
    yield made
    await made.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    if server.process is not None:
        server.resume()
    server.stop()


async def sleep(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


async def all_of(steps: Any) -> list[Any]:
    return await gatherResults([ensureDeferred(step) for step in steps], consumeErrors=True)


@pytest_twisted.ensureDeferred
async def test_mixed_endings_end_once(town: Town) -> None:
    """
    Of 1,200 sessions (or SESSIONS), closed, lost, gone on elsewhere or held by one that dies, with two survivors: each ends once.
    """
    one, two, dying = await town.add(), await town.add(), await town.add()
    chance = random.Random(11)
    many = int(os.environ.get("SESSIONS", "1200")) / 1200
    known: set[str] = set()

    async def live(number: int) -> None:
        await sleep(chance.random() * 1.5 * many)
        at = chance.choice([each for each in (one, two, dying) if each.alive])
        try:
            record = await at.connect(f"user{number}")
        except CancelledError:
            return  # Its instance died meanwhile.
        known.add(record.id)
        await sleep(chance.random() * 0.5)
        if number % 2 or not at.alive:
            return  # As long as it is let.
        if number % 4:
            await at.end(record)
            return
        await at.lose(record)
        if number % 8:
            await sleep(chance.random() * WINDOW_S)
            known.add((await chance.choice((one, two)).connect(f"user{number}")).id)

    running = [ensureDeferred(live(number)) for number in range(round(1200 * many))]
    await sleep(1.0 * many)
    await dying.kill()
    await gatherResults(running)
    for at in (one, two):
        await all_of(
            at.end(record) if number % 2 else at.lose(record)
            for number, record in enumerate(list(at.connections.values()))
        )

    async def all_ended() -> bool:
        return set(await town.ends()) >= known

    await until(all_ended)
    await sleep(WINDOW_S)
    ends = await town.ends()
    assert {session: causes for session, causes in ends.items() if len(causes) != 1} == {}
    started = [event.session for event in await town.told() if event.id.endswith("-started")]
    assert sorted(started) == sorted(ends)
    assert {causes[0] for causes in ends.values()} == {b"closed", b"lost", b"instance_lost"}
    assert await town.left() == set()
    assert len(known) > 1000 * many


@pytest_twisted.ensureDeferred
async def test_survivors_that_disagree_about_who_sweeps(town: Town) -> None:
    """
    Two that both find the same 1,000 sessions due and lost end each of them once.
    """
    one, two, dying = await town.add(), await town.add(), await town.add()
    records = await all_of(dying.connect(f"user{number}") for number in range(1000))
    await dying.pause()
    for at in (one, two):
        await at.pause()
    now = time.time()
    moved = await all_of(at.store.lose(dying.name, now - 1.0, now, limit=3) for at in (one, two) * 20)
    assert sum(moved) == 1000

    async def sweep(at: Instance) -> int:
        ended = 0
        while due := await at.store.lapsing(range(PARTITIONS), 5):
            events = [(record, Telling().ended(record, record.cause)) for record in due]
            ended += len(await at.store.lapse(events))
        return ended

    assert sum(await all_of(sweep(at) for at in (one, two))) == 1000
    ends = await town.ends()
    assert set(ends) == {record.id for record in records}
    assert {tuple(causes) for causes in ends.values()} == {(b"instance_lost",)}


@pytest_twisted.ensureDeferred
async def test_one_that_never_comes_back(town: Town) -> None:
    """
    A dead instance's sessions may be resumed within a lease and a beat; those that are not end as of its last beat.
    """
    survivor, dying = await town.add(), await town.add()
    await all_of(dying.connect(f"user{number}") for number in range(300))
    first = next(iter(dying.connections.values()))
    await dying.kill()
    dead_at = time.monotonic()
    await until(lambda: survivor.keeper.claimed == 1)
    assert time.monotonic() - dead_at < LEASE_S + 1.0

    async def all_ended() -> bool:
        return len(await town.ends()) == 300

    await until(all_ended)
    ends = await town.ends()
    assert {tuple(causes) for causes in ends.values()} == {(b"instance_lost",)}
    at = {event.at for event in await town.told() if event.id.endswith("-ended")}
    assert len(at) == 1
    (began,) = [event.at for event in await town.told() if event.id == f"{first.id}-started"]
    assert began - LEASE_S < at.pop() < began + 2.0
    owed = await town.owed()
    assert sorted(event.id for event in owed) == sorted(dying.connections)


@pytest_twisted.ensureDeferred
async def test_all_dead_and_one_later(town: Town) -> None:
    """
    When nobody is left the next instance that starts ends what they had.
    """
    one, two = await town.add(), await town.add()
    for at in (one, two):
        await all_of(at.connect(f"{at.name}-{number}") for number in range(50))
        await at.kill()
    await sleep(LEASE_S)
    late = await town.add()
    await until(lambda: late.keeper.claimed == 2)

    async def all_ended() -> bool:
        return len(await town.ends()) == 100

    await until(all_ended)
    assert {tuple(causes) for causes in (await town.ends()).values()} == {(b"instance_lost",)}
    assert await town.left() == set()


@pytest_twisted.ensureDeferred
async def test_one_that_was_only_paused(town: Town) -> None:
    """
    It finds its lease claimed, lets every client go, and serves under another name; what went on elsewhere goes on.
    """
    survivor, paused = await town.add(), await town.add()
    records = await all_of(paused.connect(f"user{number}") for number in range(20))
    await paused.pause()
    await until(lambda: survivor.keeper.claimed == 1)
    moved = await survivor.connect("user0")
    assert moved.id == records[0].id
    paused.start()
    await until(lambda: paused.sessions.ready and not paused.connections)
    assert paused.keeper.instance != "i2"
    assert "instance.claimed_by_others" in paused.events
    back = await paused.connect("new")
    stored = await paused.store.get(back.id)
    assert stored is not None
    assert stored.instance == paused.keeper.instance

    async def all_ended() -> bool:
        return len(await town.ends()) == 19

    await until(all_ended)
    await sleep(WINDOW_S)
    ends = await town.ends()
    assert {tuple(causes) for causes in ends.values()} == {(b"instance_lost",)}
    assert moved.id not in ends
    assert await survivor.registry.beat("i2", LEASE_S) is Standing.CLAIMED


@pytest_twisted.ensureDeferred
async def test_a_claimer_that_dies_while_it_tidies(town: Town) -> None:
    """
    Another survivor goes on where it stopped: nothing is ended twice, and what is owed is owed once.
    """
    claimers: list[str] = []
    one, two, dying = await town.add(), await town.add(), await town.add()
    for at in (one, two):

        async def tidy(lost: Lost, name: str = at.name) -> None:
            if lost.instance == dying.name:
                claimers.append(name)
                if len(claimers) == 1:
                    await Deferred()

        at.tidies.append(tidy)
    await all_of(dying.connect(f"user{number}") for number in range(100))
    await dying.kill()
    await until(lambda: claimers)
    first, second = (one, two) if claimers == ["i1"] else (two, one)
    await first.kill()
    await until(lambda: second.keeper.claimed == 2)
    assert claimers == [first.name, second.name]

    async def all_ended() -> bool:
        return len(await town.ends()) == 100

    await until(all_ended)
    assert {len(causes) for causes in (await town.ends()).values()} == {1}
    assert len(await town.owed()) == 100


@pytest_twisted.ensureDeferred
async def test_a_redis_that_forgets_everything(own_server: RedisServer) -> None:
    """
    FLUSHALL: within a beat every open session is there again, under its id and with its start; nobody is let go.
    """
    town = Town(own_server.url)
    try:
        one, two = await town.add(), await town.add()
        for at in (one, two):
            await all_of(at.connect(f"{at.name}-{number}") for number in range(300))
        before = {record.id: record for at in (one, two) for record in at.connections.values()}
        own_server.ask("FLUSHALL")

        async def all_back() -> bool:
            found = await all_of(one.store.get(session) for session in before)
            return all(record is not None for record in found)

        await until(all_back)
        after = {record.id: record for record in await all_of(one.store.get(session) for session in before)}
        assert {s: (r.client, r.instance, r.started_at) for s, r in after.items()} == {
            s: (r.client, r.instance, r.started_at) for s, r in before.items()
        }
        await sleep(LEASE_S * 2)
        assert [at.keeper.instance for at in (one, two)] == ["i1", "i2"]
        assert [at.taken for at in (one, two)] == [[], []]
        assert await town.ends() == {}
    finally:
        await town.stop()


@pytest.mark.parametrize("hangs", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_outage(own_server: RedisServer, *, hangs: bool) -> None:
    """
    Redis hangs, or is killed and comes back empty, for longer than a lease: nobody is claimed or let go.

    Who came, was lost and left meanwhile is written afterwards, each once and with its true times.
    """
    town = Town(own_server.url)
    try:
        one, two = await town.add(timeout_s=0.4), await town.add(timeout_s=0.4)
        stay = [await one.connect(f"stay{number}") for number in range(20)]
        gone = [await two.connect(f"gone{number}") for number in range(20)]
        own_server.pause() if hangs else own_server.kill()
        await until(lambda: not one.redis.available and not two.redis.available)
        began_at = time.time()
        came = [await one.connect(f"came{number}") for number in range(200)]
        lost = [await two.connect(f"lost{number}") for number in range(200)]
        left = [await two.connect(f"left{number}") for number in range(200)]
        await sleep(0.5)
        ended_at = time.time()
        for record in lost:
            await two.lose(record)
        for record in [*left, *gone]:
            await two.end(record)
        await sleep(LEASE_S)
        own_server.resume() if hangs else own_server.start()
        await until(lambda: not one.sessions.journal and not two.sessions.journal)
        await until(lambda: one.redis.available and two.redis.available)

        async def all_ended() -> bool:
            # Redis that came back empty knows nothing of those whose beginning it lost.
            return len(await town.ends()) == 400 + (20 if hangs else 0)

        await until(all_ended)
        await sleep(LEASE_S)
        assert [at.keeper.instance for at in (one, two)] == ["i1", "i2"]
        assert [at.taken for at in (one, two)] == [[], []]
        assert [at.lost for at in (one, two)] == [[], []]
        ends = await town.ends()
        assert {len(causes) for causes in ends.values()} == {1}
        assert not {record.id for record in [*stay, *came]} & set(ends)
        found = await all_of(one.store.get(record.id) for record in [*stay, *came])
        assert all(record is not None and not record.cause for record in found)
        began = {event.session: event.at for event in await town.told() if event.id.endswith("-started")}
        ended = {event.session: event.at for event in await town.told() if event.id.endswith("-ended")}
        for record in [*lost, *left]:
            # What is late by a slow machine is late by the time that a step takes to Redis.
            assert abs(began[record.id] - began_at) < 1.0
            assert abs(ended[record.id] - ended_at) < 1.0
    finally:
        await town.stop()


@pytest_twisted.ensureDeferred
async def test_a_redis_that_is_full(own_server: RedisServer) -> None:
    """
    OOM: sessions begin and end all the same, nobody is claimed, and all is written when there is room again.
    """
    town = Town(own_server.url)
    try:
        one, two = await town.add(), await town.add()
        there = await one.connect("there")
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        came, left = await one.connect("came"), await two.connect("left")
        await two.end(left)
        await one.lose(there)
        assert len(one.sessions.journal) == len(two.sessions.journal) == 2
        await sleep(LEASE_S * 1.5)
        own_server.ask("CONFIG", "SET", "maxmemory", 0)

        async def all_ended() -> bool:
            return set(await town.ends()) == {there.id, left.id}

        await until(all_ended)
        await sleep(LEASE_S)
        assert {len(causes) for causes in (await town.ends()).values()} == {1}
        assert [at.keeper.instance for at in (one, two)] == ["i1", "i2"]
        assert [at.lost for at in (one, two)] == [[], []]
        stored = await one.store.get(came.id)
        assert stored is not None
        assert stored.client == came.client
    finally:
        await town.stop()
