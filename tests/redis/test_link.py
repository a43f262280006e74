"""
The link to one Redis: found, lost, hung, refused, and what is known after it is back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import least_rights, link
from tests.redis.server import RedisServer
from tests.web.harness import pause
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from gateway.config.fields import Secret
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import all_of
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.scripts import Script


@dataclass
class Hearing:
    """Keeps what came of topics, and when Redis went and came."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    __hash__ = object.__hash__

    def message(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def gap(self, topics: Sequence[str]) -> None:
        self.gaps.extend(topics)

    def lost(self) -> None:
        self.told.append("lost")

    def back(self) -> None:
        self.told.append("back")


async def until(look: Any, within_s: float = 10.0) -> None:
    from twisted.internet import reactor

    for _ in range(int(within_s / 0.02)):
        if look():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("not in time")


@pytest_twisted.ensureDeferred
async def test_commands_of_a_turn_are_answered_in_order(redis: Any) -> None:
    """
    Commands sent in one turn get each its own answer, in bytes and numbers as Redis gives them.
    """
    key = redis.keys.one("k")
    answers = [
        Deferred.fromCoroutine(redis.call("SET", key, b"\x00\xff12")),
        Deferred.fromCoroutine(redis.call("GET", key)),
        Deferred.fromCoroutine(redis.call("INCR", key + "n")),
        Deferred.fromCoroutine(redis.call("GET", key + "n")),
        Deferred.fromCoroutine(redis.call("MGET", key, key + "none")),
    ]
    assert await all_of(answers) == [b"OK", b"\x00\xff12", 1, b"1", [b"\x00\xff12", None]]


@pytest_twisted.ensureDeferred
async def test_errors_are_told_apart(redis: Any) -> None:
    """
    What Redis refuses for now is a store that is not available; what it does not understand is a fault.
    """
    await redis.call("SET", redis.keys.one("k"), "text")
    with pytest.raises(RedisFault, match="WRONGTYPE"):
        await redis.call("HGET", redis.keys.one("k"), "field")
    refusing = Script("refusing", b"return redis.error_reply('OOM not now')")
    with pytest.raises(RedisRefused) as refused:
        await redis.run(refusing, [redis.keys.one("k")], [])
    assert refused.value.code == "OOM"
    assert await redis.call("GET", redis.keys.one("k")) == b"text"


@pytest_twisted.ensureDeferred
async def test_a_script_is_sent_once(redis: Any) -> None:
    """
    A script runs by its digest; a server that has forgotten it is given it again.
    """
    script = Script("echo", b"return {KEYS[1], ARGV[1], '%s'}" % secrets.token_hex(4).encode())
    key = redis.keys.one("k")
    for value in (b"1", b"2"):
        assert (await redis.run(script, [key], [value]))[:2] == [key.encode(), value]
    await redis.call("SCRIPT", "FLUSH")
    assert (await redis.run(script, [key], [b"3"]))[1] == b"3"


@pytest_twisted.ensureDeferred
async def test_topics_bring_messages_in_order(redis: Any) -> None:
    """
    What is published after a subscription was confirmed comes, in order, to its receiver alone.
    """
    one, two = Hearing(), Hearing()
    await redis.subscribe("a", one)
    await redis.subscribe("b", two)
    for number in range(50):
        await redis.call("SPUBLISH", "a", f"{number}")
    await redis.call("SPUBLISH", "b", b"\x00\xff")
    await until(lambda: len(one.messages) == 50 and two.messages)
    assert one.messages == [("a", b"%d" % number) for number in range(50)]
    assert two.messages == [("b", b"\x00\xff")]
    await redis.unsubscribe("a")
    assert await redis.call("SPUBLISH", "a", "x") == 0


@pytest_twisted.ensureDeferred
async def test_answers_may_look_like_messages(redis: Any) -> None:
    """
    A list is the answer to its command, whatever it begins with: only connections for topics are pushed to.
    """
    key = redis.keys.one("k")
    await redis.call("RPUSH", key, "ssubscribe", "smessage", 0)
    assert await redis.call("LRANGE", key, 0, -1) == [b"ssubscribe", b"smessage", b"0"]
    lists = Script("lists", b"return {{'message', KEYS[1]}, {}}")
    assert await redis.run(lists, [key], []) == [[b"message", key.encode()], []]


@pytest_twisted.ensureDeferred
async def test_a_killed_server_is_found_again(tmp_path: Path) -> None:
    """
    Without a server calls fail at once; when it is back topics are heard again and each receiver knows of its gap.
    """
    server = RedisServer(tmp_path).start()
    events: list[tuple[str, dict[str, Any]]] = []
    redis = await link(server.url, events=events)
    try:
        hearing = Hearing()
        redis.watch(hearing)
        await redis.subscribe("a", hearing)
        await redis.subscribe("b", hearing)
        await redis.unsubscribe("b")
        server.kill()
        await until(lambda: not redis.available)
        with pytest.raises(StoreUnavailable):
            await redis.call("PING")
        with pytest.raises(StoreUnavailable):
            await redis.subscribe("c", hearing)
        server.start()
        await until(lambda: redis.available and hearing.gaps)
        assert hearing.told == ["lost", "back"]
        assert hearing.gaps == ["a"]
        await redis.call("SPUBLISH", "a", "again")
        await until(lambda: hearing.messages)
        assert await redis.call("PUBSUB", "SHARDCHANNELS") == [b"a"]
        assert [name for name, _ in events if name != "store.away"] == [
            "store.connected",
            "store.lost",
            "store.went_back",
            "store.connected",
        ]
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_hanging_server_is_found(tmp_path: Path) -> None:
    """
    A server that keeps its connections and says nothing is taken for lost, by those who wait and when nobody asks.
    """
    server = RedisServer(tmp_path).start()
    redis = await link(server.url, timeout_s=0.5)
    try:
        for asks in (True, False):
            hearing = Hearing()
            redis.watch(hearing)
            server.pause()
            if asks:
                with pytest.raises(StoreUnavailable):
                    await redis.call("PING")
            await until(lambda: not redis.available and not redis.hearing)  # noqa: B023
            server.resume()
            await until(lambda: redis.available and redis.hearing)
            assert hearing.told == ["lost", "back"]  # noqa: B023
    finally:
        server.resume()
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_slow_server_is_not_lost(tmp_path: Path) -> None:
    """
    Half a second of latency delays answers and loses nothing.
    """
    server = RedisServer(tmp_path).start()
    redis = await link(server.url, timeout_s=2.0)
    try:
        blocked = Deferred.fromCoroutine(redis.call("DEBUG", "SLEEP", "0.5"))
        answer = Deferred.fromCoroutine(redis.call("PING"))
        blocked.addErrback(lambda _: None)
        assert await answer == b"PONG"
        assert redis.losses == 0
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_who_we_are(tmp_path: Path) -> None:
    """
    A password and an ACL user open the server; a wrong one is told by name, and tried again.
    """
    users = tmp_path / "users"
    users.write_text("user default off\nuser gate on >secret ~* &* +@all\n")
    server = RedisServer(tmp_path, ["--aclfile", str(users)]).start()
    redis = await link(server.url + "/3", username="gate", password=Secret("secret"))
    try:
        await redis.call("SET", redis.keys.one("k"), 1)
        assert b"db=3" in await redis.call("CLIENT", "INFO")
    finally:
        await redis.stop()
    events: list[tuple[str, dict[str, Any]]] = []
    with pytest.raises(AssertionError, match="WRONGPASS"):
        await link(server.url, username="gate", password=Secret("wrong"), events=events, within_s=1.0)
    assert [name for name, _ in events] == ["store.lost"]
    server.stop()


@pytest_twisted.ensureDeferred
async def test_the_least_rights(tmp_path: Path) -> None:
    """
    A user with the rights that are documented is served, and refused what is not its own; what it may not ask is not promised.
    """
    server = RedisServer(tmp_path, ["--appendonly", "yes", "--appendfsync", "always"]).start()
    account: dict[str, Any] = {"username": "gate", "password": Secret("secret")}
    for less in ((), ("-config|get",)):
        server.ask("ACL", "SETUSER", "gate", "on", ">secret", *least_rights("mine:"), *less)
        redis = await link(server.url, "mine", **account)
        try:
            await redis.call("SET", redis.keys.one("k"), 1)
            for refused in (("GET", "other:1:{k}"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "SET", "save", "")):
                with pytest.raises(RedisRefused, match="NOPERM"):
                    await redis.call(*refused)
            with pytest.raises(RedisRefused, match="NOPERM"):
                await redis.subscribe("other:1:{k}", Hearing())
            before = redis.chain
            server.kill()
            server.start()
            server.ask("ACL", "SETUSER", "gate", "on", ">secret", *least_rights("mine:"), *less)
            await until(lambda: redis.losses and redis.available)  # noqa: B023
            assert (redis.chain == before) is (not less)
        finally:
            await redis.stop()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket(tmp_path: Path) -> None:
    """
    A server behind a socket file is as good as one behind a port.
    """
    path = tmp_path / "r.sock"
    server = RedisServer(tmp_path, ["--unixsocket", str(path)]).start()
    redis = await link(f"redis+unix://{path}")
    try:
        assert await redis.call("PING") == b"PONG"
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_full_server_is_tried_again(tmp_path: Path) -> None:
    """
    A server with no room for connections is not there; once it has room it is.
    """
    server = RedisServer(tmp_path).start()
    redis = await link(server.url)
    server.ask("CONFIG", "SET", "maxclients", "2")
    events: list[tuple[str, dict[str, Any]]] = []
    with pytest.raises(AssertionError, match="max number of clients"):
        await link(server.url, events=events, within_s=1.0)
    await redis.call("CONFIG", "SET", "maxclients", "100")
    other = await link(server.url)
    await other.stop()
    await redis.stop()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_whose_memory_is_full(tmp_path: Path) -> None:
    """
    What would grow is refused by a server whose memory is full, as ``OOM``; it is connected to all the same, read and heard.
    """
    server = RedisServer(tmp_path).start()
    redis = await link(server.url, "p")
    try:
        await redis.call("SET", redis.keys.one("k"), 1)
        chain = redis.chain
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: redis.losses == 1 and redis.available and redis.hearing)
        assert await redis.call("GET", redis.keys.one("k")) == b"1"
        hearing = Hearing()
        await redis.subscribe("a", hearing)
        with pytest.raises(RedisRefused) as refused:
            await redis.call("SET", redis.keys.one("k"), 2)
        assert refused.value.code == "OOM"
        await pause(1.2)
        assert redis.losses == 1
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await redis.call("SET", redis.keys.one("k"), 2)
        await pause(1.2)
        assert (redis.chain, redis.losses) == (chain, 1)
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_restart_without_a_file_begins_a_new_chain(tmp_path: Path) -> None:
    """
    A server that may have lost what it acknowledged begins a new chain, the same one for all who see it.
    """
    server = RedisServer(tmp_path).start()
    one, two = await link(server.url, "p"), await link(server.url, "p")
    try:
        before = one.chain
        assert two.chain == before
        server.kill()
        server.start()
        await until(lambda: one.losses and two.losses and one.available and two.available)
        assert one.chain == two.chain != before
        assert int(one.chain.split("-")[0]) > int(before.split("-")[0])
    finally:
        await one.stop()
        await two.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_restart_that_loses_nothing_goes_on(tmp_path: Path) -> None:
    """
    A server that writes its file before it answers keeps its chain over kill -9; an older file put back ends it.
    """
    server = RedisServer(tmp_path, ["--appendonly", "yes", "--appendfsync", "always"]).start()
    redis = await link(server.url)
    try:
        before = redis.chain
        server.kill()
        saved = {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
        server.start()
        await until(lambda: redis.losses == 1 and redis.available)
        assert redis.chain == before
        server.kill()
        for path, content in saved.items():
            path.write_bytes(content)
        server.start()
        await until(lambda: redis.losses == 2 and redis.available)
        assert redis.chain != before
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_another_schema_is_refused(redis_server: RedisServer) -> None:
    """
    Data of a release with another schema is left alone, and the reason told.
    """
    redis = await link(redis_server.url, "elder")
    await redis.call("HSET", redis.keys.one("lineage"), "schema", "7")
    await redis.stop()
    with pytest.raises(AssertionError, match="schema 7 of another release"):
        await link(redis_server.url, "elder", within_s=1.0)
    redis = await link(redis_server.url, "other")
    await redis.call("DEL", "elder:1:{lineage}")
    await redis.stop()


@pytest_twisted.ensureDeferred
async def test_what_waits_is_bounded(redis_server: RedisServer) -> None:
    """
    Commands beyond the bound are refused at once, and those before are answered.
    """
    redis = await link(redis_server.url, timeout_s=10.0)
    half = b"x" * (40 * 1024 * 1024)
    first = Deferred.fromCoroutine(redis.call("ECHO", half))
    with pytest.raises(StoreUnavailable, match="too much"):
        await redis.call("ECHO", half)
    assert await first == half
    await redis.stop()


@pytest.mark.parametrize("password", ["", "secret"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_when_it_is_called(tmp_path: Path, password: str) -> None:
    """
    Connections that are made and never answered, also while we say who we are, are given up and made again.
    """
    server = RedisServer(tmp_path, ["--requirepass", password], password=password).start()
    secret = Secret(password) if password else None
    redis = await link(server.url, password=secret, timeout_s=0.3)
    try:
        server.pause()
        await until(lambda: not redis.available and not redis.hearing)
        await pause(1.0)
        server.resume()
        await until(lambda: redis.available and redis.hearing)
    finally:
        server.resume()
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_password_that_is_set_right(tmp_path: Path) -> None:
    """
    A password that is refused is tried again, and good once the server knows it.
    """
    server = RedisServer(tmp_path, ["--requirepass", "other"], password="other").start()
    events: list[tuple[str, dict[str, Any]]] = []
    with pytest.raises(AssertionError, match="WRONGPASS"):
        await link(server.url, password=Secret("secret"), events=events, within_s=1.0)
    redis = await link(server.url, password=Secret("other"))
    try:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        server.password = "secret"
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: not redis.available)
        await pause(0.5)
        server.ask("CONFIG", "SET", "requirepass", "other")
        server.password = "other"
        await until(lambda: redis.available)
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_a_reactor_that_stood_still(redis: Any) -> None:
    """
    A process that was stopped itself for longer than a server may take finds the answers that wait, and loses nothing.
    """
    answer = Deferred.fromCoroutine(redis.call("PING"))
    await pause(0.01)
    answers = [Deferred.fromCoroutine(redis.call("ECHO", f"{number}")) for number in range(3)]
    await pause(0)
    time.sleep(1.5)  # noqa: ASYNC251  # that is the point
    assert await all_of([answer, *answers]) == [b"PONG", b"0", b"1", b"2"]
    await pause(0.6)
    assert redis.losses == 0


@pytest_twisted.ensureDeferred
async def test_databases_hear_their_own(redis_server: RedisServer) -> None:
    """
    Installations that only their databases tell apart hear nothing of each other.
    """
    one, two = await link(redis_server.url, "same"), await link(redis_server.url + "/2", "same")
    try:
        hearing = Hearing()
        topic = two.keys.channel("t", "room")
        await two.subscribe(topic, hearing)
        assert await one.call("SPUBLISH", one.keys.channel("t", "room"), "theirs") == 0
        assert await two.call("SPUBLISH", topic, "ours") == 1
        assert topic.startswith("same:1:")
    finally:
        await one.call("DEL", one.keys.one("lineage"))
        await two.call("DEL", two.keys.one("lineage"))
        await one.stop()
        await two.stop()


@pytest_twisted.ensureDeferred
async def test_a_master_that_becomes_a_replica(tmp_path: Path) -> None:
    """
    A server that was made a replica is left by both connections at the first refusal, and taken again as a master, as a new chain.
    """
    server = RedisServer(tmp_path).start()
    events: list[tuple[str, dict[str, Any]]] = []
    redis = await link(server.url, events=events)
    try:
        before = redis.chain
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(RedisRefused):
            await redis.call("SET", redis.keys.one("k"), 1)
        assert not redis.available
        await until(lambda: not redis.hearing)
        await pause(0.3)
        assert not redis.available
        server.ask("REPLICAOF", "NO", "ONE")
        await until(lambda: redis.available and redis.hearing)
        assert redis.chain > before
        names = [name for name, _ in events if name != "store.away"]
        assert names == ["store.connected", "store.lost", "store.went_back", "store.connected"]
    finally:
        await redis.stop()
        server.stop()


@pytest_twisted.ensureDeferred
async def test_topics_that_end_while_they_begin(redis: Any) -> None:
    """
    Subscribed and left in any order within a turn, a topic is heard exactly if that was said last, and answers stay in order.
    """
    hearing = Hearing()
    for last in (True, False):
        steps = [redis.subscribe("a", hearing), redis.unsubscribe("a"), redis.subscribe("b", hearing)]
        steps += [redis.subscribe("a", hearing)] if last else []
        await all_of([Deferred.fromCoroutine(step) for step in steps])
        assert await redis.call("SPUBLISH", "a", "1") == int(last)
        assert await redis.call("SPUBLISH", "b", "1") == 1
        await redis.unsubscribe("b")
        await redis.unsubscribe("a")
        assert await redis.call("PUBSUB", "SHARDCHANNELS", "[ab]") == []


@pytest_twisted.ensureDeferred
async def test_a_subscription_nobody_waits_for(redis: Any) -> None:
    """
    A subscription whose caller gave up is taken back at the server, too.
    """
    subscribing = Deferred.fromCoroutine(redis.subscribe("given up", Hearing()))
    subscribing.addErrback(lambda failure: failure.trap(CancelledError))
    subscribing.cancel()
    await subscribing
    for _ in range(2):
        await redis.subscribe("other", Hearing())
        assert await redis.call("PUBSUB", "SHARDCHANNELS", "given*") == []


@pytest_twisted.ensureDeferred
async def test_many_topics_after_a_loss(redis: Any) -> None:
    """
    Thousands of topics are heard again after a loss without a turn of the reactor that takes long.
    """
    hearing = Hearing()
    topics = [f"many{number}" for number in range(5000)]
    await all_of([Deferred.fromCoroutine(redis.subscribe(topic, hearing)) for topic in topics])
    await redis.call("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(hearing.gaps) >= len(topics))
    assert sorted(hearing.gaps) == sorted(topics)
    assert await redis.call("SPUBLISH", "many4999", "x") == 1
    for topic in topics:
        await redis.unsubscribe(topic)


@pytest_twisted.ensureDeferred
async def test_of_many_that_see_a_loss_one_begins_a_new_chain(tmp_path: Path) -> None:
    """
    However far the marks that instances have seen differ, a restart is one new chain: nobody ends what another began.
    """
    server = RedisServer(tmp_path).start()
    links = [await link(server.url, "p") for _ in range(4)]
    try:
        number = int(links[0].chain.split("-")[0])
        for ahead, each in enumerate(links):
            each._lineage._mark += 100 * ahead
        server.kill()
        server.start()
        await until(lambda: all(each.losses and each.available for each in links))
        assert {each.chain for each in links} == {links[0].chain}
        assert int(links[0].chain.split("-")[0]) == number + 1
    finally:
        for each in links:
            await each.stop()
        server.stop()
