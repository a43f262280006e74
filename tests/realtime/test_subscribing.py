"""
Subscriptions: who may, what they begin with, and that nothing is missing or comes twice.
"""

import json
import random
from typing import Any

import pytest
from tests.realtime.house import BASE, House, Person
from twisted.internet.defer import Deferred

from gateway.core.verdicts import ClientError
from gateway.node.hub import MANY

RULES = """
[channels.open]
subscribe = "authenticated"
[channels."mine:{user_id}"]
subscribe = "channel.user_id == claims.sub"
[channels."vip"]
subscribe = "'vip' == claims.level"
[channels."token:{id}"]
subscribe = "token"
[channels."asked:{id}"]
subscribe = { upstream = "backend", http = "POST /may", set = { id = "channel.id" } }
[channels."permitted:{id}"]
subscribe = { upstream = "backend", http = "POST /may", allowed = "allowed" }
"""

PASSING = """
[channels.passing]
subscribe = "authenticated"
"""

KEPT = """
[channels.lobby]
subscribe = "authenticated"
publish = "authenticated"
history = { size = 50, ttl = "5m" }
"""


@pytest.mark.parametrize(
    ("channel", "token", "answer", "code"),
    [
        ("open", "alice", None, None),
        ("mine:alice", "alice", None, None),
        ("mine:bob", "alice", None, 103),
        ("vip", "alice;level=vip", None, None),
        ("vip", "alice;level=none", None, 103),
        ("vip", "alice", None, 103),
        ("asked:1", "alice", {}, None),
        ("asked:1", "alice", ClientError(103), 103),
        ("asked:1", "alice", ClientError(100, "away", temporary=True), 100),
        ("asked:1", "alice", ClientError(404, "no such table"), 404),
        ("permitted:1", "alice", {"allowed": True}, None),
        ("permitted:1", "alice", {"allowed": False}, 103),
        ("permitted:1", "alice", {"allowed": "true"}, 103),
        ("permitted:1", "alice", {}, 103),
        ("nowhere", "alice", None, 102),
        ("mine:", "alice", None, 102),
        ("mine:a:b", "alice", None, 102),
        ("", "alice", None, 102),
        ("x" * 300, "alice", None, 102),
        ("open\n", "alice", None, 102),
    ],
)
def test_each_way_to_decide_gives_its_code(channel: str, token: str, answer: Any, code: int | None) -> None:
    """
    R7: allowed, denied, failed; a denial leaves no trace in any store.
    """
    house = House(RULES, {"POST /may": answer})
    reply = house.connected(token).reply(subscribe={"channel": channel})
    if code is None:
        assert "subscribe" in reply
    else:
        assert reply["error"]["code"] == code
        assert reply["error"].get("temporary", False) is (code == 100)
        assert all(room.size == 0 and not room.joining for room in house.node.hub.rooms.values())
        house.pass_time(10)
        assert house.node.hub.rooms == {}


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("alice;channel=token:1;ttl=60", None),
        ("alice;channel=token:2;ttl=60", 103),
        ("bob;channel=token:1;ttl=60", 103),
        ("alice", 103),
        ("", 103),
        ("bad", 101),
        ("alice;channel=token:1;ttl=-1", 109),
    ],
)
def test_subscription_tokens_name_the_channel_and_the_subject(token: str, code: int | None) -> None:
    """
    A token of another channel or person is refused; an expired one is told apart.
    """
    reply = House(RULES).connected().reply(subscribe={"channel": "token:1", "token": token})
    if code is None:
        assert reply["subscribe"]["expires"] is True
        assert reply["subscribe"]["ttl"] == 60
    else:
        assert reply["error"]["code"] == code


def test_a_subscription_token_ends_its_subscription_and_may_be_renewed() -> None:
    """
    After its end and a grace the subscription is ended with 2501, which SDKs subscribe again after.
    """
    house = House(RULES)
    alice = house.connected("alice;ttl=9999")
    alice.reply(subscribe={"channel": "token:1", "token": "alice;channel=token:1;ttl=20"})
    house.pass_time(15)
    reply = alice.reply(sub_refresh={"channel": "token:1", "token": "alice;channel=token:1;ttl=20"})
    assert reply["sub_refresh"] == {"expires": True, "ttl": 20}
    assert alice.reply(sub_refresh={"channel": "token:1", "token": "alice"})["error"]["code"] == 103
    for _ in range(8):
        house.pass_time(5)
    alice.told()
    house.pass_time(6)
    assert {"channel": "token:1", "unsubscribe": {"code": 2501, "reason": "subscription expired"}} in alice.pushes()
    assert "token:1" not in alice.side.subscriptions


