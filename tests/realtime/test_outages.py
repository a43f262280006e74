"""
Sessions while their store is away, or has lost what it had.
"""

from __future__ import annotations

import pytest
from tests.realtime.house import START
from tests.realtime.neighbours import Neighbours, done

LATE = """
[store]
journal = 3
"""


def lost(house: Neighbours) -> float:
    tally = house.node.metrics.session_steps_lost
    return sum(tally.value(kind, "overflow") for kind in ("open", "suspend", "close"))


@pytest.mark.parametrize("how", ["before", "after"])
def test_who_comes_and_goes_meanwhile_is_written_afterwards(how: str) -> None:
    """
    New connections get in, and every session is written with its true times, in order and once, also if only answers were lost.
    """
    house = Neighbours()
    there = house.connected("there;sid=d;ttl=99999")
    lost = house.connected("lost;sid=d;ttl=99999")
    left = house.connected("left;ttl=99999")
    house.pass_time(10)
    house.away(how)
    stays = house.connected("stays;ttl=99999")
    goes = house.connected("goes;ttl=99999")
    house.pass_time(10)
    lost.lose()
    left.leave()
    goes.leave()
    house.pass_time(10)
    assert there.wire.closed is stays.wire.closed is None
    house.back()
    house.pass_time(2)
    assert len(house.node.sessions.journal) == 0
    times = {event.id: event.at - START for event in house.events()}
    assert times[f"{stays.session}-started"] == times[f"{goes.session}-started"] == 10
    assert times[f"{left.session}-ended"] == times[f"{goes.session}-ended"] == 20
    assert len(house.events()) == len(times) == 7
    kept = house.stored(lost.session)
    assert kept is not None
    assert (kept.cause, kept.seen_at) == ("lost", START + 20)
    mine = house.stored(stays.session)
    assert mine is not None
    assert (mine.cause, mine.started_at, mine.client) == ("", START + 10, stays.side.id)
    house.pass_time(20)
    assert house.ends(lost) == ["lost"]
    assert [event.at for event in house.events() if event.id == f"{lost.session}-ended"] == [START + 20]


def test_a_device_that_comes_back_meanwhile_begins_a_new_session() -> None:
    """
    Nobody can say that it goes on: the one before ends, and both are written.
    """
    house = Neighbours()
    bob = house.connected("bob;sid=phone;ttl=99999")
    house.pass_time(1)
    house.away()
    bob.lose()
    again = house.connected("bob;sid=phone;ttl=99999")
    assert again.session != bob.session
    house.pass_time(5)
    house.back()
    house.pass_time(40)
    assert house.ends(bob) == ["lost"]
    assert house.stored(again.session) is not None
    assert house.ends(again) == []


def test_an_outage_ends_nobody() -> None:
    """
    However long nobody could beat: afterwards every instance is as alive as before, and the dead are still found.
    """
    house = Neighbours()
    other, dead = house.add(), house.add()
    people = [house.connected(f"u{number};ttl=99999", node=node) for number, node in enumerate([house.node, other])]
    gone = house.connected("gone;ttl=99999", node=dead)
    house.pass_time(6)
    house.away()
    house.kill(dead)
    house.pass_time(120)
    house.back()
    house.pass_time(12)
    assert [person.wire.closed for person in people] == [None, None]
    assert {node.instance for node in (house.node, other)} == {"node-1", "node-2"}
    house.pass_time(10)
    assert house.ends(gone) == ["instance_lost"]
    house.pass_time(60)
    assert [person.wire.closed for person in people] == [None, None]
    assert [house.ends(person) for person in people] == [[], []]


def test_what_waits_is_bounded_and_what_is_lost_is_counted() -> None:
    """
    Beyond the bound steps are lost and counted; those who are still there are written all the same.
    """
    house = Neighbours(LATE)
    before = house.connected("before;ttl=99999")
    house.pass_time(1)
    house.away()
    people = [house.connected(f"u{number};ttl=99999") for number in range(5)]
    before.leave()
    assert lost(house) == 3
    house.back()
    house.pass_time(100)
    assert all(house.stored(person.session) is not None for person in people)
    assert house.ends(before) == ["lost"]
    assert len(house.node.sessions.journal) == 0


def test_a_store_that_forgot_everything_is_told_again() -> None:
    """
    Every session that is open is announced anew with its start and its event; nobody is disconnected.
    """
    house = Neighbours()
    other = house.add()
    people = [
        house.connected(f"u{number};sid=d;ttl=99999", node=node)
        for number, node in enumerate([house.node, other] * 300)
    ]
    house.pass_time(7)
    house.flush()
    house.pass_time(6)
    assert all(person.wire.closed is None for person in people)
    for person in people:
        record = house.stored(person.session)
        assert record is not None
        assert (record.started_at, record.client, record.cause) == (START, person.side.id, "")
    assert len({event.id for event in house.events()}) == len(house.events()) == 600
    people[0].lose()
    assert house.connected("u0;sid=d;ttl=99999", node=other).session == people[0].session
    house.pass_time(60)
    assert [event for event in house.events() if event.id.endswith("-ended")] == []


def test_a_store_that_forgot_everything_is_told_of_those_who_may_come_back() -> None:
    """
    Sessions whose connection was lost before are suspended again, for what is left of their time.
    """
    house = Neighbours()
    other = house.add()
    people = [house.connected(f"u{number};sid=d;ttl=99999", node=other) for number in range(4)]
    house.pass_time(7)
    for person in people:
        person.lose()
    house.pass_time(2)
    taken = house.connected("u0;sid=d;ttl=99999")
    assert taken.session == people[0].session
    house.flush()
    house.pass_time(7)
    record = house.stored(people[1].session)
    assert record is not None
    assert (record.cause, record.seen_at, record.started_at) == ("lost", START + 7, START)
    assert house.connected("u1;sid=d;ttl=99999").session == people[1].session
    house.pass_time(19)
    assert [house.ends(person) for person in people] == [[], [], [], []]
    house.pass_time(4)
    assert [house.ends(person) for person in people] == [[], [], ["lost"], ["lost"]]
    assert taken.wire.closed is None


def test_a_session_the_store_lost_is_found_missing() -> None:
    """
    One that vanished, and one that the store has although nobody holds it, are found by comparing.
    """
    house = Neighbours()
    bob, eve = house.connected("bob;ttl=99999"), house.connected("eve;ttl=99999")
    house.pass_time(1)
    done(house.memory[0].close(bob.session, bob.side.id))
    house.node.sessions.held.drop(eve.side.session)  # type: ignore[arg-type]  # connected above
    house.pass_time(18)
    assert house.stored(bob.session) is not None
    house.pass_time(18)
    record = house.stored(eve.session)
    assert record is not None
    assert record.cause == "lost"


def test_nothing_is_written_before_others_know_the_instance() -> None:
    """
    An instance whose stores are away from its start serves, and is known before its sessions are.
    """
    house = Neighbours()
    house.away()
    late = house.add()
    bob = house.connected("bob;ttl=99999", node=late)
    house.pass_time(5)
    house.back()
    house.pass_time(2)
    record = house.stored(bob.session)
    assert record is not None
    assert (record.instance, record.started_at) == (late.instance, START)
