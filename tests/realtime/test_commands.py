"""
Commands: publishing, calling backends, asking for history; their order, their bounds.
"""

from dataclasses import replace
from typing import Any

import pytest
from tests.realtime.house import BASE, House
from twisted.internet.defer import Deferred

from gateway.core.verdicts import ClientError
from gateway.memory.idempotency import MemoryIdempotency
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.stores import Stores

RULES = """
[channels.closed]
subscribe = "authenticated"
[channels.open]
subscribe = "authenticated"
publish = "authenticated"
history = { size = 5, ttl = "1m" }
max_message = "100B"
[channels."chat:{room}"]
subscribe = "authenticated"
publish = { upstream = "backend", http = "POST /chat", data = "message", set = { room = "channel.room" } }
[channels."short"]
subscribe = "authenticated"
publish = "size(data.text) < 5"
[channels."limited"]
subscribe = "authenticated"
publish = "authenticated"
rate = "3/s"

[rpc.echo]
echo = true
[rpc.call]
upstream = "backend"
http = "POST /call"
[rpc."game.*"]
upstream = "backend"
http = "POST /game"
data = "result"
[rpc."admin"]
upstream = "backend"
http = "POST /admin"
when = "claims.role == 'admin' && data.sure == true"
"""


def entered(answers: dict[str, Any] | None = None, token: str = "alice", base: str = BASE) -> Any:
    house = House(RULES, answers or {}, base=base)
    return house, house.connected(token)


def test_publishing_is_off_unless_written() -> None:
    """
    103 where the pattern says nothing, 102 where there is no pattern; publishing needs no subscription.
    """
    house, alice = entered()
    bob = house.connected("bob")
    bob.reply(subscribe={"channel": "open"})
    assert alice.reply(publish={"channel": "closed", "data": 1})["error"]["code"] == 103
    assert alice.reply(publish={"channel": "none", "data": 1})["error"]["code"] == 102
    assert alice.reply(publish={"channel": "open", "data": {"a": 1}})["publish"] == {}
    [push] = bob.pushes()
    assert push["pub"]["data"] == {"a": 1}
    assert push["pub"]["info"] == {"user": "alice", "client": alice.side.id}


def test_a_message_that_is_too_large_or_too_frequent_is_refused() -> None:
    """
    106 beyond the size; 111, temporary, beyond the rate, and allowed again later.
    """
    house, alice = entered()
    assert alice.reply(publish={"channel": "open", "data": "x" * 200})["error"]["code"] == 106
    for _ in range(3):
        assert "publish" in alice.reply(publish={"channel": "limited", "data": 1})
    refused = alice.reply(publish={"channel": "limited", "data": 1})["error"]
    assert (refused["code"], refused["temporary"]) == (111, True)
    house.pass_time(0.5)
    alice.told()
    assert "publish" in alice.reply(publish={"channel": "limited", "data": 1})


@pytest.mark.parametrize(
    ("answer", "published", "code"),
    [
        ({}, {"text": "hi"}, None),
        ({"message": {"text": "h*"}}, {"text": "h*"}, None),
        (ClientError(103), None, 103),
        (ClientError(422, "mind your language"), None, 422),
    ],
)
def test_a_backend_may_veto_or_change_what_is_published(answer: Any, published: Any, code: int | None) -> None:
    """
    It is asked with the data and its own fields; its answer may hold what is published instead.
    """
    house, alice = entered({"POST /chat": answer})
    bob = house.connected("bob")
    bob.reply(subscribe={"channel": "chat:1"})
    reply = alice.reply(publish={"channel": "chat:1", "data": {"text": "hi"}})
    if code is not None:
        assert reply["error"]["code"] == code
    assert [push["pub"]["data"] for push in bob.pushes()] == ([published] if published else [])
    facts, data, _ = house.backends["POST /chat"].calls[0]
    assert data in (b'{"text": "hi"}', b'{"text":"hi"}')
    assert facts["channel"] == {"room": "1", "name": "chat:1"}
    assert house.node.metrics.publications.value("chat:{room}", "made") == (code is None)


def test_an_expression_may_look_at_the_data() -> None:
    """
    And denies what it cannot evaluate.
    """
    _, alice = entered()
    assert "publish" in alice.reply(publish={"channel": "short", "data": {"text": "abc"}})
    assert alice.reply(publish={"channel": "short", "data": {"text": "abcdef"}})["error"]["code"] == 103
    assert alice.reply(publish={"channel": "short", "data": {}})["error"]["code"] == 103
    assert alice.reply(publish={"channel": "short", "data": 7})["error"]["code"] == 103


