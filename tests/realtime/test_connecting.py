"""
Who is let in, and what happens to those who are not.
"""

from typing import Any

import pytest
from tests.realtime.house import BASE, House
from twisted.internet.defer import Deferred

from gateway.core.identity import Identity, Revocation
from gateway.core.verdicts import ClientError, CloseReason

CHANNELS = """
[channels.lobby]
subscribe = "authenticated"
history = { size = 10, ttl = "5m" }

[channels."user:{user_id}"]
subscribe = "channel.user_id == claims.sub"
server_side = true
history = { size = 10, ttl = "5m" }

[rpc.echo]
echo = true

[rpc.call]
upstream = "backend"
http = "POST /call"
"""


def test_a_connect_reply_tells_what_an_sdk_needs() -> None:
    """
    Client id, lifetime, ping interval, server-side subscriptions, session and node.
    """
    house = House(CHANNELS)
    alice = house.come()
    reply = alice.reply(connect={"token": "alice;ttl=60", "name": "js"})["connect"]
    assert reply["expires"] is True
    assert reply["ttl"] == 60
    assert reply["ping"] == 25
    assert reply["pong"] is True
    assert len(reply["client"]) == 32
    assert reply["session"] != reply["client"]
    assert reply["node"] == "node-1"
    assert list(reply["subs"]) == ["user:alice"]
    assert house.witness.events == [("started", reply["session"], "alice")]


@pytest.mark.parametrize("token", ["", "bad", "alice;jti=stolen"])
def test_without_a_good_token_nobody_is_let_in(token: str) -> None:
    """
    A missing, false or revoked token closes the connection with a code that ends the SDK's attempts.
    """
    house = House(CHANNELS)
    house.revocations.add(Revocation(house.wall() + 3600, token_id="stolen"))
    person = house.enter(token)
    assert person.told() == []
    assert person.wire.closed == (3500, "invalid token")
    assert house.node.clients == {}
    assert house.witness.events == []


def test_an_expired_token_is_told_so_and_may_be_replaced_on_the_same_connection() -> None:
    """
    Error 109 makes SDKs fetch a newer token; connecting again works.
    """
    person = House(CHANNELS).come()
    assert person.reply(connect={"token": "alice;ttl=-1"})["error"]["code"] == 109
    assert person.wire.closed is None
    assert "connect" in person.reply(connect={"token": "alice"})


@pytest.mark.parametrize(
    "first",
    [
        {"id": 1, "rpc": {"method": "call", "data": {}}},
        {"id": 1, "subscribe": {"channel": "lobby"}},
        {"id": 1, "publish": {"channel": "lobby", "data": {}}},
        {"id": 1, "history": {"channel": "lobby"}},
        {"id": 1, "ping": {}},
        {"connect": {"token": "alice"}},
        {"send": {"data": {}}},
        {},
    ],
)
def test_nothing_is_done_before_connect(first: dict[str, Any]) -> None:
    """
    Whatever else comes first closes the connection, and no backend hears of it.
    """
    house = House(CHANNELS, {"POST /call": {}})
    person = house.come()
    person.say(first)
    assert person.wire.closed == (3501, "bad request")
    assert house.backends["POST /call"].calls == []


def test_a_silent_connection_is_closed_after_its_time() -> None:
    """
    Five seconds without being authenticated: code 3502, and nothing of it stays.
    """
    house = House(CHANNELS)
    people = [house.come() for _ in range(50)]
    house.pass_time(4.75)
    assert [person.wire.closed for person in people] == [None] * 50
    house.pass_time(0.75)
    assert {person.wire.closed for person in people} == {(3502, "stale")}
    assert not house.node.opening


def test_commands_in_the_same_frame_as_connect_are_honoured_in_order() -> None:
    """
    What was sent before the reply could be read runs after it.
    """
    person = House(CHANNELS).come()
    person.say(
        {"id": 1, "connect": {"token": "alice"}},
        {"id": 2, "subscribe": {"channel": "lobby"}},
        {"id": 3, "rpc": {"method": "echo", "data": 7}},
    )
    told = person.told()
    assert [message["id"] for message in told] == [1, 2, 3]
    assert [next(iter(message.keys() - {"id"})) for message in told] == ["connect", "subscribe", "rpc"]


