"""
Instances that die, hang, or are taken for dead, and what the others make of it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.realtime.house import START
from tests.realtime.neighbours import Neighbours, done
from twisted.internet.defer import Deferred

from gateway.core.partitions import PARTITIONS
from gateway.node.leases import Lost
from gateway.ports.instances import Standing

LOBBY = """
[channels.lobby]
subscribe = "authenticated"
presence = true
"""

HOOKS = (
    LOBBY
    + """
[channels."table:{n}"]
subscribe = "authenticated"
[realtime]
on_disconnect = { upstream = "backend", http = "POST /bye" }
on_unsubscribe = { upstream = "backend", http = "POST /out" }
"""
)


def facts(house: Neighbours, name: str) -> list[Any]:
    return [json.loads(data) for _, data, _ in house.backends[name].calls]


def test_a_dead_instance_is_claimed_and_its_sessions_go_on_elsewhere() -> None:
    """
    Within a lease and a tick of its last beat: then its devices go on with their sessions on another instance.
    """
    house = Neighbours(LOBBY)
    other, third = house.add(), house.add()
    bob = house.connected("bob;sid=phone;ttl=99999", node=other)
    house.pass_time(6)
    house.kill(other)
    house.pass_time(13.5)
    record = house.stored(bob.session)
    assert record is not None
    assert record.cause == ""
    house.pass_time(1.5)
    record = house.stored(bob.session)
    assert record is not None
    assert record.cause == "instance_lost"
    assert START + 5 <= record.seen_at <= START + 6
    assert house.node.membership.keeper.claimed + third.membership.keeper.claimed == 1
    back = house.connected("bob;sid=phone;ttl=99999", node=third)
    assert back.session == bob.session
    house.pass_time(60)
    assert house.ends(bob) == []
    assert [event.id for event in house.events()] == [
        f"{bob.session}-started",
        f"{back.side.id}-resumed",
    ]


def test_what_nobody_takes_up_ends_once_with_the_last_beat() -> None:
    """
    Of many sessions with several survivors each is ended once, as of the last time it was known alive.
    """
    house = Neighbours()
    dying = house.add()
    for _ in range(2):
        house.add()
    people = [house.connected(f"u{number};sid=d;ttl=99999", node=dying) for number in range(100)]
    house.pass_time(7)
    house.kill(dying)
    house.pass_time(50)
    ended = [event for event in house.events() if event.id.endswith("-ended")]
    assert sorted(event.session for event in ended) == sorted(person.session for person in people)
    assert {event.data for event in ended} == {b"instance_lost"}
    assert {event.at for event in ended} == {START + 5}
    causes = [cause for kind, _, cause in house.witness.events if kind == "ended"]
    assert causes == ["instance_lost"] * 100
    assert not done(house.memory[0].holders())


def test_all_dead_and_one_later() -> None:
    """
    An instance that starts when all others have died ends what they had.
    """
    house = Neighbours()
    other = house.add()
    people = [house.connected(f"u{number};ttl=99999", node=node) for number, node in enumerate([house.node, other])]
    house.pass_time(6)
    house.kill(house.node)
    house.kill(other)
    house.pass_time(3600)
    house.add()
    house.pass_time(14)
    assert [house.ends(person) for person in people] == [[], []]
    house.pass_time(4)
    assert [house.ends(person) for person in people] == [["instance_lost"]] * 2
    assert all(event.at <= START + 6 for event in house.events())


def test_survivors_tell_for_the_dead_under_its_own_ids() -> None:
    """
    Backends hear the ends of a dead instance's subscriptions and connections, once, as it would have told them.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    dying = house.add()
    house.add()
    bob = house.connected("bob;sid=phone;ttl=99999;team=red", node=dying)
    for channel in ("lobby", "table:1", "table:2"):
        bob.reply(subscribe={"channel": channel})
    bob.reply(unsubscribe={"channel": "table:1"})
    (left,) = facts(house, "POST /out")
    house.pass_time(6)
    numbers = {name: each.number for name, each in bob.side.subscriptions.items()}
    house.kill(dying)
    house.pass_time(20)
    out, bye = facts(house, "POST /out")[1:], facts(house, "POST /bye")
    assert [(fact["channel"], fact["id"]) for fact in out] == [
        (name, f"{bob.side.id}-{number}-end") for name, number in numbers.items()
    ]
    assert [(fact["id"], fact["code"], fact["resumable"]) for fact in bye] == [(f"{bob.side.id}-end", 1006, True)]
    assert {(fact["session"], fact["client"], fact["user"]) for fact in [*out, *bye]} == {
        (bob.session, bob.side.id, "bob")
    }
    sequences = [fact["sequence"] for fact in [left, *out, *bye]]
    assert sequences == sorted(set(sequences))
    told, _, identity = house.backends["POST /bye"].calls[0]
    assert (told["claims"]["team"], told["client"]["user"]) == ("red", "bob")
    assert identity is not None
    assert (identity.subject, identity.session_id, identity.claims["team"]) == ("bob", "phone", "red")
    house.pass_time(60)
    assert len(facts(house, "POST /bye")) == 1
    assert done(house.memory[3].backlog()).waiting == 0