def test_json_of_several_lines_becomes_one() -> None:
    """
    A frame's lines are messages: a payload never ends one.
    """
    house, alice = entered()
    alice.reply(subscribe={"channel": "open"})
    match = house.node.rules.channels.match("open")
    Deferred.fromCoroutine(house.node.publish(match, b'{\n  "a":\r\n 1\n}'))
    [push] = alice.pushes()
    assert push["pub"]["data"] == {"a": 1}


def test_history_is_for_subscribers_of_channels_that_keep_one() -> None:
    """
    Forwards, backwards, from a position, the top alone; 108 without history, 112 for another epoch.
    """
    house, alice = entered()
    assert alice.reply(history={"channel": "open", "limit": 1})["error"]["code"] == 103
    epoch = alice.reply(subscribe={"channel": "open"})["subscribe"]["epoch"]
    alice.reply(subscribe={"channel": "closed"})
    for number in range(7):
        house.publish("open", number)
        house.clock.advance(0.01)
    alice.told()

    def offsets(**asked: Any) -> list[int]:
        found = alice.reply(history={"channel": "open", **asked})["history"]
        assert (found["epoch"], found["offset"]) == (epoch, 7)
        return [each["offset"] for each in found["publications"]]

    assert offsets(limit=-1) == [3, 4, 5, 6, 7]
    assert offsets(limit=0) == []
    assert offsets(limit=2) == [3, 4]
    assert offsets(limit=2, reverse=True) == [7, 6]
    assert offsets(limit=-1, since={"offset": 5, "epoch": epoch}) == [6, 7]
    assert offsets(limit=-1, since={"offset": 5, "epoch": epoch}, reverse=True) == [4, 3]
    wrong = alice.reply(history={"channel": "open", "limit": 1, "since": {"offset": 1, "epoch": "x"}})
    assert wrong["error"]["code"] == 112
    assert alice.reply(history={"channel": "closed", "limit": 1})["error"]["code"] == 108


def test_a_method_calls_its_backend_and_unknown_ones_do_not_exist() -> None:
    """
    The data goes as it is, with who calls; the longest beginning counts; 104 for no method.
    """
    house, alice = entered({"POST /call": {"n": 1}, "POST /game": {"result": [1]}})
    assert alice.reply(rpc={"method": "call", "data": {"x": 1}})["rpc"]["data"] == {"n": 1}
    facts, data, identity = house.backends["POST /call"].calls[0]
    assert facts["claims"]["sub"] == identity.subject == "alice"
    assert data in (b'{"x": 1}', b'{"x":1}')
    assert alice.reply(rpc={"method": "game.drop", "data": {}})["rpc"]["data"] == [1]
    assert house.backends["POST /game"].calls[0][0]["command"]["method"] == "game.drop"
    assert alice.reply(rpc={"method": "nothing", "data": {}})["error"]["code"] == 104


@pytest.mark.parametrize(
    ("token", "data", "code"),
    [
        ("alice;role=admin", {"sure": True}, None),
        ("alice;role=admin", {"sure": False}, 103),
        ("alice;role=admin", {}, 103),
        ("alice;role=user", {"sure": True}, 103),
        ("alice", {"sure": True}, 103),
    ],
)
def test_a_method_may_have_a_rule(token: str, data: Any, code: int | None) -> None:
    """
    Anything but true is 103, and the backend hears nothing.
    """
    house, alice = entered({"POST /admin": {}}, token)
    reply = alice.reply(rpc={"method": "admin", "data": data})
    assert (reply["error"]["code"] if code else "rpc" in reply) == (code or True)
    assert len(house.backends["POST /admin"].calls) == (code is None)


def test_errors_of_backends_are_told_with_their_code() -> None:
    """
    Code, text and whether to try again; a fault of ours is 100 without a word about it.
    """
    house, alice = entered({"POST /call": ClientError(409, "seat taken")})
    assert alice.reply(rpc={"method": "call"})["error"] == {"code": 409, "message": "seat taken"}
    house.answers["POST /call"] = ClientError(100, "try later", temporary=True)
    assert alice.reply(rpc={"method": "call"})["error"]["temporary"] is True
    house.answers["POST /call"] = ZeroDivisionError("secret")
    error = alice.reply(rpc={"method": "call"})["error"]
    assert error["code"] == 100
    assert "secret" not in str(error)
    assert alice.wire.closed is None


def test_calls_overlap_and_each_reply_has_its_number() -> None:
    """
    R33: of different methods answers come in the order they are ready, of one method in the order asked.
    """
    waiting: dict[str, list[Deferred[bytes]]] = {}

    def think(facts: Any, _data: bytes) -> Deferred[bytes]:
        waiting.setdefault(facts["command"]["method"], []).append(Deferred())
        return waiting[facts["command"]["method"]][-1]

    _, alice = entered({"POST /game": think})
    numbers = {name: alice.ask(rpc={"method": f"game.{name}", "data": name}) for name in "abc"}
    second = alice.ask(rpc={"method": "game.a", "data": "again"})
    assert alice.told() == []
    for name in "cba":
        waiting[f"game.{name}"][0].callback(b'{"result":"%s"}' % name.encode())
        [reply] = alice.told()
        assert (reply["id"], reply["rpc"]["data"]) == (numbers[name], name)
    waiting["game.a"][1].callback(b'{"result":2}')
    assert alice.told() == [{"id": second, "rpc": {"data": 2}}]


