"""
Publications that wait for replicas: told the truth, in time, and in nobody's way.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import least_rights, link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater

from gateway.config.fields import Secret
from gateway.core.publications import Published, PublishOptions
from gateway.redis.broker import RedisBroker
from gateway.redis.waits import Waits


def reactor() -> Any:
    """The one that pytest-twisted has installed."""
    from twisted.internet import reactor as installed

    return installed


def on(redis: Any) -> RedisBroker:
    """A broker on *redis*."""
    return RedisBroker(redis, lambda: 1.8e9, lambda: secrets.token_hex(4), lambda _: None)


@dataclass
class Pair:
    """
    A server and its replica, and a broker on the server.
    """

    master: RedisServer
    replica: RedisServer
    redis: Any
    broker: RedisBroker

    async def publish(self, replicas: int = 0, wait_s: float = 5.0, key: str = "") -> Published:
        """Publish into a channel with history."""
        options = PublishOptions(1000, 60, key, replicas=replicas, wait_s=wait_s)
        return await self.broker.publish("c", b"1", options)

    def length(self) -> int:
        """How many publications the replica has."""
        stream = self.redis.keys.channel("s", "c")
        answer = self.replica.ask("XLEN", stream)
        return int(answer[1:])

    def calls(self, command: str) -> int:
        """How often the server was sent *command*."""
        found = re.search(rf"cmdstat_{command}:calls=(\d+)", self.master.ask("INFO", "commandstats").decode())
        return int(found.group(1)) if found else 0


@pytest_twisted.async_yield_fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    master = RedisServer(tmp_path / "master", ["--repl-diskless-sync-delay", "0"]).start()
    replica = RedisServer(tmp_path / "replica", ["--replicaof", f"127.0.0.1 {master.port}"]).start()
    try:
        redis = await link(master.url)
        await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
        yield Pair(master, replica, redis, on(redis))
        await redis.stop()
    finally:
        replica.stop()
        master.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_told_to_be_on_a_replica_is_there(pair: Pair) -> None:
    """
    When one replica was waited for it has the publication, at once and not when the time is up.
    """
    begun = time.monotonic()
    for number in range(1, 21):
        published = await pair.publish(replicas=1)
        assert (published.replicas, published.position.offset, pair.length()) == (1, number, number)
    assert time.monotonic() - begun < 4
    again = [await pair.publish(replicas=1, key="k") for _ in range(2)]
    assert [(each.replicas, each.suppressed) for each in again] == [(1, ""), (1, "idempotency")]


@pytest_twisted.ensureDeferred
async def test_a_replica_that_hangs_has_nothing(pair: Pair) -> None:
    """
    A connection that wrote nothing is told that all have it; ours is not taken in. What was published stays published.
    """
    await pair.publish()
    pair.replica.pause()
    begun = time.monotonic()
    waiting = ensureDeferred(pair.publish(replicas=1, wait_s=0.4))
    others = await gatherResults([ensureDeferred(pair.publish()) for _ in range(20)])
    assert time.monotonic() - begun < 0.3
    published = await waiting
    assert 0.35 < time.monotonic() - begun < 2
    assert (published.replicas, published.position.offset, len(others)) == (0, 2, 20)
    pair.replica.resume()
    assert (await pair.publish(replicas=1)).replicas == 1


@pytest_twisted.ensureDeferred
async def test_whoever_wants_more_than_there_are_holds_up_nobody(pair: Pair) -> None:
    """
    Three replicas are not there: that one waits its time and is told of one, while others are answered at once.
    """
    await pair.publish(replicas=1)
    begun = time.monotonic()
    asked = ensureDeferred(pair.publish(replicas=3, wait_s=1.2))
    for _ in range(3):
        assert (await pair.publish(replicas=1)).replicas == 1
    assert time.monotonic() - begun < 1.1
    assert not asked.called
    assert (await asked).replicas == 1
    assert time.monotonic() - begun > 1.1


@pytest_twisted.ensureDeferred
async def test_many_wait_together(pair: Pair) -> None:
    """
    Those who wait at the same time share a round; and whoever never waits has no connection for it.
    """

    def connections() -> int:
        return pair.master.ask("CLIENT", "LIST", "TYPE", "normal").count(b" fd=")

    before = connections()
    await pair.publish()
    assert (connections(), pair.calls("wait")) == (before, 0)
    published = await gatherResults([ensureDeferred(pair.publish(replicas=1)) for _ in range(300)])
    assert {each.replicas for each in published} == {1}
    assert pair.calls("wait") < 30
    assert connections() == before + 1
    # Gone by now, or soon; -1 would be: for ever.
    left_ms = int(pair.master.ask("PTTL", pair.redis.keys.channel("w", "c"))[1:])
    assert left_ms == -2 or 0 <= left_ms <= 1000


@pytest.mark.parametrize("hangs", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_cut_is_made_again(pair: Pair, *, hangs: bool) -> None:
    """
    Whenever the connection that waits is cut, the answer is what is true: a new one has written nothing, and knows that.
    """
    await pair.publish(replicas=1)
    if hangs:
        pair.replica.pause()
    waiting = ensureDeferred(pair.publish(replicas=2, wait_s=1.5))
    cuts = 0
    while not waiting.called:
        for each in re.findall(rb"id=(\d+) [^\n]*cmd=wait", pair.master.ask("CLIENT", "LIST")):
            cuts += await pair.redis.call("CLIENT", "KILL", "ID", each)
        await deferLater(reactor(), 0.05 if cuts < 4 else 0.4)
    assert cuts >= 2
    published = await waiting
    assert (published.replicas, published.position.offset) == (0 if hangs else 1, 2)
    pair.replica.resume()
    assert (await pair.publish(replicas=1)).replicas == 1


@pytest_twisted.ensureDeferred
async def test_another_chain_has_nothing_for_certain(pair: Pair) -> None:
    """
    When the data went back while somebody waited, what the replicas have is not what was published.
    """
    waiting = ensureDeferred(pair.publish(replicas=2, wait_s=2.5))
    before = pair.redis.chain
    await pair.redis.call("HSET", pair.redis.keys.one("lineage"), "number", 9, "chain", "newer")
    await until(lambda: pair.redis.chain != before)
    assert (await waiting).replicas == 0


@pytest_twisted.ensureDeferred
async def test_replicas_of_another_server_do_not_count(pair: Pair) -> None:
    """
    While the connection that waits leads to a server that is not written to, nothing is known; it is made again.
    """
    same, made = [False], [0]

    async def prepare(_: object) -> None:
        made[0] += 1

    endpoint = HostnameEndpoint(reactor(), b"127.0.0.1", pair.master.port)
    waits = Waits(
        reactor(), endpoint, pair.redis._master._make, prepare=prepare, same=lambda: same[0], random=random.random
    )
    assert await waits.wait("mark", 1, 0.5) == 0
    assert made[0] > 1
    same[0] = True
    assert await waits.wait("mark", 1, 5) == 1
    await waits.stop()


@pytest_twisted.ensureDeferred
async def test_who_waits_is_answered_at_the_end(pair: Pair) -> None:
    """
    Stopping answers those who wait, and somebody who gives up leaves nothing behind.
    """
    redis = await link(pair.master.url)
    mine = Pair(pair.master, pair.replica, redis, on(redis))
    given_up = ensureDeferred(mine.publish(replicas=3, wait_s=5))
    waiting = ensureDeferred(mine.publish(replicas=3, wait_s=5))
    await until(lambda: pair.calls("wait") > 0)
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    assert len(redis._master.waits._waiting) == 1
    await redis.stop()
    assert (await waiting).replicas == 0
    assert not redis._master.waits._waiting


@pytest.mark.parametrize("less", [(), ("-wait",)])
@pytest_twisted.ensureDeferred
async def test_the_least_rights(pair: Pair, less: tuple[str, ...]) -> None:
    """
    What docs/redis.md asks for an ACL user is enough; without the right to wait nothing is known, and that at once.
    """
    rights = ["resetkeys", "resetchannels", "-@all", *least_rights("mine:"), *less]
    pair.master.ask("ACL", "SETUSER", "gate", "on", ">secret", *rights)
    redis = await link(pair.master.url, "mine", username="gate", password=Secret("secret"))
    begun = time.monotonic()
    published = await on(redis).publish("c", b"1", PublishOptions(10, 60, replicas=1, wait_s=5))
    assert (published.replicas, published.position.offset) == (0 if less else 1, 1)
    assert time.monotonic() - begun < 3
    await redis.stop()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest_twisted.ensureDeferred
async def test_without_replicas_there_are_none(redis: Any, replicas: int) -> None:
    """
    A server without replicas is published to all the same.
    """
    published = await on(redis).publish("c", b"1", PublishOptions(10, 60, replicas=replicas, wait_s=0.1))
    assert (published.replicas, published.position.offset) == (0, 1)
