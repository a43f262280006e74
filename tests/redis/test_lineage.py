"""
Which life of the data it is: what begins a new chain and what does not, and that nobody outbids anybody for ever.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from tests.web.harness import pause
from twisted.internet.task import Clock

from gateway.redis.errors import RedisRefused
from gateway.redis.lineage import Lineage, Server
from gateway.redis.scripts import Script

M = Server("m", "r1", "-", durable=False)


def lineage(redis: Any, clock: Clock | None = None, **more: Any) -> tuple[Lineage, Callable[[Server], Any]]:
    """A lineage of its own on *redis*, and what settles it."""
    made = Lineage(redis.keys.one("lineage", "own"), lambda: secrets.token_hex(4), (clock or Clock()).seconds, **more)

    async def send(parts: Sequence[Any]) -> Any:
        return await redis.call(*parts, key=made.key)

    return made, lambda server: made.settle(send, server)


@pytest.mark.parametrize(
    ("lives", "goes_on"),
    [
        ([M, M], [True]),
        ([M, replace(M, run="r2")], [False]),
        ([M, replace(M, run="r2", durable=True)], [False]),
        ([replace(M, durable=True), replace(M, run="r2", durable=True)], [True]),
        ([replace(M, durable=True), M, replace(M, run="r2", durable=True)], [True, False]),
        # One that comes new and empty takes nothing away; a replica that was promoted may.
        ([M, replace(M, id="new")], [True]),
        ([M, replace(M, id="replica", before="a")], [False]),
        ([M, replace(M, before="a"), replace(M, before="b")], [False, False]),
        ([M, replace(M, before="a"), M], [False, True]),
        ([M, replace(M, run="r2", before="a", durable=True)], [False]),
        # What is reported late, by somebody whose connection still leads there, was reported before.
        ([M, replace(M, run="r2"), M, replace(M, run="r2"), M], [False, True, True, True]),
        ([M, *[replace(M, run=f"r{number}") for number in range(2, 9)], M], [False] * 7 + [True]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_begins_a_chain(redis: Any, lives: list[Server], goes_on: list[bool]) -> None:
    """
    A restart that may lose begins a chain, and so does a promotion, each once; nothing else does.
    """
    one, settle = lineage(redis)
    chains = []
    try:
        for life in lives:
            await settle(life)
            chains.append(one.chain)
    finally:
        await redis.call("DEL", one.key)
    assert [before == after for before, after in itertools.pairwise(chains)] == goes_on
    assert chains == sorted(chains)


@pytest_twisted.ensureDeferred
async def test_a_store_that_went_back(redis: Any) -> None:
    """
    A store that knows an older chain or a lower mark than somebody saw begins a new chain, for all the same one.
    """
    (one, settle), (two, settle_two) = lineage(redis), lineage(redis)
    for _ in range(3):
        await settle(M)
    before = one.chain
    await redis.call("HINCRBY", one.key, "mark", -2)
    await settle_two(M)
    assert two.chain == before
    await settle(M)
    await settle_two(M)
    assert two.chain == one.chain > before
    await redis.call("DEL", one.key)
    before = one.chain
    await settle_two(M)
    await settle(M)
    assert two.chain == one.chain > before
    await redis.call("DEL", one.key)


@pytest_twisted.ensureDeferred
async def test_hearsay_is_believed_late(redis: Any) -> None:
    """
    A chain that only streams know is gone beyond when nobody who knew it was seen for a while, and not before.
    """
    clock = Clock()
    one, settle = lineage(redis, clock)
    await settle(M)
    before = one.chain
    for _ in range(3):
        one.heard("STALE the chain is 0000000007-lost")
        await settle(M)
        assert one.behind
        assert one.chain == before
        clock.advance(5.0)
    await settle(M)
    assert not one.behind
    assert one.chain.startswith("0000000008-")
    one.heard(f"STALE the chain is {before}")
    assert not one.behind
    await redis.call("DEL", one.key)


SWITCH = Script(
    "switch",
    b"""
local chain = redis.call("HGET", KEYS[1], "chain") or ""
if chain > ARGV[1] then return redis.error_reply("STALE the chain is " .. chain) end
if chain < ARGV[1] then
  redis.call("HINCRBY", KEYS[1], "epochs", 1)
  redis.call("HSET", KEYS[1], "chain", ARGV[1])
end
return 1
""",
)


@pytest_twisted.ensureDeferred
async def test_two_that_disagree_do_not_outbid_each_other(redis: Any) -> None:
    """
    Two instances that are told different chains, as by both halves of a cluster that fell apart, begin few epochs of the streams
    that both reach: one of them is refused instead.
    """
    clock = Clock()
    halves = [lineage(redis, clock), lineage(redis, clock)]
    halves[1][0].key += "2"
    stream = redis.keys.one("stream")
    refused = written = 0
    for turn in range(600):
        one, settle = halves[turn % 2]
        await settle(M)
        try:
            await redis.run(SWITCH, [stream], [one.chain])
            written += 1
        except RedisRefused as stale:
            one.heard(str(stale))
            refused += 1
        clock.advance(0.1)
    epochs = int(await redis.call("HGET", stream, "epochs"))
    assert epochs <= 6, "of a minute"
    assert written >= 250 <= refused
    await redis.call("DEL", stream, *(one.key for one, _ in halves))


@pytest_twisted.ensureDeferred
async def test_what_was_not_durable_until_the_end(tmp_path: Path) -> None:
    """
    A server that was told to write late while it ran, or does so while it rewrites its file, may have lost something.
    """
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    server = RedisServer(tmp_path, options).start()
    redis = await link(server.url)
    try:
        for name, value in (("appendfsync", "everysec"), ("no-appendfsync-on-rewrite", "yes")):
            before = redis.chain
            await redis.call("CONFIG", "SET", name, value)
            mark = int(await redis.call("HGET", redis.keys.one("lineage"), "mark"))
            while int(await redis.call("HGET", redis.keys.one("lineage"), "mark")) < mark + 2:
                await pause(0.05)
            server.kill()
            server.start()
            await until(lambda: redis.available and redis.chain > before)  # noqa: B023
    finally:
        await redis.stop()
        server.stop()
