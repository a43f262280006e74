"""
What every presence store promises.
"""

import pytest_twisted
from tests.contract.halls import Presences

from gateway.core.publications import ClientInfo
from gateway.ports.realtime import Occupancy, PresenceStore

A1, A2, A3, B1 = (
    ClientInfo("alice", "a1", b'{"name":"A"}', b"7"),
    ClientInfo("alice", "a2"),
    ClientInfo("alice", "a3"),
    ClientInfo("bob", "b1"),
)
NOBODY = Occupancy(0, 0)


async def enter(store: PresenceStore, session: str, info: ClientInfo, channel: str = "t") -> bool:
    return await store.enter(channel, session, info, announced=True)


@pytest_twisted.ensureDeferred
async def test_first_and_last_connection_of_a_user(presences: Presences) -> None:
    """
    A second tab is no arrival, and closing one of two is no departure, wherever they are.
    """
    one, two = presences.one, presences.two
    assert not await enter(one, "s1", A1)
    assert not await enter(two, "s2", A2)
    assert not await enter(two, "s3", B1)
    assert await presences.take() == [("join", "t", "alice"), ("join", "t", "bob")]
    assert dict(await one.members("t")) == dict(await two.members("t")) == {"a1": A1, "a2": A2, "b1": B1}
    assert await one.occupancy("t") == Occupancy(3, 2)
    await one.leave("t", "s1", "a1")
    await one.leave("t", "s1", "a1")
    assert await presences.take() == []
    await two.leave("t", "s2", "a2")
    await two.leave("t", "s3", "b1")
    assert await presences.take() == [("leave", "t", "alice"), ("leave", "t", "bob")]
    assert await one.occupancy("t") == NOBODY
    assert dict(await two.members("t")) == {}
    assert one.unwritten == two.unwritten == 0


@pytest_twisted.ensureDeferred
async def test_channels_are_apart(presences: Presences) -> None:
    """
    Being in one channel says nothing about another, and only those who hear a channel are told of it.
    """
    await enter(presences.one, "s1", A1)
    await enter(presences.one, "s1", A1, "u")
    await presences.one.leave("u", "s1", "a1")
    assert await presences.take() == [("join", "t", "alice")]
    assert set(await presences.two.members("t")) == {"a1"}
    assert dict(await presences.two.members("u")) == dict(await presences.two.members("nowhere")) == {}


@pytest_twisted.ensureDeferred
async def test_what_is_not_announced(presences: Presences) -> None:
    """
    Where entries are not announced nobody is told, and they count all the same.
    """
    await presences.one.enter("t", "s1", A1, announced=False)
    assert await presences.two.occupancy("t") == Occupancy(1, 1)
    await presences.one.hold("t", "s1", "a1", 0.2)
    await presences.pass_time(0.5)
    assert list(await presences.two.expired()) == [("t", A1)]
    assert await presences.take() == []


@pytest_twisted.ensureDeferred
async def test_any_name(presences: Presences) -> None:
    """
    Users and what is told of them may be any text and bytes, channels any name.
    """
    odd = [
        ClientInfo("", "c0"),
        ClientInfo("a b\tc\n\x00\u20ac", "c1", b"\x00\xff \t\n", bytes(range(256))),
        ClientInfo("{}", "c2"),
    ]
    for channel in ("a{b}c", "}{", "$x:y z*", "{t}"):
        for number, info in enumerate(odd):
            await enter(presences.one, f"s{number}", info, channel)
        assert sorted((await presences.two.members(channel)).values(), key=lambda info: info.client) == odd
        assert await presences.two.occupancy(channel) == Occupancy(3, 3)
        for number, info in enumerate(odd):
            await presences.one.leave(channel, f"s{number}", info.client)
        assert await presences.two.occupancy(channel) == NOBODY


@pytest_twisted.ensureDeferred
async def test_back_in_time(presences: Presences) -> None:
    """
    A session that was held and enters again, on another instance and by another connection, never left.
    """
    await enter(presences.one, "s1", A1)
    await presences.take()
    await presences.one.hold("t", "s1", "a1", 0.3)
    assert await presences.two.occupancy("t") == Occupancy(1, 1)
    assert await enter(presences.two, "s1", A2)
    assert dict(await presences.one.members("t")) == {"a2": A2}
    await presences.pass_time(0.6)
    assert list(await presences.one.expired()) == list(await presences.two.expired()) == []
    assert await presences.take() == []
    await presences.one.leave("t", "s1", "a1")
    await presences.one.hold("t", "s1", "a1", 0.0)
    assert await presences.one.occupancy("t") == Occupancy(1, 1), "the connection it had is not the one it has"
    await presences.two.leave("t", "s1", "a2")
    assert await presences.take() == [("leave", "t", "alice")]


