"""
The bus over a real Redis: who is silent and how soon that is known, what an outage does to it, and what is overtaken.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from tests.web.harness import pause
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from gateway.ports.cluster import ALL, Answers
from gateway.ports.realtime import StoreUnavailable


class Trio:
    """
    Instances on one Redis, and those that the registry names beside them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.links: list[Any] = []
        self.named: list[str] = []
        self.heard: list[tuple[str, bytes]] = []
        self.missed: list[str] = []
        self.failed: list[tuple[str, Failure]] = []

    async def add(self, instance: str, **more: Any) -> Any:
        """One more instance; it answers ``echo`` and keeps orders to ``note``."""
        from twisted.internet import reactor

        from gateway.redis.bus import RedisBus

        redis = await link(self.url, self.prefix)
        self.links.append(redis)
        here: Any = reactor
        bus = RedisBus(redis, here, self.peers, lambda name, failure: self.failed.append((name, failure)), **more)

        async def echo(sender: str, body: bytes) -> bytes:
            del sender
            return body

        bus.answer("echo", echo)
        bus.obey("note", lambda sender, body: self.heard.append((sender, body)))
        bus.watch(lambda: self.missed.append(instance))
        await bus.join(instance)
        self.named.append(instance)
        return bus

    async def peers(self) -> Sequence[str]:
        """Those that are named, asked of Redis as a registry does."""
        await self.links[0].call("PING", key="k")
        return self.named

    async def raw(self) -> Any:
        """A link with nothing on it."""
        redis = await link(self.url, self.prefix)
        self.links.append(redis)
        return redis


@pytest_twisted.async_yield_fixture
async def trio(redis_server: RedisServer) -> AsyncIterator[Trio]:
    made = Trio(redis_server.url)
    yield made
    for redis in made.links:
        await redis.stop()


@pytest_twisted.async_yield_fixture
async def fallible(tmp_path: Path) -> AsyncIterator[tuple[Trio, RedisServer]]:
    server = RedisServer(tmp_path / "redis").start()
    made = Trio(server.url)
    yield made, server
    server.stop()
    for redis in made.links:
        await redis.stop()


class Deaf:
    """Hears and never answers: an instance that is stopped with its connections open."""

    def message(self, topic: str, payload: bytes) -> None: ...

    def gap(self, topics: Sequence[str]) -> None: ...


@pytest_twisted.ensureDeferred
async def test_the_dead_are_silent_at_once(trio: Trio) -> None:
    """
    An instance whose lease still holds though nothing hears for it any more is named without waiting for it.
    """
    one, two = await trio.add("one"), await trio.add("two")
    trio.named.append("killed")
    assert await one.ask(ALL, "echo", b"?", 60) == Answers({"two": b"?"}, ("killed",))
    assert await one.ask("killed", "echo", b"?", 60) == Answers({}, ("killed",))
    assert await two.ask(ALL, "echo", b"?", 60) == Answers({"one": b"?"}, ("killed",))


@pytest_twisted.ensureDeferred
async def test_the_stopped_are_silent_at_the_deadline(trio: Trio) -> None:
    """
    An instance that hears and does nothing costs its asker the deadline, no more.
    """
    one, _ = await trio.add("one"), await trio.add("two")
    await (await trio.raw()).subscribe(one._topic("stopped"), Deaf())
    trio.named.append("stopped")
    assert await one.ask(ALL, "echo", b"?", 0.3) == Answers({"two": b"?"}, ("stopped",))


@pytest_twisted.ensureDeferred
async def test_somebody_nobody_named_is_heard_too(trio: Trio) -> None:
    """
    An instance that is not in the registry yet does what it is told, and nobody waits for it.
    """
    one, _ = await trio.add("one"), await trio.add("two")
    trio.named = ["one"]
    assert await one.tell(ALL, "note", b"!")
    await until(lambda: trio.heard == [("one", b"!")])
    assert (await one.ask(ALL, "echo", b"?", 60)).silent == ()


