"""
What every presence store promises.
"""

import pytest_twisted

from gateway.core.publications import ClientInfo
from gateway.ports.realtime import Occupancy, PresenceStore

A1, A2, B1 = ClientInfo("alice", "a1"), ClientInfo("alice", "a2"), ClientInfo("bob", "b1")


@pytest_twisted.ensureDeferred
async def test_first_and_last_connection_of_a_user(presence: PresenceStore) -> None:
    """
    A second tab is no arrival, and closing one of two is no departure.
    """
    assert await presence.enter("t", A1, 100)
    assert not await presence.enter("t", A2, 100)
    assert await presence.enter("t", B1, 100)
    assert not await presence.enter("t", A1, 200)
    assert await presence.occupancy("t", 50) == Occupancy(3, 2)
    assert dict(await presence.members("t", 50)) == {"a1": A1, "a2": A2, "b1": B1}
    assert not await presence.leave("t", A1)
    assert not await presence.leave("t", A1)
    assert await presence.leave("t", A2)
    assert await presence.leave("t", B1)
    assert await presence.occupancy("t", 50) == Occupancy(0, 0)


@pytest_twisted.ensureDeferred
async def test_entries_that_are_not_renewed_end(presence: PresenceStore) -> None:
    """
    An entry past its time is no member, and is handed out once to whoever tidies up.
    """
    await presence.enter("t", A1, 100)
    await presence.enter("t", B1, 100)
    await presence.enter("t", B1, 200)
    assert set(await presence.members("t", 150)) == {"b1"}
    assert list(await presence.expired(150)) == [("t", A1)]
    assert list(await presence.expired(150)) == []
    assert await presence.occupancy("t", 150) == Occupancy(1, 1)
    assert not await presence.leave("t", A1)


@pytest_twisted.ensureDeferred
async def test_rooms_are_apart(presence: PresenceStore) -> None:
    """
    Being in one channel says nothing about another.
    """
    await presence.enter("t", A1, 100)
    assert await presence.enter("u", A2, 100)
    assert set(await presence.members("u", 50)) == {"a2"}
    assert dict(await presence.members("nowhere", 50)) == {}
