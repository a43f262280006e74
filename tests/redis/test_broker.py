"""
What the broker on Redis promises beyond every broker: lineage, keys, commands.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.contract.conftest import Hearing
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from twisted.internet.defer import ensureDeferred, gatherResults

from gateway.core.publications import History, Position, Published, PublishOptions
from gateway.core.streams import is_recovered
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.broker import RedisBroker

KEEP = PublishOptions(10, 60)


def broker(redis: Any, odd: list[str] | None = None) -> RedisBroker:
    told: list[str] = [] if odd is None else odd
    return RedisBroker(redis, lambda: 1.8e9, lambda: secrets.token_hex(4), told.append)


@pytest_twisted.ensureDeferred
async def test_a_publication_is_one_command(redis: Any, redis_server: RedisServer) -> None:
    """
    A publication costs one command, with and without history, idempotency and versions.
    """
    made = broker(redis)

    def calls() -> int:
        told = redis_server.ask("INFO", "commandstats").decode()
        return sum(int(n) for n in re.findall(r"cmdstat_(?:evalsha|eval|publish):calls=(\d+)", told))

    await made.publish("c", b"0", KEEP)
    for options in (PublishOptions(), KEEP, PublishOptions(10, 60, "k"), PublishOptions(10, 60, version=7)):
        # The link looks at its server each second with a command of its own.
        costs = []
        for _ in range(3):
            before = calls()
            await made.publish("c", b"1", options)
            costs.append(calls() - before)
        assert min(costs) == 1


@pytest_twisted.ensureDeferred
async def test_subscribers_cost_no_commands(redis: Any, redis_server: RedisServer) -> None:
    """
    However many instances hear a channel, and however much is published, each publication is one command.
    """
    prefix = redis.keys.channel("m", "").partition(":1:")[0]
    links = [await link(redis_server.url, prefix) for _ in range(3)]
    hearings = [Hearing() for _ in links]
    for each, hearing in zip(links, hearings, strict=True):
        hears = broker(each)
        hears.listen(hearing)
        await hears.subscribe("c")
    made = broker(redis)
    await made.publish("c", b"0", KEEP)

    def calls() -> int:
        told = redis_server.ask("INFO", "commandstats").decode()
        found = re.findall(r"cmdstat_([a-z|]+):calls=(\d+)", told)
        # What the script does, what each link looks at every second, and this very question.
        inside = {"hset", "hmget", "hget", "xadd", "pexpire", "expire", "ttl", "set", "get", "del", "spublish"}
        return sum(int(n) for name, n in found if name not in {*inside, "eval", "ping", "info", "hello", "select"})

    before = calls()
    await gatherResults([ensureDeferred(made.publish("c", b"%d" % n, KEEP)) for n in range(1, 101)])
    after = calls()
    await until(lambda: all(len(hearing.publications) == 101 for hearing in hearings))
    assert after - before == 100
    assert calls() == after
    for each in links:
        await each.stop()


@pytest_twisted.ensureDeferred
async def test_scripts_that_were_flushed_are_sent_again(redis: Any) -> None:
    """
    When the server forgot the scripts nothing is lost, doubled or out of order.
    """
    made = broker(redis)
    hearing = Hearing()
    made.listen(hearing)
    await made.subscribe("c")
    keep = PublishOptions(1000, 60)
    for turn in range(3):
        await redis.call("SCRIPT", "FLUSH")
        await gatherResults([ensureDeferred(made.publish("c", b"%d" % (turn * 50 + n), keep)) for n in range(50)])
        await redis.call("SCRIPT", "FLUSH")
        assert len((await made.history("c")).publications) == (turn + 1) * 50
    await until(lambda: len(hearing.publications) == 150)
    assert [(p.offset, p.data) for _, p, _ in hearing.publications] == [(n + 1, b"%d" % n) for n in range(150)]


@pytest_twisted.ensureDeferred
async def test_what_is_read_at_once_is_bounded(redis: Any) -> None:
    """
    No answer of the server is much larger than a mebibyte, unless a single publication is.
    """
    answers: list[int] = []

    class Watched:
        """The link, and how large its answers are."""

        def __getattr__(self, name: str) -> Any:
            return getattr(redis, name)

        async def run(self, script: Any, keys: Any, args: Any) -> Any:
            answer = await redis.run(script, keys, args)
            if script.name == "history":
                answers.append(sum(len(fields[1]) for _, fields in answer[2]))
            return answer

    made = broker(Watched())
    for _ in range(40):
        await made.publish("c", b"x" * 100_000, PublishOptions(100, 60))
    await made.publish("c", b"x" * 3_000_000, PublishOptions(100, 60))
    assert len((await made.history("c")).publications) == 41
    assert max(answers[:-1]) <= 1024 * 1024
    assert (len(answers), answers[-1]) == (5, 3_000_001)


@pytest_twisted.ensureDeferred
async def test_a_stream_that_was_evicted_goes_on(redis: Any) -> None:
    """
    Without its publications a stream has its position still: offsets go on, and nothing is taken for recovered.
    """
    made = broker(redis)
    before = (await made.publish("c", b"1", KEEP)).position
    await redis.call("DEL", redis.keys.channel("s", "c"))
    assert await made.history("c", since=Position(0, before.epoch)) == History((), before)
    assert (await made.publish("c", b"2", KEEP)).position == Position(2, before.epoch)


@pytest_twisted.ensureDeferred
async def test_every_key_ends(redis: Any) -> None:
    """
    Nothing that a channel leaves behind stays for ever.
    """
    made = broker(redis)
    await made.publish("c", b"1", PublishOptions(10, 60, "k", version=1, version_epoch="a"))
    await made.history("asked", limit=0)
    keys = await redis.call("KEYS", redis.keys.channel("*", "*").partition(":{")[0] + "*{[ac]*")
    lives = {key: await redis.call("TTL", key) for key in keys}
    assert len(lives) == 4
    assert all(0 < life <= 30 * 24 * 3600 for life in lives.values())
    assert lives[redis.keys.channel("m", "asked").encode()] <= 3600


@pytest_twisted.ensureDeferred
async def test_a_stream_whose_meta_is_gone_begins_anew(redis: Any) -> None:
    """
    Without its position a stream is nobody's: what was in it is dropped, and the epoch is another.
    """
    made = broker(redis)
    before = (await made.publish("c", b"1", KEEP)).position
    await redis.call("DEL", redis.keys.channel("m", "c"))
    after = (await made.publish("c", b"2", KEEP)).position
    assert (after.offset, after.epoch == before.epoch) == (1, False)
    assert [p.data for p in (await made.history("c")).publications] == [b"2"]
    await redis.call("DEL", redis.keys.channel("m", "c"))
    found = await made.history("c", since=after)
    assert (found.publications, found.position.offset, found.position.epoch == after.epoch) == ((), 0, False)


@pytest.mark.parametrize("first", ["publish", "history", "tops"])
@pytest_twisted.ensureDeferred
async def test_a_new_chain_is_a_new_epoch(tmp_path: Path, first: str) -> None:
    """
    After a restart that may have lost something the epoch is new before anything is published or read.
    """
    server = RedisServer(tmp_path, ["--appendonly", "yes", "--appendfsync", "everysec"]).start()
    redis = await link(server.url)
    try:
        made = broker(redis)
        before = (await made.publish("c", b"1", KEEP)).position
        server.stop()
        server.start()
        await until(lambda: redis.losses and redis.available)
        if first == "publish":
            after = (await made.publish("c", b"2", KEEP)).position
        elif first == "history":
            found = await made.history("c", since=before)
            assert found.publications == ()
            after = found.position
        else:
            after = (await made.tops(["c"]))["c"]
        assert after.epoch != before.epoch
        assert (await made.history("c", limit=0)).position == after
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_suppressed_has_a_position_of_the_new_epoch(redis: Any) -> None:
    """
    A version that is not above the last one is told a position that there is, also as the first after a new chain.
    """
    made = broker(redis)
    versioned = PublishOptions(10, 60, version=7)
    before = (await made.publish("c", b"1", versioned)).position
    await redis.call("HSET", redis.keys.channel("m", "c"), "c", "0-older")
    again = await made.publish("c", b"1", versioned)
    assert (again.suppressed, again.position.offset) == ("version", 0)
    assert again.position.epoch != before.epoch
    found = await made.history("c", since=before)
    assert (found.publications, found.position) == ((), again.position)


@pytest_twisted.ensureDeferred
async def test_an_old_chain_changes_nothing(redis: Any) -> None:
    """
    Whoever still believes in an older chain is told so, learns the newer, and publishes into the same epoch.
    """
    made = broker(redis)
    key = redis.keys.one("lineage")
    newer = "0000000009-newer"
    await redis.call("HSET", key, "chain", newer)
    meta = redis.keys.channel("m", "c")
    await redis.call("HSET", meta, "e", "kept", "o", 4, "c", newer)
    published = await made.publish("c", b"1", KEEP)
    assert published.position == Position(5, "kept")
    assert redis.chain == newer


@pytest_twisted.ensureDeferred
async def test_an_old_chain_repeats_nothing(redis: Any) -> None:
    """
    What somebody who knows a newer chain published under a key is not published again by who still believes in an older one.
    """
    made = broker(redis)
    newer = "0000000009-newer"
    await redis.call("HSET", redis.keys.one("lineage"), "chain", newer)
    await redis.call("SET", redis.keys.channel("k", "c") + "once", f"5:kept:{newer}", "PX", 1000)
    published = await made.publish("c", b"1", PublishOptions(idempotency_key="once"))
    assert published == Published(Position(5, "kept"), "idempotency")


@pytest_twisted.ensureDeferred
async def test_without_redis_everything_is_refused(tmp_path: Path) -> None:
    """
    What cannot be asked is not available, and a channel may still be given up.
    """
    server = RedisServer(tmp_path).start()
    redis = await link(server.url)
    made = broker(redis)
    hearing = Hearing()
    made.listen(hearing)
    await made.subscribe("c")
    server.kill()
    await until(lambda: not redis.available)
    for asked in (made.publish("c", b"1", KEEP), made.history("c"), made.subscribe("d"), made.tops(["c"])):
        with pytest.raises(StoreUnavailable):
            await asked
    await made.unsubscribe("c")
    server.start()
    await until(lambda: redis.available and redis.hearing)
    await made.subscribe("e")
    await made.publish("e", b"1", KEEP)
    await until(lambda: hearing.publications)
    assert hearing.gaps == []
    await redis.stop()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_a_gap_is_told(redis: Any) -> None:
    """
    When the connection for topics is cut, the channels that were heard are told of, and heard again.
    """
    made = broker(redis)
    hearing = Hearing()
    made.listen(hearing)
    await made.subscribe("c")
    for _ in range(3):
        hearing.gaps.clear()
        await redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: hearing.gaps)
        assert hearing.gaps == ["c"]
        hearing.publications.clear()
        await made.publish("c", b"1", KEEP)
        await until(lambda: hearing.publications)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read_is_left_out(redis: Any) -> None:
    """
    A message of another release is told of and passed over.
    """
    odd: list[str] = []
    made = broker(redis, odd)
    hearing = Hearing()
    made.listen(hearing)
    await made.subscribe("c")
    topic = redis.keys.channel("t", "c")
    for message in (b"", b"z", b"p1", b"p1:e:\x07x", b"pX:e:\x00", b"p1:e:\x01\xc1", b"j\xc1", b"p1:\xff:\x00"):
        await redis.call("SPUBLISH", topic, message)
    await made.publish("c", b"1", KEEP)
    await until(lambda: hearing.publications)
    assert [p.data for _, p, _ in hearing.publications] == [b"1"]
    assert len(odd) == 8


@pytest_twisted.ensureDeferred
async def test_an_entry_that_cannot_be_read_is_a_hole(redis: Any) -> None:
    """
    What another release has written differently is missing from history, which is not taken for recovered then.
    """
    odd: list[str] = []
    made = broker(redis, odd)
    keep = PublishOptions(1000, 60)
    for number in range(300):
        published = await made.publish("c", b"%d" % number, keep)
    entry = redis.keys.channel("s", "c")
    await redis.call("XDEL", entry, "300-0")
    await redis.call("XADD", entry, "300-1", "d", b"\x07")
    since = Position(297, published.position.epoch)
    found = await made.history("c", since=since)
    assert [publication.offset for publication in found.publications] == [298, 299]
    assert not is_recovered(since, found.position, found.publications)
    assert len((await made.history("c")).publications) == 299
    assert len(odd) == 2
