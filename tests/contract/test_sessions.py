"""
What every session store promises.
"""

from dataclasses import replace

import pytest_twisted
from tests.contract.conftest import Halls
from twisted.internet.defer import ensureDeferred, gatherResults

from gateway.core.partitions import PARTITIONS, partition_for, partition_of, session_id
from gateway.ports.sessions import MOST_OF_DEVICE, Contested, Event, Opened, SessionRecord

ALL = range(PARTITIONS)


def record(number: int, *, user: str = "alice", device: str = "phone", instance: str = "i1") -> SessionRecord:
    """
    The session that the *number*-th connection of a device would begin.
    """
    id_ = session_id(number, partition_for(user, device))
    return SessionRecord(id_, user, device, instance, f"c{number}", 0.0, 0.0, {"client": f"c{number}"})


async def opened(halls: Halls, mine: SessionRecord, **more: object) -> SessionRecord:
    """
    Open a session that nobody contests.
    """
    result = await halls.sessions.open(mine, **more)  # type: ignore[arg-type]  # keywords of the port
    assert isinstance(result, Opened)
    return result.record


async def told(halls: Halls) -> list[tuple[str, str, bytes]]:
    """
    What stands in the outbox of events.
    """
    return [(event.id, event.session, event.data) for event in await halls.events.take("x", ALL, 100)]


@pytest_twisted.ensureDeferred
async def test_a_suspended_session_is_taken_over_once(halls: Halls) -> None:
    """
    The same device within the window continues the session with its first facts; a second one begins anew.
    """
    sessions = halls.sessions
    first = await opened(halls, record(1))
    assert await sessions.suspend(first.id, "c1", 30.0, cause="lost")
    suspended = await sessions.get(first.id)
    assert suspended is not None
    assert suspended.cause == "lost"
    second = replace(record(2), instance="i2", facts={"client": "c2", "more": 1})
    result = await sessions.open(second)
    assert isinstance(result, Opened)
    assert result.goes_on
    resumed = result.record
    assert (resumed.id, resumed.started_at) == (first.id, first.started_at)
    assert (resumed.instance, resumed.client, resumed.cause) == ("i2", "c2", "")
    assert dict(resumed.facts) == {"client": "c1", "more": 1}
    assert await sessions.get(first.id) == resumed
    third = await opened(halls, record(3), beside=[first.id])
    assert third.id == record(3).id


@pytest_twisted.ensureDeferred
async def test_many_that_return_at_once_are_one_winner(halls: Halls) -> None:
    """
    Of several connections that ask for the same suspended session one goes on with it.
    """
    first = await opened(halls, record(1))
    await halls.sessions.suspend(first.id, "c1", 30.0, cause="lost")
    several = [record(number, instance=f"i{number}") for number in range(2, 12)]
    results = await gatherResults([ensureDeferred(halls.sessions.open(mine)) for mine in several])
    (winner,) = [result for result in results if isinstance(result, Opened)]
    assert winner.goes_on
    rivals = [rival for result in results if isinstance(result, Contested) for rival in result.rivals]
    assert [(rival.id, rival.client) for rival in rivals] == [(first.id, winner.record.client)] * 9


@pytest_twisted.ensureDeferred
async def test_an_open_session_is_contested(halls: Halls) -> None:
    """
    Whoever opens beside an open session that another instance has of the device is told of it.

    Nothing is opened until it is known to be held; what the same instance has is held.
    """
    first = await opened(halls, record(1))
    assert (await opened(halls, record(9))).id == record(9).id
    assert await halls.sessions.close(record(9).id, "c9")
    result = await halls.sessions.open(record(2, instance="i2"))
    assert isinstance(result, Contested)
    assert [(rival.id, rival.instance, rival.client) for rival in result.rivals] == [(first.id, "i1", "c1")]
    assert await halls.sessions.get(record(2).id) is None
    second = await opened(halls, record(2, instance="i2"), beside=[first.id])
    assert second.id == record(2).id
    assert (await opened(halls, record(3, instance="i3"), resume=False)).id == record(3).id


@pytest_twisted.ensureDeferred
async def test_of_a_device_with_very_many_sessions_the_newest_count(halls: Halls) -> None:
    """
    Thousands under one token cost no more than the newest few: one of those goes on, an older one does not.
    """
    mine = [await opened(halls, record(number)) for number in range(1, MOST_OF_DEVICE + 11)]
    oldest, newest = mine[0], mine[-1]
    await halls.sessions.suspend(oldest.id, oldest.client, 30.0, cause="lost")
    assert (await opened(halls, record(500))).id == record(500).id
    await halls.sessions.suspend(newest.id, newest.client, 30.0, cause="lost")
    assert (await opened(halls, record(501))).id == newest.id