def test_connecting_twice_is_a_fault_of_the_client() -> None:
    """
    A second connect closes with 3501.
    """
    alice = House(CHANNELS).connected()
    alice.ask(connect={"token": "alice"})
    assert alice.wire.closed == (3501, "bad request")


@pytest.mark.parametrize("frame", [b"no json", b'{"id":1', b"[]", b'{"id":1,"rpc":7}', b"\xff\xfe", b'{"id":"x"}'])
def test_what_is_not_of_the_protocol_closes_the_connection(frame: bytes) -> None:
    """
    Code 3501, whatever the bytes are, and no exception reaches the edge.
    """
    alice = House(CHANNELS).connected()
    alice.side.received(frame)
    assert alice.wire.closed == (3501, "bad request")


def test_a_token_that_came_with_the_opening_is_enough() -> None:
    """
    The edge verified it; connect needs none. Another one in connect must be the same person's.
    """
    house = House(CHANNELS)
    identity = Identity("alice", "test", house.wall() + 60, claims={"sub": "alice"})
    assert "connect" in house.come(identity=identity).reply(connect={})
    assert "connect" in house.come(identity=identity).reply(connect={"token": "alice"})
    other = house.enter("bob", identity=identity)
    assert other.wire.closed == (3500, "invalid token")


def test_an_opening_identity_is_looked_at_again_when_it_connects() -> None:
    """
    Revoked or ended between the handshake and connect: refused.
    """
    house = House(CHANNELS)
    identity = Identity("alice", "test", house.wall() + 2, token_id="t1", claims={"sub": "alice"})
    late = house.come(identity=identity)
    revoked = house.come(identity=Identity("bob", "test", house.wall() + 60, token_id="t2", claims={"sub": "bob"}))
    house.revocations.add(Revocation(house.wall() + 60, token_id="t2"))
    house.pass_time(3)
    late.ask(connect={})
    revoked.ask(connect={})
    assert late.wire.closed == revoked.wire.closed == (3500, "invalid token")


def test_anonymous_connections_are_let_in_only_where_that_is_written() -> None:
    """
    They have no subject, the configured claims, and only what is open to anybody.
    """
    text = """
    [channels.news]
    subscribe = "anybody"
    [channels.lobby]
    subscribe = "authenticated"
    [channels.guests]
    subscribe = "claims.role == 'guest'"
    [rpc.echo]
    echo = true
    [rpc.free]
    echo = true
    anonymous = true
    """
    base = BASE + 'anonymous = true\nanonymous_claims = { role = "guest" }\n'
    house = House(text, base=base)
    guest = house.come()
    reply = guest.reply(connect={})["connect"]
    assert "expires" not in reply
    assert "subscribe" in guest.reply(subscribe={"channel": "news"})
    assert "subscribe" in guest.reply(subscribe={"channel": "guests"})
    assert guest.reply(subscribe={"channel": "lobby"})["error"]["code"] == 101
    assert guest.reply(rpc={"method": "echo", "data": 1})["error"]["code"] == 101
    assert guest.reply(rpc={"method": "free", "data": 1})["rpc"] == {"data": 1}
    assert guest.reply(refresh={"token": "alice"})["error"]["code"] == 107
    assert house.enter("bad").wire.closed == (3500, "invalid token")


def test_a_user_has_at_most_so_many_connections() -> None:
    """
    One beyond the limit is closed with 3504; after one left there is room again; others are not counted.
    """
    house = House("[limits]\nconnections_per_user = 2\n" + CHANNELS)
    first, _ = house.connected(), house.connected()
    assert house.enter().wire.closed == (3504, "connection limit")
    house.connected("bob")
    first.leave()
    house.connected()


