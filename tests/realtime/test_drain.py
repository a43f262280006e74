"""
An instance that leaves: its clients are sent elsewhere, evenly, answered, and missed by nobody.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.realtime.house import BASE, House, Person
from tests.realtime.test_presence import BIG, comings, watching
from twisted.internet.defer import Deferred

from gateway.node.drain import PACE, flushed, send_away
from gateway.node.realtime import STOP_S

CALLS = """
[rpc."game.*"]
upstream = "backend"
http = "POST /game"
data = "result"
[realtime]
on_disconnect = { upstream = "backend", http = "POST /bye" }
"""

SHUTDOWN = (3001, "shutdown")


def leaving(house: House, window_s: float = 10.0, within_s: float = 30.0) -> list[int]:
    """Send the first node's clients away; the list gets how many were not answered, at the end."""
    unanswered: list[int] = []
    Deferred.fromCoroutine(send_away(house.node, window_s, within_s)).addCallback(unanswered.append)
    return unanswered


def thinking(waiting: list[Deferred[bytes]]) -> Any:
    def think(_facts: Any, _data: bytes) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    return think


def crowd(house: House, number: int) -> list[Person]:
    return [house.connected(f"p{each};ttl=99999") for each in range(number)]


def closings(house: House, people: list[Person], for_s: float) -> dict[int, float]:
    """When each of *people* was closed, in seconds from now, by who it is; time passes."""
    began = house.clock.seconds()
    found: dict[int, float] = {}
    while house.clock.seconds() < began + for_s:
        for number, person in enumerate(people):
            if person.wire.closed is not None and number not in found:
                found[number] = house.clock.seconds() - began
        house.pass_time(0.05, step=0.05)
    return found


def test_the_window_is_used_evenly() -> None:
    """
    R36: no second has more than one and a half times its share, and neighbours do not go together.
    """
    house = House("")
    people = crowd(house, 400)
    unanswered = leaving(house)
    at = closings(house, people, 12)
    assert len(at) == 400
    assert {person.wire.closed for person in people} == {SHUTDOWN}
    assert unanswered == [0]
    bins = Counter(int(when) for when in at.values())
    assert max(at.values()) <= 10.2
    assert max(bins.values()) <= 1.5 * 400 / 10
    assert all(bins[second] >= 0.5 * 400 / 10 for second in range(10))
    first = sorted(at, key=lambda number: at[number])[:100]
    assert sum(number < 100 for number in first) < 60


def test_few_clients_need_no_window() -> None:
    """
    Fewer than ``PACE`` a second: the window is shorter; nobody waits ten seconds for one client.
    """
    house = House("")
    people = crowd(house, 10)
    unanswered = leaving(house)
    house.pass_time(10 / PACE + 0.25)
    assert [person.wire.closed for person in people] == [SHUTDOWN] * 10
    assert unanswered == [0]
    assert leaving(House("")) == [0]


def test_who_comes_meanwhile_is_sent_away_too() -> None:
    """
    Nobody is left over, whether it connects late or never says a word.
    """
    house = House("")
    crowd(house, 200)
    unanswered = leaving(house)
    house.pass_time(5)
    assert unanswered == []
    silent = house.come()
    late = house.connected("late")
    house.pass_time(6)
    assert [silent.wire.closed, late.wire.closed] == [SHUTDOWN] * 2
    assert unanswered == [0]


def test_commands_under_way_are_answered_first() -> None:
    """
    A client is closed behind its last reply; what it says meanwhile is not read, others do not wait for it.
    """
    waiting: list[Deferred[bytes]] = []
    house = House(CALLS, {"POST /game": thinking(waiting), "POST /bye": {}})
    alice, bob = house.connected(), house.connected("bob")
    alice.ask(rpc={"method": "game.a"})
    alice.ask(rpc={"method": "game.a"})
    assert len(waiting) == 1
    unanswered = leaving(house)
    house.pass_time(3)
    assert bob.wire.closed == SHUTDOWN
    assert alice.wire.paused
    assert alice.wire.closed is None
    waiting[0].callback(b'{"result":1}')
    house.pass_time(0.25)
    assert alice.wire.closed is None
    waiting[1].callback(b'{"result":2}')
    house.pass_time(0.25)
    assert [message["rpc"]["data"] for message in alice.told() if "rpc" in message] == [1, 2]
    assert not alice.wire.paused
    assert alice.wire.closed == SHUTDOWN
    assert unanswered == [0]


