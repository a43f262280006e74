"""
What clients and backends see of a gateway whose Redis is unwell in each of the ways that operators meet. In none of them
is anybody disconnected, or an answer other than a temporary error; what was lost is told.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.redis.server import RedisServer
from tests.system.processes import SECRET, Running, ask, eventually, running
from websockets.sync.client import ClientConnection, connect

from demo.ports import free_port

KEY = "a-key-of-the-system-tests"
INSUFFICIENT = 2500
"""An unsubscribe code after which SDKs subscribe again, and are told whether they were recovered."""

CONFIG = f"""
[[admin.key]]
name = "test"
secret = "{KEY}"
scopes = ["*"]

[[websocket]]
path = "/ws"

[rpc.echo]
echo = true

[channels.kept]
subscribe = "authenticated"
history = {{ size = 100, ttl = "5m" }}
presence = true

[channels.passing]
subscribe = "authenticated"
"""


class Client:
    """
    A real-time client that is subscribed to both channels.

    Attributes:
        got: The data of what was published, by channel.
        ended: Codes of the subscriptions that the gateway ended.
    """

    def __init__(self, port: int, user: str, only: Sequence[str] = ("kept", "passing")) -> None:
        now = int(time.time())
        claims = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": now, "exp": now + 600}
        self.socket: ClientConnection = connect(f"ws://127.0.0.1:{port}/ws", proxy=None, legacy=True)
        self.got: dict[str, list[Any]] = {channel: [] for channel in only}
        self.ended: list[tuple[str, int]] = []
        self.position: dict[str, Any] = {}
        self._number = 0
        self.ask(connect={"token": jwt.encode(claims, SECRET, "HS256")})
        for channel in self.got:
            self.subscribe(channel)

    def subscribe(self, channel: str, **since: Any) -> Any:
        """Subscribe until it is not refused for now; return the answer."""

        def asked() -> Any:
            reply = self.ask(subscribe={"channel": channel, **since})
            assert "error" not in reply or reply["error"].get("temporary"), reply
            return reply if "subscribe" in reply else None

        answer = eventually(f"subscribed to {channel}", asked)["subscribe"]
        if "epoch" in answer:
            self.position[channel] = answer["epoch"]
        return answer

    def ask(self, **command: Any) -> Any:
        """Send a command; return the reply."""
        self._number += 1
        self.socket.send(json.dumps({"id": self._number, **command}))
        deadline = time.monotonic() + 30
        while True:
            for reply in self._read(deadline - time.monotonic()):
                if reply.get("id") == self._number:
                    return reply

    def look(self) -> Client:
        """Take what has come."""
        while True:
            try:
                self._read(0.01)
            except TimeoutError:
                return self

    def _read(self, within_s: float) -> list[Any]:
        said = [json.loads(line) for line in str(self.socket.recv(max(0.01, within_s))).splitlines()]
        for each in said:
            push = each.get("push", {})
            if "pub" in push:
                self.got[push["channel"]].append(push["pub"]["data"])
            elif "unsubscribe" in push:
                self.ended.append((push["channel"], push["unsubscribe"]["code"]))
            elif not each:
                self.socket.send("{}")
        return said


class Place:
    """A gateway on a Redis of its own, and a client."""

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway
        self.client = Client(gateway.port, "alice")

    def publish(self, channel: str, data: Any) -> Any:
        """Publish as a backend does; return the result or the error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.admin, timeout=30)
        try:
            connection.request(
                "POST", "/api/publish", json.dumps({"channel": channel, "data": data}), {"X-API-Key": KEY}
            )
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer.get("result", answer.get("error"))

    def published(self, channel: str, data: Any) -> Any:
        """Publish until it is not refused for now; return the result."""

        def asked() -> Any:
            answer = self.publish(channel, data)
            return answer if "code" not in answer else None

        return eventually(f"published into {channel}", asked)

    def hears(self, channel: str, data: Any) -> None:
        """The client gets a publication."""
        eventually(f"{data} on {channel}", lambda: data in self.client.look().got[channel])

    def serves(self) -> None:
        """Whatever Redis does: the connection answers, a new one is let in, and the instance may be sent clients."""
        assert self.client.ask(rpc={"method": "echo", "data": 1})["rpc"] == {"data": 1}
        assert ask(self.gateway.port, "/ready").status == 200


