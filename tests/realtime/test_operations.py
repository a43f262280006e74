"""
What backends order: each operation does to a whole node what it says, and refuses with the code that says why.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from msgspec.json import encode
from tests.realtime.house import BASE, START, House, Person
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from gateway.core.publications import Published, PublishOptions
from gateway.core.verdicts import ClientError
from gateway.memory.broker import MemoryBroker
from gateway.node.api_keys import Key
from gateway.node.operations import MOST_CHANNELS, MOST_COMMANDS, Operations
from gateway.ports.realtime import StoreUnavailable

CONFIG = """
[channels.lobby]
subscribe = "authenticated"
presence = true
history = { size = 5, ttl = "5m" }
coalesce = "0s"

[channels."table:{id}"]
subscribe = "false"
history = { size = 5, ttl = "5m" }
coalesce = "0s"

[channels."plain:{name}"]
subscribe = "authenticated"
max_message = "1KiB"
coalesce = "0s"
"""

EVERYTHING = Key("all", ("*",))


class Office:
    """
    A house, and a backend that orders things in it.
    """

    def __init__(self, text: str = CONFIG, *, base: str = BASE) -> None:
        self.house = House(text, base=base)
        self.operations = Operations(self.house.node)

    def do(self, name: str, key: Key = EVERYTHING, **parameters: Any) -> dict[str, Any]:
        """Do an operation, which with memory stores is done at once."""
        return self.raw(name, json.dumps(parameters).encode(), key)

    def raw(self, name: str, data: bytes, key: Key = EVERYTHING) -> dict[str, Any]:
        """The same from bytes."""
        outcomes: list[Any] = []
        Deferred.fromCoroutine(self.operations.do(name, data, key)).addBoth(outcomes.append)
        assert outcomes, "not done at once"
        if hasattr(outcomes[0], "raiseException"):
            outcomes[0].raiseException()
        done: dict[str, Any] = json.loads(encode(outcomes[0]))  # Payloads are raw inside.
        return done

    def fails(self, name: str, key: Key = EVERYTHING, **parameters: Any) -> ClientError:
        """Do an operation that cannot be done."""
        with pytest.raises(ClientError) as refused:
            self.do(name, key, **parameters)
        return refused.value


class Away(MemoryBroker):
    """A broker whose store cannot be reached."""

    async def publish(self, *_: Any, **__: Any) -> Published:
        """Nobody knows."""
        raise StoreUnavailable


@pytest.fixture
def office() -> Office:
    return Office()


def in_lobby(office: Office, token: str = "alice") -> Person:
    """A client that is subscribed to the lobby."""
    person = office.house.connected(token)
    assert "subscribe" in person.reply(subscribe={"channel": "lobby"})
    return person


# Publishing.


def test_publish_tells_the_position(office: Office) -> None:
    """
    The reply has the offset and the epoch under which clients hear it.
    """
    person = in_lobby(office)
    first = office.do("publish", channel="lobby", data={"n": 1}, tags={"kind": "news"})
    second = office.do("publish", channel="lobby", data={"n": 2})
    assert (first["offset"], second["offset"]) == (1, 2)
    assert first["epoch"] == second["epoch"] != ""
    assert person.pushes() == [
        {"channel": "lobby", "pub": {"data": {"n": 1}, "offset": 1, "tags": {"kind": "news"}}},
        {"channel": "lobby", "pub": {"data": {"n": 2}, "offset": 2}},
    ]


def test_publish_without_history(office: Office) -> None:
    """
    What is kept out of the stream is heard, and takes no place in it.
    """
    person = in_lobby(office)
    kept = office.do("publish", channel="lobby", data=1)
    office.do("publish", channel="lobby", data=2, skip_history=True)
    assert [push["pub"]["data"] for push in person.pushes()] == [1, 2]
    history = office.do("history", channel="lobby", limit=-1)
    assert [publication["data"] for publication in history["publications"]] == [1]
    assert history["offset"] == kept["offset"]


def test_payload_in_base64(office: Office) -> None:
    """
    JSON may come in base64, and then counts instead of ``data``.
    """
    person = in_lobby(office)
    office.do("publish", channel="lobby", b64data=b64encode(b'{"a": 1}').decode())
    assert person.pushes()[0]["pub"]["data"] == {"a": 1}


@pytest.mark.parametrize(
    "data",
    [b'"\xff"', b'"\xff"\n', b'["\xff",\n1]', b'{"a":', b"nothing", b"[1]2", b"[" * 100_000],
    ids=["utf-8", "utf-8 and line", "utf-8 in lines", "cut", "word", "two", "deep"],
)
def test_no_payload_breaks_a_frame(office: Office, data: bytes) -> None:
    """
    What is not JSON in UTF-8 reaches nobody, in whichever form it comes: browsers would fail their connections.
    """
    person = in_lobby(office)
    for raw in (
        b'{"channel":"lobby","data":' + data + b"}",
        b'{"channel":"lobby","b64data":"' + b64encode(data) + b'"}',
    ):
        with pytest.raises(ClientError) as refused:
            office.raw("publish", raw)
        assert refused.value.code == 107
    assert person.told() == []


def test_payload_in_several_lines_is_one_line(office: Office) -> None:
    """
    Line ends between members go, those within texts are escaped as they were: a line is one message.
    """
    person = in_lobby(office)
    office.raw("publish", b'{"channel": "lobby", "data": {\r\n "a": "1\\n2",\n "b": [1, 2]}}')
    assert person.pushes()[0]["pub"]["data"] == {"a": "1\n2", "b": [1, 2]}


def test_idempotency_key(office: Office) -> None:
    """
    A second publication with a key is not made, and told the place of the first; per channel, for five minutes.
    """
    person = in_lobby(office)
    first = office.do("publish", channel="lobby", data=1, idempotency_key="k")
    assert office.do("publish", channel="lobby", data=2, idempotency_key="k") == first
    assert [push["pub"]["data"] for push in person.pushes()] == [1]
    both = office.do("broadcast", channels=["lobby", "table:1"], data=3, idempotency_key="k")["responses"]
    assert both[0]["result"] == first
    assert both[1]["result"]["offset"] == 1
    office.house.pass_time(301, step=10)
    assert office.do("publish", channel="lobby", data=4, idempotency_key="k")["offset"] == first["offset"] + 1


def test_versions(office: Office) -> None:
    """
    A version that is not above the last is skipped, and a new epoch of versions starts them over.
    """
    in_lobby(office)

    def top(version: int, epoch: str = "one") -> int:
        offset: int = office.do("publish", channel="lobby", data=0, version=version, version_epoch=epoch)["offset"]
        return offset

    assert [top(3), top(3), top(2), top(4), top(1), top(1, "two"), top(2, "two")] == [1, 1, 1, 2, 2, 3, 4]


def test_versions_without_history(office: Office) -> None:
    """
    Versions count in channels that keep nothing, too.
    """
    person = office.house.connected()
    person.reply(subscribe={"channel": "plain:x"})
    for version in (2, 1, 2, 3):
        office.do("publish", channel="plain:x", data=version, version=version)
    assert [push["pub"]["data"] for push in person.pushes()] == [2, 3]


def test_broadcast(office: Office) -> None:
    """
    Each channel has its own outcome, in the order they were named.
    """
    responses = office.do("broadcast", channels=["lobby", "no", "plain:x", "lobby"], data=[1])["responses"]
    assert [response.get("error", {}).get("code", 0) for response in responses] == [0, 102, 0, 0]
    assert [responses[0]["result"]["offset"], responses[3]["result"]["offset"]] == [1, 2]


def test_waiting_for_replicas(office: Office) -> None:
    """
    Whoever asks is told how many replicas have it, which in memory are none, and never waits for those.
    """
    waited = office.do("publish", channel="lobby", data=1, wait_replicas=2, wait_ms=10_000)
    assert (waited["offset"], waited["replicas"]) == (1, 0)
    assert "replicas" not in office.do("publish", channel="lobby", data=1)
    responses = office.do("broadcast", channels=["lobby", "no", "table:1"], data=1, wait_replicas=1)["responses"]
    assert [response.get("result", {}).get("replicas") for response in responses] == [0, None, 0]


@pytest.mark.parametrize("odd", [{"wait_replicas": -1}, {"wait_replicas": 101}, {"wait_ms": 0}, {"wait_ms": 10_001}])
def test_waits_are_bounded(office: Office, odd: dict[str, int]) -> None:
    """
    Nobody waits for ever, or for more replicas than there ever are.
    """
    with pytest.raises(ClientError) as raised:
        office.raw("publish", json.dumps({"channel": "lobby", "data": 1, "wait_replicas": 1, **odd}).encode())
    assert raised.value.code == 107


class Waited(MemoryBroker):
    """
    A store whose replicas have nothing until the time is up; it notes how long each was waited for.
    """

    def __init__(self, office: Office) -> None:
        super().__init__(office.house.channels)
        self.clock = office.house.clock
        self.waits: list[float] = []

    async def publish(self, channel: str, data: bytes, options: PublishOptions, **more: Any) -> Published:
        published = await super().publish(channel, data, options, **more)
        self.waits.append(options.wait_s)
        await deferLater(self.clock, options.wait_s)
        return published


def test_a_broadcast_has_one_deadline(office: Office) -> None:
    """
    However many channels there are, replicas are waited for once as long as was asked, not for each channel.
    """
    waited = office.house.node.broker = Waited(office)
    channels = [f"table:{number}" for number in range(500)]
    order = json.dumps({"channels": channels, "data": 1, "wait_replicas": 3, "wait_ms": 2000}).encode()
    outcomes: list[Any] = []
    Deferred.fromCoroutine(office.operations.do("broadcast", order, EVERYTHING)).addBoth(outcomes.append)
    for _ in range(250):
        assert not outcomes or office.house.clock.seconds() > 2
        office.house.clock.advance(0.01)
    assert [response["result"]["offset"] for response in outcomes[0]["responses"]] == [1] * 500
    assert (waited.waits[:100], waited.waits[100:]) == ([2.0] * 100, [0.01] * 400)


def test_a_broadcast_is_in_order(office: Office) -> None:
    """
    A channel that is named twice gets both publications in the order of the names, and a failure of ours is told.
    """
    assert [
        response["result"]["offset"]
        for response in office.do("broadcast", channels=["lobby", "table:1"] * 150, data=1)["responses"]
    ] == [n // 2 + 1 for n in range(300)]

    class Broken(MemoryBroker):
        async def publish(self, *_: Any, **__: Any) -> Published:
            raise LookupError("a bug")

    office.house.node.broker = Broken(office.house.channels)
    with pytest.raises(LookupError):
        office.do("broadcast", channels=["lobby"] * 3, data=1)


# Reading.


def test_history(office: Office) -> None:
    """
    A stream is read forwards and backwards, from a position, and nothing but its top by default.
    """
    positions = [office.do("publish", channel="lobby", data=number) for number in range(1, 8)]
    epoch = positions[0]["epoch"]

    def read(**more: Any) -> list[int]:
        return [each["offset"] for each in office.do("history", channel="lobby", **more)["publications"]]

    assert read() == []
    assert read(limit=-1) == [3, 4, 5, 6, 7]
    assert read(limit=2, reverse=True) == [7, 6]
    assert read(limit=2, since={"offset": 4, "epoch": epoch}) == [5, 6]
    assert read(limit=-1, reverse=True, since={"offset": 5, "epoch": epoch}) == [4, 3]
    assert read(limit=-1, since={"offset": 5}) == [6, 7]
    assert office.do("history", channel="lobby") == {"publications": [], "offset": 7, "epoch": epoch}


def test_history_of_another_epoch(office: Office) -> None:
    """
    A position of a stream that is no more says so, rather than that nothing happened.
    """
    office.do("publish", channel="lobby", data=1)
    assert office.fails("history", channel="lobby", limit=-1, since={"offset": 9, "epoch": "other"}).code == 112


def test_history_names_the_publisher() -> None:
    """
    A publication of a client tells whose it was; one of a backend tells nobody.
    """
    office = Office(CONFIG.replace("presence = true\n", 'presence = true\npublish = "authenticated"\n'))
    person = office.house.connected("alice")
    assert "publish" in person.reply(publish={"channel": "lobby", "data": "hi"})
    (publication,) = office.do("history", channel="lobby", limit=-1)["publications"]
    assert publication["info"]["user"] == "alice"
    assert publication["info"]["client"] == person.side.id


def test_history_is_removed(office: Office) -> None:
    """
    What is removed is gone; the offset goes on.
    """
    office.do("publish", channel="lobby", data=1)
    assert office.do("history_remove", channel="lobby") == {}
    assert office.do("history", channel="lobby", limit=-1)["publications"] == []
    assert office.do("publish", channel="lobby", data=2)["offset"] == 2


def test_presence(office: Office) -> None:
    """
    Connections are listed by id, and counted, users once.
    """
    one, two, three = in_lobby(office), in_lobby(office), in_lobby(office, "bob")
    here = office.do("presence", channel="lobby")["presence"]
    assert {client: told["user"] for client, told in here.items()} == {
        one.side.id: "alice",
        two.side.id: "alice",
        three.side.id: "bob",
    }
    assert office.do("presence_stats", channel="lobby") == {"num_clients": 3, "num_users": 2}


def test_channels(office: Office) -> None:
    """
    Channels that somebody listens to have the number of subscriptions; one that all have left is none any more.
    """
    people = [in_lobby(office), in_lobby(office, "bob")]
    people[0].reply(subscribe={"channel": "plain:x"})
    assert office.do("channels")["channels"] == {"lobby": {"num_clients": 2}, "plain:x": {"num_clients": 1}}
    assert office.do("channels", pattern="plain:*")["channels"] == {"plain:x": {"num_clients": 1}}
    for person in people:
        person.reply(unsubscribe={"channel": "lobby"})
    assert office.do("channels")["channels"] == {"plain:x": {"num_clients": 1}}


def test_connections_and_info(office: Office) -> None:
    """
    A user's connections are described, another's are not; the instance counts them all.
    """
    person = in_lobby(office)
    in_lobby(office, "bob")
    assert office.do("connections", user="alice")["connections"] == {
        person.side.id: {
            "app_name": "",
            "app_version": "",
            "transport": "websocket",
            "protocol": "json",
            "user": "alice",
            "session": person.session,
            "address": "192.0.2.1",
            "channels": ["lobby"],
        }
    }
    office.house.pass_time(10)
    (node,) = office.do("info")["nodes"]
    assert node == {
        "uid": "node-1",
        "name": "node-1",
        "version": "test",
        "num_clients": 2,
        "num_users": 2,
        "num_subs": 2,
        "num_channels": 1,
        "uptime": 10,
    }


# Clients.


def test_subscribe(office: Office) -> None:
    """
    A server subscribes all connections of a user, also where they may not themselves, with data and what others see.
    """
    one, two = office.house.connected("alice"), office.house.connected("alice")
    other = office.house.connected("bob")
    office.do("publish", channel="table:1", data=1)
    assert office.do("subscribe", user="alice", channel="table:1", data={"seat": 1}, info={"vip": True}) == {}
    for person in (one, two):
        (push,) = person.pushes()
        assert push["channel"] == "table:1"
        assert push["subscribe"]["data"] == {"seat": 1}
        assert (push["subscribe"]["offset"], push["subscribe"]["recoverable"]) == (1, True)
    assert other.pushes() == []
    assert office.do("subscribe", user="alice", channel="table:1") == {}
    assert one.pushes() == [], "it has the channel already"
    office.do("publish", channel="table:1", data=2)
    assert one.pushes() == [{"channel": "table:1", "pub": {"data": 2, "offset": 2}}]
    assert one.reply(unsubscribe={"channel": "table:1"})["error"]["code"] == 103


def test_subscribe_tells_others_who(office: Office) -> None:
    """
    ``info`` is what presence tells of the subscription.
    """
    person = office.house.connected("alice")
    office.do("subscribe", user="alice", channel="lobby", info={"vip": True})
    assert office.do("presence", channel="lobby")["presence"][person.side.id]["chan_info"] == {"vip": True}


def test_subscribe_one_of_several(office: Office) -> None:
    """
    A connection, or a session, is meant alone where it is named.
    """
    one, two = office.house.connected("alice"), office.house.connected("alice")
    office.do("subscribe", user="alice", channel="lobby", client=one.side.id)
    office.do("subscribe", user="alice", channel="plain:x", session=two.session)
    assert [push["channel"] for push in one.pushes()] == ["lobby"]
    assert [push["channel"] for push in two.pushes()] == ["plain:x"]
    office.do("subscribe", user="bob", channel="lobby", client=two.side.id)
    assert two.pushes() == [], "it is not that user's"


def test_subscribe_from_a_position(office: Office) -> None:
    """
    What came since a position follows the subscription, in order.
    """
    positions = [office.do("publish", channel="table:1", data=number) for number in (1, 2, 3)]
    person = office.house.connected("alice")
    office.do("subscribe", user="alice", channel="table:1", recover_since=positions[0])
    pushes = person.pushes()
    assert [each["pub"]["data"] for each in pushes if "pub" in each] == [2, 3]
    assert pushes[0]["subscribe"]["offset"] == 3


def test_subscribe_has_a_limit() -> None:
    """
    A server cannot give a connection more channels than its endpoint allows.
    """
    office = Office(base=BASE + "max_channels = 1\n")
    person = office.house.connected("alice")
    office.do("subscribe", user="alice", channel="lobby")
    assert office.fails("subscribe", user="alice", channel="plain:x").code == 106
    assert set(person.side.subscriptions) == {"lobby"}


def test_unsubscribe(office: Office) -> None:
    """
    A subscription ends with the code after which clients do not subscribe again; to be without it is no error.
    """
    person = in_lobby(office)
    assert office.do("unsubscribe", user="alice", channel="lobby") == {}
    assert person.pushes() == [{"channel": "lobby", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}]
    assert office.do("unsubscribe", user="alice", channel="lobby") == {}
    assert office.do("unsubscribe", user="nobody", channel="lobby") == {}
    assert office.do("presence_stats", channel="lobby")["num_clients"] == 0


def test_disconnect(office: Office) -> None:
    """
    A user's connections are closed with the code ordered, those on the white list and of others stay.
    """
    one, two, three = (office.house.connected("alice") for _ in range(3))
    other = office.house.connected("bob")
    reason = {"code": 4501, "reason": "banned"}
    office.do("disconnect", user="alice", whitelist=[three.side.id], client=one.side.id, disconnect=reason)
    assert (one.wire.closed, two.wire.closed) == ((4501, "banned"), None)
    office.do("disconnect", user="alice", whitelist=[three.side.id])
    assert (two.wire.closed, three.wire.closed, other.wire.closed) == ((3503, "force disconnect"), None, None)


def test_refresh(office: Office) -> None:
    """
    A connection lives until the time ordered, whatever its token said, and is told how long.
    """
    person = office.house.connected("alice;ttl=60")
    office.do("refresh", user="alice", expire_at=START + 600)
    assert person.pushes() == [{"refresh": {"expires": True, "ttl": 600}}]
    office.house.pass_time(500)
    assert person.wire.closed is None
    office.house.pass_time(200)
    assert person.wire.closed == (3005, "connection expired")


def test_refresh_for_ever_and_expire(office: Office) -> None:
    """
    0 lets a connection live on without an end; ``expired`` ends it now, so that clients fetch a token.
    """
    one, two = office.house.connected("alice;ttl=60"), office.house.connected("bob")
    office.do("refresh", user="alice", expire_at=0)
    office.house.pass_time(200)
    assert one.wire.closed is None
    office.do("refresh", user="bob", expired=True)
    assert two.wire.closed == (3005, "connection expired")


# What is refused.


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("publish", {"channel": "no-such", "data": 1}, 102),
        ("publish", {"channel": "", "data": 1}, 102),
        ("publish", {"channel": "table:\n", "data": 1}, 102),
        ("publish", {"channel": "lobby"}, 107),
        ("publish", {"data": 1}, 107),
        ("publish", {"channel": 1, "data": 1}, 107),
        ("publish", {"channel": "lobby", "data": 1, "version": -1}, 107),
        ("publish", {"channel": "lobby", "data": 1, "versoin": 1}, 107),
        ("publish", {"channel": "lobby", "b64data": "?"}, 107),
        ("publish", {"channel": "lobby", "data": 1, "delta": True}, 108),
        ("publish", {"channel": "plain:x", "data": "a" * 2000}, 106),
        ("broadcast", {"channels": ["lobby"]}, 107),
        ("broadcast", {"channels": ["lobby"] * (MOST_CHANNELS + 1), "data": 1}, 106),
        ("presence", {"channel": "no-such"}, 102),
        ("presence", {"channel": "plain:x"}, 108),
        ("presence_stats", {"channel": "plain:x"}, 108),
        ("history", {"channel": "plain:x"}, 108),
        ("history", {"channel": "no-such"}, 102),
        ("history", {"channel": "lobby", "limit": -2}, 107),
        ("history_remove", {"channel": "plain:x"}, 108),
        ("subscribe", {"user": "alice", "channel": "no-such"}, 102),
        ("subscribe", {"user": "", "channel": "lobby"}, 107),
        ("subscribe", {"channel": "lobby"}, 107),
        ("unsubscribe", {"user": "", "channel": "lobby"}, 107),
        ("disconnect", {"user": ""}, 107),
        ("disconnect", {"user": "u", "disconnect": {"code": 1000, "reason": ""}}, 107),
        ("disconnect", {"user": "u", "disconnect": {"code": 5000, "reason": ""}}, 107),
        ("refresh", {"user": "u", "expire_at": START - 1}, 107),
        ("refresh", {"user": "u", "expire_at": 1e300}, 107),
        ("connections", {"user": ""}, 107),
        ("batch", {"commands": [{}] * (MOST_COMMANDS + 1)}, 106),
        ("no_such", {}, 104),
    ],
)
def test_refused(office: Office, name: str, parameters: dict[str, Any], code: int) -> None:
    """
    What cannot be done has the code that clients know, and a text that is not empty.
    """
    error = office.fails(name, **parameters)
    assert (error.code, bool(error.text)) == (code, True)


def test_a_store_that_is_away(office: Office) -> None:
    """
    What a store cannot answer is an internal error that may be tried again, in one channel of many as well.
    """
    office.house.node.broker = Away(office.house.channels)
    error = office.fails("publish", channel="lobby", data=1)
    assert (error.code, error.temporary) == (100, True)
    (response,) = office.do("broadcast", channels=["lobby"], data=1)["responses"]
    assert response["error"]["code"] == 100


# Several at once, and keys.


def test_batch(office: Office) -> None:
    """
    Commands are done in order, each with its own outcome; a batch in a batch is none.
    """
    replies = office.do(
        "batch",
        commands=[
            {"publish": {"channel": "lobby", "data": 1}},
            {"publish": {"channel": "no-such", "data": 1}},
            {"history": {"channel": "lobby", "limit": -1}},
            {"batch": {"commands": []}},
            {"publish": {"channel": "lobby", "data": 2}, "info": {}},
            {"nothing": {}},
            {"presence_stats": {"channel": "lobby"}},
        ],
    )["replies"]
    assert [reply.get("error", {}).get("code", 0) for reply in replies] == [0, 102, 0, 107, 107, 104, 0]
    assert replies[0]["publish"]["offset"] == 1
    assert replies[2]["history"]["publications"] == [{"data": 1, "offset": 1}]
    assert replies[6]["presence_stats"] == {"num_clients": 0, "num_users": 0}


def test_scopes(office: Office) -> None:
    """
    A key does what its scopes name, in a batch too, and a batch itself needs none.
    """
    key = Key("game", ("publish",))
    assert office.do("publish", key, channel="lobby", data=1)["offset"] == 1
    assert office.fails("presence", key, channel="lobby").code == 103
    commands = [{"publish": {"channel": "lobby", "data": 2}}, {"disconnect": {"user": "alice"}}, {"info": {}}]
    replies = office.do("batch", key, commands=commands)["replies"]
    assert [reply.get("error", {}).get("code", 0) for reply in replies] == [0, 103, 103]
    reader = Key("reader", ("read",))
    assert "nodes" in office.do("batch", reader, commands=[{"info": {}}])["replies"][0]["info"]


def test_channels_of_a_key(office: Office) -> None:
    """
    A key that has channels names no others and is told of no others.
    """
    key = Key("game", ("*",), ("table:*",))
    in_lobby(office)
    assert office.do("publish", key, channel="table:1", data=1)["offset"] == 1
    for name in ("publish", "history", "history_remove", "presence", "presence_stats", "subscribe", "unsubscribe"):
        more = {"user": "alice"} if "subscribe" in name else {"data": 1} if name == "publish" else {}
        assert office.fails(name, key, channel="lobby", **more).code == 103, name
    responses = office.do("broadcast", key, channels=["table:1", "lobby", "no-such"], data=1)["responses"]
    assert [response.get("error", {}).get("code", 0) for response in responses] == [0, 103, 103]
    office.do("subscribe", key, user="alice", channel="table:1")
    assert set(office.do("channels", key)["channels"]) == {"table:1"}
    (connection,) = office.do("connections", key, user="alice")["connections"].values()
    assert connection["channels"] == ["table:1"]
