"""
What every session store promises.
"""

from dataclasses import replace

import pytest_twisted

from gateway.ports.realtime import SessionRecord, SessionStore

FIRST = SessionRecord("s1", "alice", "phone", "i1", 100.0, 100.0, {"client": "web"})
SECOND = replace(FIRST, id="s2", instance="i2", started_at=150.0, seen_at=150.0, facts={"client": "ios", "more": 1})


@pytest_twisted.ensureDeferred
async def test_a_suspended_session_is_taken_over_once(sessions: SessionStore) -> None:
    """
    The same device within the window continues the session with its first facts; a second one begins anew.
    """
    await sessions.open(FIRST)
    assert await sessions.suspend("s1", 180.0, 140.0)
    resumed = await sessions.open(SECOND)
    assert (resumed.id, resumed.started_at, resumed.instance) == ("s1", 100.0, "i2")
    assert dict(resumed.facts) == {"client": "web", "more": 1}
    third = await sessions.open(replace(SECOND, id="s3"))
    assert third.id == "s3"
    assert {record.id for record in await sessions.of_user("alice")} == {"s1", "s3"}


@pytest_twisted.ensureDeferred
async def test_two_at_once_are_two_sessions(sessions: SessionStore) -> None:
    """
    A session whose connection lives is not taken over, nor is another device's or another user's.
    """
    await sessions.open(FIRST)
    assert (await sessions.open(SECOND)).id == "s2"
    await sessions.suspend("s1", 200.0, 140.0)
    assert (await sessions.open(replace(SECOND, id="s4", device="desk"))).id == "s4"
    assert (await sessions.open(replace(SECOND, id="s5", user="bob"))).id == "s5"


@pytest_twisted.ensureDeferred
async def test_the_window_ends(sessions: SessionStore) -> None:
    """
    After its window a session cannot be resumed and is ended once, with the time it was last seen.
    """
    await sessions.open(FIRST)
    await sessions.suspend("s1", 145.0, 140.0)
    assert (await sessions.open(SECOND)).id == "s2"
    assert list(await sessions.lapsed(144.0)) == []
    (ended,) = await sessions.lapsed(146.0)
    assert (ended.id, ended.seen_at) == ("s1", 140.0)
    assert list(await sessions.lapsed(146.0)) == []


@pytest_twisted.ensureDeferred
async def test_close_is_true_once(sessions: SessionStore) -> None:
    """
    Exactly one caller closes a session; a closed one cannot be suspended or resumed.
    """
    await sessions.open(FIRST)
    await sessions.suspend("s1", 300.0, 140.0)
    assert await sessions.close("s1", 141.0)
    assert not await sessions.close("s1", 141.0)
    assert not await sessions.suspend("s1", 300.0, 142.0)
    assert (await sessions.open(SECOND)).id == "s2"
    assert list(await sessions.lapsed(999.0)) == []
