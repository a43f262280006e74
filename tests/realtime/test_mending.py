"""
What an instance missed of a channel: filled from history unnoticed, or told.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.realtime.house import House, Person
from twisted.internet.defer import Deferred

from gateway.core.publications import History, Position
from gateway.memory.broker import MemoryBroker
from gateway.node.hub import Hub
from gateway.node.room import MOST_KEPT, Mended
from gateway.ports.realtime import StoreUnavailable

KEPT = """
[channels.lobby]
subscribe = "authenticated"
history = { size = 50, ttl = "5m" }
coalesce = "0s"
[channels.passing]
subscribe = "authenticated"
"""


class Lossy:
    """
    Stands between the broker and the hub: what comes may be lost, or held back and come later.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.lost = False
        self.held: list[Any] | None = None

    def published(self, channel: str, publication: Any, epoch: str) -> None:
        if self.held is not None:
            self.held.append((channel, publication, epoch))
        elif not self.lost:
            self.hub.published(channel, publication, epoch)

    def joined(self, channel: str, info: Any) -> None:
        """Nobody asks."""

    def left(self, channel: str, info: Any) -> None:
        """Nobody asks."""

    def interrupted(self, channels: Sequence[str]) -> None:
        self.hub.interrupted(channels)

    def release(self, number: int = 1000) -> None:
        """Let through what was held back, the oldest first."""
        assert self.held is not None
        for _ in range(min(number, len(self.held))):
            self.hub.published(*self.held.pop(0))


class Slow(MemoryBroker):
    """
    A broker that is asked over a network: its answers come when the test says.
    """

    away = False
    fault = ""
    subscribed = 0
    waits: list[Deferred[None]] | None = None

    async def _wait(self) -> None:
        if self.away:
            raise StoreUnavailable("away")
        if self.waits is not None:
            waiting: Deferred[None] = Deferred()
            self.waits.append(waiting)
            await waiting

    async def history(self, channel: str, **asked: Any) -> History:
        if self.away:
            raise StoreUnavailable("away")
        if self.fault == "history":
            raise ValueError("it cannot be read")
        found = await super().history(channel, **asked)
        await self._wait()
        return found

    async def tops(self, channels: Sequence[str]) -> Mapping[str, Position]:
        if self.fault == "tops":
            raise ValueError("it cannot be read")
        found = await super().tops(channels)
        await self._wait()
        return found

    async def subscribe(self, channel: str) -> None:
        self.subscribed += 1
        await self._wait()
        await super().subscribe(channel)

    def answer(self) -> None:
        """Answer what was asked longest ago."""
        assert self.waits is not None
        self.waits.pop(0).callback(None)


def lossy(text: str = KEPT) -> tuple[House, Lossy, Slow]:
    """A house whose link loses what it is told to."""
    house = House(text)
    broker = Slow(house.channels)
    between = Lossy(house.node.hub)
    broker.listen(between)
    house.node.broker = house.node.hub._broker = house.node.hub.mending._broker = broker
    return house, between, broker


def offsets(person: Person) -> list[int]:
    return [push["pub"]["offset"] for push in person.pushes()]


def test_a_lost_publication_is_read_and_comes_in_order() -> None:
    """
    The next one shows the hole; both come, in order, and nobody is told anything else.
    """
    house, link, _ = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    house.publish("lobby", 1)
    link.lost = True
    house.publish("lobby", 2)
    house.publish("lobby", 3)
    link.lost = False
    house.publish("lobby", 4)
    assert offsets(alice) == [1, 2, 3, 4]
    house.publish("lobby", 5)
    assert offsets(alice) == [5]


def test_a_link_that_is_back_is_asked_what_it_missed() -> None:
    """
    Without a further publication what was lost comes; a channel without history begins anew.
    """
    house, link, _ = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    alice.reply(subscribe={"channel": "passing"})
    link.lost = True
    house.publish("lobby", 1)
    link.lost = False
    link.interrupted(["lobby", "passing"])
    pushes = alice.pushes()
    assert [push["unsubscribe"]["code"] for push in pushes if "unsubscribe" in push] == [2500]
    assert [push["pub"]["data"] for push in pushes if "pub" in push] == [1]


