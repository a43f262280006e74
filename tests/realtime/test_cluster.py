"""
What backends order of one instance is done by all, and what they ask is told of all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.json import encode
from tests.realtime.house import BASE, START, Person
from tests.realtime.test_operations import CONFIG, EVERYTHING, Office
from twisted.internet.defer import CancelledError, Deferred

from gateway.core.verdicts import ClientError
from gateway.node.api_keys import Key
from gateway.node.cluster import ANSWER_S, HOLDS_S


class Branch(Office):
    """
    Three instances; backends order things at the first.
    """

    def __init__(self, *, base: str = BASE) -> None:
        super().__init__(CONFIG, base=base)
        self.nodes = [self.house.node, self.house.add(), self.house.add()]

    def each(self, token: str = "alice") -> list[Person]:
        """One connection on each instance."""
        return [self.house.connected(token, node=node) for node in self.nodes]

    def begin(self, name: str, **parameters: Any) -> list[Any]:
        """Begin an operation; the list gets its outcome."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.operations.do(name, encode(parameters), EVERYTHING)).addBoth(outcome.append)
        return outcome


@pytest.fixture
def branch() -> Branch:
    return Branch()


def test_disconnect(branch: Branch) -> None:
    """
    A user's connections are closed wherever they are, but those that are to stay.
    """
    one, two, three = branch.each()
    other = branch.house.connected("bob", node=branch.nodes[1])
    reason = {"code": 4501, "reason": "banned"}
    assert branch.do("disconnect", user="alice", whitelist=[three.side.id], disconnect=reason) == {}
    assert [person.wire.closed for person in (one, two, three, other)] == [(4501, "banned")] * 2 + [None] * 2
    assert branch.do("disconnect", user="alice", session=three.session) == {}
    assert three.wire.closed == (3503, "force disconnect")


def test_subscribe_and_unsubscribe(branch: Branch) -> None:
    """
    A user is subscribed on every instance with the same data, hears what is published on any, and is let go everywhere.
    """
    people = branch.each()
    branch.do("publish", channel="table:1", data=0)
    since = branch.do("publish", channel="table:1", data=1)
    branch.do("publish", channel="table:1", data=2)
    branch.do("subscribe", user="alice", channel="table:1", data={"seat": 1}, info={"vip": True}, recover_since=since)
    branch.house.publish("table:1", 3, branch.nodes[2])
    for person in people:
        subscribed, *heard = person.pushes()
        assert subscribed["subscribe"]["data"] == {"seat": 1}
        assert [push["pub"]["data"] for push in heard] == [2, 3]
    branch.do("unsubscribe", user="alice", channel="table:1")
    assert [person.pushes()[0]["unsubscribe"]["code"] for person in people] == [2000] * 3
    branch.do("subscribe", user="alice", channel="lobby", info={"vip": True}, client=people[1].side.id)
    (member,) = branch.do("presence", channel="lobby")["presence"].values()
    assert (member["client"], member["chan_info"]) == (people[1].side.id, {"vip": True})


def test_refresh(branch: Branch) -> None:
    """
    Connections on every instance live on, or end.
    """
    people = branch.each("alice;ttl=60")
    branch.do("refresh", user="alice", expire_at=START + 600)
    assert [person.pushes() for person in people] == [[{"refresh": {"expires": True, "ttl": 600}}]] * 3
    branch.do("refresh", user="alice", expired=True)
    assert [person.wire.closed for person in people] == [(3005, "connection expired")] * 3


def test_connections_channels_and_info(branch: Branch) -> None:
    """
    Connections are those of all instances, subscriptions are added up, and every instance describes itself.
    """
    people = branch.each()
    for person in people:
        person.reply(subscribe={"channel": "lobby"})
    people[2].reply(subscribe={"channel": "plain:x"})
    found = branch.do("connections", user="alice")["connections"]
    assert {client: told["channels"] for client, told in found.items()} == {
        people[0].side.id: ["lobby"],
        people[1].side.id: ["lobby"],
        people[2].side.id: ["lobby", "plain:x"],
    }
    assert branch.do("channels")["channels"] == {"lobby": {"num_clients": 3}, "plain:x": {"num_clients": 1}}
    assert branch.do("channels", pattern="plain:*")["channels"] == {"plain:x": {"num_clients": 1}}
    nodes = branch.do("info")["nodes"]
    assert [(node["uid"], node["num_clients"], node["num_subs"]) for node in nodes] == [
        ("node-1", 1, 1),
        ("node-2", 1, 1),
        ("node-3", 1, 2),
    ]


