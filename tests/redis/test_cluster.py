"""
Redis Cluster: commands and topics find their slots, and follow them when they move.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.clusters import Cluster
from tests.redis.fixtures import link
from tests.redis.load import Load
from tests.redis.server import RedisServer
from tests.redis.test_link import Hearing, until
from tests.web.certificates import Authority
from tests.web.harness import clock, pause
from twisted.internet.defer import Deferred

from demo.ports import free_port
from gateway.config.sections import UpstreamTls
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import all_of
from gateway.redis.errors import RedisRefused
from gateway.redis.scripts import Script
from gateway.redis.slots import slot_of

PAIR = Script("pair", b"redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])")


def channel_of(cluster: Cluster, node: RedisServer, kind: str = "c") -> str:
    """A tag whose slot *node* has."""
    return next(f"{kind}{n}" for n in range(1000) if cluster.owner(slot_of(f"{{{kind}{n}}}")) is node)


@pytest_twisted.ensureDeferred
async def test_one_node_is_enough_to_find_all(redis_cluster: Cluster) -> None:
    """
    From one seed every master is found, also if others are named that do not answer; commands and topics reach all of them.
    """
    seeds = f"127.0.0.1:{free_port()},127.0.0.1:{redis_cluster.masters[1].port}"
    redis = await link(f"redis+cluster://{seeds}")
    try:
        names = [channel_of(redis_cluster, node) for node in redis_cluster.masters]
        hearing = Hearing()
        for name in names:
            key = redis.keys.channel("m", name)
            await redis.subscribe(redis.keys.channel("t", name), hearing)
            assert await redis.run(PAIR, [key, key + "2"], []) == 1
            assert await redis.call("GET", key) == b"1"
            assert await redis.call("SPUBLISH", redis.keys.channel("t", name), name) == 1
        await until(lambda: len(hearing.messages) == 3)
        assert len(await redis.everywhere("PING")) == 3
        assert await redis.call("PING") == b"PONG"
        for node, name in zip(redis_cluster.masters, names, strict=True):
            assert redis.keys.channel("t", name).encode() in node.ask("PUBSUB", "SHARDCHANNELS")
            await redis.unsubscribe(redis.keys.channel("t", name))
            assert redis.keys.channel("t", name).encode() not in node.ask("PUBSUB", "SHARDCHANNELS")
    finally:
        await redis.stop()


@pytest_twisted.ensureDeferred
async def test_why_there_is_no_cluster(tmp_path: Path, redis_server: RedisServer) -> None:
    """
    Nodes that do not answer are named with the reason, and so is a server that is no cluster, or one that lacks slots.
    """
    with pytest.raises(AssertionError, match=r"no node of the cluster answers: .*refused"):
        await link(f"redis+cluster://127.0.0.1:{free_port()}", within_s=0.5)
    with pytest.raises(AssertionError, match="cluster support disabled"):
        await link(f"redis+cluster://127.0.0.1:{redis_server.port}", within_s=0.5)
    lonely = RedisServer(tmp_path, ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]).start()
    try:
        Cluster.ask(lonely, "CLUSTER", "ADDSLOTSRANGE", 0, 100)
        with pytest.raises(AssertionError, match="nobody has slot"):
            await link(f"redis+cluster://127.0.0.1:{lonely.port}", within_s=0.5)
    finally:
        lonely.stop()


@pytest_twisted.ensureDeferred
async def test_slots_that_move_during_load(redis_cluster: Cluster) -> None:
    """
    Slots are moved while publications go on, that of the lineage and those to a new master among them: nothing is refused, no chain
    begins, and each topic follows its slot with the gap told.
    """
    load = await Load(6).start(redis_cluster.url)
    try:
        chain = load.links[0].chain
        await load.more(20)
        lineage = slot_of(load.links[0].keys.one("lineage"))
        new = redis_cluster.add()
        others = {channel: slot_of(f"{{{channel}}}") for channel in load.channels[:4]}
        for slot in (lineage, *others.values()):
            masters = [node for node in redis_cluster.masters[:3] if node is not redis_cluster.owner(slot)]
            await redis_cluster.move(slot, new if slot in list(others.values())[:2] else masters[0])
        await until(lambda: set(load.gaps) >= set(others), 5)
        await load.more(20)
        assert new.ask("PUBSUB", "SHARDCHANNELS").count(b"{c") == 2
        assert {each.chain for each in load.links} == {chain}
        assert all(load.epochs(channel) == 1 for channel in load.channels)
        assert not any(load.refused.values())
        assert not any(each.losses for each in load.links)
    finally:
        await load.stop()
    load.check()


@pytest_twisted.ensureDeferred
async def test_a_slot_that_is_moving(redis_cluster: Cluster, redis_on_cluster: Any) -> None:
    """
    While a slot moves single keys are found where they are; scripts whose keys are on both sides wait for the end, and not for ever.
    """
    redis = redis_on_cluster
    name = channel_of(redis_cluster, redis_cluster.masters[0])
    slot = slot_of(f"{{{name}}}")
    old, new = (redis.keys.channel(kind, name) for kind in ("old", "new"))
    await redis.call("SET", old, 1)
    await redis_cluster.open(slot, redis_cluster.masters[1])
    await redis.call("SET", new, 2)
    assert [await redis.call("GET", key) for key in (old, new)] == [b"1", b"2"]
    begun = clock().seconds()
    with pytest.raises(RedisRefused, match="TRYAGAIN"):
        await redis.run(PAIR, [old, new], [])
    assert 0.5 < clock().seconds() - begun < 1.5
    waiting = Deferred.fromCoroutine(redis.run(PAIR, [old, new], []))
    await pause(0.1)
    assert not waiting.called
    await redis_cluster.close(slot, redis_cluster.masters[1])
    assert await waiting == 3
    assert await redis.call("MGET", old, new) == [b"2", b"3"]


@pytest_twisted.ensureDeferred
async def test_the_order_of_a_slot_that_moves(redis_cluster: Cluster, redis_on_cluster: Any) -> None:
    """
    What one instance says to a slot is done in the order in which it was said, wherever the slot is meanwhile.
    """
    redis = redis_on_cluster
    name = channel_of(redis_cluster, redis_cluster.masters[0])
    key, slot = redis.keys.channel("list", name), slot_of(f"{{{name}}}")
    saying = [Deferred.fromCoroutine(redis.call("RPUSH", key, 0))]
    for turn in range(3):
        moving = Deferred.fromCoroutine(redis_cluster.move(slot, redis_cluster.masters[(turn + 1) % 3], 0.005))
        while not moving.called:
            saying += [Deferred.fromCoroutine(redis.call("RPUSH", key, len(saying) + n)) for n in range(5)]
            await pause(0)
        await moving
    await all_of(saying)
    assert [int(each) for each in await redis.call("LRANGE", key, 0, -1)] == list(range(len(saying)))
    assert len(saying) > 100


@pytest_twisted.ensureDeferred
async def test_many_topics_of_a_slot(redis_cluster: Cluster, redis_on_cluster: Any) -> None:
    """
    Thousands of topics follow their slot, are heard at its new master once each, and may be left meanwhile.
    """
    redis, hearing = redis_on_cluster, Hearing()
    name = channel_of(redis_cluster, redis_cluster.masters[2])
    topics = [redis.keys.channel("t", name) + str(number) for number in range(2000)]
    await all_of([Deferred.fromCoroutine(redis.subscribe(topic, hearing)) for topic in topics])
    await redis_cluster.move(slot_of(topics[0]), redis_cluster.masters[0])
    left = set(random.Random(1).sample(topics, 500))
    await all_of([Deferred.fromCoroutine(redis.unsubscribe(topic)) for topic in left])
    await until(lambda: redis.hearing and set(hearing.gaps) >= set(topics) - left)
    heard = redis_cluster.ask(redis_cluster.masters[0], "PUBSUB", "SHARDNUMSUB", topics[0])
    assert heard == [topics[0].encode(), int(topics[0] not in left)]
    await pause(0.1)
    there = [await redis.call("PUBSUB", "SHARDNUMSUB", topic, key=topic) for topic in topics]
    assert [count for _, count in there] == [int(topic not in left) for topic in topics]
    await all_of([Deferred.fromCoroutine(redis.unsubscribe(topic)) for topic in topics])


@pytest_twisted.ensureDeferred
async def test_masters_that_send_us_to_each_other(redis_cluster: Cluster, redis_on_cluster: Any) -> None:
    """
    A slot that each of two masters says is the other's costs few commands and its deadline, and is found when they agree.
    """
    redis = redis_on_cluster
    one, two = redis_cluster.masters[:2]
    name = channel_of(redis_cluster, one, "without keys")
    slot, key = slot_of(f"{{{name}}}"), redis.keys.channel("m", name)
    redis_cluster.ask(two, "CLUSTER", "SETSLOT", slot, "NODE", redis_cluster.id(one))
    redis_cluster.ask(one, "CLUSTER", "SETSLOT", slot, "NODE", redis_cluster.id(two))
    before = sum(connection.commands for _, connection in redis._shards.connected())
    begun = clock().seconds()
    with pytest.raises(StoreUnavailable):
        await redis.call("SET", key, 1)
    assert clock().seconds() - begun < 2.0
    assert sum(connection.commands for _, connection in redis._shards.connected()) - before < 200
    for node in (one, two):
        redis_cluster.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", redis_cluster.id(one))
    redis_cluster.ask(one, "CLUSTER", "BUMPEPOCH")
    await until(lambda: redis.available)
    await redis.call("SET", key, 1)


@pytest_twisted.ensureDeferred
async def test_a_cluster_behind_tls(tmp_path: Path) -> None:
    """
    With ``rediss+cluster`` every node is verified and spoken to in TLS.
    """
    authority = Authority(tmp_path)
    made = authority.make("redis.internal", addresses=("127.0.0.1",))
    cluster = Cluster(
        tmp_path, 1, options=["--tls-cluster", "yes", "--tls-ca-cert-file", str(authority.file)], tls=made
    )
    try:
        cluster.start()
        redis = await link(cluster.url, tls=UpstreamTls(ca_file=authority.file))
        hearing = Hearing()
        await redis.subscribe("a", hearing)
        assert await redis.call("SPUBLISH", "a", "x") == 1
        await redis.stop()
        with pytest.raises(AssertionError, match="certificate verify failed"):
            await link(cluster.url, tls=UpstreamTls(ca_file=Authority(tmp_path, "other").file), within_s=0.5)
    finally:
        cluster.stop()
