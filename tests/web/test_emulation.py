"""
What clients of streams say reaches their connection, whichever instance their requests reach.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from tests.realtime.house import House
from tests.web.harness import statuses
from tests.web.streaming import Door
from twisted.internet.defer import Deferred

from gateway.node.cluster import MOST_SAID, SAID_S

CONFIG = """
[rpc.echo]
echo = true
"""


class Block:
    """
    Two nodes with a port each.
    """

    def __init__(self, text: str = CONFIG) -> None:
        self.house = House(text)
        self.nodes = [self.house.node, self.house.add()]
        self.doors: list[Door] = []

    async def open(self) -> Block:
        """Let clients come."""
        self.doors = [await Door(self.house, node).open() for node in self.nodes]
        return self

    async def close(self) -> None:
        """Let nobody come any more."""
        for door in self.doors:
            await door.close()


@pytest_twisted.async_yield_fixture
async def block() -> AsyncIterator[Block]:
    made = await Block().open()
    yield made
    await made.close()


def echo(number: int) -> dict[str, object]:
    return {"id": number, "rpc": {"method": "echo", "data": number}}


@pytest_twisted.ensureDeferred
async def test_any_instance_will_do(block: Block) -> None:
    """
    A command is taken where the connection is and by another instance, with 204; each after the other has an answer.
    """
    listener = await block.doors[0].listener()
    for number, door in ((2, block.doors[0]), (3, block.doors[1]), (4, block.doors[0]), (5, block.doors[1])):
        speaker = await door.speaker()
        speaker.send(listener.says(echo(number)))
        assert statuses(await speaker.containing(b"\r\n\r\n")) == [204]
        assert [message["id"] for message in await listener.until(number)] == list(range(1, number + 1))


@pytest_twisted.ensureDeferred
async def test_order_is_kept_under_load(block: Block) -> None:
    """
    What arrives at another instance in an order is taken in that order.
    """
    listener = await block.doors[0].listener()
    speaker = await block.doors[1].speaker()
    for number in range(2, 302):
        speaker.send(listener.says(echo(number)))
    await speaker.containing(b" 204 ", 300)
    assert [message["id"] for message in await listener.until(301)] == list(range(1, 302))


@pytest_twisted.ensureDeferred
async def test_an_instance_that_is_gone(block: Block) -> None:
    """
    404 has the SDK connect anew: a name of nobody, of one that stopped, or none. A session that is over is no fault.
    """
    listener = await block.doors[0].listener()
    speaker = await block.doors[1].speaker()
    for node in ("", "nobody", "x" * 5000):
        speaker.send(listener.says(echo(2), node=node))
    assert statuses(await speaker.containing(b"no_session", 3)) == [404] * 3
    speaker.clear()
    speaker.send(listener.says(echo(2), session="over"))
    assert statuses(await speaker.containing(b" 204 ")) == [204]
    await block.nodes[0].bus.leave()
    speaker.clear()
    speaker.send(listener.says(echo(2)))
    assert statuses(await speaker.containing(b"no_session")) == [404]


@pytest_twisted.ensureDeferred
async def test_an_instance_that_hangs(block: Block) -> None:
    """
    One that does not take it in time is taken for gone; whoever hangs up before is forgotten.
    """
    listener = await block.doors[0].listener()
    block.nodes[0].bus.answer("said", lambda _sender, _body: Deferred())
    speaker, impatient = await block.doors[1].speaker(), await block.doors[1].speaker()
    for each in (speaker, impatient):
        each.send(listener.says(echo(2)))
    handler = block.doors[1].served.handler
    while len(handler.begun) < 2:
        await block.doors[1].speaker()
    impatient.reset()
    while len(handler.ended_as) < 1:
        await block.doors[1].speaker()
    assert handler.outcomes == [False]
    block.house.clock.advance(SAID_S)
    assert statuses(await speaker.containing(b"no_session")) == [404]
    assert block.nodes[1].cluster._handing_on == 0


@pytest_twisted.ensureDeferred
async def test_what_is_handed_on_is_bounded() -> None:
    """
    Beyond the bytes that may wait for other instances the answer is 503, and one message larger than can be sent is 413.
    """
    block = Block(CONFIG)
    node, other = block.nodes
    stuck: Deferred[bytes] = Deferred()
    node.bus.answer("said", lambda _sender, _body: stuck)
    data = bytes(1_000_000)
    waiting = [other.cluster.said(node.instance, "s", data) for _ in range(MOST_SAID // len(data))]
    assert not any(isinstance(each, bool) or each.called for each in waiting)
    failures: list[Any] = []
    for more in (data, bytes(1_100_000)):
        taken = other.cluster.said(node.instance, "s", more)
        assert isinstance(taken, Deferred)
        taken.addBoth(failures.append)
    assert [failure.value.kind.code for failure in failures] == ["forward_overload", "body_too_large"]
    stuck.callback(b"")
    assert other.cluster._handing_on == 0


@pytest_twisted.ensureDeferred
async def test_what_is_no_request(block: Block) -> None:
    """
    A body that cannot be read is 400, and nobody is asked.
    """
    speaker = await block.doors[1].speaker()
    body = json.dumps({"session": 1}).encode()
    speaker.send(b"POST /emulation HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert statuses(await speaker.containing(b"bad_request")) == [400]