def test_what_comes_while_history_is_read_waits_its_turn() -> None:
    """
    Publications during the reading are delivered after those that were missed, also when more is missed meanwhile.
    """
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    broker.waits = []
    link.lost = True
    house.publish("lobby", 1)
    link.lost = False
    house.publish("lobby", 2)
    broker.answer()  # Where it stands.
    house.publish("lobby", 3)
    link.lost = True
    house.publish("lobby", 4)
    link.lost = False
    house.publish("lobby", 5)
    assert offsets(alice) == []
    broker.answer()  # What was missed up to 2.
    while broker.waits:
        broker.answer()
    assert offsets(alice) == [1, 2, 3, 4, 5]


def test_a_second_break_during_the_first_is_mended_too() -> None:
    """
    What is lost after history was read and before its answer came is read as well.
    """
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    link.lost = True
    house.publish("lobby", 1)
    broker.waits = []
    link.interrupted(["lobby"])
    broker.answer()
    house.publish("lobby", 2)  # Lost: the answer that is under way does not know it.
    link.interrupted(["lobby"])
    while broker.waits:
        broker.answer()
    assert offsets(alice) == [1, 2]


def test_while_the_store_is_away_it_is_asked_again() -> None:
    """
    Nobody is told of a hole that can be filled once the store is back.
    """
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    link.lost = True
    house.publish("lobby", 1)
    broker.away = True
    link.interrupted(["lobby"])
    house.pass_time(5)
    assert alice.pushes() == []
    broker.away = False
    house.pass_time(1)
    assert offsets(alice) == [1]


def test_a_hole_is_forgotten_with_its_last_listener() -> None:
    """
    A room that everybody left is not mended, and the next to come begins from history.
    """
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    broker.away = True
    link.interrupted(["lobby"])
    alice.reply(unsubscribe={"channel": "lobby"})
    house.pass_time(2)
    broker.away = False
    reply = alice.reply(subscribe={"channel": "lobby"})["subscribe"]
    house.publish("lobby", 1)
    assert (reply.get("offset", 0), offsets(alice)) == (0, [1])


@pytest.mark.parametrize("fault", ["trimmed", "epoch"])
def test_what_history_cannot_fill_is_told(fault: str) -> None:
    """
    Trimmed history or a new epoch: 2500 for everybody, and recovery is refused, never half made.
    """
    house, link, _ = lossy()
    alice = house.connected()
    before = alice.reply(subscribe={"channel": "lobby"})["subscribe"]
    link.lost = True
    for number in range(60):
        house.publish("lobby", number)
    if fault == "epoch":
        house.channels.stream("lobby").epoch = "another"
    link.lost = False
    house.publish("lobby", 60)
    assert [push["unsubscribe"]["code"] for push in alice.pushes()] == [2500]
    again = {"channel": "lobby", "recover": True, "offset": 0, "epoch": before["epoch"]}
    reply = alice.reply(subscribe=again)["subscribe"]
    assert (reply.get("recovered", False), reply["offset"]) == (False, 61)
    house.publish("lobby", 61)
    assert offsets(alice) == [62]


def test_a_subscriber_that_knows_more_than_the_link_brought_gets_nothing_twice() -> None:
    """
    History may be ahead of what the link has brought: what follows up to there is for the others alone.
    """
    house, link, _ = lossy()
    alice, bob = house.connected("alice"), house.connected("bob")
    alice.reply(subscribe={"channel": "lobby"})
    link.held = []
    for number in range(4):
        house.publish("lobby", number)
    reply = bob.reply(subscribe={"channel": "lobby", "recover": True, "offset": 0, "epoch": "?"})["subscribe"]
    assert reply["offset"] == 4
    link.release(3)
    assert (offsets(alice), offsets(bob)) == ([1, 2, 3], [])
    link.release()
    link.held = None
    house.publish("lobby", 5)
    assert (offsets(alice), offsets(bob)) == ([4, 5], [5])


def test_a_subscriber_that_comes_while_a_hole_is_filled_gets_what_is_new_to_it() -> None:
    """
    It has what history told it, and gets what came since, once.
    """
    house, link, broker = lossy()
    alice, bob = house.connected("alice"), house.connected("bob")
    alice.reply(subscribe={"channel": "lobby"})
    link.lost = True
    house.publish("lobby", 1)
    house.publish("lobby", 2)
    link.lost = False
    broker.waits = []
    link.interrupted(["lobby"])
    bob.ask(subscribe={"channel": "lobby"})
    broker.answer()  # Where the room stands.
    broker.answer()  # Bob's history.
    assert bob.told()[0]["subscribe"]["offset"] == 2
    house.publish("lobby", 3)
    while broker.waits:
        broker.answer()
    house.publish("lobby", 4)
    assert (offsets(alice), offsets(bob)) == ([1, 2, 3, 4], [3, 4])


