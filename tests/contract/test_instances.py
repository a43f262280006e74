"""
What every registry of instances promises.
"""

import pytest_twisted
from tests.contract.conftest import Halls
from twisted.internet.defer import ensureDeferred, gatherResults

from gateway.ports.instances import Standing

LEASE_S = 0.8


async def live(halls: Halls, seconds: float, *names: str) -> None:
    """
    Let time pass while *names* beat.
    """
    for _ in range(round(seconds / 0.15)):
        await halls.pass_time(0.15)
        await gatherResults([ensureDeferred(halls.instances.beat(name, LEASE_S)) for name in names])


async def claimed(halls: Halls, dead: str, *by: str, living: tuple[str, ...] = ()) -> str:
    """
    Let *by* try to claim until one has; return who. However slow the machine, never two at once.
    """
    for _ in range(100):
        claims = await gatherResults([ensureDeferred(halls.instances.claim(dead, each, 5.0)) for each in by])
        assert claims.count(True) <= 1
        if True in claims:
            return by[claims.index(True)]
        await live(halls, 0.15, *by, *living)
    raise AssertionError("nobody could")


@pytest_twisted.ensureDeferred
async def test_who_is_announced_lives_while_it_beats(halls: Halls) -> None:
    """
    A new instance is unknown until it is announced, then listed with its last beat, and lapses without one.
    """
    registry = halls.instances
    assert await registry.beat("a", LEASE_S) is Standing.UNKNOWN
    await registry.announce("a", LEASE_S)
    await registry.announce("b", LEASE_S)
    assert await registry.beat("a", LEASE_S) is Standing.OK
    assert [(peer.instance, peer.living) for peer in await registry.peers()] == [("a", True), ("b", True)]
    await live(halls, 1.2, "a")
    a, b = await registry.peers()
    assert (a.living, b.living) == (True, False)
    assert a.seen_at > b.seen_at
    assert b.left_s <= 0 < a.left_s <= LEASE_S
    assert abs(b.lapses_at - b.seen_at - LEASE_S) < 0.002


@pytest_twisted.ensureDeferred
async def test_one_survivor_claims(halls: Halls) -> None:
    """
    Of several survivors exactly one claims a lapsed instance; when it is finished the dead one is told so.
    """
    registry = halls.instances
    for name in ("a", "b", "c", "d"):
        await registry.announce(name, LEASE_S)
    await live(halls, 0.3, "b", "c", "d")
    assert not await registry.claim("a", "b", 5.0)
    names = ["b", "c", "d"]
    winner = await claimed(halls, "a", *names)
    loser = "c" if winner == "b" else "b"
    assert not await registry.claim("a", loser, 5.0)
    assert await registry.claim("a", winner, 5.0)
    assert await registry.beat("a", LEASE_S) is Standing.CLAIMED
    assert {peer.instance: peer.claimed_by for peer in await registry.peers()}["a"] == winner
    assert not await registry.finish("a", loser)
    assert await registry.finish("a", winner)
    assert not await registry.finish("a", winner)
    assert await registry.beat("a", LEASE_S) is Standing.CLAIMED
    assert [peer.instance for peer in await registry.peers()] == names


@pytest_twisted.ensureDeferred
async def test_a_claim_lapses_as_well(halls: Halls) -> None:
    """
    When a claimer dies while it tidies, another goes on, and the first may not.
    """
    registry = halls.instances
    for name in ("a", "b", "c"):
        await registry.announce(name, LEASE_S)
    await claimed(halls, "a", "b", living=("c",))
    assert await registry.claim("a", "b", LEASE_S)
    assert not await registry.claim("a", "c", LEASE_S)
    await claimed(halls, "a", "c", living=("b",))
    assert not await registry.claim("a", "b", LEASE_S)
    assert not await registry.finish("a", "b")


@pytest_twisted.ensureDeferred
async def test_nobody_is_claimed_right_after_an_outage(halls: Halls) -> None:
    """
    After a time in which nobody could beat, nobody is claimed before everybody had time to beat again.
    """
    registry = halls.instances
    for name in ("a", "b", "dead"):
        await registry.announce(name, LEASE_S)
    await live(halls, 0.6, "a", "b", "dead")
    await halls.pass_time(1.0)
    assert await registry.beat("a", LEASE_S) is Standing.OK
    assert not await registry.claim("b", "a", 5.0)
    await live(halls, 0.3, "a", "b")
    assert not await registry.claim("dead", "a", 5.0)
    assert not await registry.claim("b", "a", 5.0)
    assert await claimed(halls, "dead", "a", living=("b",)) == "a"
    assert not await registry.claim("b", "a", 5.0)


@pytest_twisted.ensureDeferred
async def test_only_the_living_claim(halls: Halls) -> None:
    """
    Who is unknown, lapsed or claimed itself claims nobody.
    """
    registry = halls.instances
    for name in ("a", "b", "c"):
        await registry.announce(name, LEASE_S)
    await live(halls, 1.2, "c")
    assert not await registry.claim("a", "b", 5.0)
    assert not await registry.claim("a", "nobody", 5.0)
    assert not await registry.claim("nobody", "c", 5.0)
    assert await claimed(halls, "b", "c") == "c"
    assert not await registry.claim("a", "b", 5.0)


@pytest_twisted.ensureDeferred
async def test_leaving_and_being_adopted(halls: Halls) -> None:
    """
    Who left is no peer; who is adopted is one, and lapses; adopting changes nothing for those who are known.
    """
    registry = halls.instances
    for name in ("a", "b"):
        await registry.announce(name, LEASE_S)
    await registry.leave("b")
    await registry.adopt("c", LEASE_S)
    assert [peer.instance for peer in await registry.peers()] == ["a", "c"]
    await live(halls, 0.45, "a")
    await registry.adopt("c", LEASE_S)
    assert await claimed(halls, "c", "a") == "a"