@contextmanager
def place(twistd: str, folder: Path, url: str) -> Iterator[Place]:
    """A gateway that watches closely."""
    store = f'[store]\nurl = "{url}"\ntimeout = "1s"\nbeat = "500ms"\nlease = "3s"\n'
    with running(twistd, folder, store + CONFIG) as gateway:
        made = Place(gateway)
        made.published("kept", "first")
        made.hears("kept", "first")
        yield made
        made.client.socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that may be treated badly."""
    made = RedisServer(tmp_path / "redis").start()
    yield made
    made.stop()


def refused(answer: Any) -> bool:
    """It is an error that says that it may be tried again."""
    return bool(answer.get("code") == 100 and answer.get("temporary", True))


def test_memory_is_full(twistd: str, server: RedisServer, tmp_path: Path) -> None:
    """
    OOM: what would be stored is refused for now, who is there stays, who comes is let in; afterwards the stream goes on.
    """
    with place(twistd, tmp_path, server.url) as there:
        epoch = there.published("kept", "before")["epoch"]
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert refused(there.publish("kept", "lost"))
        there.serves()
        late = Client(there.gateway.port, "bob", only=("passing",))
        late.socket.close()
        server.ask("CONFIG", "SET", "maxmemory", "0")
        after = there.published("kept", "after")
        assert (after["epoch"], after["offset"]) == (epoch, 3)
        there.hears("kept", "after")
        assert (there.client.got["kept"], there.client.ended) == (["first", "before", "after"], [])


def test_master_becomes_a_replica(twistd: str, server: RedisServer, tmp_path: Path) -> None:
    """
    READONLY: the server is left and tried again. Promoted it may have lost something, so a new epoch begins and is told.
    """
    other = RedisServer(tmp_path / "other").start()
    try:
        with place(twistd, tmp_path, server.url) as there:
            epoch = there.published("kept", "before")["epoch"]
            there.hears("kept", "before")
            server.ask("REPLICAOF", "127.0.0.1", other.port)
            eventually("refused", lambda: refused(there.publish("kept", "lost")))
            there.gateway.hear("store.lost")
            there.serves()
            server.ask("REPLICAOF", "NO", "ONE")
            assert there.published("kept", "after")["epoch"] != epoch
            eventually("told", lambda: ("kept", INSUFFICIENT) in there.client.look().ended)
            again = there.client.subscribe("kept", recover=True, epoch=epoch, offset=2)
            assert not again.get("recovered", False)
            assert again["epoch"] != epoch
            there.published("kept", "more")
            there.hears("kept", "more")
    finally:
        other.stop()


def test_no_connection_is_left(twistd: str, server: RedisServer, tmp_path: Path) -> None:
    """
    maxclients: an instance that Redis does not take in serves those who are connected, and is told why; later it goes on.
    """
    with place(twistd, tmp_path, server.url) as there:
        with socket.create_connection(("127.0.0.1", server.port)) as held:
            # Whoever is cut off now does not get in again: this connection is the one.
            held.sendall(
                b"CONFIG SET maxclients 1\r\nCLIENT KILL TYPE normal SKIPME yes\r\nCLIENT KILL TYPE pubsub\r\n"
            )
            eventually("said why", lambda: "max number of clients" in str(there.gateway.lines()))
            eventually("refused", lambda: refused(there.publish("kept", "lost")))
            there.serves()
            held.sendall(b"CONFIG SET maxclients 100\r\n")
        assert there.published("kept", "after")["offset"] == 2
        there.hears("kept", "after")
        eventually("told", lambda: there.client.look().ended == [("passing", INSUFFICIENT)])


def test_loading(twistd: str, tmp_path: Path) -> None:
    """
    LOADING: a server that is reading its file answers nothing else, and is waited for; what it had is there again.
    """
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    server = RedisServer(tmp_path / "redis", durable).start()
    try:
        for number in range(300):
            server.ask("SET", f"other:{number}", "x" * 100)
        server.ask("BGREWRITEAOF")
        with place(twistd, tmp_path, server.url) as there:
            epoch = there.published("kept", "before")["epoch"]
            server.kill()
            server.options += ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]
            server.launch()
            eventually("loading", lambda: server.ask("GET", "x").startswith(b"-LOADING"))
            assert refused(there.publish("kept", "lost"))
            there.serves()
            after = there.published("kept", "after")
            assert (after["epoch"], after["offset"]) == (epoch, 3)
            there.hears("kept", "after")
            assert there.client.got["kept"] == ["first", "before", "after"]
            assert ("kept", INSUFFICIENT) not in there.client.ended
    finally:
        server.stop()


class Road(threading.Thread):
    """
    The road to a Redis, on which every byte takes *delay_s* in each direction.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.delay_s = 0.0
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self._far = port
        self._ended = False

    def run(self) -> None:
        """Carry what comes."""
        peers: dict[socket.socket, socket.socket] = {}
        under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        while not self._ended:
            readable, _, _ = select.select([self.listener, *peers], [], [], 0.005)
            for each in readable:
                if each is self.listener:
                    near, _ = self.listener.accept()
                    far = socket.create_connection(("127.0.0.1", self._far))
                    peers |= {near: far, far: near}
                    continue
                try:
                    data = each.recv(65536)
                except OSError:
                    data = b""
                under_way.append((time.monotonic() + self.delay_s, peers[each], data))
                if not data:
                    del peers[each]
            while under_way and under_way[0][0] <= time.monotonic():
                _, there, data = under_way.popleft()
                try:
                    there.sendall(data) if data else there.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
        for each in (*peers, self.listener):
            each.close()

    def end(self) -> None:
        """Carry no more."""
        self._ended = True
        self.join(10)


