"""
What every outbox of events promises.
"""

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
    assert await halls.events.backlog() == Backlog(3, 0)
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
