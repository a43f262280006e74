"""
What all revocations promise, wherever they are kept.
"""

from __future__ import annotations

from typing import Any

import pytest_twisted
from tests.contract.revokers import Revokers

from gateway.core.identity import Identity, Revocation


def who(subject: str = "alice", **more: Any) -> Identity:
    return Identity(subject, "https://id.example", 4e9, **more)


@pytest_twisted.ensureDeferred
async def test_what_one_revokes_holds_for_all(revokers: Revokers) -> None:
    """
    A token and all that a subject was issued before a time: here at once, elsewhere within a second; others are not meant.
    """
    now = revokers.wall()
    assert await revokers.one.revoke(Revocation(now + 60, token_id="t1"))
    assert await revokers.two.revoke(Revocation(now + 60, subject="bob é\t:", issued_before=now - 5.25))
    assert revokers.one.is_revoked(who(token_id="t1"))
    assert revokers.two.is_revoked(who("bob é\t:", issued_at=now - 6))
    await revokers.until(lambda: revokers.two.is_revoked(who(session_id="t1")), 2.0)
    await revokers.until(lambda: revokers.one.is_revoked(who("bob é\t:", issued_at=now - 6)), 2.0)
    for each in (revokers.one, revokers.two):
        assert not each.is_revoked(who("bob é\t:", issued_at=now - 5))
        assert not each.is_revoked(who(token_id="t2"))


@pytest_twisted.ensureDeferred
async def test_the_further_reaching_holds(revokers: Revokers) -> None:
    """
    Of two revocations of the same, in whichever order and from wherever, the later times hold.
    """
    now = revokers.wall()
    await revokers.one.revoke(Revocation(now + 60, subject="alice", issued_before=now - 10))
    await revokers.two.revoke(Revocation(now + 30, subject="alice", issued_before=now))
    await revokers.two.revoke(Revocation(now + 30, token_id="t"))
    await revokers.one.revoke(Revocation(now + 0.2, token_id="t"))
    for each in (revokers.one, revokers.two):
        await revokers.until(lambda each=each: each.is_revoked(who(issued_at=now - 1)))  # type: ignore[misc]
    await revokers.until(lambda: revokers.wall() > now + 0.25)
    for each in (revokers.one, revokers.two):
        assert each.is_revoked(who("other", token_id="t"))


@pytest_twisted.ensureDeferred
async def test_revocations_end(revokers: Revokers) -> None:
    """
    After its time a revocation holds nowhere.
    """
    now = revokers.wall()
    await revokers.one.revoke(Revocation(now + 1.5, token_id="t"))
    await revokers.until(lambda: revokers.two.is_revoked(who(token_id="t")), 1.2)
    await revokers.until(lambda: revokers.wall() > now + 1.55)
    assert not revokers.one.is_revoked(who(token_id="t"))
    assert not revokers.two.is_revoked(who(token_id="t"))


@pytest_twisted.ensureDeferred
async def test_whoever_watches_is_told(revokers: Revokers) -> None:
    """
    Each revocation is told where it is ordered and elsewhere, when it holds there already.
    """
    told: dict[str, list[Revocation]] = {"one": [], "two": []}
    now = revokers.wall()
    revokers.one.watch(told["one"].append)

    def at_two(revocation: Revocation) -> None:
        assert revokers.two.is_revoked(who(token_id=revocation.token_id))
        told["two"].append(revocation)

    revokers.two.watch(at_two)
    order = Revocation(now + 60, token_id="t")
    await revokers.one.revoke(order)
    await revokers.until(lambda: bool(told["two"]))
    assert set(told["one"]) == set(told["two"]) == {order}


@pytest_twisted.ensureDeferred
async def test_what_is_added_here_holds_here(revokers: Revokers) -> None:
    """
    What an instance adds for itself it watches and refuses like the rest.
    """
    told: list[Revocation] = []
    revokers.one.watch(told.append)
    order = Revocation(revokers.wall() + 60, token_id="mine")
    revokers.one.add(order)
    assert revokers.one.is_revoked(who(token_id="mine"))
    assert told == [order]
