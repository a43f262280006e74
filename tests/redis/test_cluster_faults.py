"""
A cluster of which a part fails: the rest goes on, and whatever may have been lost begins a new chain for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.clusters import Cluster
from tests.redis.fixtures import link
from tests.redis.load import Load
from tests.redis.test_link import Hearing, until
from tests.web.harness import pause

from gateway.core.publications import PublishOptions
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.broker import RedisBroker
from gateway.redis.slots import SLOTS, slot_of

PARTIAL = ["--cluster-require-full-coverage", "no"]


LINEAGE = slot_of("{lineage}") * 3 // SLOTS
"""Which master has the lineage."""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three masters, one of them with a replica; that of the lineage, unless another is wanted."""
    made = Cluster(tmp_path, replicas=[getattr(request, "param", LINEAGE)], options=PARTIAL)
    try:
        yield made.start()
    finally:
        made.stop()


def channels_of(load: Load, cluster: Cluster, node: Any) -> set[str]:
    """Those whose slots *node* has."""
    return {channel for channel in load.channels if cluster.owner(slot_of(f"{{{channel}}}")) is node}


@pytest.mark.parametrize("cluster", [LINEAGE, (LINEAGE + 1) % 3], indirect=True, ids=["lineage", "other"])
@pytest_twisted.ensureDeferred
async def test_a_master_is_killed_during_load(cluster: Cluster) -> None:
    """
    Its replica takes its place, whether the lineage was there or not: meanwhile the other shards refuse nothing, then there is one new
    chain, every stream has a new epoch, no position names two publications, and whoever listens is told.
    """
    (master,), (replica,) = cluster.replicated, cluster.replicas
    load = await Load(8).start(cluster.url, timeout_s=1.0)
    hearing = Hearing()
    load.links[0].watch(hearing)
    try:
        theirs = channels_of(load, cluster, master)
        assert 0 < len(theirs) < 8
        await load.more(20)
        chain = load.links[0].chain
        master.kill()
        await until(lambda: hearing.told == ["lost"])
        await until(lambda: cluster.is_master(replica), 20)
        await until(lambda: hearing.told == ["lost", "back"] and all(each.hearing for each in load.links), 20)
        await load.more(20)
        assert theirs <= set(load.gaps)
        assert {each.chain for each in load.links} == {load.links[0].chain}
        assert int(load.links[0].chain.split("-")[0]) == int(chain.split("-")[0]) + 1
        assert all(load.epochs(channel) == 2 for channel in load.channels)
        assert {channel for channel, refused in load.refused.items() if refused} == theirs
        assert [each.losses for each in load.links] == [1, 1]
    finally:
        await load.stop()
    load.check()


@pytest_twisted.ensureDeferred
async def test_masters_change_places(cluster: Cluster) -> None:
    """
    A replica that is made master by order, and the master that is made one again, with no process ended: a new chain each time.
    """
    (master,), (replica,) = cluster.replicated, cluster.replicas
    load = await Load(6).start(cluster.url)
    try:
        chains = [load.links[0].chain]
        for new, old in ((replica, master), (master, replica)):
            await load.more(20)
            await cluster.fail_over(new)
            await until(lambda: not cluster.is_master(old), 20)  # noqa: B023
            await until(lambda: all(each.chain > chains[-1] for each in load.links))
            await until(lambda: all(each.available and each.hearing for each in load.links))
            chains.append(load.links[0].chain)
            await until(lambda: b"link_status:up" in old.ask("INFO", "replication"), 20)  # noqa: B023
        await load.more(20)
        assert [int(chain.split("-")[0]) for chain in chains] == [1, 2, 3]
    finally:
        await load.stop()
    load.check()