def test_keys_hold_for_what_others_tell(branch: Branch) -> None:
    """
    A key that has channels is told of no others, whichever instance has them.
    """
    key = Key("game", ("*",), ("plain:*",))
    person = branch.house.connected(node=branch.nodes[1])
    for channel in ("lobby", "plain:x"):
        person.reply(subscribe={"channel": channel})
    assert branch.do("channels", key) == {"channels": {"plain:x": {"num_clients": 1}}}
    (connection,) = branch.do("connections", key, user="alice")["connections"].values()
    assert connection["channels"] == ["plain:x"]


def test_the_error_of_another_instance_is_told() -> None:
    """
    What another instance cannot do is an error, although the others have done it.
    """
    branch = Branch(base=BASE + "max_channels = 1\n")
    one, two, three = branch.each()
    two.reply(subscribe={"channel": "plain:x"})
    error = branch.fails("subscribe", user="alice", channel="lobby")
    assert (error.code, error.text) == (106, "at most 1 subscriptions")
    assert [set(person.side.subscriptions) for person in (one, two, three)] == [{"lobby"}, {"plain:x"}, {"lobby"}]


def test_the_silent_are_named(branch: Branch) -> None:
    """
    An instance that does not answer holds nothing up beyond its time, and is named.
    """
    one, _two, three = branch.each()
    answers: list[Any] = []

    async def never(_sender: str, _body: bytes) -> bytes:
        return await Deferred(lambda _: answers.append("cancelled"))

    for name in ("connections", "disconnect"):
        branch.nodes[1].bus.answer(name, never)
    outcome = branch.begin("connections", user="alice")
    branch.house.pass_time(ANSWER_S - 0.5)
    assert not outcome
    branch.house.pass_time(0.5)
    assert (set(outcome[0]["connections"]), outcome[0]["silent"]) == ({one.side.id, three.side.id}, ["node-2"])
    outcome = branch.begin("disconnect", user="alice")
    assert (one.wire.closed, three.wire.closed) == ((3503, "force disconnect"),) * 2, "at once"
    branch.house.pass_time(ANSWER_S)
    assert outcome == [{"silent": ["node-2"]}]
    assert branch.nodes[0].metrics.silent.value("connections") == 1
    assert answers == ["cancelled"] * 2


def test_an_instance_that_stopped_is_not_asked(branch: Branch) -> None:
    """
    Who has stopped is neither asked nor named.
    """
    Deferred.fromCoroutine(branch.nodes[1].stop())
    told = branch.do("info")
    assert ([node["uid"] for node in told["nodes"]], "silent" in told) == (["node-1", "node-3"], False)


def test_who_hangs_up_cancels_here(branch: Branch) -> None:
    """
    An operation that is cancelled ends, and asks nobody any more.
    """

    async def never(_sender: str, _body: bytes) -> bytes:
        return await Deferred()

    branch.nodes[1].bus.answer("info", never)
    doing = Deferred.fromCoroutine(branch.operations.do("info", b"", EVERYTHING))
    outcome: list[Any] = []
    doing.addBoth(outcome.append)
    doing.cancel()
    assert outcome[0].check(CancelledError)


def test_too_much_for_others(branch: Branch) -> None:
    """
    What cannot be sent to other instances is done by none.
    """
    person = branch.house.connected()
    with pytest.raises(ClientError) as refused:
        branch.do("subscribe", user="alice", channel="lobby", data="a" * 1_100_000)
    assert refused.value.code == 106
    assert person.side.subscriptions == {}


def test_who_holds_a_connection(branch: Branch) -> None:
    """
    An instance says whether it still has a session's connection; a dead or silent one has not.
    """
    here, there, _ = branch.each()

    def holds(person: Person, **other: Any) -> list[bool]:
        assert person.side.session is not None
        found: list[bool] = []
        record = replace(person.side.session, **other)
        asked = Deferred.fromCoroutine(branch.nodes[0].cluster.holds([record]))
        asked.addCallback(lambda held: found.append(record.client in held))
        return found

    assert (holds(here), holds(there)) == ([True], [True])
    assert holds(there, client="another") == holds(here, client="another") == [False]
    assert holds(there, instance="dead") == [False]
    there.leave()
    assert holds(there) == [False]
    branch.nodes[1].bus.answer("holds", lambda _sender, _body: Deferred())
    silent = holds(there)
    assert silent == []
    branch.house.pass_time(HOLDS_S)
    assert silent == [False]