def test_nobody_is_waited_for_longer_than_allowed() -> None:
    """
    At the end of the time everybody is closed, and those without their replies are counted.
    """
    waiting: list[Deferred[bytes]] = []
    house = House(CALLS, {"POST /game": thinking(waiting), "POST /bye": {}})
    alice, bob = house.connected(), house.connected("bob")
    alice.ask(rpc={"method": "game.a"})
    unanswered = leaving(house, within_s=5)
    house.pass_time(4.75)
    assert (alice.wire.closed, unanswered) == (None, [])
    late = house.connected("late")
    house.pass_time(0.5)
    assert [person.wire.closed for person in (alice, bob, late)] == [SHUTDOWN] * 3
    assert unanswered == [1]


def test_who_goes_by_itself_meanwhile_is_not_waited_for() -> None:
    """
    A client that leaves while it is being answered, or before its turn.
    """
    waiting: list[Deferred[bytes]] = []
    house = House(CALLS, {"POST /game": thinking(waiting), "POST /bye": {}})
    alice, *others = crowd(house, 60)
    alice.ask(rpc={"method": "game.a"})
    unanswered = leaving(house)
    house.pass_time(1)
    for person in [alice, *others[:40]]:
        if person.wire.closed is None:
            person.leave()
    house.pass_time(3)
    assert unanswered == [0]


def test_nobody_sees_them_leave() -> None:
    """
    R36: they come back to another instance: the same session, no leave, no join, nothing missed.
    """
    house = House(BIG.replace("presence = true", 'presence = true\nhistory = { size = 100, ttl = "5m" }', 1))
    other = house.add()
    watcher = watching(house, node=other)
    players = [house.connected(f"p{number};sid=s{number};ttl=99999") for number in range(20)]
    begun = {player.session for player in players}
    for player in players:
        player.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    watcher.told()
    leaving(house)
    for number in range(5):
        house.publish("lobby", {"number": number}, node=other)
        house.pass_time(0.5)
    assert {player.wire.closed for player in players} == {SHUTDOWN}
    heard = [push["pub"]["offset"] for push in players[0].pushes() if "pub" in push]
    Deferred.fromCoroutine(house.node.stop())
    back = [house.connected(f"p{number};sid=s{number};ttl=99999", node=other) for number in range(20)]
    assert {person.session for person in back} == begun
    recovered = back[0].reply(
        subscribe={"channel": "lobby", "recover": True, "offset": len(heard), "epoch": _epoch(back[1])}
    )["subscribe"]
    assert recovered["recovered"] is True
    assert heard + [publication["offset"] for publication in recovered.get("publications", [])] == [1, 2, 3, 4, 5]
    house.pass_time(5)
    assert comings(watcher) == []


def _epoch(person: Person) -> str:
    return str(person.reply(subscribe={"channel": "lobby", "positioned": True})["subscribe"]["epoch"])


def test_what_became_of_them_is_told_before_the_end() -> None:
    """
    A backend that is slow to hear of disconnections is waited for, but not longer than allowed.
    """
    heard: list[Deferred[bytes]] = []
    house = House(CALLS, {"POST /game": {}, "POST /bye": thinking(heard)})
    crowd(house, 3)
    leaving(house)
    house.pass_time(1)
    assert len(heard) == 3
    ended: list[None] = []
    Deferred.fromCoroutine(flushed(house.node, 5.0)).addCallback(ended.append)
    heard[0].callback(b"{}")
    heard[1].callback(b"{}")
    house.pass_time(1)
    assert ended == []
    heard[2].callback(b"{}")
    house.pass_time(0.25)
    assert ended == [None]


def test_a_stop_without_a_drain_closes_all_and_writes_what_it_can() -> None:
    """
    Whoever is still there is told to come back, and what cannot be told in time is given up.
    """
    house = House(CALLS, {"POST /game": {}, "POST /bye": thinking([])}, base=BASE)
    people = crowd(house, 3)
    ended: list[None] = []
    Deferred.fromCoroutine(house.node.stop()).addCallback(ended.append)
    assert [person.wire.closed for person in people] == [SHUTDOWN] * 3
    house.pass_time(STOP_S - 0.5)
    assert ended == []
    house.pass_time(0.75)
    assert ended == [None]
    assert house.node.background.names() == []