def test_a_quiet_channel_is_compared_with_the_store() -> None:
    """
    The last publication was lost and none follows: it comes within the interval of the check.
    """
    house, link, broker = lossy(KEPT + '[realtime]\nposition_check = "10s"\n')
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    link.lost = True
    house.publish("lobby", 1)
    link.lost = False
    broker.away = True
    house.pass_time(25)
    assert alice.pushes() == []
    broker.away = False
    house.pass_time(22)
    assert offsets(alice) == [1]


def test_a_store_that_went_back_is_found_by_the_check() -> None:
    """
    A top below what clients have: they are told to begin anew.
    """
    house, _, _ = lossy(KEPT + '[realtime]\nposition_check = "10s"\n')
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    house.publish("lobby", 1)
    stream = house.channels.stream("lobby")
    before = stream.epoch
    stream.publications.clear()
    stream.offset = 0
    alice.pushes()
    house.pass_time(22)
    assert [push["unsubscribe"]["code"] for push in alice.pushes() if "unsubscribe" in push] == [2500]
    # Its offsets are used again: in another epoch.
    assert alice.reply(subscribe={"channel": "lobby"})["subscribe"]["epoch"] != before
    house.publish("lobby", 2)
    assert offsets(alice) == [1]


def test_a_long_outage_is_bridged_although_positions_are_checked() -> None:
    """
    A room that is being mended is not compared: what it stands at is known to the mending alone.
    """
    house, link, broker = lossy(KEPT + '[realtime]\nposition_check = "2s"\n')
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    link.lost = True
    house.publish("lobby", 1)
    broker.away = True
    link.interrupted(["lobby"])
    house.pass_time(30)
    broker.waits = []
    broker.away = False
    house.pass_time(10)
    while broker.waits:
        broker.answer()
    assert [push.get("pub", {}).get("data") for push in alice.pushes()] == [1]


@pytest.mark.parametrize("asked", ["tops", "history"])
def test_a_fault_while_mending_is_told(asked: str) -> None:
    """
    Whatever goes wrong, nobody goes on with a hole and nobody waits for ever: 2500, and what comes then is delivered.
    """
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    broker.fault = asked
    link.lost = True
    house.publish("lobby", 1)
    link.lost = False
    house.publish("lobby", 2)
    assert [push["unsubscribe"]["code"] for push in alice.pushes()] == [2500]
    broker.fault = ""
    assert alice.reply(subscribe={"channel": "lobby"})["subscribe"]["offset"] == 2
    house.publish("lobby", 3)
    assert offsets(alice) == [3]


def test_a_large_hole_costs_slow_readers_no_more_memory_than_else() -> None:
    """
    What was missed goes out in pieces, turn by turn: who takes it gets all, who does not is closed at its limit.
    """
    house, link, _ = lossy(KEPT.replace("size = 50", "size = 5000"))
    quick, slow = house.connected("quick"), house.connected("slow", takes=200_000)
    for person in (quick, slow):
        person.reply(subscribe={"channel": "lobby"})
    link.lost = True
    for _ in range(100):
        house.publish("lobby", "x" * 60_000)
    link.lost = False
    sends = quick.wire.sends
    link.interrupted(["lobby"])
    house.publish("lobby", "live")
    assert quick.wire.sends == sends + 1, "the rest in the turns that follow"
    house.clock.advance(0)
    assert offsets(quick) == list(range(1, 102))
    limit = house.config.websocket[0].outbox_bytes
    assert len(slow.wire.buffered) < limit
    assert slow.wire.closed is not None
    house.publish("lobby", "next")
    assert offsets(quick) == [102]