def test_closing_while_a_token_is_verified_leaves_nothing() -> None:
    """
    A client that goes while its keys are fetched is not let in afterwards.
    """
    house = House(CHANNELS)
    waiting: Deferred[Identity] = Deferred()
    house.node.identities._authenticate = lambda token, now: waiting  # noqa: ARG005
    person = house.enter()
    person.lose()
    if not waiting.called:
        waiting.callback(Identity("alice", "test", house.wall() + 60))
    assert house.node.clients == {}
    assert house.node.users == {}
    assert house.witness.events == []


HOOK = (
    CHANNELS
    + """
[realtime]
on_connect = { upstream = "backend", http = "POST /connect" }
"""
)


def test_on_connect_may_give_data_and_channels() -> None:
    """
    What it answers reaches the client, and its channels are subscribed without asking their rule.
    """
    house = House(HOOK, {"POST /connect": {"data": {"motd": "hi"}, "channels": ["lobby", "nowhere"]}})
    reply = house.come().reply(connect={"token": "alice", "data": {"app": 3}})["connect"]
    assert reply["data"] == {"motd": "hi"}
    assert set(reply["subs"]) == {"user:alice", "lobby"}
    facts, body, identity = house.backends["POST /connect"].calls[0]
    assert facts["client"]["user"] == "alice"
    assert b'"app":3' in body
    assert identity is not None


@pytest.mark.parametrize(
    ("failure", "closed", "code"),
    [
        (ClientError(103, "banned"), (3507, "permission denied"), None),
        (ClientError(100, "away", temporary=True), None, 100),
    ],
)
def test_on_connect_may_veto(failure: ClientError, closed: Any, code: int | None) -> None:
    """
    A refusal closes for good; a backend that is away is a temporary error. No session begins.
    """
    house = House(HOOK, {"POST /connect": failure})
    person = house.enter()
    assert person.wire.closed == closed
    told = person.told()
    assert [message["error"]["code"] for message in told] == ([code] if code else [])
    assert house.witness.events == []


def test_a_client_that_leaves_while_it_is_asked_about_cancels_the_call() -> None:
    """
    The backend's answer is of no use any more.
    """
    cancelled: list[bool] = []
    house = House(HOOK, {"POST /connect": Deferred(lambda _: cancelled.append(True))})
    house.enter().lose()
    assert cancelled == [True]
    assert house.node.clients == {}
    assert house.node.users == {}


def test_a_refresh_extends_the_connection_and_nobody_else_may_take_it_over() -> None:
    """
    R4: with newer tokens it lives on; another subject's token closes it for good.
    """
    house = House(CHANNELS)
    alice = house.connected("alice;ttl=10")
    for _ in range(5):
        house.pass_time(8)
        assert alice.reply(refresh={"token": "alice;ttl=10"})["refresh"]["ttl"] == 10
    assert alice.wire.closed is None
    assert alice.reply(refresh={"token": "alice;ttl=-5"})["error"]["code"] == 109
    alice.ask(refresh={"token": "bob"})
    assert alice.wire.closed == (3500, "invalid token")


def test_an_expired_connection_is_closed_after_its_grace_and_commands_no_longer_reach_backends() -> None:
    """
    R5: exp + 25 s, code 3005, with which SDKs come back with a newer token.
    """
    house = House(CHANNELS, {"POST /call": {"ok": True}}, base=BASE + 'ping = "1h"\n')
    alice = house.connected("alice;ttl=10")
    house.pass_time(34)
    assert alice.wire.closed is None
    assert "rpc" in alice.reply(rpc={"method": "call", "data": {}})
    house.pass_time(2)
    assert alice.wire.closed == (3005, "connection expired")
    asked = len(house.backends["POST /call"].calls)
    alice.ask(rpc={"method": "call", "data": {}})
    assert len(house.backends["POST /call"].calls) == asked


def test_a_command_after_the_grace_closes_at_once() -> None:
    """
    Even if the timer has not come round yet.
    """
    house = House(CHANNELS, {"POST /call": {}})
    alice = house.connected("alice;ttl=10")
    house.clock.rightNow += 36
    alice.ask(rpc={"method": "call", "data": {}})
    assert alice.wire.closed == (3005, "connection expired")
    assert house.backends["POST /call"].calls == []