@pytest_twisted.ensureDeferred
async def test_a_shard_without_a_replica(cluster: Cluster) -> None:
    """
    A shard that hangs fails the calls that need it and no others; what can be found out of all is not there. When it goes on,
    everything does, in the same chain; when it ended without a file, in a new one.
    """
    redis = await link(cluster.url, timeout_s=0.5)
    hearing = Hearing()
    redis.watch(hearing)
    shard = cluster.masters[(LINEAGE + 1) % 3]
    names = [f"c{number}" for number in range(9)]
    try:
        topics = [redis.keys.channel("t", name) for name in names]
        theirs = {topic for topic in topics if cluster.owner(slot_of(topic)) is shard}
        for topic in topics:
            await redis.subscribe(topic, hearing)
        chain = redis.chain
        for fails, goes_on in ((shard.pause, shard.resume), (shard.kill, shard.start)):
            del hearing.told[:], hearing.gaps[:], hearing.messages[:]
            fails()
            await until(lambda: hearing.told == ["lost"])
            assert not redis.available
            for topic in topics:
                if topic in theirs:
                    with pytest.raises(StoreUnavailable):
                        await redis.call("SPUBLISH", topic, "x")
                    with pytest.raises(StoreUnavailable):
                        await redis.subscribe(topic + "more", hearing)
                else:
                    assert await redis.call("SPUBLISH", topic, "x") == 1
            with pytest.raises(StoreUnavailable):
                await redis.everywhere("PING")
            assert redis.chain == chain
            goes_on()
            await until(lambda: redis.available and redis.hearing, 20)
            assert hearing.told == ["lost", "back"]
            assert set(hearing.gaps) == theirs
        assert int(redis.chain.split("-")[0]) == int(chain.split("-")[0]) + 1
    finally:
        shard.resume()
        await redis.stop()


@pytest_twisted.ensureDeferred
async def test_publishers_wait_for_replicas(cluster: Cluster) -> None:
    """
    Who waits for replicas is told of those of the shard that has the channel.
    """
    redis = await link(cluster.url)
    try:
        broker = RedisBroker(redis, lambda: 1.8e9, lambda: "e", lambda text: None)
        options = PublishOptions(10, 60, replicas=1, wait_s=0.3)
        for number in range(6):
            owner = cluster.owner(slot_of(f"{{c{number}}}"))
            published = await broker.publish(f"c{number}", b"x", options)
            assert published.replicas == int(owner in cluster.replicated)
    finally:
        await redis.stop()


@pytest_twisted.ensureDeferred
async def test_restarts_that_lose_nothing(tmp_path: Path) -> None:
    """
    A master that writes its file before it answers is the same after kill -9, and so is the chain; one that joins new and empty
    changes nothing either.
    """
    cluster = Cluster(tmp_path, options=[*PARTIAL, "--appendonly", "yes", "--appendfsync", "always"], timeout_ms=15_000)
    try:
        cluster.start()
        load = await Load(6).start(cluster.url, timeout_s=1.0)
        chain = load.links[0].chain
        await load.more(20)
        cluster.masters[0].kill()
        await until(lambda: not any(each.available for each in load.links))
        cluster.masters[0].start()
        await until(lambda: all(each.available and each.hearing for each in load.links), 20)
        new = cluster.add()
        await cluster.move(slot_of("{c0}"), new)
        await load.more(20)
        assert {each.chain for each in load.links} == {chain}
        assert all(load.epochs(channel) == 1 for channel in load.channels)
        await load.stop()
        load.check()
    finally:
        cluster.stop()


@pytest_twisted.ensureDeferred
async def test_all_at_once(cluster: Cluster) -> None:
    """
    Every master is killed and started again: it is all found again, whoever was first, and nobody begins a chain twice.
    """
    redis, other = await link(cluster.url, "p"), await link(cluster.url, "p")
    try:
        for node in cluster.nodes:
            node.kill()
        await until(lambda: not redis.available and not other.available)
        for node in cluster.nodes:
            node.launch()
        await until(lambda: redis.available and other.available and redis.hearing and other.hearing, 30)
        chain = redis.chain
        assert other.chain == chain
        await pause(1.2)
        assert (redis.chain, other.chain) == (chain, chain)
    finally:
        await redis.stop()
        await other.stop()
