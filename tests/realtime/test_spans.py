"""
Traces of commands and publications: short, linked, followed to backends and to every instance that delivers.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.realtime.house import START, House, Person, Wire
from tests.telemetry.told import Told
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gateway.core.identity import Identity
from gateway.core.trace import TraceContext, parse
from gateway.node.api_keys import Key
from gateway.node.operations import Operations
from gateway.ports.clients import Opening

RULES = """
[realtime]
on_connect = { upstream = "backend", http = "POST /connect" }
on_disconnect = { upstream = "backend", http = "POST /gone" }

[channels."chat:{room}"]
subscribe = { upstream = "backend", http = "POST /may" }
publish = "authenticated"
snapshot = { upstream = "backend", http = "POST /state" }
history = { size = 5, ttl = "1m" }
[channels.open]
subscribe = "authenticated"
publish = { upstream = "backend", http = "POST /say" }

[rpc."table.*"]
upstream = "backend"
http = "POST /table"
[rpc.send]
upstream = "backend"
http = "POST /table"
[rpc.slow]
upstream = "backend"
http = "POST /slow"
"""
ANSWERS: dict[str, Any] = {
    "POST /connect": {},
    "POST /gone": {},
    "POST /may": {},
    "POST /state": {"n": 1},
    "POST /say": {},
    "POST /table": {"ok": 1},
}

SERVER, PRODUCER, CONSUMER, INTERNAL = 2, 4, 5, 1
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THEIRS = f"00-{TRACE}-{SPAN}-01"
OPENING = TraceContext("1" * 32, "2" * 16, sampled=False)


class Traced(House):
    """A house whose spans are told."""

    def __init__(self, sample: float = 1.0, users: tuple[str, ...] = ()) -> None:
        clock = Clock()
        self.told = Told(lambda: self.clock.seconds() if hasattr(self, "clock") else clock.seconds(), sample, users)
        self.spans = self.told.spans
        super().__init__(RULES, {**ANSWERS})

    def opened(self, *, believed: bool = False, identity: Identity | None = None) -> Person:
        """Open a connection whose opening has a place in a trace."""
        wire = Wire()
        opening = Opening("192.0.2.1", self.config.websocket[0], trace=OPENING, believed=believed, identity=identity)
        side = self.node.accept(wire, opening)
        wire.side = side
        person = Person(self, wire, side)
        self.people.append(person)
        return person

    def inside(self, token: str = "alice", **more: Any) -> Person:
        """The same, connected; what that told is dropped."""
        person = self.opened(**more)
        assert "connect" in person.reply(connect={"token": token})
        self.told.seen()
        return person

    def passed(self, path: str) -> TraceContext:
        """What a backend was last given."""
        trace = self.backends[path].traces[-1]
        assert trace is not None
        return trace


def test_a_command_is_a_short_trace_of_its_own() -> None:
    """
    A command that is recorded is the first span of a trace, linked to the connection's opening; the backend is below it.
    """
    house = Traced()
    alice = house.inside()
    house.clock.advance(3600)
    alice.reply(rpc={"method": "table.drop", "data": {"n": 1}})
    span = house.told.one("rpc table.*")
    assert (span.kind, span.parent, span.failed, span.lasted_s) == (SERVER, "", False, 0.0)
    assert span.links == ((OPENING.trace_id, OPENING.parent_id),)
    assert span.said == {
        "gateway.command": "rpc",
        "gateway.client": alice.side.id,
        "gateway.outcome": "ok",
        "client.address": "192.0.2.1",
        "network.protocol.name": "websocket",
        "rpc.system.name": "gateway",
        "rpc.method": "table.drop",
        "session.id": alice.session,
        "user.id": "alice",
    }
    passed = house.passed("POST /table")
    assert (passed.trace_id, passed.parent_id, passed.sampled) == (span.trace, span.id, True)


def test_commands_that_ask_several_backends_are_one_trace() -> None:
    """
    The decision and the snapshot of a subscription, and what is asked before a client is let in, are below their command.
    """
    house = Traced()
    alice = house.opened()
    alice.reply(connect={"token": "alice"})
    connect = house.told.one("connect")
    assert house.passed("POST /connect").parent_id == connect.id
    alice.reply(subscribe={"channel": "chat:1"})
    subscribe = house.told.one("subscribe chat:{room}")
    assert subscribe.said["messaging.destination.name"] == "chat:1"
    assert {house.passed("POST /may").parent_id, house.passed("POST /state").parent_id} == {subscribe.id}
    assert subscribe.trace != connect.trace


def test_a_publication_carries_its_trace_to_every_instance() -> None:
    """
    From a client's command by the backend that allows it to the delivery on two instances: one trace.
    """
    house = Traced()
    alice, bob, carol = house.inside(), house.inside("bob"), house.connected("carol", node=house.add())
    for person in (alice, bob, carol):
        person.reply(subscribe={"channel": "open"})
    house.told.seen()
    alice.reply(publish={"channel": "open", "data": {"text": "hi"}})
    first, second, produced, command = house.told.seen()
    assert (command.name, command.kind, produced.name, produced.kind) == (
        "publish open",
        SERVER,
        "publish open",
        PRODUCER,
    )
    assert house.passed("POST /say").parent_id == produced.parent == command.id
    assert {first.name, second.name} == {"deliver open"}
    assert {first.kind, second.kind} == {CONSUMER}
    assert {first.parent, second.parent} == {produced.id}
    assert len({span.trace for span in (first, second, produced, command)}) == 1
    assert sorted((first.said["gateway.deliveries"], second.said["gateway.deliveries"])) == [1, 2]
    assert produced.said["messaging.message.body.size"] == len('{"text": "hi"}')


def test_what_is_not_recorded_is_not_even_carried() -> None:
    """
    Without a draw there are no spans, publications carry nothing, and backends are given traces that say so.
    """
    house = Traced(sample=0.0)
    alice = house.inside()
    alice.reply(subscribe={"channel": "open"})
    alice.reply(publish={"channel": "open", "data": 1})
    alice.reply(rpc={"method": "table.drop", "data": {}})
    assert house.told.seen() == []
    first, second = house.passed("POST /say"), house.passed("POST /table")
    assert (first.sampled, second.sampled) == (False, False)
    assert first.trace_id != second.trace_id


def test_large_fan_outs_are_told_seldom() -> None:
    """
    Up to ten subscribers every fan-out is told, to a hundred each tenth: the larger, the fewer spans.
    """
    house = Traced()
    match = house.node.rules.channels.match("open")
    assert match is not None

    def deliveries(subscribers: int) -> int:
        while len(house.people) < subscribers:
            house.connected(f"u{len(house.people)}").reply(subscribe={"channel": "open"})
        house.told.seen()
        for number in range(400):
            house.clock.advance(0.1)
            trace = house.told.spans.begin()
            Deferred.fromCoroutine(house.node.publish(match, b"%d" % number, trace=trace))
        return sum(span.name == "deliver open" for span in house.told.seen())

    assert deliveries(10) == 400
    assert 15 < deliveries(100) < 80


@pytest.mark.parametrize("believed", [False, True])
def test_a_context_in_a_command(believed: bool) -> None:
    """
    What a client says of its own trace is a link; only that of a trusted peer itself is continued.
    """
    house = Traced()
    alice = house.opened(believed=believed)
    alice.reply(connect={"token": "alice", "headers": {"traceparent": THEIRS}})
    connect = house.told.one("connect")
    alice.reply(rpc={"method": "table.drop", "data": {"traceparent": THEIRS}})
    drop = house.told.one("rpc table.*")
    for span in (connect, drop):
        assert (span.trace == TRACE) is believed
        assert span.parent == (SPAN if believed else "")
        assert ((TRACE, SPAN) in span.links) is not believed
        assert (OPENING.trace_id, OPENING.parent_id) in span.links
    assert (house.passed("POST /table").trace_id == TRACE) is believed


def test_a_believed_context_that_is_not_recorded_is_passed_on() -> None:
    """
    A trusted peer's decision not to record holds, whatever the share is; backends hear of its trace all the same.
    """
    house = Traced()
    alice = house.inside(believed=True)
    alice.reply(rpc={"method": "table.drop", "data": {"traceparent": THEIRS[:-1] + "0"}})
    assert house.told.seen() == []
    passed = house.passed("POST /table")
    assert (passed.trace_id, passed.sampled) == (TRACE, False)
    house.told.spans.configure(None, 0.0, ())
    alice.reply(rpc={"method": "table.drop", "data": {"traceparent": THEIRS}})
    assert house.passed("POST /table").header() == THEIRS.encode()


@pytest.mark.parametrize("text", ["", "00-xyz", 7, None, ["a"], "ä" * 55])
def test_nonsense_in_a_command_is_nothing(text: Any) -> None:
    """
    Whatever a client writes where a context could stand, its command is done and recorded.
    """
    house = Traced()
    alice = house.inside(believed=True)
    assert alice.reply(rpc={"method": "table.drop", "data": {"traceparent": text}})["rpc"]
    assert len(house.told.one("rpc table.*").links) == 1


def test_chosen_users_are_recorded() -> None:
    """
    Of a chosen user every command is recorded, of others none; also ``connect`` where the opening said who it is.
    """
    house = Traced(sample=0.0, users=("alice",))
    alice, bob = house.inside(), house.inside("bob")
    alice.reply(rpc={"method": "table.drop", "data": {}})
    bob.reply(rpc={"method": "table.drop", "data": {}})
    assert house.told.one("rpc table.*").said["user.id"] == "alice"
    carol = house.opened(identity=Identity("alice", "test", START + 3600))
    carol.reply(connect={})
    assert house.told.one("connect").said["user.id"] == "alice"


def test_every_end_is_told_once() -> None:
    """
    Refusals are no errors, faults behind the gateway are; a command that its client did not wait for ended, too.
    """
    house = Traced()
    stranger = house.opened()
    stranger.ask(connect={"token": "bad"})
    refused = house.told.one("connect")
    assert (refused.said["error.type"], refused.failed) == ("3500", False)
    alice = house.inside()
    assert "error" in alice.reply(rpc={"method": "unknown", "data": {}})
    unknown = house.told.one("rpc")
    assert (unknown.said["rpc.method"], unknown.said["error.type"], unknown.failed) == ("_OTHER", "104", False)
    house.answers["POST /slow"] = RuntimeError("away")
    alice.reply(rpc={"method": "slow", "data": {}})
    failed = house.told.one("rpc slow")
    assert (failed.said["error.type"], failed.failed) == ("100", True)
    alice.say({"send": {"data": {}}})
    assert house.told.one("send").said["gateway.outcome"] == "ok"
    house.answers["POST /slow"] = Deferred()
    alice.ask(rpc={"method": "slow", "data": {}})
    house.clock.advance(2)
    assert house.told.seen() == []
    alice.leave()
    slow, gone = house.told.seen()
    assert (slow.name, slow.said["error.type"], round(slow.lasted_s)) == ("rpc slow", "closed", 2)
    assert (gone.name, gone.kind) == ("on_disconnect", INTERNAL)


def test_what_backends_are_told_is_traced() -> None:
    """
    The end of a connection is told in a trace of its own, linked to its opening.
    """
    house = Traced()
    alice = house.inside()
    alice.leave()
    span = house.told.one("on_disconnect")
    assert house.passed("POST /gone").parent_id == span.id
    assert span.links == ((OPENING.trace_id, OPENING.parent_id),)


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_a_backend_s_order_continues_its_trace(over: str) -> None:
    """
    Whoever has a key is believed: the operation, the publication and its delivery are below the backend's span.
    """
    house = Traced(sample=0.0)
    alice = house.inside()
    alice.reply(subscribe={"channel": "open"})
    operations = Operations(house.node)
    theirs = parse(THEIRS.encode(), [b"rojo=1"])
    for name, order in (
        ("publish", {"channel": "open", "data": 1}),
        ("broadcast", {"channels": ["open"], "data": 1}),
        ("batch", {"commands": [{"publish": {"channel": "open", "data": 1}}]}),
    ):
        house.clock.advance(1)
        done = Deferred.fromCoroutine(
            operations.do(name, json.dumps(order).encode(), Key("k", ("*",)), theirs, over=over)
        )
        assert done.called
        deliver, produced, operation = house.told.seen()
        assert (operation.trace, operation.parent, operation.kind) == (TRACE, SPAN, SERVER)
        assert operation.name == (f"POST /api/{name}" if over == "http" else f"gateway.v1.GatewayApi/{name.title()}")
        assert operation.said["gateway.key"] == "k"
        assert (produced.parent, deliver.parent) == (operation.id, produced.id)
        assert {produced.trace, deliver.trace} == {TRACE}
    Deferred.fromCoroutine(operations.do("publish", b'{"channel": "open", "data": 1}', Key("k", ("*",))))
    assert house.told.seen() == []


def test_orders_that_fail_are_told() -> None:
    """
    The error's code is the span's; the name of an operation that there is not is told to nobody.
    """
    house = Traced()
    operations = Operations(house.node)
    for name in ("publish", "x" * 100):
        failing = Deferred.fromCoroutine(operations.do(name, b"{}", Key("k", ("*",))))
        failing.addErrback(lambda _: None)
    wrong, unknown = house.told.seen()
    assert (wrong.said["error.type"], wrong.failed) == ("107", False)
    assert unknown.name == "POST /api/_OTHER"