def test_names_never_cross_users() -> None:
    """
    R8: ten thousand names made from pieces of others' channels; only one's own is granted.
    """
    house = House(RULES)
    alice = house.connected("42;ttl=99999")
    pieces = ["mine:", "42", "43", ":", "#", "*", "%", "mine", " ", "\t", ".", "/", "é", "４２", "\x00", "{user_id}"]
    chance = random.Random(1)
    granted = set()
    for _ in range(10_000):
        name = "".join(chance.choices(pieces, k=chance.randint(1, 5)))
        if "subscribe" in alice.reply(subscribe={"channel": name}):
            granted.add(name)
            alice.reply(unsubscribe={"channel": name})
    assert granted == {"mine:42"}


def test_a_channel_is_subscribed_once_and_only_so_many_are() -> None:
    """
    105 for the second time; 106 beyond the limit; after unsubscribing there is room again.
    """
    house = House(RULES, base=BASE + "max_channels = 2\n")
    alice = house.connected("alice;level=vip")
    assert "subscribe" in alice.reply(subscribe={"channel": "open"})
    assert alice.reply(subscribe={"channel": "open"})["error"]["code"] == 105
    assert "subscribe" in alice.reply(subscribe={"channel": "mine:alice"})
    assert alice.reply(subscribe={"channel": "vip"})["error"]["code"] == 106
    assert alice.reply(unsubscribe={"channel": "open"})["unsubscribe"] == {}
    assert alice.reply(unsubscribe={"channel": "never"})["unsubscribe"] == {}
    assert "subscribe" in alice.reply(subscribe={"channel": "vip"})


def test_commands_on_one_channel_keep_their_order_while_a_backend_thinks() -> None:
    """
    Unsubscribe waits for the subscribe before it; another channel does not.
    """
    thinking: Deferred[bytes] = Deferred()
    house = House(RULES, {"POST /may": thinking})
    alice = house.connected()
    alice.ask(subscribe={"channel": "asked:1"})
    alice.ask(unsubscribe={"channel": "asked:1"})
    alice.ask(subscribe={"channel": "open"})
    assert [message["id"] for message in alice.told()] == [4]
    thinking.callback(b"{}")
    assert [message["id"] for message in alice.told()] == [2, 3]
    assert list(alice.side.subscriptions) == ["open"]


def test_leaving_while_a_backend_decides_cancels_the_question() -> None:
    """
    Nothing is subscribed afterwards.
    """
    cancelled: list[bool] = []
    house = House(RULES, {"POST /may": Deferred(lambda _: cancelled.append(True))})
    alice = house.connected()
    alice.ask(subscribe={"channel": "asked:1"})
    alice.leave()
    assert cancelled == [True]
    house.pass_time(10)
    assert house.node.hub.rooms == {}


def test_everybody_hears_a_channel_in_the_same_gapless_order() -> None:
    """
    R15: publishers on two nodes, readers on both, one order without a gap.
    """
    house = House(KEPT)
    other = house.add()
    readers = [house.connected(f"r{number}", node=node) for number in range(10) for node in (house.node, other)]
    for reader in readers:
        reader.reply(subscribe={"channel": "lobby"})
    for number in range(200):
        house.publish("lobby", number, node=(house.node, other)[number % 2])
        if number % 7 == 0:
            house.pass_time(0.25)
    house.pass_time(1)
    heard = [[push["pub"]["data"] for push in reader.pushes()] for reader in readers]
    assert heard == [list(range(200))] * 20


