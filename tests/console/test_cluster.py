"""
Questions and orders that reach every instance, whichever console they are given to.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jwt
import pytest
from tests.console.people import BODY, Console, Telnet, console
from tests.redis.server import RedisServer
from tests.system.processes import SECRET, ask, eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROUTE = """
[upstream.players]
http = ["http://127.0.0.1:1"]

[[route]]
path = "/api/**"
upstream = "players"

[limits.policy."frames"]
rate = "100/s"
key = "user"
on = "frames"
"""


def bearer(user: str) -> str:
    """A token for *user*."""
    claims = {"iss": "https://id.example", "aud": "gateway", "sub": user, "exp": time.time() + 600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


class Player:
    """
    A user with a connection, and a channel.
    """

    def __init__(self, at: Console, user: str, channel: str = "table:1") -> None:
        self.socket = connect(f"ws://127.0.0.1:{at.served.port}/ws", proxy=None)
        self._last = 0
        told = self.ask(connect={"token": bearer(user)})["connect"]
        self.client, self.session, self.instance = told["client"], told["session"], told["node"]
        self.ask(subscribe={"channel": channel})

    def ask(self, **command: Any) -> Any:
        """Give one command; return its reply."""
        self._last += 1
        self.socket.send(json.dumps({"id": self._last, **command}))
        while True:
            for line in str(self.socket.recv(20)).splitlines():
                said = json.loads(line)
                if said.get("id") == self._last:
                    return said

    def publish(self, text: str) -> Any:
        """Say something in the channel."""
        return self.ask(publish={"channel": "table:1", "data": {"text": text}})

    def closed(self) -> int:
        """With which code it is closed."""
        try:
            while True:
                self.socket.recv(20)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 0


class Town(NamedTuple):
    """
    Two instances with a user each, and a console.
    """

    here: Console
    there: Console
    alice: Player
    bob: Player


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Alice is there, bob is here."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    body = f'{BODY}{ROUTE}[store]\nurl = "{server.url}"\n'
    try:
        with (
            console(tmp_path_factory.mktemp("here"), body=body) as here,
            console(tmp_path_factory.mktemp("there"), body=body) as there,
        ):
            alice, bob = Player(there, "alice"), Player(here, "bob")
            yield Town(here, there, alice, bob)
            alice.socket.close()
            bob.socket.close()
    finally:
        server.kill()


def rows(told: Any, table: int = 0) -> list[dict[str, Any]]:
    """A table of an answer."""
    return [dict(zip(told["tables"][table]["columns"], row, strict=True)) for row in told["tables"][table]["rows"]]


def test_who_is_there(town: Town) -> None:
    """
    A user is found on whichever instance it is, with its session; without a name everybody is listed.
    """
    (row,) = rows(town.here.told("vera", "who alice"))
    assert (row["instance"], row["session"], row["channels"]) == (town.alice.instance, town.alice.session, 1)
    pages = [json.loads(line) for line in town.here.ctl("who", "--json").stdout.splitlines()]
    assert {row["user"]: row["instance"] for page in pages if "tables" in page for row in rows(page)} == {
        "alice": town.alice.instance,
        "bob": town.bob.instance,
    }
    assert {row["instance"] for row in rows(town.here.told("vera", "instances"))} == {
        town.alice.instance,
        town.bob.instance,
    }


def test_a_session(town: Town) -> None:
    """
    A session is described by its id and by its connection's, with its subscriptions and what it did last.
    """
    for name in (town.alice.session, town.alice.client):
        told = town.here.told("vera", f"session {name}")
        assert (told["facts"]["user"], told["facts"]["instance"]) == ("alice", town.alice.instance)
        assert [row["channel"] for row in rows(told)] == ["table:1"]
        assert any("subscribe" in row["what"] for row in rows(told, 1))


def test_a_channel(town: Town) -> None:
    """
    A channel is told with those who listen on every instance, and its place.
    """
    town.bob.publish("hello")
    offset = town.here.told("vera", "channel table:1")["facts"]["offset"]

    def delivered() -> bool:
        told = town.here.told("vera", "channel table:1")
        assert told["facts"]["subscriptions"] == told["facts"]["present_clients"] == 2
        assert {row["user"] for row in rows(told, 1)} == {"alice", "bob"}
        return {row["offset"] for row in rows(told)} == {offset}

    eventually("both have it", delivered)


def test_top(town: Town) -> None:
    """
    The busiest are told for all instances together.
    """
    told = json.loads(town.here.ctl("top", "--once", "--json").stdout)
    assert [(row["channel"], row["subscriptions"]) for row in rows(told)] == [("table:1", 2)]
    assert {row["user"] for row in rows(told, 1)} == {"alice", "bob"}
    assert rows(told, 2) == [{"address": "127.0.0.1", "connections": 2}]
    assert told["again_s"] > 0


@pytest.mark.parametrize(
    ("what", "does", "seen"),
    [
        ("user alice", lambda town: town.alice.publish("a secret"), ["publish", "alice", "table:1 20 B -> ok"]),
        ("channel table:1", lambda town: town.alice.publish("a secret"), ["publication", "alice", ", 20 B"]),
        ("route /api/**", lambda town: ask(town.there.served.port, "/api/x?q=secret"), ["GET /api/x -> 401"]),
    ],
)
def test_looking_on(town: Town, what: str, does: Callable[[Town], Any], seen: list[str]) -> None:
    """
    What happens on one instance is seen at the console of another as it happens, and nothing of what was said.
    """
    telnet = Telnet(town.here.telnet)
    telnet.log_in("vera")
    telnet.expect("gateway> ")
    telnet.say(f"tail {what}\r")
    telnet.expect("Ctrl-C ends it")
    does(town)
    shown = telnet.expect(seen[-1])
    line = shown.rpartition("\n")[2]
    # What is published is delivered, and seen, on each of them.
    assert town.alice.instance in line or (town.bob.instance in line and what.startswith("channel"))
    assert [each for each in seen[:-1] if each not in line] == []
    assert "secret" not in shown
    telnet.say("q")
    telnet.expect("gateway> ")
    telnet.close()


def test_muting(town: Town) -> None:
    """
    Who is muted publishes nowhere, is told for how long, and may again when it is let.
    """
    assert town.here.told("otto", "mute alice 5m")["facts"] == {"user": "alice", "muted_s": 300.0}
    refused = town.alice.publish("hello")["error"]
    assert (refused["code"], "muted for" in refused["message"]) == (103, True)
    assert "error" not in town.bob.publish("hello")
    town.here.told("otto", "mute alice 0s")
    assert "error" not in town.alice.publish("hello")


def test_budgets(town: Town) -> None:
    """
    The budgets of a user are told and given back.
    """
    (first, _) = rows(town.here.told("vera", "limits alice"))
    assert (first["policy"], first["most"]) == ("frames", 100)
    assert town.here.told("otto", "unlimit alice")["facts"]["reset"] >= 1


def test_targets(town: Town) -> None:
    """
    A target is left out and used again on every instance.
    """
    told = town.here.told("otto", "eject players 127.0.0.1:1 5m")
    assert len(told["facts"]["on"]) == 2
    assert all(row["ejected_s"] > 290 for row in rows(town.there.told("vera", "upstreams")))
    town.there.told("otto", "restore players 127.0.0.1:1")
    assert all(row["ejected_s"] == 0 for row in rows(town.here.told("vera", "upstreams")))
    assert town.here.run("otto", "eject players nobody").returncode == 1


def test_the_log_and_the_configuration(town: Town) -> None:
    """
    The level of the log is changed everywhere; the configuration is shown without secrets, and what a reload changed.
    """
    assert len(town.here.told("otto", "log info")["facts"]["on"]) == 2
    shown = town.here.told("vera", "config all auth.*")
    assert {row["key"]: row["value"] for row in rows(shown)}["auth.issuer[0].secret"] == "***"
    path = town.here.served.folder / "gateway.toml"
    path.write_text(path.read_text().replace('ttl = "1m"', 'ttl = "2m"'))
    town.here.served.signal(signal.SIGHUP)
    town.here.served.hear("config.taken")
    changed = town.here.told("vera", "config changed")
    assert [(row["key"].rpartition(".")[2], row["before"], row["now"]) for row in rows(changed)] == [
        ("ttl", "1m", "2m")
    ]
    assert "others have another configuration" in changed["notes"][0]


def test_traces_and_events(town: Town) -> None:
    """
    Without a collector tracing says that nothing is recorded; the outbox is told.
    """
    assert "no collector" in town.here.told("otto", "trace alice 5m")["notes"][0]
    assert town.here.told("vera", "events")["facts"]["waiting"] == 0


def test_an_instance_that_hangs_is_named(town: Town) -> None:
    """
    What the others tell is told in time, and who said nothing is named.
    """
    town.there.served.signal(signal.SIGSTOP)
    try:
        told = town.here.told("vera", "who alice")
        assert told["facts"]["connections"] == 0
        assert told["silent"] == [town.alice.instance]
        assert f"no answer from: {town.alice.instance}" in town.here.run("vera", "who alice").stdout
    finally:
        town.there.served.signal(signal.SIGCONT)


def test_kicking_and_revoking(town: Town) -> None:
    """
    A connection is closed with a code that says whether to come back; a revoked token's is closed, and opens none again.
    """
    carol = Player(town.there, "carol")
    assert town.here.told("otto", f"kick carol {carol.session} reconnect")["facts"]["closed"] == 1
    assert carol.closed() == 3011
    carol = Player(town.there, "carol")
    assert town.here.told("otto", "kick carol")["facts"]["closed"] == 1
    assert carol.closed() == 3503
    dave = Player(town.there, "dave")
    town.here.told("otto", "revoke user dave 1h")
    assert dave.closed() == 3500


def test_draining_an_instance(town: Town) -> None:
    """
    An instance is ended from the console of another, as by SIGTERM.
    """
    assert town.here.told("otto", f"drain {town.alice.instance}")["facts"] == {"draining": town.alice.instance}
    assert town.there.served.process.wait(30) == 0
    assert [row["instance"] for row in rows(town.here.told("vera", "instances"))] == [town.bob.instance]
    assert town.here.served.complaints() == ""


def test_workers_have_one_console(tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    Of several workers the parent has the console, and it answers for them.
    """
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        body = f'{BODY}[store]\nurl = "{server.url}"\n'
        with console(tmp_path_factory.mktemp("workers"), body=body, listen="workers = 2\n") as at:
            at.served.hear("workers.started")
            players = [Player(at, f"user{number}") for number in range(6)]
            told = at.told("vera", "instances")
            assert len(rows(told)) == 3
            assert sum(row["connections"] for row in rows(told)) == 6
            for number, player in enumerate(players):
                (row,) = rows(at.told("vera", f"who user{number}"))
                assert row["instance"] == player.instance
                player.socket.close()
            assert at.served.end() == 0
            assert at.served.complaints() == ""
    finally:
        server.kill()
