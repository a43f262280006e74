"""
What a connection leaves that was about to be let in and was not.
"""

from __future__ import annotations

from typing import Any

from tests.realtime.neighbours import Neighbours
from twisted.internet.defer import Deferred

from gateway.core.verdicts import ClientError

PERSONAL = """
[limits]
connections_per_user = 1
[channels."user:{user_id}"]
subscribe = "channel.user_id == claims.sub"
server_side = true
snapshot = { upstream = "backend", http = "POST /snapshot" }
"""


def test_who_is_not_let_in_may_try_again_and_leaves_nothing() -> None:
    """
    A session whose client could not be let in is over, and it counts as no connection of its user.
    """
    house = Neighbours(PERSONAL, {"POST /snapshot": ClientError(100, "away", temporary=True)})
    person = house.come()
    for _ in range(3):
        assert person.reply(connect={"token": "alice;sid=d"})["error"]["temporary"]
        assert (house.node.clients, house.node.users) == ({}, {})
        assert len(house.node.holders) == len(house.node.sessions.held) == 0
    kinds = [event.id.rpartition("-")[2] for event in house.events()]
    assert sorted(kinds) == ["ended"] * 3 + ["started"] * 3
    house.answers["POST /snapshot"] = {}
    assert "connect" in person.reply(connect={"token": "alice;sid=d"})
    assert len(house.node.sessions.held) == len(house.node.clients) == 1


def test_a_session_that_went_on_may_do_so_again() -> None:
    """
    Whoever went on with a session and is lost before the reply finds the session again.
    """
    house = Neighbours(PERSONAL, {"POST /snapshot": {}})
    alice = house.connected("alice;sid=d;ttl=99999")
    session = alice.session
    alice.lose()
    answer: Deferred[Any] = Deferred()
    house.answers["POST /snapshot"] = answer
    waiting = house.enter("alice;sid=d;ttl=99999")
    assert waiting.session == session
    waiting.lose()
    house.answers["POST /snapshot"] = {}
    again = house.connected("alice;sid=d;ttl=99999")
    assert again.session == session
    house.pass_time(40)
    assert house.ends(again) == []