def test_only_so_many_commands_run_at_once_and_the_rest_wait_in_order() -> None:
    """
    The bound holds, nothing is lost, and beyond a number of waiting bytes the socket is not read.
    """
    waiting: list[Deferred[bytes]] = []

    def think(_facts: Any, _data: bytes) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    base = BASE + 'max_in_flight = 4\nmax_waiting = "2KiB"\n'
    _, alice = entered({"POST /game": think}, base=base)
    numbers = [alice.ask(rpc={"method": f"game.{number}", "data": "x" * 100}) for number in range(20)]
    assert len(waiting) == 4
    assert alice.wire.paused
    answered: list[int] = []
    while len(answered) < 20:
        waiting[len(answered)].callback(b'{"result":1}')
        answered += [message["id"] for message in alice.told()]
    assert answered == numbers
    assert not alice.wire.paused


def test_calls_of_a_client_that_left_are_cancelled() -> None:
    """
    R33: no call goes on for nobody, and nothing is reported as a fault.
    """
    cancelled: list[int] = []

    def think(_facts: Any, _data: bytes) -> Deferred[bytes]:
        return Deferred(lambda _: cancelled.append(1))

    house, alice = entered({"POST /game": think})
    for number in range(10):
        alice.ask(rpc={"method": f"game.{number}"})
    alice.lose()
    assert len(cancelled) == 10
    assert house.node.background.names() == []


def test_a_command_with_a_key_is_done_once_over_reconnects() -> None:
    """
    R34: five times the same key: one call, one answer for all, also when the client left in the middle.
    """
    waiting: list[Deferred[bytes]] = []

    def think(_facts: Any, _data: bytes) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    house = House(RULES, {"POST /call": think})
    request = {"method": "call", "data": {"idempotency_key": "k1", "x": 1}}
    first = house.connected()
    first.ask(rpc=request)
    first.lose()
    second = house.connected()
    assert second.reply(rpc=request)["error"]["temporary"] is True
    waiting[0].callback(b'{"n":1}')
    for _ in range(4):
        assert second.reply(rpc=request)["rpc"]["data"] == {"n": 1}
    assert len(waiting) == 1
    other = house.connected("bob")
    other.ask(rpc=request)
    assert len(waiting) == 2, "another user's key is another key"


def test_a_key_whose_call_failed_may_be_tried_again() -> None:
    """
    A failure is not remembered.
    """
    house, alice = entered({"POST /call": ClientError(100, "away", temporary=True)})
    request = {"method": "call", "data": {"idempotency_key": "k1"}}
    assert alice.reply(rpc=request)["error"]["temporary"] is True
    house.answers["POST /call"] = {"n": 2}
    assert alice.reply(rpc=request)["rpc"]["data"] == {"n": 2}


class Leaky(MemoryIdempotency):
    """
    A store that goes away once a key is claimed.
    """

    async def finish(self, key: str, mine: str, result: bytes, keep_s: float) -> bool:
        """Nobody knows."""
        raise StoreUnavailable

    async def release(self, key: str, mine: str) -> None:
        """Nobody knows."""
        raise StoreUnavailable


class LeakyHouse(House):
    def stores_of(self, stores: Stores) -> Stores:
        """With results that cannot be stored."""
        return replace(stores, idempotency=Leaky(self.wall))


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_cannot_be_stored_is_told_all_the_same(fails: bool) -> None:
    """
    The store goes away while the backend thinks: the client has its answer, and the key is free again after two minutes.
    """
    answer = ClientError(400, "no") if fails else {"n": 1}
    house = LeakyHouse(RULES, {"POST /call": answer})
    alice = house.connected("alice;ttl=99999")
    request = {"method": "call", "data": {"idempotency_key": "k1"}}
    for _ in range(2):
        reply = alice.reply(rpc=request)
        assert reply["error"]["code"] == 400 if fails else reply["rpc"]["data"] == {"n": 1}
        assert alice.reply(rpc=request)["error"]["temporary"] is True
        house.pass_time(125, 1)
    assert len(house.backends["POST /call"].calls) == 2


def test_each_command_has_a_key_for_backends() -> None:
    """
    The client's own, or one of its own: ``command.idempotency_key`` is never empty and never shared.
    """
    house, alice = entered({"POST /call": {}})
    alice.reply(rpc={"method": "call", "data": {}})
    alice.reply(rpc={"method": "call", "data": {}})
    alice.reply(rpc={"method": "call", "data": {"idempotency_key": "mine"}})
    keys = [facts["command"]["idempotency_key"] for facts, _, _ in house.backends["POST /call"].calls]
    assert keys[2] == "mine"
    assert len(set(keys)) == 3


