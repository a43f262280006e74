"""
Who is there: per user, told without a storm, and kept over a short loss.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.realtime.house import House, Person
from twisted.internet.defer import Deferred

from gateway.core.verdicts import ClientError

LOBBY = """
[channels.lobby]
subscribe = "authenticated"
presence = true
join_leave = true
join_leave_most = 5
info = "claims.level"
[channels.quiet]
subscribe = "authenticated"
"""

BIG = LOBBY.replace("join_leave_most = 5", "join_leave_most = 100000")


def comings(person: Person) -> list[tuple[str, str]]:
    """Joins and leaves that a person was told, in order."""
    return [
        (kind, push[kind]["info"]["user"]) for push in person.pushes() for kind in ("join", "leave") if kind in push
    ]


def watching(house: House, name: str = "watcher", **more: Any) -> Person:
    person = house.connected(name + ";ttl=99999", **more)
    person.reply(subscribe={"channel": "lobby", "join_leave": True})
    house.pass_time(1)
    person.told()
    return person


def test_members_and_their_number_are_told_to_subscribers_only() -> None:
    """
    Presence by connection, stats by connection and user; 108 where it is off, 103 for who is not in.
    """
    house = House(LOBBY)
    alice, again, bob = house.connected("alice;level=7"), house.connected("alice"), house.connected("bob")
    for person in (alice, again):
        person.reply(subscribe={"channel": "lobby"})
    members = alice.reply(presence={"channel": "lobby"})["presence"]["presence"]
    assert sorted(info["user"] for info in members.values()) == ["alice", "alice"]
    assert [info["chan_info"] for info in members.values() if "chan_info" in info] == ["7"]
    assert alice.reply(presence_stats={"channel": "lobby"})["presence_stats"] == {"num_clients": 2, "num_users": 1}
    assert bob.reply(presence={"channel": "lobby"})["error"]["code"] == 103
    assert alice.reply(presence={"channel": "quiet"})["error"]["code"] == 108
    assert alice.reply(presence={"channel": "none"})["error"]["code"] == 102


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=30))
def test_a_user_comes_once_and_goes_once_however_many_tabs(steps: list[tuple[int, int, bool]]) -> None:
    """
    R23: three tabs on two nodes subscribe and leave in any order: joins and leaves alternate, counts are right.
    """
    house = House(BIG)
    nodes = [house.node, house.add()]
    watchers = [watching(house, f"watcher{number}", node=node) for number, node in enumerate(nodes)]
    for watcher in watchers:
        watcher.told()
    tabs: dict[int, Person] = {}
    told: list[list[tuple[str, str]]] = [[], []]
    for tab, node, instant in steps:
        if tab in tabs:
            tabs.pop(tab).leave()
        else:
            tabs[tab] = house.connected("carol;ttl=99999", node=nodes[node])
            tabs[tab].reply(subscribe={"channel": "lobby"})
        if not instant:
            house.pass_time(0.75)
            for watcher, found in zip(watchers, told, strict=True):
                found.extend(comings(watcher))
    house.pass_time(1)
    for watcher, found in zip(watchers, told, strict=True):
        found.extend(comings(watcher))
        assert [kind for kind, user in found] == (["join", "leave"] * len(found))[: len(found)]
        assert bool(len(found) % 2) is bool(tabs)
        stats = watcher.reply(presence_stats={"channel": "lobby"})["presence_stats"]
        assert stats == {"num_clients": 2 + len(tabs), "num_users": 2 + bool(tabs)}


def test_above_a_number_of_users_only_the_number_is_told() -> None:
    """
    A message with how many there are, instead of a push for each of them.
    """
    house = House(LOBBY)
    watcher = watching(house)
    for number in range(4):
        house.connected(f"p{number}").reply(subscribe={"channel": "lobby"})
    house.pass_time(0.75)
    assert len(comings(watcher)) == 4
    for number in range(4, 20):
        house.connected(f"p{number}").reply(subscribe={"channel": "lobby"})
    house.pass_time(0.75)
    [push] = watcher.pushes()
    assert push["message"]["data"] == {"presence": {"channel": "lobby", "clients": 21, "users": 21}}


def test_a_storm_of_joins_is_one_message_for_each_member_and_tick() -> None:
    """
    R25: six hundred users within a second: what is sent grows with members and ticks, not with their square.
    """
    house = House(LOBBY)
    people = []
    for number in range(600):
        person = house.connected(f"p{number}")
        person.ask(subscribe={"channel": "lobby", "join_leave": True})
        people.append(person)
        if number % 200 == 199:
            house.pass_time(0.25)
    house.pass_time(1)
    frames = sum(len(person.pushes()) for person in people)
    assert 0 < frames <= 600 * 8


def test_only_those_who_asked_are_told_of_comings() -> None:
    """
    The SDKs' ``joinLeave`` option; the channel must allow it.
    """
    house = House(LOBBY)
    house_watcher, deaf = watching(house), house.connected("deaf")
    deaf.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    house.connected("bob").reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    assert ("join", "bob") in comings(house_watcher)
    assert comings(deaf) == []


def test_a_device_that_is_back_in_time_never_left() -> None:
    """
    A lost connection keeps its place for the resume window: no leave, no join, the same session.
    """
    house = House(LOBBY)
    watcher = watching(house)
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    assert comings(watcher) == [("join", "bob")]
    session = bob.session
    bob.lose()
    house.pass_time(20)
    back = house.connected("bob;sid=phone;ttl=99999")
    back.reply(subscribe={"channel": "lobby"})
    house.pass_time(20)
    house.pass_time(20)
    assert comings(watcher) == []
    assert back.session == session
    assert [kind for kind, id_, _ in house.witness.events if id_ == session] == ["started"]
    assert watcher.reply(presence_stats={"channel": "lobby"})["presence_stats"]["num_clients"] == 2


def test_a_device_that_is_not_back_is_gone_after_the_window() -> None:
    """
    One leave, one end of the session, told as lost.
    """
    house = House(LOBBY)
    watcher = watching(house)
    bob = house.connected("bob;sid=phone")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    session = bob.session
    bob.lose()
    house.pass_time(28)
    assert ("leave", "bob") not in comings(watcher)
    house.pass_time(4)
    assert comings(watcher) == [("leave", "bob")]
    assert ("ended", session, "lost") in house.witness.events


def test_a_device_that_is_back_on_another_instance_never_left() -> None:
    """
    Places are held for all: whichever instance a device comes back to, nobody sees it go, and it stands there once.
    """
    house = House(LOBBY)
    other = house.add()
    watchers = [watching(house), watching(house, "far", node=other)]
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    for watcher in watchers:
        watcher.told()
    bob.lose()
    house.pass_time(5)
    back = house.connected("bob;sid=phone;ttl=99999", node=other)
    back.reply(subscribe={"channel": "lobby"})
    stats = watchers[0].reply(presence_stats={"channel": "lobby"})["presence_stats"]
    assert stats == {"num_clients": 3, "num_users": 3}
    house.pass_time(40)
    assert [comings(watcher) for watcher in watchers] == [[], []]
    assert set(watchers[0].reply(presence={"channel": "lobby"})["presence"]["presence"]) >= {back.side.id}
    back.leave()
    house.pass_time(1)
    assert [comings(watcher) for watcher in watchers] == [[("leave", "bob")]] * 2


def test_how_long_a_place_is_held_is_the_channels_affair() -> None:
    """
    ``hold`` of a channel counts instead of the resume window; with 0 whoever is cut off has left.
    """
    house = House(LOBBY.replace("[channels.quiet]", 'hold = "5s"\n[channels.quiet]'))
    watcher = watching(house)
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    watcher.told()
    bob.lose()
    house.pass_time(4)
    assert comings(watcher) == []
    house.pass_time(3)
    assert comings(watcher) == [("leave", "bob")]
    house = House(LOBBY.replace("[channels.quiet]", 'hold = "0s"\n[channels.quiet]'))
    watcher = watching(house)
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    bob.lose()
    house.pass_time(0.75)
    assert comings(watcher) == [("join", "bob"), ("leave", "bob")]


def test_a_place_is_kept_when_its_channel_cannot_be_had_at_once() -> None:
    """
    A device that is back and whose subscription fails for now keeps its held place for the next attempt.
    """
    answers: dict[str, Any] = {"POST /state": {}}
    house = House(
        LOBBY.replace(
            "[channels.quiet]", 'snapshot = { upstream = "backend", http = "POST /state" }\n[channels.quiet]'
        ),
        answers,
    )
    watcher = watching(house)
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    watcher.told()
    bob.lose()
    house.pass_time(1)
    house.answers["POST /state"] = ClientError(100, "away", temporary=True)
    back = house.connected("bob;sid=phone;ttl=99999")
    assert back.reply(subscribe={"channel": "lobby"})["error"]["temporary"]
    house.pass_time(5)
    house.answers["POST /state"] = {}
    assert "subscribe" in back.reply(subscribe={"channel": "lobby"})
    house.pass_time(40)
    assert comings(watcher) == []


def test_a_device_that_is_back_but_not_in_its_channel_leaves_it() -> None:
    """
    The place is kept for the window, not for ever.
    """
    house = House(LOBBY)
    watcher = watching(house)
    bob = house.connected("bob;sid=phone;ttl=99999")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    watcher.told()
    bob.lose()
    house.connected("bob;sid=phone;ttl=99999")
    house.pass_time(20)
    house.pass_time(12)
    assert comings(watcher) == [("leave", "bob")]


def test_closing_in_order_ends_the_session_at_once() -> None:
    """
    Code 1000: leave and end within a tick; the next connection is a new session.
    """
    house = House(LOBBY)
    watcher = watching(house)
    bob = house.connected("bob;sid=phone")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    watcher.told()
    first = bob.session
    bob.leave()
    house.pass_time(0.75)
    assert comings(watcher) == [("leave", "bob")]
    assert [kind for kind, id_, _ in house.witness.events if id_ == first] == ["started", "ended"]
    again = house.connected("bob;sid=phone")
    assert again.session != first


def test_two_at_once_and_tabs_without_a_device_are_separate_sessions() -> None:
    """
    Only what was lost can be gone on with, and only by the same device.
    """
    house = House(LOBBY)
    sessions = {
        person.session
        for person in (
            house.connected("bob;sid=phone"),
            house.connected("bob;sid=phone"),
            house.connected("bob"),
            house.connected("bob"),
        )
    }
    assert len(sessions) == 4
    lost = house.connected("eve")
    lost.lose()
    assert house.connected("eve").session != lost.session
    mine = house.connected("eve;sid=a")
    mine.lose()
    other = house.connected("mallory;sid=a")
    assert other.session != mine.session


def test_by_option_the_client_names_its_device() -> None:
    """
    ``data.device`` of connect counts where the token has no ``sid`` and the listener allows it.
    """
    from tests.realtime.house import BASE

    for base, same in ((BASE + 'device = "data"\n', True), (BASE, False)):
        house = House(LOBBY, base=base)
        first = house.come()
        session = first.reply(connect={"token": "bob", "data": {"device": "tablet"}})["connect"]["session"]
        first.lose()
        again = house.come().reply(connect={"token": "bob", "data": {"device": "tablet"}})["connect"]["session"]
        assert (again == session) is same


def test_presence_of_a_node_that_vanished_expires_and_is_told_once() -> None:
    """
    Entries nobody renews are gone after their time; survivors tell of it once.
    """
    house = House(LOBBY)
    other = house.add()
    watchers = [watching(house, f"watcher{number}") for number in range(2)]
    ghost = house.connected("ghost;ttl=99999", node=other)
    ghost.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    for watcher in watchers:
        watcher.told()
    Deferred.fromCoroutine(other.background.stop())
    told: list[list[tuple[str, str]]] = [[], []]
    for _ in range(14):
        house.pass_time(5)
        for watcher, found in zip(watchers, told, strict=True):
            found.extend(comings(watcher))
    assert told == [[("leave", "ghost")]] * 2