@pytest_twisted.ensureDeferred
async def test_not_back_in_time(presences: Presences) -> None:
    """
    What was held long enough is ended once, whoever looks, and told if it was the user's last.
    """
    await enter(presences.one, "s1", A1)
    await enter(presences.one, "s2", A2)
    await enter(presences.two, "s3", B1)
    await presences.take()
    await presences.one.hold("t", "s1", "a1", 0.2)
    await presences.two.hold("t", "s3", "b1", 0.2)
    assert list(await presences.one.expired()) == []
    assert await presences.one.occupancy("t") == Occupancy(3, 2)
    await presences.pass_time(0.5)
    found = [*await presences.one.expired(1), *await presences.two.expired(), *await presences.one.expired()]
    assert sorted(info.client for _, info in found) == ["a1", "b1"]
    assert await presences.take() == [("leave", "t", "bob")]
    assert dict(await presences.one.members("t")) == {"a2": A2}
    assert await enter(presences.two, "s1", A1) is False


@pytest_twisted.ensureDeferred
async def test_held_again(presences: Presences) -> None:
    """
    The last word counts: a place that is held anew is ended after its new time, or at once.
    """
    await enter(presences.one, "s1", A1)
    await presences.one.hold("t", "s1", "a1", 0.2)
    assert await enter(presences.one, "s1", A1)
    await presences.one.hold("t", "s1", "a1", 0.9)
    await presences.pass_time(0.5)
    assert list(await presences.one.expired()) == []
    await presences.pass_time(0.6)
    assert [info for _, info in await presences.one.expired()] == [A1]
    await enter(presences.one, "s1", A1)
    await presences.one.hold("t", "s1", "a1", 0.0)
    assert await presences.one.occupancy("t") == NOBODY
    assert await presences.take() == [("join", "t", "alice"), ("leave", "t", "alice")] * 2


@pytest_twisted.ensureDeferred
async def test_a_dead_instance(presences: Presences) -> None:
    """
    What a dead instance had is held, as long as is said of each channel, and ended unless it comes back.
    """
    await enter(presences.one, "s1", A1)
    await enter(presences.one, "s1", A1, "u")
    await enter(presences.one, "s3", B1)
    await enter(presences.two, "s2", A2, "u")
    assert set(await presences.two.owners()) == {"one", "two"}
    await presences.take()
    assert await presences.two.reap("one", lambda channel: 0.2 if channel == "t" else 60.0) == 3
    assert set(await presences.two.owners()) == {"two"}
    assert await presences.two.reap("one", lambda _: 0.0) == 0
    assert await presences.two.occupancy("t") == Occupancy(2, 2)
    assert await enter(presences.two, "s3", ClientInfo("bob", "b2"))
    await presences.pass_time(0.5)
    assert list(await presences.two.expired()) == [("t", A1)]
    assert await presences.take() == [("leave", "t", "alice")]
    assert await presences.two.occupancy("u") == Occupancy(2, 1)


@pytest_twisted.ensureDeferred
async def test_a_dead_instance_without_holding(presences: Presences) -> None:
    """
    Where nothing is held what a dead instance had is ended with the next look.
    """
    await enter(presences.one, "s1", A1)
    assert await presences.two.reap("one", lambda _: 0.0) == 1
    await presences.pass_time(0.01)
    assert list(await presences.two.expired()) == [("t", A1)]
    assert await presences.take() == [("join", "t", "alice"), ("leave", "t", "alice")]


@pytest_twisted.ensureDeferred
async def test_another_name(presences: Presences) -> None:
    """
    An instance that was ended and goes on under another name has what enters from then on; the rest is reaped.
    """
    await enter(presences.one, "s1", A1)
    presences.one.own("three")
    await enter(presences.one, "s3", B1)
    assert set(await presences.two.owners()) == {"one", "three"}
    assert await presences.two.reap("one", lambda _: 0.0) == 1
    await presences.pass_time(0.01)
    assert list(await presences.one.expired()) == [("t", A1)]
    assert set(await presences.one.members("t")) == {"b1"}