@pytest_twisted.ensureDeferred
async def test_other_devices_and_users_are_others(halls: Halls) -> None:
    """
    Another device's or another user's session is not taken over, and anonymous ones never are.
    """
    first = await opened(halls, record(1))
    await halls.sessions.suspend(first.id, "c1", 30.0, cause="lost")
    for number, (user, device) in enumerate([("alice", "desk"), ("bob", "phone"), ("", "phone"), ("", "phone")], 2):
        mine = record(number, user=user, device=device)
        assert (await opened(halls, mine)).id == mine.id
        await halls.sessions.suspend(mine.id, mine.client, 30.0, cause="lost")
    assert (await opened(halls, record(9))).id == first.id


@pytest_twisted.ensureDeferred
async def test_a_session_of_the_silent_is_taken_over(halls: Halls) -> None:
    """
    A session whose holder is gone goes on elsewhere; its former connection can end nothing, and what it owed is kept.
    """
    sessions = halls.sessions
    first = await opened(halls, replace(record(1), note=b"owed"))
    taken = await sessions.open(replace(record(2), instance="i2"), over=first, resumed=Event("e", b"resumed"))
    assert isinstance(taken, Opened)
    assert taken.goes_on
    assert taken.record.id == first.id
    again = await sessions.open(replace(record(3), instance="i3"), over=first)
    assert isinstance(again, Contested)
    assert not await sessions.suspend(first.id, "c1", 30.0, cause="lost")
    assert not await sessions.close(first.id, "c1")
    owed = await halls.owed.take("x", ALL, 10)
    assert [(event.id, event.session, event.data) for event in owed] == [("c1", first.id, b"owed")]
    assert await told(halls) == [("e", first.id, b"resumed")]
    assert await sessions.close(first.id, "c2")


@pytest_twisted.ensureDeferred
async def test_the_window_ends(halls: Halls) -> None:
    """
    After its window a session cannot be resumed and is ended once, with the time it was last seen.
    """
    sessions = halls.sessions
    first = await opened(halls, record(1))
    await sessions.suspend(first.id, "c1", 0.4, cause="lost")
    assert list(await sessions.lapsing(ALL)) == []
    await halls.pass_time(0.2)
    assert list(await sessions.lapsing(ALL)) == []
    await halls.pass_time(0.3)
    assert (await opened(halls, record(2))).id == record(2).id
    others = [number for number in ALL if number != partition_of(first.id)]
    assert list(await sessions.lapsing(others)) == []
    (due,) = await sessions.lapsing(ALL)
    assert (due.id, due.cause) == (first.id, "lost")
    assert first.started_at <= due.seen_at < first.started_at + 0.2
    end = Event("end", b"ended")
    ended = await gatherResults([ensureDeferred(sessions.lapse([(due, end)])) for _ in range(5)])
    assert [list(each) for each in ended].count([due]) == 1
    assert sum(map(len, ended)) == 1
    assert list(await sessions.lapsing(ALL)) == []
    (event,) = await halls.events.take("x", ALL, 10)
    assert (event.id, event.session, event.data) == ("end", first.id, b"ended")
    assert abs(event.at - due.seen_at) < 0.002


@pytest_twisted.ensureDeferred
async def test_nothing_lapses_that_was_resumed(halls: Halls) -> None:
    """
    A session that was taken up between being found and being ended goes on.
    """
    sessions = halls.sessions
    first = await opened(halls, record(1))
    await sessions.suspend(first.id, "c1", 0.2, cause="lost")
    await halls.pass_time(0.3)
    (due,) = await sessions.lapsing(ALL)
    # Its window is over, so it is taken up by force, as by an instance whose clock stood still.
    assert not await sessions.restore([(replace(first, client="c2"), None)])
    assert list(await sessions.lapse([(due, Event("end", b""))])) == []
    assert await told(halls) == []


@pytest_twisted.ensureDeferred
async def test_close_is_true_once(halls: Halls) -> None:
    """
    Exactly one caller closes a session, with one event; a closed one cannot be suspended or resumed.
    """
    sessions = halls.sessions
    first = await opened(halls, record(1), event=Event("start", b"started"))
    await sessions.suspend(first.id, "c1", 300.0, cause="lost")
    assert not await sessions.close(first.id, "somebody")
    closed = await gatherResults(
        [ensureDeferred(sessions.close(first.id, "c1", event=Event("end", b"ended"))) for _ in range(5)]
    )
    assert sorted(closed) == [False] * 4 + [True]
    assert not await sessions.suspend(first.id, "c1", 300.0, cause="lost")
    assert await sessions.get(first.id) is None
    assert (await opened(halls, record(2))).id == record(2).id
    await halls.pass_time(0.05)
    assert list(await sessions.lapsing(ALL)) == []
    assert await told(halls) == [("start", first.id, b"started"), ("end", first.id, b"ended")]


@pytest_twisted.ensureDeferred
async def test_steps_made_twice_are_made_once(halls: Halls) -> None:
    """
    A step whose answer was lost may be made again: no second session, no second event.
    """
    sessions = halls.sessions
    for _ in range(2):
        mine = await opened(halls, record(1), event=Event("start", b""))
        assert mine.id == record(1).id
    assert await sessions.suspend(mine.id, "c1", 30.0, cause="lost")
    assert not await sessions.suspend(mine.id, "c1", 30.0, cause="lost")
    assert [event for event, _, _ in await told(halls)] == ["start"]


