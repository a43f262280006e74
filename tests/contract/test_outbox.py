"""
What every outbox of events promises.
"""

from dataclasses import replace

import pytest_twisted
from tests.contract.conftest import Halls
from tests.contract.test_sessions import opened, record

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.ports.sessions import Backlog, Event

ALL = range(PARTITIONS)


@pytest_twisted.ensureDeferred
async def test_events_wait_until_they_are_done(halls: Halls) -> None:
    """
    What was taken is given again until it is done, oldest first for each session, with the time it happened.
    """
    mine = await opened(halls, record(1), event=Event("1-start", b"\x00\xff"))
    await halls.sessions.suspend(mine.id, "c1", 30.0, cause="lost", event=Event("1-lost", b"b"))
    await halls.sessions.close(mine.id, "c1", event=Event("1-end", b"c"))
    taken = await halls.events.take("i1", ALL, 2)
    assert [(event.id, event.session, event.data) for event in taken] == [
        ("1-start", mine.id, b"\x00\xff"),
        ("1-lost", mine.id, b"b"),
    ]
    assert abs(taken[0].at - mine.started_at) < 0.002
    assert await halls.events.take("i1", ALL, 2) == taken
    assert await halls.events.backlog() == Backlog(3, 0, taken[0].at)
    await halls.events.done([event.ref for event in taken])
    await halls.events.done([event.ref for event in taken])
    (last,) = await halls.events.take("i1", ALL, 2)
    assert last.id == "1-end"
    await halls.events.done([last.ref])
    assert list(await halls.events.take("i1", ALL, 2)) == []
    assert await halls.events.backlog() == Backlog(0, 0)


@pytest_twisted.ensureDeferred
async def test_a_partition_is_in_one_hand(halls: Halls) -> None:
    """
    While one instance takes from a partition another gets nothing of it, but may take from others.
    """
    one = await opened(halls, record(1, user="a"), event=Event("a", b""))
    two = await opened(halls, record(2, user="b"), event=Event("b", b""))
    assert partition_of(one.id) != partition_of(two.id)
    assert [event.id for event in await halls.events.take("i1", [partition_of(one.id)], 9)] == ["a"]
    assert [event.id for event in await halls.events.take("i2", ALL, 9)] == ["b"]
    assert [event.id for event in await halls.events.take("i1", ALL, 9)] == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_partition_is_let_go(halls: Halls) -> None:
    """
    What its taker lets go another may take at once; nobody lets go what is another's. A short hold ends by itself.
    """
    mine = await opened(halls, record(1), event=Event("a", b""))
    here = [partition_of(mine.id)]
    await halls.events.take("i1", here, 9)
    await halls.events.release("i2", here)
    assert list(await halls.events.take("i2", here, 9)) == []
    await halls.events.release("i1", ALL)
    assert [event.id for event in await halls.events.take("i2", here, 9, for_s=0.05)] == ["a"]
    await halls.pass_time(0.1)
    assert [event.id for event in await halls.events.take("i1", here, 9)] == ["a"]


@pytest_twisted.ensureDeferred
async def test_an_event_says_when_its_session_began_and_how_often_it_went_on(halls: Halls) -> None:
    """
    Beginning, resumption and end are each in the outbox with the same step, with the session's own start and count.
    """
    sessions = halls.sessions
    first = await opened(halls, record(1), event=Event("s", b""), resumed=Event("no", b""))
    await sessions.suspend(first.id, "c1", 30.0, cause="lost", past=b"[1]")
    again = await opened(halls, record(2), event=Event("no", b""), resumed=Event("r", b""))
    assert (again.resumes, again.past) == (1, b"[1]")
    await sessions.suspend(first.id, "c2", 0.0, cause="lost", past=b"[1,2]")
    (due,) = await sessions.lapsing(ALL)
    assert (due.resumes, due.past) == (1, b"[1,2]")
    await sessions.lapse([(due, Event("e", b""))])
    told = await halls.events.take("i1", ALL, 9)
    assert [(each.id, each.started_at, each.resumes) for each in told] == [
        ("s", first.started_at, 0),
        ("r", first.started_at, 1),
        ("e", first.started_at, 1),
    ]
    assert [each.session for each in told] == [first.id] * 3


@pytest_twisted.ensureDeferred
async def test_what_connections_did_outlives_an_instance_and_a_store(halls: Halls) -> None:
    """
    A session that a dead instance held, or that is written anew, keeps its count and what its connections did.
    """
    sessions = halls.sessions
    first = await opened(halls, replace(record(1), note=b"owed"))
    await sessions.suspend(first.id, "c1", 30.0, cause="lost", past=b"[1]")
    again = await opened(halls, replace(record(2), note=b"owed"))
    await sessions.lose("i1", again.seen_at, again.seen_at + 30.0)
    lost = await sessions.get(first.id)
    assert lost is not None
    assert (lost.cause, lost.resumes, lost.past) == ("instance_lost", 1, b"[1]")
    (owed,) = await halls.owed.take("i1", ALL, 9)
    assert (owed.started_at, owed.resumes, owed.data) == (first.started_at, 1, b"owed")
    assert await sessions.close(first.id, "c2", event=Event("e", b""))
    assert list(await sessions.restore([(again, Event("s", b""))])) == []
    written = await sessions.get(first.id)
    assert written is not None
    assert (written.resumes, written.past, written.note) == (1, b"[1]", b"owed")
    assert [(each.id, each.resumes) for each in await halls.events.take("i1", ALL, 9)] == [("e", 1), ("s", 1)]