def test_what_is_kept_is_bounded() -> None:
    """
    Beyond the bound what came is dropped and read again.
    """
    mended = Mended(Position(0, "e"))
    house, link, broker = lossy()
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    broker.waits = []
    link.interrupted(["lobby"])
    for _ in range(40):
        house.publish("lobby", "x" * (MOST_KEPT // 30))
    while broker.waits:
        broker.answer()
        house.clock.advance(0)
    assert offsets(alice) == list(range(1, 41))
    assert mended.again is False


@pytest.mark.parametrize("hold", ["0s", "5ms"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_everybody_has_everything_once(seed: int, hold: str) -> None:
    """
    Random losses, delays, comings and goings: each one's offsets are gapless from where it began.
    """
    rng = random.Random(seed)
    house, link, broker = lossy(KEPT.replace("0s", hold))
    people = [house.connected(f"p{number}") for number in range(4)]
    have: dict[Person, int | None] = dict.fromkeys(people)
    broker.waits = []

    def drink() -> None:
        for person in people:
            for message in person.told():
                if "subscribe" in message:
                    have[person] = message["subscribe"].get("offset", 0)
                push = message.get("push", {})
                if "pub" in push:
                    assert push["pub"]["offset"] == (have[person] or 0) + 1
                    have[person] = push["pub"]["offset"]
                assert "unsubscribe" not in push
                assert "error" not in message

    for number in range(300):
        act = rng.random()
        if act < 0.5:
            # Some are so large that what was missed goes out in several turns.
            house.publish("lobby", "x" * 40_000 if rng.random() < 0.2 else number)
        elif act < 0.6:
            link.lost = True
        elif act < 0.7:
            link.lost = False
        elif act < 0.75 and link.held is None and not link.lost:
            link.held = []
        elif act < 0.85 and link.held is not None:
            link.release(rng.randrange(1, 4))
            if not link.held:
                link.held = None
        elif act < 0.88 and link.held is None:
            link.interrupted(["lobby"])
        elif act < 0.94:
            person = rng.choice(people)
            if have[person] is None:
                have[person] = -1
                person.say({"id": 1000 + number, "subscribe": {"channel": "lobby"}})
        if broker.waits and rng.random() < 0.5:
            broker.answer()
        house.clock.advance(rng.choice((0.0, 0.001, 0.01)))
        drink()
    link.lost = False
    if link.held is not None:
        link.release()
        link.held = None
    link.interrupted(["lobby"])
    while broker.waits:
        broker.answer()
    house.clock.advance(0.01)
    house.publish("lobby", "end")
    while broker.waits:
        broker.answer()
        house.clock.advance(0.01)
    house.clock.advance(0.01)
    drink()
    top = house.channels.stream("lobby").offset
    assert [offset for offset in have.values() if offset is not None] == [top] * sum(
        offset is not None for offset in have.values()
    )


@pytest.mark.parametrize("away", [False, True])
def test_a_herd_hears_a_channel_with_one_subscription(*, away: bool) -> None:
    """
    However many come while the broker is being asked, it is asked once, and all have its answer.
    """
    house, _, broker = lossy()
    people = [house.connected(f"p{number}") for number in range(1000)]
    broker.waits = []
    for person in people:
        person.ask(subscribe={"channel": "passing"})
    people[3].lose()
    broker.away = away
    if away:
        broker.waits.pop(0).errback(StoreUnavailable("away"))
    else:
        broker.answer()
    replies = [message for person in people for message in person.told()]
    assert len(replies) == 999
    assert {reply.get("error", {}).get("code", 0) for reply in replies} == {100 if away else 0}
    assert broker.subscribed == 1
    broker.away, broker.waits = False, None
    assert "subscribe" in house.connected("late").reply(subscribe={"channel": "passing"})
    assert broker.subscribed == (2 if away else 1)


def test_who_asked_the_broker_may_leave() -> None:
    """
    When the first one goes away while the broker is asked, the next one asks, and nobody is told of it.
    """
    house, _, broker = lossy()
    people = [house.connected(f"p{number}") for number in range(500)]
    broker.waits = []
    for person in people:
        person.ask(subscribe={"channel": "passing"})
    for person in people[:3]:
        person.lose()
    while broker.waits:
        waiting = broker.waits.pop(0)
        if not waiting.called:
            waiting.callback(None)
    assert [message.get("error") for person in people[3:] for message in person.told()] == [None] * 497
    house.publish("passing", 1)
    assert [len(person.pushes()) for person in people[3:]] == [1] * 497