@pytest_twisted.ensureDeferred
async def test_what_was_overtaken_is_dropped(trio: Trio) -> None:
    """
    What comes after something that its sender said later does not come at all, and what is no message is reported.
    """
    one = await trio.add("one")
    raw = await trio.raw()

    async def say(*message: Any) -> None:
        await raw.call("SPUBLISH", one._topic("one"), msgspec.msgpack.encode(message))

    for count in (1, 3, 2, 3, 4):
        await say(0, "other", count, 0, "note", 0.0, b"%d" % count)
    await say(0, "another", 1, 0, "note", 0.0, b"1", "what a later release adds")
    await raw.call("SPUBLISH", one._topic("one"), b"\xff")
    await until(lambda: bool(trio.failed))
    assert trio.heard == [("other", b"1"), ("other", b"3"), ("other", b"4"), ("another", b"1")]
    assert [name for name, _ in trio.failed] == ["bus"]


@pytest_twisted.ensureDeferred
async def test_too_many_questions(trio: Trio) -> None:
    """
    Questions that wait are bounded: one too many is answered by nobody, at once.
    """
    one, two = await trio.add("one", most=3), await trio.add("two")
    two.answer("stuck", lambda _sender, _body: Deferred())
    asked = [ensureDeferred(one.ask("two", "stuck", b"", 0.5)) for _ in range(5)]
    assert [each.called for each in asked] == [False] * 3 + [True] * 2
    assert [await each for each in asked[3:]] == [Answers({}, ("two",))] * 2
    assert [await each for each in asked[:3]] == [Answers({}, ("two",))] * 3


@pytest_twisted.ensureDeferred
async def test_redis_away(fallible: tuple[Trio, RedisServer]) -> None:
    """
    While Redis is away nobody answers and those known last are silent; orders fail. Back again, all is heard, and the gap told.
    """
    trio, server = fallible
    one, two = await trio.add("one"), await trio.add("two")
    assert await one.ask(ALL, "echo", b"?", 5) == Answers({"two": b"?"}, ())
    server.kill()
    await until(lambda: not trio.links[0].available)
    assert await one.ask(ALL, "echo", b"?", 60) == Answers({}, ("two",))
    assert await one.ask("two", "echo", b"?", 60) == Answers({}, ("two",))
    with pytest.raises(StoreUnavailable):
        await one.tell("two", "note", b"lost")
    server.start()
    await until(lambda: sorted(set(trio.missed)) == ["one", "two"])
    await until(lambda: all(redis.available for redis in trio.links))
    assert await one.ask(ALL, "echo", b"?", 5) == Answers({"two": b"?"}, ())
    await one.tell("two", "note", b"heard")
    await until(lambda: trio.heard == [("one", b"heard")])
    assert not trio.failed
    await two.leave()


@pytest_twisted.ensureDeferred
async def test_redis_hangs(fallible: tuple[Trio, RedisServer]) -> None:
    """
    A Redis that hangs ends no question later than its deadline.
    """
    trio, server = fallible
    one, _ = await trio.add("one"), await trio.add("two")
    assert (await one.ask(ALL, "echo", b"?", 5)).silent == ()
    server.pause()
    try:
        assert await one.ask(ALL, "echo", b"?", 0.3) == Answers({}, ("two",))
    finally:
        server.resume()


@pytest_twisted.ensureDeferred
async def test_order_through_cut_connections(trio: Trio) -> None:
    """
    Whatever connections are cut, what arrives is in order and nothing comes twice.
    """
    one, two = await trio.add("one"), await trio.add("two")
    killer = await trio.raw()
    for number in range(600):
        ensureDeferred(one.tell("two", "note", b"%d" % number)).addErrback(
            lambda failure: failure.trap(StoreUnavailable)
        )
        if number % 100 == 50:
            await killer.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await killer.call("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        if number % 20 == 0:
            await until(lambda: trio.links[0].available and trio.links[1].hearing)
    while not trio.heard or trio.heard[-1][1] != b"%d" % number:
        number += 1
        await until(lambda: trio.links[0].available and trio.links[1].hearing)
        try:
            await one.tell("two", "note", b"%d" % number)
        except StoreUnavailable:
            continue  # It was noticed only now.
        await pause(0.05)
    numbers = [int(body) for _, body in trio.heard]
    assert numbers == sorted(set(numbers))
    assert "two" in trio.missed
    assert two.instance == "two"