def test_ids_of_ends_are_the_same_whoever_tells() -> None:
    """
    An end that its own instance tells has the id that a survivor would have given it.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    bob = house.connected("bob;sid=phone")
    bob.reply(subscribe={"channel": "lobby"})
    number = bob.side.subscriptions["lobby"].number
    bob.lose()
    assert facts(house, "POST /out")[0]["id"] == f"{bob.side.id}-{number}-end"
    assert facts(house, "POST /bye")[0]["id"] == f"{bob.side.id}-end"


def test_nothing_is_noted_that_nobody_wants_to_hear() -> None:
    """
    Without hooks for ends no claims are stored; with hooks read later, they are for everybody.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    node = house.node
    hooks = dict(node.telling.backends)
    node.configure(node.section, 0, node.rules, {})
    bob = house.connected("bob;team=red")
    bob.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    record = house.stored(bob.session)
    assert record is not None
    assert record.note == b""
    node.configure(node.section, 0, node.rules, hooks)
    house.pass_time(1)
    record = house.stored(bob.session)
    assert record is not None
    assert b"red" in record.note
    assert b'["lobby",' in record.note


@pytest.mark.parametrize("hangs", [1, 2])
def test_when_the_claimer_dies_another_goes_on(hangs: int) -> None:
    """
    A claim is a lease: what the first claimer had not finished the next one does, and nothing ends twice.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    dying, second, third = house.add(), house.add(), house.add()
    tidying: list[Any] = []

    def tidies(node: Any) -> None:
        async def tidy(lost: Lost) -> None:
            if lost.instance == dying.instance:
                tidying.append(node)
                if len(tidying) <= hangs:
                    await Deferred()

        node.membership.tidies.append(tidy)

    for node in (house.node, second, third):
        tidies(node)
    bob = house.connected("bob;sid=phone;ttl=99999", node=dying)
    house.pass_time(6)
    house.kill(dying)
    for number in range(1, hangs + 1):
        house.pass_time(35)
        assert len(tidying) == number
        house.kill(tidying[-1])
    house.pass_time(90)
    assert len(set(tidying)) == len(tidying) == hangs + 1
    assert house.ends(bob) == ["instance_lost"]
    assert len(facts(house, "POST /bye")) == 1
    assert all(done(house.memory[1].beat(dying.instance, 15.0)) is Standing.CLAIMED for _ in range(2))
    assert dying.instance not in {peer.instance for peer in done(house.memory[1].peers())}


def test_an_instance_that_was_taken_for_dead_begins_anew() -> None:
    """
    It was only paused: every client is told to reconnect, it takes another name, and then it serves again.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    paused = house.add()
    bob = house.connected("bob;sid=phone;ttl=99999", node=paused)
    eve = house.connected("eve;sid=phone;ttl=99999", node=paused)
    house.pass_time(6)
    before = paused.instance
    house.kill(paused)
    house.pass_time(20)
    elsewhere = house.connected("bob;sid=phone;ttl=99999")
    assert elsewhere.session == bob.session
    waiting = house.come(node=paused)
    paused.start()
    assert [person.wire.closed for person in (bob, eve, waiting)] == [(3011, "force reconnect")] * 3
    assert paused.instance != before
    house.pass_time(1)
    again = house.enter("eve;sid=phone;ttl=99999", node=paused)
    assert again.told()[0]["connect"]["node"] == paused.instance
    assert again.session == eve.session
    record = house.stored(again.session)
    assert record is not None
    assert record.instance == paused.instance
    assert {peer.instance for peer in done(house.memory[1].peers()) if peer.living} == {"node-1", paused.instance}
    house.pass_time(60)
    assert [house.ends(person) for person in (bob, eve)] == [[], []]
    ids = [fact["id"] for fact in facts(house, "POST /bye")]
    assert set(ids) == {f"{bob.side.id}-end", f"{eve.side.id}-end"}


