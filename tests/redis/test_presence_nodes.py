"""
Presence as clients see it, on instances that share nothing but a real Redis: none of them is in memory.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest_twisted
from tests.realtime.house import House, Person
from tests.realtime.test_presence import comings
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from gateway.node.realtime import RealtimeNode
from gateway.ports.stores import Stores

CONFIG = """
[store]
beat = "200ms"
lease = "1s"
[realtime]
resume_window = "10s"
join_leave_tick = "50ms"
[channels.lobby]
subscribe = "authenticated"
presence = true
join_leave = true
join_leave_most = 100000
hold = "1s"
history = { size = 10, ttl = "1m" }
[channels."table:{id}"]
subscribe = "authenticated"
presence = true
hold = "1s"
"""


def reactor() -> Any:
    """The one that pytest-twisted has installed."""
    from twisted.internet import reactor as installed

    return installed


async def together(steps: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    return list(await gatherResults([Deferred.fromCoroutine(step) for step in steps]))


class Region(House):
    """
    A house whose nodes have all their stores on Redis. Its own first node is none of them.
    """

    def __init__(self, url: str, hold: str = "1s") -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.links: dict[RealtimeNode, Any] = {}
        self.failed: list[Any] = []
        self._next: Any = None
        super().__init__(CONFIG.replace('hold = "1s"', f'hold = "{hold}"'), clock=reactor())

    def wall(self) -> float:
        """The real time: Redis has it, too."""
        return time.time()

    def stores_of(self, stores: Stores) -> Stores:
        """All on the link that was made for this node."""
        if self._next is None:
            return stores
        from gateway.redis.stores import redis_stores

        made = redis_stores(
            self._next,
            self.clock,
            wall=self.wall,
            fresh=lambda: secrets.token_hex(4),
            failed=lambda *fault: self.failed.append(fault),
            odd=self.failed.append,
            lease_s=self.config.store.lease_s,
        )
        return replace(stores, **{name: getattr(made, name) for name in stores.__slots__})

    async def settle(self) -> RealtimeNode:
        """One more node, that the others know."""
        self._next = await link(self.url, self.prefix)
        node = self.add()
        self.links[node] = self._next
        await self.until(lambda: node.sessions.ready)
        return node

    async def until(self, true: Callable[[], object], within_s: float = 20.0) -> None:
        """Wait for something to be true."""
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, "it did not happen"
            await deferLater(reactor(), 0.01)

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(reactor(), seconds)

    async def stands(self, name: str, node: RealtimeNode, channel: str = "lobby") -> Person:
        """Somebody with a device, connected at *node* and in *channel*."""
        person = self.enter(f"{name};sid={name};ttl=99999", node=node)
        await self.until(lambda: person.side.session is not None and person.side.state.name == "CONNECTED")
        person.told()
        person.ask(subscribe={"channel": channel, "join_leave": True})
        await self.until(lambda: channel in person.side.subscriptions and person.side.subscriptions[channel].live)
        return person

    async def kill(self, node: RealtimeNode) -> None:
        """End it as a crash would."""
        await node.background.stop()
        await self.links.pop(node).stop()

    async def left(self) -> list[str]:
        """What is stored of presence."""
        redis = next(iter(self.links.values()))
        keys = await redis.call("KEYS", f"{self.prefix}:1:*", key="any")
        kinds = {key.decode().split(":")[2] for key in keys}
        return sorted(kinds & {"p", "u", "{presence}"}) + [
            str(key) for key in keys if key.endswith(b":held:{presence}")
        ]

    async def close(self) -> None:
        """End all."""
        self.node.hub.stop()
        await self.node.background.stop()
        for node, redis in self.links.items():
            await node.stop()
            await redis.stop()
        assert self.failed == []


@pytest_twisted.async_yield_fixture
async def region(redis_server: RedisServer) -> AsyncIterator[Region]:
    made = Region(redis_server.url)
    yield made
    await made.close()


@pytest_twisted.ensureDeferred
async def test_back_on_another_instance(region: Region) -> None:
    """
    A device whose connection was lost is back on another instance: nobody saw it go, and it stands there once.
    """
    a, b, c = [await region.settle() for _ in range(3)]
    watchers = [await region.stands(f"watcher{number}", node) for number, node in enumerate((a, c))]
    bob = await region.stands("bob", a)
    await region.wait(0.3)
    for watcher in watchers:
        assert ("join", "bob") in comings(watcher)
    session = bob.session
    bob.lose()
    await region.wait(0.4)
    back = await region.stands("bob", b)
    assert back.session == session
    members = await c.presence.members("lobby")
    assert [client for client, info in members.items() if info.user == "bob"] == [back.side.id]
    await region.wait(1.5)
    assert [comings(watcher) for watcher in watchers] == [[], []]
    back.leave()
    await region.wait(0.3)
    assert [comings(watcher) for watcher in watchers] == [[("leave", "bob")]] * 2
    for watcher in watchers:
        watcher.leave()
    await region.wait(1.3)
    assert await region.left() == []


@pytest_twisted.ensureDeferred
async def test_an_instance_is_killed(redis_server: RedisServer) -> None:
    """
    Of those on an instance that dies, who is back within the hold never left, and the others leave once, soon after the lease and the hold.
    """
    region = Region(redis_server.url, hold="3s")
    a, b, c = [await region.settle() for _ in range(3)]
    watchers = [await region.stands(f"watcher{number}", node) for number, node in enumerate((a, c))]
    await together(region.stands(f"p{number}", b) for number in range(60))
    await together(region.stands(f"q{number}", b, f"table:{number}") for number in range(60))
    told: list[list[tuple[str, str]]] = [[], []]

    def both(number: int) -> bool:
        for watcher, found in zip(watchers, told, strict=True):
            found.extend(each for each in comings(watcher) if each[1][0] == "p")
        return all(len(found) >= number for found in told)

    await region.until(lambda: both(60))
    await region.kill(b)
    await together(region.stands(f"p{number}", (a, c)[number % 2]) for number in range(0, 60, 3))
    await region.until(lambda: both(60 + 40))
    await region.wait(0.5)
    assert both(100)
    expected = sorted(("leave", f"p{number}") for number in range(60) if number % 3)
    assert [sorted(found[60:]) for found in told] == [expected] * 2
    assert (await a.presence.occupancy("lobby")).users == 22
    assert (await c.presence.occupancy("table:7")).clients == 0
    await region.until(lambda: {*a.membership.keeper.living} == {a.instance, c.instance})
    await region.close()


@pytest_twisted.ensureDeferred
async def test_an_instance_leaves(region: Region) -> None:
    """
    An instance that is stopped hands its clients on: whoever watches sees nobody leave, and in the end nothing of it is stored.
    """
    a, b = await region.settle(), await region.settle()
    watcher = await region.stands("watcher", a)
    people = await together(region.stands(f"p{number}", b) for number in range(30))
    await region.wait(0.3)
    assert len(comings(watcher)) >= 30
    await b.stop()
    await region.links.pop(b).stop()
    assert {person.wire.closed for person in people} == {(3001, "shutdown")}
    back = await together(region.stands(f"p{number}", a) for number in range(30))
    await region.wait(2.0)
    assert comings(watcher) == []
    assert (await a.presence.occupancy("lobby")).clients == 31
    for person in [*back, watcher]:
        person.leave()
    await region.wait(0.5)
    assert await region.left() == []


@pytest_twisted.ensureDeferred
async def test_redis_is_away_and_empty(tmp_path: Path) -> None:
    """
    While Redis is dead for longer than a lease nobody is disconnected; when it is back, with nothing in it, everybody is there, and nobody was told otherwise.
    """
    server = RedisServer(tmp_path / "redis").start()
    region = Region(server.url)
    try:
        a, b = await region.settle(), await region.settle()
        watcher = await region.stands("watcher", a)
        people = [await region.stands(f"p{number}", (a, b)[number % 2]) for number in range(20)]
        await region.wait(1.2)
        assert len(comings(watcher)) >= 20
        server.kill()
        await region.until(lambda: not any(redis.available for redis in region.links.values()))
        people[3].lose()
        people[4].leave()
        await region.wait(1.5)
        assert watcher.reply(presence={"channel": "lobby"})["error"]["temporary"]
        server.start()
        await region.until(lambda: all(redis.available and redis.hearing for redis in region.links.values()))
        gone: list[tuple[str, str]] = []

        def told() -> bool:
            for person in [watcher, *people]:
                for message in person.told():
                    push = message.get("push", {})
                    if person is watcher:
                        gone.extend((kind, push[kind]["info"]["user"]) for kind in ("join", "leave") if kind in push)
                    if push.get("unsubscribe", {}).get("code") == 2500 or message.get("error", {}).get("temporary"):
                        # As SDKs do: the stream is another, so the subscription begins anew.
                        person.ask(subscribe={"channel": "lobby", "join_leave": True})
            return len(gone) >= 2

        await region.until(told)
        await region.wait(1.0)
        assert told()
        assert sorted(gone) == [("leave", "p3"), ("leave", "p4")]
        assert (await b.presence.occupancy("lobby")).clients == 19
        assert [person.wire.closed for person in people if person is not people[3]] == [None] * 19
        assert watcher.wire.closed is None
        assert "lobby" in watcher.side.subscriptions
    finally:
        await region.close()
        server.stop()