def test_far_away(twistd: str, server: RedisServer, tmp_path: Path) -> None:
    """
    500 ms there and back: everything takes that much longer, and nothing else happens; what does not need Redis takes no longer.
    """
    road = Road(server.port)
    road.start()
    try:
        with place(twistd, tmp_path, road.url) as there:
            road.delay_s = 0.25
            time.sleep(1)
            began = time.monotonic()
            numbers = [there.publish("kept", number)["offset"] for number in range(3)]
            assert time.monotonic() - began >= 1.5
            assert numbers == [2, 3, 4]
            there.hears("kept", 2)
            assert there.client.got["kept"] == ["first", 0, 1, 2]
            began = time.monotonic()
            for _ in range(20):
                there.serves()
            assert time.monotonic() - began < 5.0, "twenty times, not one of which waits for Redis"
            assert there.client.ended == []
            assert there.gateway.events("store.lost") == []
    finally:
        road.end()


def test_flushed(twistd: str, server: RedisServer, tmp_path: Path) -> None:
    """
    FLUSHALL: a new epoch begins and subscribers are told; presence is there again, and nobody was let go.
    """
    with place(twistd, tmp_path, server.url) as there:
        epoch = there.published("kept", "before")["epoch"]
        there.hears("kept", "before")
        server.ask("FLUSHALL")
        assert there.published("kept", "after")["epoch"] != epoch
        eventually("told", lambda: ("kept", INSUFFICIENT) in there.client.look().ended)
        there.client.subscribe("kept", recover=True, epoch=epoch, offset=2)
        there.published("kept", "more")
        there.hears("kept", "more")
        there.serves()

        def present() -> bool:
            reply = there.client.ask(presence={"channel": "kept"})
            return [each["user"] for each in reply.get("presence", {}).get("presence", {}).values()] == ["alice"]

        eventually("present", present)
