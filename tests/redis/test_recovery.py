"""
Nodes apart from each other, whose channels are on a real Redis: one order for all, and nothing lost or told twice.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.realtime.house import House, Person
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from gateway.node.realtime import RealtimeNode
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.stores import Stores
from gateway.redis.broker import RedisBroker

CONFIG = """
[channels.lobby]
subscribe = "authenticated"
history = { size = 5000, ttl = "5m" }
coalesce = "0s"

[channels.short]
subscribe = "authenticated"
history = { size = 3, ttl = "5m" }
coalesce = "0s"

[channels.passing]
subscribe = "authenticated"
coalesce = "0s"
"""


def reactor() -> Any:
    """The one that pytest-twisted has installed."""
    from twisted.internet import reactor as installed

    return installed


class Country(House):
    """
    A house whose nodes have a link to Redis each. Its own first node is none of them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.links: list[Any] = []
        self.towns: list[RealtimeNode] = []
        self.odd: list[str] = []
        self._next: Any = None
        super().__init__(CONFIG)

    def stores_of(self, stores: Stores) -> Stores:
        """Those of the others, but for the broker: on the link that was made for this node."""
        if self._next is None:
            return stores
        return replace(stores, broker=RedisBroker(self._next, self.wall, lambda: secrets.token_hex(4), self.odd.append))

    async def settle(self) -> RealtimeNode:
        """One more node."""
        self._next = await link(self.url, self.prefix)
        self.links.append(self._next)
        node = self.add()
        self.towns.append(node)
        return node

    async def say(self, node: RealtimeNode, channel: str, data: Any) -> int:
        """Publish as a backend does; return the offset."""
        match = node.rules.channels.match(channel)
        assert match is not None
        return (await node.publish(match, json.dumps(data).encode())).position.offset

    async def until(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        """Let time pass, on both clocks, until something is true."""
        for _ in range(round(seconds / 0.01)):
            if true():
                return
            await deferLater(reactor(), 0.01)
            self.clock.advance(0.01)
        assert true()

    async def close(self) -> None:
        """End all."""
        for node, each in zip(self.towns, self.links, strict=True):
            await node.stop()
            await each.stop()
        assert self.odd == []


class Reader:
    """
    Somebody who follows a channel from wherever there is a node, and writes down what comes.
    """

    def __init__(self, country: Country, name: str, channel: str = "lobby") -> None:
        self.country = country
        self.name = name
        self.channel = channel
        self.person: Person | None = None
        self.got: list[Any] = []
        self.offset = 0
        self.epoch = ""
        self.joined = False
        self.recovered: list[bool] = []
        self.ended: list[int] = []

    def follow(self, node: RealtimeNode, *, recover: bool = False) -> None:
        """Connect and subscribe, from where it stood if that is wanted."""
        self.person = self.country.connected(self.name, node=node)
        self.ask(recover=recover)

    def ask(self, *, recover: bool) -> None:
        """Subscribe, on the connection that there is."""
        assert self.person is not None
        since = {"recover": True, "offset": self.offset, "epoch": self.epoch} if recover else {}
        self.joined = False
        self.person.ask(subscribe={"channel": self.channel, **since})

    def read(self) -> Reader:
        """Take what came."""
        assert self.person is not None
        for message in self.person.told():
            if "subscribe" in message:
                reply = message["subscribe"]
                self.joined = True
                self.recovered.append(reply.get("recovered", False))
                for publication in reply.get("publications", ()):
                    self._take(publication)
                self.offset, self.epoch = reply.get("offset", 0), reply.get("epoch", "")
            elif "error" in message:
                assert message["error"]["temporary"], message
                self.ask(recover=bool(self.epoch))
            elif "pub" in message.get("push", {}):
                self._take(message["push"]["pub"])
            elif "unsubscribe" in message.get("push", {}):
                self.ended.append(message["push"]["unsubscribe"]["code"])
                self.joined = False
        return self

    def _take(self, publication: Any) -> None:
        self.got.append(publication["data"])
        self.offset = publication.get("offset", 0)

    def lose(self) -> None:
        """Let the connection be cut; what is on it is read, what comes after is not."""
        assert self.person is not None
        self.read()
        self.person.lose()


@pytest_twisted.async_yield_fixture
async def country(redis_server: RedisServer) -> AsyncIterator[Country]:
    made = Country(redis_server.url)
    for _ in range(2):
        await made.settle()
    yield made
    await made.close()


async def joined(country: Country, *readers: Reader) -> None:
    """Wait until all have been answered."""

    def all_are() -> bool:
        for reader in readers:
            reader.read()
        return all(reader.joined for reader in readers)

    await country.until(all_are)


@pytest_twisted.ensureDeferred
async def test_what_was_missed_on_one_node_is_recovered_on_another(country: Country) -> None:
    """
    A client that was on A and comes to B gets exactly what it missed, and goes on from there.
    """
    a, b = country.towns
    alice = Reader(country, "alice")
    alice.follow(a)
    await joined(country, alice)
    for number in range(1, 4):
        await country.say(b if number % 2 else a, "lobby", number)
    await country.until(lambda: len(alice.read().got) == 3)
    alice.lose()
    for number in range(4, 9):
        await country.say(a if number % 2 else b, "lobby", number)
    alice.follow(b, recover=True)
    await joined(country, alice)
    assert (alice.recovered, alice.got) == ([False, True], list(range(1, 9)))
    for number in range(9, 12):
        await country.say(a, "lobby", number)
    await country.until(lambda: len(alice.read().got) == 11)
    assert (alice.got, alice.ended) == (list(range(1, 12)), [])


@pytest_twisted.ensureDeferred
async def test_what_is_trimmed_is_told_on_another_node(country: Country) -> None:
    """
    When history no longer reaches back it is said, and nothing of it is replayed.
    """
    a, b = country.towns
    alice = Reader(country, "alice", "short")
    alice.follow(a)
    await joined(country, alice)
    await country.say(a, "short", 1)
    await country.until(lambda: alice.read().got)
    alice.lose()
    for number in range(2, 7):
        await country.say(a, "short", number)
    alice.follow(b, recover=True)
    await joined(country, alice)
    assert (alice.recovered[-1], alice.got, alice.offset) == (False, [1], 6)
    await country.say(b, "short", 7)
    await country.until(lambda: len(alice.read().got) == 2)
    assert alice.got == [1, 7]


@pytest_twisted.ensureDeferred
async def test_everybody_hears_everything_in_one_order(country: Country) -> None:
    """
    Four publishers on two nodes, fifty readers: one sequence, gapless, the same for all and in history.
    """
    readers = [Reader(country, f"r{number}") for number in range(50)]
    for number, reader in enumerate(readers):
        reader.follow(country.towns[number % 2])
    await joined(country, *readers)
    offsets: list[int] = []

    async def publisher(name: int) -> None:
        node = country.towns[name % 2]
        offsets.extend([await country.say(node, "lobby", [name, number]) for number in range(250)])

    await gatherResults([ensureDeferred(publisher(name)) for name in range(4)])
    assert sorted(offsets) == list(range(1, 1001))
    await country.until(lambda: all(len(reader.read().got) == 1000 for reader in readers))
    kept = await country.towns[1].broker.history("lobby")
    order = [json.loads(publication.data) for publication in kept.publications]
    assert [publication.offset for publication in kept.publications] == list(range(1, 1001))
    for reader in readers:
        assert (reader.got, reader.ended) == (order, [])
    for name in range(4):
        assert [number for each, number in order if each == name] == list(range(250))


async def publishing(country: Country, most: int, ended: list[bool], pause_s: float = 0.002) -> list[int]:
    """Publish numbers from both nodes until it is ended; return those that were acknowledged."""
    rng, number, made = random.Random(1), 0, []
    while not ended and number < most:
        number += 1
        try:
            await country.say(rng.choice(country.towns), "lobby", number)
            made.append(number)
        except StoreUnavailable:
            pass
        await deferLater(reactor(), pause_s)
    return made


@pytest_twisted.ensureDeferred
async def test_whoever_comes_and_goes_misses_nothing(country: Country) -> None:
    """
    Readers that are cut at any moment, and come back on either node while publications go on, read the publishers' log.
    """
    rng = random.Random(7)
    readers = [Reader(country, f"r{number}") for number in range(8)]
    for reader in readers:
        reader.follow(rng.choice(country.towns))
    await joined(country, *readers)
    ended: list[bool] = []
    log = ensureDeferred(publishing(country, 5000, ended))
    cuts = 0
    while cuts < 150:
        reader = rng.choice(readers)
        reader.read()
        if reader.joined:
            reader.lose()
            cuts += 1
            await deferLater(reactor(), rng.random() * 0.01)
            reader.follow(rng.choice(country.towns), recover=True)
        else:
            await deferLater(reactor(), 0.002)
    ended.append(True)
    made = await log
    await joined(country, *readers)
    await country.until(lambda: all(len(reader.read().got) >= len(made) for reader in readers))
    assert len(made) > 100
    for reader in readers:
        assert (reader.got, all(reader.recovered[1:])) == (made, True)


@pytest_twisted.ensureDeferred
async def test_whoever_comes_while_publications_go_on_begins_without_a_hole(country: Country) -> None:
    """
    Where the answer to a subscription stands, what comes next goes on: answers and topics travel apart, none waits.
    """
    ended: list[bool] = []
    log = ensureDeferred(publishing(country, 5000, ended, 0.0))
    readers: list[tuple[Reader, int]] = []
    for number in range(150):
        reader = Reader(country, f"r{number}")
        reader.follow(country.towns[number % 2])
        await joined(country, reader)
        readers.append((reader, reader.offset - len(reader.got)))
    ended.append(True)
    made = await log
    await country.until(lambda: all(reader.read().offset == len(made) for reader, _ in readers))
    assert len(made) > 100
    for reader, began in readers:
        assert (reader.got, reader.ended) == (made[began:], [])


@pytest_twisted.ensureDeferred
async def test_a_cut_of_the_topics_is_noticed_by_nobody(country: Country) -> None:
    """
    However often the connection that brings publications is cut, all come, once and in order; without history it is told.
    """
    readers = [Reader(country, f"r{number}") for number in range(6)]
    passing = [Reader(country, f"p{number}", "passing") for number in range(2)]
    for number, reader in enumerate([*readers, *passing]):
        reader.follow(country.towns[number % 2])
    await joined(country, *readers, *passing)
    ended: list[bool] = []
    log = ensureDeferred(publishing(country, 5000, ended))
    for _ in range(10):
        await deferLater(reactor(), 0.05)
        # One of the two at a time: what the others hear is told apart from what was missed.
        ids = [
            line.split()[0][3:]
            for line in (await country.links[0].call("CLIENT", "LIST", "TYPE", "pubsub")).decode().splitlines()
        ]
        mine = random.Random(len(ids)).choice(ids)
        await country.links[0].call("CLIENT", "KILL", "ID", mine)
        await country.until(lambda: all(each.hearing for each in country.links))
    ended.append(True)
    made = await log
    await country.until(lambda: all(len(reader.read().got) >= len(made) for reader in readers))
    for reader in readers:
        assert (reader.got, reader.ended) == (made, [])
    await country.until(lambda: any(reader.read().ended for reader in passing))
    assert {code for reader in passing for code in reader.ended} == {2500}


@pytest.mark.parametrize("fault", ["hang", "restart", "goes back"])
@pytest_twisted.ensureDeferred
async def test_redis_is_away_for_a_while(tmp_path: Path, fault: str) -> None:
    """
    Nobody is disconnected. What was acknowledged and kept comes to all; that a restart went back is told, and no offset
    of the epoch before is used again.
    """
    durable = fault == "restart"
    kept = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
    server = RedisServer(tmp_path, kept).start()
    try:
        country = Country(server.url)
        for _ in range(2):
            await country.settle()
        readers = [Reader(country, f"r{number}") for number in range(4)]
        for number, reader in enumerate(readers):
            reader.follow(country.towns[number % 2])
        await joined(country, *readers)
        epoch = readers[0].epoch
        ended: list[bool] = []
        log: Deferred[list[int]] = ensureDeferred(publishing(country, 5000, ended))
        await deferLater(reactor(), 0.1)
        if fault == "goes back":
            assert server.ask("SAVE") == b"+OK\r\n"
        await deferLater(reactor(), 0.1)
        if fault == "hang":
            server.pause()
            await country.until(lambda: not any(each.available for each in country.links))
            server.resume()
        else:
            server.kill()
            await country.until(lambda: not any(each.available for each in country.links))
            server.start()
        await country.until(lambda: all(each.available and each.hearing for each in country.links))
        await deferLater(reactor(), 0.2)
        ended.append(True)
        made = await log
        assert all(reader.person is not None and reader.person.wire.closed is None for reader in readers)
        if fault == "goes back":
            await country.until(lambda: all(reader.read().ended for reader in readers))
            for reader in readers:
                assert reader.ended == [2500]
                reader.ask(recover=True)
            await joined(country, *readers)
            for reader in readers:
                assert (reader.recovered[-1], reader.epoch == epoch) == (False, False)
        else:
            # One whose answer was cut off may have been made: it is in every log or in none.
            await country.until(lambda: all(reader.read().got[-1:] == made[-1:] for reader in readers))
            assert set(made) <= set(readers[0].got)
            assert len(set(readers[0].got)) == len(readers[0].got)
            for reader in readers:
                assert (reader.got, reader.ended) == (readers[0].got, [])
        await country.close()
    finally:
        server.stop()