def test_a_revoked_token_closes_live_connections() -> None:
    """
    By its id, its session and its subject, at once; others of the same subject with a newer token stay.
    """
    house = House(CHANNELS)
    tokens = ("a;jti=1", "a;jti=1", "b;jti=2", "c;sid=3;jti=3", "d;jti=4")
    people = [house.connected(token) for token in tokens]
    until = house.wall() + 3600
    house.revocations.add(Revocation(until, token_id="1"))
    house.revocations.add(Revocation(until, subject="b", issued_before=house.wall() + 1))
    house.revocations.add(Revocation(until, token_id="3"))
    house.revocations.add(Revocation(until, subject="d", issued_before=house.wall() - 1))
    assert [person.wire.closed for person in people] == [(3500, "invalid token")] * 4 + [None]
    assert len(house.node.holders) == 1


def test_a_refreshed_connection_is_found_by_its_newer_token() -> None:
    """
    The token that it was let in with means it no more, the one that it lives by does.
    """
    house = House(CHANNELS)
    person = house.connected("a;jti=1")
    assert "refresh" in person.reply(refresh={"token": "a;jti=2"})
    house.revocations.add(Revocation(house.wall() + 60, token_id="1"))
    assert person.wire.closed is None
    house.revocations.add(Revocation(house.wall() + 60, token_id="2"))
    assert person.wire.closed == (3500, "invalid token")
    assert len(house.node.holders) == 0


def test_nothing_is_kept_of_those_who_left() -> None:
    """
    Whatever ends a connection, also one that is not let in yet, nothing of its token is kept.
    """
    answer: Deferred[Any] = Deferred()
    house = House(
        CHANNELS + '[realtime.on_connect]\nupstream = "backend"\nhttp = "POST /connect"\n', {"POST /connect": answer}
    )
    waiting = house.enter("a;jti=1;sid=1")
    assert len(house.node.holders) == 1
    house.revocations.add(Revocation(house.wall() + 60, token_id="1"))
    assert waiting.wire.closed == (3500, "invalid token")
    house.answers["POST /connect"] = {}
    people = [house.connected(f"a;jti=2;sid=s{number % 2}") for number in range(4)]
    assert len(house.node.holders) == 3
    people[0].lose()
    people[1].leave()
    people[2].side.close(CloseReason.SLOW.closing)
    assert len(house.node.holders) == 2
    people[3].lose()
    assert len(house.node.holders) == 0


def test_pings_begin_at_random_and_silence_is_closed() -> None:
    """
    R38: the first ping comes somewhere within the interval; no pong within its time is code 3012.
    """
    house = House(CHANNELS)
    people = [house.connected(f"p{number}") for number in range(40)]
    for person in people:
        person.answers_pings = False
    first: list[float] = []
    for quarter in range(100):
        house.pass_time(0.25)
        for person in people:
            if {} in person.told():
                first.append(quarter / 4)
                person.answers_pings = person is not people[0]
    assert len(first) == 40
    assert min(first) < 5 < 20 < max(first)
    silent = people[0]
    house.pass_time(40)
    assert silent.wire.closed == (3012, "no pong")
    assert {person.wire.closed for person in people[1:]} == {None}


def test_a_busy_connection_is_not_pinged() -> None:
    """
    Whoever speaks and is spoken to has shown that it lives.
    """
    house = House(CHANNELS)
    alice = house.connected()
    alice.reply(subscribe={"channel": "lobby"})
    pings = 0
    for _ in range(120):
        house.publish("lobby", 1)
        house.pass_time(1)
        pings += alice.told().count({})
        alice.reply(rpc={"method": "echo", "data": 1})
    assert pings == 0
    assert alice.wire.closed is None


def test_stopping_closes_everybody_with_a_code_to_come_back() -> None:
    """
    Code 3001, and what was sent before goes out first.
    """
    house = House(CHANNELS)
    alice, waiting = house.connected(), house.come()
    Deferred.fromCoroutine(house.node.stop())
    assert alice.wire.closed == waiting.wire.closed == (3001, "shutdown")
    assert not house.node.clients
