"""
Several nodes on one Redis act as one: operations, revocations and commands of streams, asked of any of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from tests.realtime.house import Person
from tests.redis.city import City
from tests.redis.server import RedisServer
from tests.redis.test_link import until
from tests.web.harness import statuses
from tests.web.streaming import Door
from twisted.internet.defer import ensureDeferred, gatherResults

from gateway.core.identity import Identity, Revocation
from gateway.core.verdicts import ClientError

CONFIG = """
[channels.lobby]
subscribe = "authenticated"
presence = true
history = { size = 500, ttl = "5m" }
coalesce = "0s"

[channels."table:{id}"]
subscribe = "false"
history = { size = 5, ttl = "5m" }
coalesce = "0s"

[rpc.echo]
echo = true
"""


@pytest_twisted.async_yield_fixture
async def city(redis_server: RedisServer) -> AsyncIterator[City]:
    made = City(redis_server.url, CONFIG)
    for _ in range(3):
        await made.settle()
    yield made
    await made.close()


def each(city: City, token: str = "alice") -> list[Person]:
    """One connection on each node."""
    return [city.connected(token, node=node) for node in city.apart]


@pytest_twisted.ensureDeferred
async def test_orders(city: City) -> None:
    """
    Subscribe, refresh, unsubscribe and disconnect reach a user's connections on every node, asked of each in turn.
    """
    a, b, c = city.apart
    people, other = each(city), city.connected("bob", node=b)
    since = await city.do(a, "publish", channel="table:1", data=1)
    await city.do(b, "publish", channel="table:1", data=2)
    order = {"data": {"seat": 1}, "info": {"vip": True}, "recover_since": since}
    assert await city.do(c, "subscribe", user="alice", channel="table:1", **order) == {}
    for person in people:
        subscribed, publication = person.pushes()
        assert subscribed["subscribe"]["data"] == {"seat": 1}
        assert publication["pub"]["data"] == 2
    assert await city.do(a, "refresh", user="alice", expire_at=time.time() + 100) == {}
    assert [[*push] for person in people for push in person.pushes()] == [["refresh"]] * 3
    assert await city.do(b, "unsubscribe", user="alice", channel="table:1") == {}
    assert [person.pushes()[0]["unsubscribe"]["code"] for person in people] == [2000] * 3
    assert await city.do(c, "disconnect", user="alice", whitelist=[people[0].side.id]) == {}
    assert [person.wire.closed for person in people] == [None, *[(3503, "force disconnect")] * 2]
    assert await city.do(c, "refresh", user="alice", expired=True) == {}
    assert people[0].wire.closed == (3005, "connection expired")
    assert other.pushes() == []
    assert other.wire.closed is None


@pytest_twisted.ensureDeferred
async def test_questions(city: City) -> None:
    """
    Every node tells of all connections, subscriptions and nodes.
    """
    people = each(city)
    for person in people:
        person.reply(subscribe={"channel": "lobby"})
    for node in city.apart:
        connections = await city.do(node, "connections", user="alice")
        assert {id_: told["channels"] for id_, told in connections["connections"].items()} == {
            person.side.id: ["lobby"] for person in people
        }
        assert await city.do(node, "channels") == {"channels": {"lobby": {"num_clients": 3}}}
        info = await city.do(node, "info")
        assert info["nodes"][0]["uid"] == node.instance
        assert {(told["uid"], told["num_clients"]) for told in info["nodes"]} == {(n.instance, 1) for n in city.apart}
        assert "silent" not in info


@pytest_twisted.ensureDeferred
async def test_the_error_of_another(city: City) -> None:
    """
    What one node cannot do is told by the one that was asked.
    """
    _, two, _ = each(city)
    two.side.settings = type(two.side.settings)(path="/ws", max_channels=0)
    with pytest.raises(ClientError) as refused:
        await city.do(city.apart[0], "subscribe", user="alice", channel="lobby")
    assert (refused.value.code, refused.value.text) == (106, "at most 0 subscriptions")


@pytest_twisted.ensureDeferred
async def test_a_node_that_died(city: City) -> None:
    """
    A node whose lease still holds and that is gone is named at once; the others have done their part.
    """
    one, _, three = each(city)
    await city.links[1].stop()
    began = time.monotonic()
    assert await city.do(city.apart[0], "disconnect", user="alice") == {"silent": [city.apart[1].instance]}
    assert (await city.do(city.apart[2], "info"))["silent"] == [city.apart[1].instance]
    assert time.monotonic() - began < 1.5
    assert one.wire.closed == three.wire.closed == (3503, "force disconnect")


@pytest_twisted.ensureDeferred
async def test_many_orders_at_once(city: City) -> None:
    """
    Operations of all nodes at the same time find their answers.
    """
    each(city)
    doing = [ensureDeferred(city.do(city.apart[number % 3], "connections", user="alice")) for number in range(150)]
    for told in await gatherResults(doing):
        assert len(told["connections"]) == 3
        assert "silent" not in told


@pytest_twisted.ensureDeferred
async def test_a_revocation_reaches_every_node(city: City) -> None:
    """
    R6: within a second after one node was told, sockets and streams on others are closed, and whoever comes with the token,
    or comes back for its session, is refused everywhere. Others stay.
    """
    a, b, c = city.apart
    tokens = [f"user{number};jti=t{number};sid=s{number}" for number in range(30)]
    people = [city.connected(token, node=city.apart[number % 3]) for number, token in enumerate(tokens)]
    people[2].lose()
    door = await Door(city, b).open()
    listener = await door.listener(tokens[1])
    orders = [Revocation(time.time() + 600, token_id=f"t{number}") for number in range(15)]
    orders += [
        Revocation(time.time() + 600, subject=f"user{number}", issued_before=time.time() + 60)
        for number in range(15, 25)
    ]
    began = time.monotonic()
    for number, order in enumerate(orders):
        assert await city.shared[number % 3].revoke(order)
    await until(lambda: all(person.wire.closed for number, person in enumerate(people[:25]) if number != 2))
    await until(lambda: listener.raw.lost is not None or b'"disconnect"' in listener.raw.data)
    last = Identity("user24", "test", 4e9, issued_at=time.time())
    await until(lambda: all(shared.is_revoked(last) for shared in city.shared))
    took = time.monotonic() - began
    assert took < 2.0
    assert all(person.wire.closed == (3500, "invalid token") for n, person in enumerate(people[:25]) if n != 2)
    assert all(person.wire.closed is None for person in people[25:])
    for node in (a, b, c):
        for token in tokens[:25]:
            assert city.enter(token, node=node).wire.closed == (3500, "invalid token")
        assert city.enter(tokens[27], node=node).wire.closed is None
    await door.close()


@pytest_twisted.ensureDeferred
async def test_streams_speak_through_any_node(city: City) -> None:
    """
    Commands that reach another node than their connection's are taken in their order, under load; when it is gone, 404.
    """
    a, b, _ = city.apart
    doors = [await Door(city, node).open() for node in (a, b)]
    listeners = [await doors[0].listener(f"user{number}") for number in range(4)]
    speakers = [await doors[1].speaker() for _ in listeners]
    load = [ensureDeferred(city.do(b, "info")) for _ in range(50)]
    for number in range(2, 202):
        for listener, speaker in zip(listeners, speakers, strict=True):
            speaker.send(listener.says({"id": number, "rpc": {"method": "echo", "data": number}}))
    for listener, speaker in zip(listeners, speakers, strict=True):
        await speaker.containing(b" 204 ", 200)
        assert [message["id"] for message in await listener.until(201)] == list(range(1, 202))
    await gatherResults(load)
    by_turns = await doors[0].speaker()
    for number in range(202, 232):
        speaker = by_turns if number % 2 else speakers[0]
        before = len(statuses(speaker.data))
        speaker.send(listeners[0].says({"id": number, "rpc": {"method": "echo", "data": number}}))
        await speaker.containing(b" 204 ", before + 1)
    assert [message["id"] for message in await listeners[0].until(231)] == list(range(1, 232))
    await city.links[0].stop()
    speakers[0].clear()
    began = time.monotonic()
    speakers[0].send(listeners[0].says({"id": 300, "rpc": {"method": "echo", "data": 1}}))
    assert statuses(await speakers[0].containing(b"no_session")) == [404]
    assert time.monotonic() - began < 1.5
    for door in doors:
        await door.close()


@pytest_twisted.ensureDeferred
async def test_who_still_holds_a_connection(city: City) -> None:
    """
    A node says whether it has a session's connection; one that is gone has not, and that is known at once.
    """
    person = city.connected(node=city.apart[1])
    record: Any = person.side.session
    assert await city.apart[0].cluster.holds([record]) == {record.client}
    person.lose()
    assert not await city.apart[0].cluster.holds([record])
    other: Any = city.connected("bob", node=city.apart[1]).side.session
    await city.links[1].stop()
    began = time.monotonic()
    assert not await city.apart[0].cluster.holds([other])
    assert time.monotonic() - began < 0.25