def test_what_a_returning_instance_wrote_too_late_is_found() -> None:
    """
    A session opened under a name that was already ended is found, and ends like any other.
    """
    house = Neighbours()
    late = house.add()
    house.pass_time(6)
    house.kill(late)
    house.pass_time(20)
    zoe = house.connected("zoe;sid=d;ttl=99999", node=late)
    house.kill(late)
    house.pass_time(200)
    assert house.ends(zoe) == ["instance_lost"]


def test_a_device_of_a_dead_instance_does_not_wait_for_the_lease() -> None:
    """
    A device that comes back before its instance's lease has lapsed goes on at once; what its connection left is told.
    """
    house = Neighbours(HOOKS, {"POST /bye": {}, "POST /out": {}})
    dying = house.add()
    bob = house.connected("bob;sid=phone;ttl=99999", node=dying)
    house.pass_time(6)
    house.kill(dying)
    back = house.enter("bob;sid=phone;ttl=99999")
    house.pass_time(1)
    assert back.told()[0]["connect"]["session"] == bob.session
    house.pass_time(60)
    assert house.ends(bob) == []
    assert [fact["client"] for fact in facts(house, "POST /bye")] == [bob.side.id]


def test_a_device_whose_other_connection_lives_is_another_session() -> None:
    """
    The instance of the other connection is asked and says that it has it.
    """
    house = Neighbours()
    other = house.add()
    bob = house.connected("bob;sid=phone", node=other)
    again = house.connected("bob;sid=phone")
    assert again.session != bob.session
    bob.lose()
    third = house.connected("bob;sid=phone")
    assert third.session == bob.session


def test_a_connection_whose_session_was_taken_is_closed() -> None:
    """
    An instance that nobody could ask finds that its session goes on elsewhere, and closes its connection.
    """
    house = Neighbours()
    other = house.add()
    bob = house.connected("bob;sid=phone;ttl=99999", node=other)
    deaf = house.cluster.buses.pop(other.instance)
    again = house.enter("bob;sid=phone;ttl=99999")
    house.pass_time(1)
    assert again.told()[0]["connect"]["session"] == bob.session
    house.cluster.buses[other.instance] = deaf
    house.pass_time(18)
    assert bob.wire.closed == (3011, "force reconnect")
    assert again.wire.closed is None
    house.pass_time(60)
    assert house.ends(bob) == []
    again.leave()
    assert len(house.ends(bob)) == 1


@pytest.mark.parametrize(("beat", "lease"), [("1s", "3s"), ("500ms", "1500ms"), ("300ms", "900ms")])
def test_beats_come_in_time_however_short(beat: str, lease: str) -> None:
    """
    The shortest lease that is allowed: nobody who lives is claimed, and the dead are claimed within it and a tick.
    """
    house = Neighbours(f'[store]\nbeat = "{beat}"\nlease = "{lease}"\n')
    dying = house.add()
    house.pass_time(20, 0.05)
    house.kill(dying)
    lease_s = house.config.store.lease_s
    house.pass_time(lease_s + 0.3, 0.05)
    assert house.node.membership.keeper.claimed == 1
    assert house.node.instance == "node-1"


def test_the_work_is_shared_by_the_living() -> None:
    """
    Each partition falls to one of the instances that live, whoever comes and dies.
    """
    house = Neighbours()

    def shared(*nodes: Any) -> bool:
        parts = [number for node in nodes for number in node.sessions.partitions]
        return sorted(parts) == list(range(PARTITIONS))

    assert shared(house.node)
    two, three = house.add(), house.add()
    house.pass_time(6)
    assert shared(house.node, two, three)
    house.kill(two)
    house.pass_time(21)
    assert shared(house.node, three)
    done(three.stop())
    house.pass_time(6)
    assert shared(house.node)


def test_an_instance_that_stops_in_order_leaves_nothing_to_claim() -> None:
    """
    Its sessions are suspended by itself, nobody waits for its lease, and devices go on elsewhere.
    """
    house = Neighbours()
    other = house.add()
    bob = house.connected("bob;sid=phone;ttl=99999", node=other)
    house.pass_time(1)
    done(other.stop())
    assert [peer.instance for peer in done(house.memory[1].peers())] == ["node-1"]
    record = house.stored(bob.session)
    assert record is not None
    assert record.cause == "lost"
    assert house.connected("bob;sid=phone").session == bob.session