def test_a_message_without_a_number_expects_no_answer() -> None:
    """
    ``send`` is passed over unless a method of that name is there; other commands need a number.
    """
    house, alice = entered()
    alice.say({"send": {"data": {"a": 1}}})
    assert alice.told() == []
    assert alice.wire.closed is None
    house2 = House(RULES + '[rpc.send]\nupstream = "backend"\nhttp = "POST /sent"\n', {"POST /sent": {}})
    bob = house2.connected("bob")
    bob.say({"send": {"data": {"a": 1}}})
    assert bob.told() == []
    assert len(house2.backends["POST /sent"].calls) == 1
    bob.say({"rpc": {"method": "echo"}})
    assert bob.wire.closed == (3501, "bad request")
    del house


def test_a_ping_with_a_number_is_answered() -> None:
    """
    A client may ask whether the gateway is there.
    """
    _, alice = entered()
    assert alice.reply(ping={})["ping"] == {}


FACTS = """
[channels.lobby]
subscribe = "authenticated"
[realtime]
on_disconnect = { upstream = "backend", http = "POST /bye" }
on_subscribe = { upstream = "backend", http = "POST /in" }
on_unsubscribe = { upstream = "backend", http = "POST /out" }
told_most = "4KiB"
told_for = "20s"
"""


def told_to(house: House, name: str) -> list[Any]:
    import json

    return [json.loads(data) for _, data, _ in house.backends[name].calls]


def test_backends_are_told_in_order_with_ids_and_numbers() -> None:
    """
    Two quick clicks: in, out, in; then the end with its code. Ids are all different.
    """
    order: list[str] = []

    def note(name: str) -> Any:
        def noted(_facts: Any, _data: bytes) -> bytes:
            order.append(name)
            return b"{}"

        return noted

    house = House(FACTS, {"POST /in": note("in"), "POST /out": note("out"), "POST /bye": note("bye")})
    alice = house.connected()
    alice.say(
        {"id": 2, "subscribe": {"channel": "lobby"}},
        {"id": 3, "unsubscribe": {"channel": "lobby"}},
        {"id": 4, "subscribe": {"channel": "lobby"}},
    )
    alice.leave()
    house.pass_time(1)
    assert order == ["in", "out", "in", "out", "bye"]
    facts = [*told_to(house, "POST /in"), *told_to(house, "POST /out"), *told_to(house, "POST /bye")]
    assert sorted(fact["sequence"] for fact in facts) == [1, 2, 3, 4, 5]
    assert len({fact["id"] for fact in facts}) == 5
    assert facts[-1]["code"] == 1000
    assert facts[-1]["resumable"] is False


def test_a_backend_that_is_away_is_told_later_in_order() -> None:
    """
    Temporary failures are tried again; what came after waits; the same id each time.
    """
    house = House(FACTS, {"POST /in": ClientError(100, "", temporary=True), "POST /out": {}, "POST /bye": {}})
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    alice.reply(unsubscribe={"channel": "lobby"})
    house.pass_time(3)
    assert house.backends["POST /out"].calls == []
    attempts = told_to(house, "POST /in")
    assert len(attempts) >= 2
    assert len({fact["id"] for fact in attempts}) == 1
    house.answers["POST /in"] = {}
    house.pass_time(10)
    assert len(house.backends["POST /out"].calls) == 1
    assert house.node.telling.bytes == 0


def test_facts_that_cannot_be_told_are_lost_counted_and_bounded() -> None:
    """
    Beyond their time, beyond the bytes allowed, or refused: counted by why; the client never waits.
    """
    house = House(FACTS, {"POST /in": Deferred(), "POST /out": {}, "POST /bye": {}})
    for number in range(40):
        alice = house.connected(f"p{number}")
        assert "subscribe" in alice.reply(subscribe={"channel": "lobby"})
    lost = house.node.metrics.facts_lost
    assert lost.value("on_subscribe", "overflow") > 20
    refused = House(FACTS, {"POST /in": ClientError(403), "POST /out": {}, "POST /bye": {}})
    refused.connected().reply(subscribe={"channel": "lobby"})
    assert refused.node.metrics.facts_lost.value("on_subscribe", "refused") == 1
    late = House(FACTS, {"POST /in": ClientError(100, "", temporary=True), "POST /out": {}, "POST /bye": {}})
    late.connected("a;ttl=99999").reply(subscribe={"channel": "lobby"})
    late.pass_time(25)
    assert late.node.metrics.facts_lost.value("on_subscribe", "time") == 1
    assert late.node.telling.waiting() == 0