def test_recovery_gives_exactly_what_was_missed() -> None:
    """
    R16: cut at five hundred random places while publications go on: what was heard is the publisher's log.
    """
    house = House(KEPT)
    chance = random.Random(3)
    log: list[int] = []
    heard: list[int] = []
    offset, epoch = 0, ""
    reader: Person | None = None
    cuts = 0

    def publish(most: int) -> None:
        for _ in range(chance.randint(0, most)):
            house.publish("lobby", len(log))
            log.append(len(log))

    def hear(person: Person) -> None:
        nonlocal offset
        for push in person.pushes():
            heard.append(push["pub"]["data"])
            offset = push["pub"]["offset"]

    while cuts < 500:
        publish(5)
        asked: dict[str, Any] = {"channel": "lobby"}
        if epoch:
            asked |= {"recover": True, "epoch": epoch, "offset": offset}
        reader = house.connected("reader;ttl=999999")
        subscribed = reader.reply(subscribe=asked)["subscribe"]
        if epoch:
            assert subscribed["recovered"] is True
        epoch = subscribed["epoch"]
        for publication in subscribed.get("publications", []):
            heard.append(publication["data"])
            offset = publication["offset"]
        if not asked.get("recover"):
            log.clear()
            offset = subscribed.get("offset", 0)
        publish(5)
        if chance.random() < 0.5:
            house.pass_time(0.25)
        hear(reader)
        reader.lose()
        # What had been sent and was not read is lost with the connection.
        cuts += 1
    assert len(heard) > 1000
    assert heard == log[: len(heard)]
    assert len(log) - len(heard) <= 10


@pytest.mark.parametrize("what", ["trimmed", "epoch", "beyond", "removed", "expired"])
def test_what_cannot_be_recovered_is_said_and_nothing_is_replayed(what: str) -> None:
    """
    R17: never a partial replay; the position is the stream's top, from which the next recovery works.
    """
    house = House(KEPT)
    for number in range(60):
        house.publish("lobby", number)
    alice = house.connected()
    top = alice.reply(subscribe={"channel": "lobby"})["subscribe"]
    alice.reply(unsubscribe={"channel": "lobby"})
    since = {"epoch": top["epoch"], "offset": 55}
    if what == "trimmed":
        since["offset"] = 5
    elif what == "epoch":
        since["epoch"] = "other"
    elif what == "beyond":
        since["offset"] = 99
    elif what == "removed":
        Deferred.fromCoroutine(house.node.broker.remove_history("lobby"))
    else:
        house.clock.rightNow += 301
    reply = alice.reply(subscribe={"channel": "lobby", "recover": True, **since})["subscribe"]
    assert reply["was_recovering"] is True
    assert "recovered" not in reply
    assert "publications" not in reply
    assert reply["offset"] == 60


SNAPSHOT = """
[channels."table:{table_id}"]
subscribe = "authenticated"
snapshot = { upstream = "backend", http = "POST /table", data = "state", version = "version" }
history = { size = 100, ttl = "5m" }

[channels."plain:{table_id}"]
subscribe = "authenticated"
snapshot = { upstream = "backend", http = "POST /table" }
"""


def test_a_snapshot_and_what_follows_are_complete() -> None:
    """
    R18: publications made while the snapshot is asked for come right after it, those it holds already do not.
    """
    answers: list[Deferred[bytes]] = []

    def ask(_facts: Any, _data: bytes) -> Deferred[bytes]:
        answers.append(Deferred())
        return answers[-1]

    house = House(SNAPSHOT, {"POST /table": ask})
    match = house.node.rules.channels.match("table:1")
    assert match is not None

    def publish(version: int) -> None:
        from gateway.core.publications import PublishOptions

        options = PublishOptions(100, 300, version=version)
        Deferred.fromCoroutine(house.node.publish(match, json.dumps({"state": version}).encode(), options=options))

    for version in (1, 2, 3):
        publish(version)
    alice = house.connected()
    number = alice.ask(subscribe={"channel": "table:1"})
    publish(4)
    publish(5)
    answers[0].callback(b'{"state": {"moves": 4}, "version": "4"}')
    [reply] = alice.told()
    assert reply["id"] == number
    assert reply["subscribe"]["data"] == {"moves": 4}
    assert [each["data"]["state"] for each in reply["subscribe"]["publications"]] == [5]
    assert reply["subscribe"]["offset"] == 5
    publish(6)
    assert [push["pub"]["data"]["state"] for push in alice.pushes()] == [6]


def test_a_recovered_subscription_asks_for_no_snapshot_and_another_does() -> None:
    """
    Who has everything needs no state; who cannot be made whole gets a fresh one.
    """
    house = House(SNAPSHOT, {"POST /table": {"state": 7}})
    alice = house.connected()
    first = alice.reply(subscribe={"channel": "table:1"})["subscribe"]
    asked = len(house.backends["POST /table"].calls)
    alice.reply(unsubscribe={"channel": "table:1"})
    again = alice.reply(subscribe={"channel": "table:1", "recover": True, "epoch": first["epoch"], "offset": 0})
    assert again["subscribe"]["recovered"] is True
    assert "data" not in again["subscribe"]
    assert len(house.backends["POST /table"].calls) == asked
    alice.reply(unsubscribe={"channel": "table:1"})
    fresh = alice.reply(subscribe={"channel": "table:1", "recover": True, "epoch": "gone", "offset": 0})
    assert fresh["subscribe"]["data"] == 7