@pytest_twisted.ensureDeferred
async def test_what_is_written_late_keeps_its_time(halls: Halls) -> None:
    """
    A session that began and was lost while the store was away has its true times.
    """
    first = await opened(halls, record(1), ago_s=20.0)
    other = await opened(halls, record(2, user="bob"))
    assert 19.9 < other.started_at - first.started_at < 20.5
    await halls.sessions.suspend(first.id, "c1", 30.0, cause="lost", ago_s=12.0)
    kept = await halls.sessions.get(first.id)
    assert kept is not None
    assert 7.5 < kept.seen_at - kept.started_at < 8.5
    assert list(await halls.sessions.lapsing(ALL)) == []
    await halls.sessions.suspend(other.id, "c2", 30.0, cause="lost", ago_s=31.0)
    assert [due.id for due in await halls.sessions.lapsing(ALL)] == [other.id]


@pytest_twisted.ensureDeferred
async def test_sessions_of_the_dead_are_suspended_in_batches(halls: Halls) -> None:
    """
    All that an instance held may be resumed for a while and then lapses, whoever tidies and however often.
    """
    sessions = halls.sessions
    mine = [await opened(halls, replace(record(n, user=f"u{n}"), note=b"n%d" % n)) for n in range(1, 21)]
    other = await opened(halls, replace(record(30, user="u30"), instance="i2"))
    assert set(await sessions.holders()) == {"i1", "i2"}
    seen_at = max(each.started_at for each in mine)
    until = seen_at + 0.5
    moved = 0
    for _ in range(100):
        some = await sessions.lose("i1", seen_at, until, limit=3)
        moved += some
        if not some:
            break
    assert moved == 20
    assert set(await sessions.holders()) == {"i2"}
    owed = await halls.owed.take("x", ALL, 100)
    assert {(event.id, event.data) for event in owed} == {(f"c{n}", b"n%d" % n) for n in range(1, 21)}
    back = await sessions.open(record(40, user="u1", instance="i2"))
    assert isinstance(back, Opened)
    assert back.record.id == mine[0].id
    await halls.pass_time(0.8)
    due = await sessions.lapsing(ALL)
    assert {each.id for each in due} == {each.id for each in mine[1:]}
    assert {each.cause for each in due} == {"instance_lost"}
    assert all(abs(each.seen_at - seen_at) < 0.002 for each in due)
    assert not await sessions.suspend(mine[1].id, "c2", 30.0, cause="lost")
    assert (await sessions.get(other.id)) == other


@pytest_twisted.ensureDeferred
async def test_notes_are_of_the_connection(halls: Halls) -> None:
    """
    A note is written for the connection that has the session, and for no earlier one.
    """
    first, second = await opened(halls, record(1)), await opened(halls, record(2, user="bob"))
    await halls.sessions.note({first.id: ("c1", b"new"), second.id: ("gone", b"x"), record(3).id: ("c3", b"x")})
    there = [await halls.sessions.get(each.id) for each in (first, second)]
    assert [each.note for each in there if each is not None] == [b"new", b""]


@pytest_twisted.ensureDeferred
async def test_what_the_store_lost_is_written_again(halls: Halls) -> None:
    """
    Sessions are restored with their start and told again; those that are there stay, those of others are refused.
    """
    sessions = halls.sessions
    there = await opened(halls, record(1, user="a"))
    elsewhere = await opened(halls, record(2, user="b"))
    lost = replace(record(3, user="c"), started_at=there.started_at - 100.0, seen_at=there.started_at - 100.0)
    stale = replace(elsewhere, client="old")
    refused = await sessions.restore([(there, Event("s1", b"")), (stale, None), (lost, Event("s3", b""))])
    assert list(refused) == [elsewhere.id]
    back = await sessions.get(lost.id)
    assert back is not None
    assert abs(back.started_at - lost.started_at) < 0.002
    assert [event for event, _, _ in await told(halls)] == ["s3"]
    await sessions.suspend(lost.id, "c3", 30.0, cause="lost")
    assert (await opened(halls, record(4, user="c"))).id == lost.id


@pytest_twisted.ensureDeferred
async def test_an_audit_tells_what_differs(halls: Halls) -> None:
    """
    An instance learns which of its sessions the store misses, gave to others, or thinks it still has.
    """
    sessions = halls.sessions
    held = await opened(halls, record(1))
    lost = await opened(halls, record(2), resume=False)
    strange = await opened(halls, record(3), resume=False)
    await opened(halls, record(4, instance="i2"), resume=False)
    await sessions.suspend(lost.id, "c2", 30.0, cause="lost")
    mine = {held.id: "c1", lost.id: "c2", record(5).id: "c5"}
    audit = await sessions.audit(partition_of(held.id), "i1", mine)
    assert list(audit.missing) == [record(5).id]
    assert list(audit.taken) == [lost.id]
    assert dict(audit.strange) == {strange.id: "c3"}