def test_without_history_a_snapshot_is_still_followed_by_everything() -> None:
    """
    Publications made meanwhile are in the reply, though they have no offset.
    """
    answer: Deferred[bytes] = Deferred()
    house = House(SNAPSHOT, {"POST /table": answer})
    alice = house.connected()
    alice.ask(subscribe={"channel": "plain:1"})
    house.publish("plain:1", "meanwhile")
    answer.callback(b'{"a":1}')
    [reply] = alice.told()
    assert reply["subscribe"]["data"] == {"a": 1}
    assert [each["data"] for each in reply["subscribe"]["publications"]] == ["meanwhile"]


def test_a_thousand_subscribe_while_publications_go_on() -> None:
    """
    R18: each one's reply and pushes together are gapless from its position on.
    """
    house = House(KEPT)
    people: list[Person] = []
    for number in range(1000):
        if number % 3 == 0:
            house.publish("lobby", number)
        person = house.connected(f"p{number};ttl=99999")
        person.ask(subscribe={"channel": "lobby"})
        people.append(person)
        if number % 50 == 0:
            house.pass_time(0.25)
    house.publish("lobby", "end")
    house.pass_time(1)
    for person in people:
        told = person.told()
        reply = next(message["subscribe"] for message in told if "subscribe" in message)
        offsets = [each["offset"] for each in reply.get("publications", [])]
        offsets += [message["push"]["pub"]["offset"] for message in told if "push" in message]
        start = reply.get("offset", 0) - len(reply.get("publications", []))
        assert offsets == list(range(start + 1, start + 1 + len(offsets)))
        assert told[-1]["push"]["pub"]["data"] == "end"


def test_a_gap_that_history_cannot_fill_restarts_the_subscriptions_of_the_channel() -> None:
    """
    A publication that the store does not know, nor what is before it: 2500, and SDKs ask to recover.
    """
    from gateway.core.publications import Publication

    house = House(KEPT)
    alice = house.connected()
    subscribed = alice.reply(subscribe={"channel": "lobby"})["subscribe"]
    house.publish("lobby", 1)
    house.node.hub.published("lobby", Publication(b"3", offset=3), subscribed["epoch"])
    pushes = alice.pushes()
    assert pushes[0]["pub"]["data"] == 1
    assert pushes[1]["unsubscribe"]["code"] == 2500
    assert len(pushes) == 2
    house.node.hub.published("lobby", Publication(b"3", offset=3), subscribed["epoch"])
    assert alice.pushes() == []


def test_a_link_that_was_lost_restarts_live_subscriptions_and_fails_those_being_made() -> None:
    """
    Whatever may have missed something begins anew; nothing goes on with a silent hole.
    """
    answer: Deferred[bytes] = Deferred()
    house = House(SNAPSHOT + PASSING, {"POST /table": answer})
    alice = house.connected()
    alice.reply(subscribe={"channel": "passing"})
    alice.ask(subscribe={"channel": "plain:1"})
    house.node.hub.interrupted(["passing", "plain:1", "unknown"])
    assert [push["unsubscribe"]["code"] for push in alice.pushes()] == [2500]
    answer.callback(b"{}")
    [reply] = alice.told()
    assert reply["error"]["temporary"] is True


def test_a_server_side_subscription_with_a_gap_closes_so_that_the_client_comes_back_whole() -> None:
    """
    SDKs do not subscribe to those by themselves: code 3010, then connect recovers them.
    """
    text = '[channels."user:{id}"]\nsubscribe = "channel.id == claims.sub"\nserver_side = true\n'
    text += 'history = { size = 10, ttl = "5m" }\n'
    house = House(text)
    alice = house.come()
    subs = alice.reply(connect={"token": "alice"})["connect"]["subs"]
    position = subs["user:alice"]
    alice.lose()
    house.publish("user:alice", "missed")
    again = house.come()
    reply = again.reply(
        connect={
            "token": "alice",
            "subs": {"user:alice": {"recover": True, "epoch": position["epoch"], "offset": position.get("offset", 0)}},
        }
    )["connect"]["subs"]["user:alice"]
    assert reply["recovered"] is True
    assert [each["data"] for each in reply["publications"]] == ["missed"]
    house.channels.stream("user:alice").epoch = "another"
    house.node.hub.interrupted(["user:alice"])
    assert again.wire.closed == (3010, "insufficient state")


def test_clients_cannot_leave_what_the_server_subscribed() -> None:
    """
    Error 103; the subscription stays.
    """
    text = '[channels."user:{id}"]\nsubscribe = "channel.id == claims.sub"\nserver_side = true\n'
    house = House(text)
    alice = house.connected()
    assert alice.reply(unsubscribe={"channel": "user:alice"})["error"]["code"] == 103
    house.publish("user:alice", 1)
    assert len(alice.pushes()) == 1


def test_an_idle_channel_is_let_go_after_a_while_and_heard_again() -> None:
    """
    The last listener's leaving does not stop hearing at once; later it does, and the next one starts it.
    """
    house = House(KEPT)
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    alice.reply(unsubscribe={"channel": "lobby"})
    house.pass_time(3)
    assert "lobby" in house.node.hub.rooms
    house.pass_time(5)
    assert house.node.hub.rooms == {}
    alice.reply(subscribe={"channel": "lobby"})
    house.publish("lobby", 1)
    assert len(alice.pushes()) == 1


def test_a_busy_channel_is_sent_together_and_a_quiet_one_at_once() -> None:
    """
    The first publication leaves immediately; those right after it share a frame, within 5 ms, in order.
    """
    house = House(KEPT)
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    sends = alice.wire.sends
    house.publish("lobby", 0)
    assert [push["pub"]["data"] for push in alice.pushes()] == [0]
    for number in range(1, 6):
        house.clock.advance(0.0005)
        house.publish("lobby", number)
    assert alice.pushes() == []
    house.clock.advance(0.005)
    assert [push["pub"]["data"] for push in alice.pushes()] == [1, 2, 3, 4, 5]
    assert alice.wire.sends == sends + 2
    house.clock.advance(0.1)
    house.publish("lobby", 6)
    assert [push["pub"]["data"] for push in alice.pushes()] == [6]


def test_a_node_that_is_behind_sends_together_what_it_finds() -> None:
    """
    Publications found in one turn of the reactor cost a large channel two sends to each, whatever their number.
    """
    house = House(KEPT)
    people = [house.connected(f"u{number}") for number in range(MANY)]
    for person in people:
        person.reply(subscribe={"channel": "lobby"})
    house.pass_time(1)
    sends = [person.wire.sends for person in people]
    for number in range(10):
        house.publish("lobby", number)
    house.clock.advance(0)
    assert [person.wire.sends - before for person, before in zip(people, sends, strict=True)] == [2] * MANY
    for person in people:
        assert [push["pub"]["data"] for push in person.pushes() if "pub" in push] == list(range(10))


def test_who_subscribes_while_publications_are_held_back_gets_none_twice() -> None:
    """
    What is held back goes to the others before the new one is live.
    """
    house = House(KEPT)
    alice, bob = house.connected(), house.connected("bob")
    alice.reply(subscribe={"channel": "lobby"})
    house.publish("lobby", 1)
    house.publish("lobby", 2)
    assert bob.reply(subscribe={"channel": "lobby"})["subscribe"]["offset"] == 2
    house.publish("lobby", 3)
    house.pass_time(0.25)
    assert [push["pub"]["data"] for push in bob.pushes()] == [3]
    assert [push["pub"]["data"] for push in alice.pushes()] == [1, 2, 3]


def test_a_publication_is_encoded_once_for_everybody() -> None:
    """
    R14: five hundred subscribers, one encoding.
    """
    from tests.realtime.house import JSON_FORM

    house = House(KEPT)
    for number in range(500):
        house.connected(f"p{number}").reply(subscribe={"channel": "lobby"})
    frames = 0
    frame = JSON_FORM.frame

    def counted(message: bytes) -> bytes:
        nonlocal frames
        frames += 1
        return frame(message)

    JSON_FORM.frame = counted  # type: ignore[method-assign]
    try:
        house.publish("lobby", {"x": 1})
    finally:
        del JSON_FORM.frame
    assert frames == 1
