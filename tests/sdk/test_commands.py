"""
The official SDKs, unmodified, against a gateway and a backend: every command, its reply and its pushes, in both encodings.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.backend import Backend
from tests.sdk.conftest import CONFIG, TWISTD, token
from tests.sdk.driving import Driver, driving
from tests.system.processes import Running, running

_names = itertools.count(1)


class Client:
    """
    One SDK client.
    """

    def __init__(self, driver: Driver, gateway: Running, user: str, *, binary: bool, **more: Any) -> None:
        self.driver = driver
        self.name = f"c{next(_names)}"
        self.user = user
        endpoint = more.pop("endpoint", f"ws://127.0.0.1:{gateway.port}/ws")
        options = {"token": token(user), **more.pop("options", {})}
        driver.say("make", self.name, endpoint=endpoint, binary=binary, options=options, **more)

    def connect(self) -> dict[str, Any]:
        """Connect; return the event."""
        after = len(self.driver.events)
        self.say("connect")
        # The SDK's own event has the client's id in the place of our name.
        return self.driver.wait(after, event="connected")

    def subscribe(self, channel: str, **more: Any) -> dict[str, Any]:
        """Subscribe; return the event."""
        after = len(self.driver.events)
        self.say("subscribe", channel=channel, **more)
        return self.wait(after, channel=channel, event="subscribed")

    def say(self, do: str, **more: Any) -> None:
        """Give an order."""
        self.driver.say(do, self.name, **more)

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Give an order; return its result or error."""
        return self.driver.ask(do, self.name, **more)

    def wait(self, after: int = 0, **wanted: Any) -> dict[str, Any]:
        """Wait for an event of this client."""
        return self.driver.wait(after, client=self.name, **wanted)


@pytest.fixture
def alice() -> str:
    return f"alice-{next(_names)}"


@pytest.fixture
def bob() -> str:
    return f"bob-{next(_names)}"


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
def binary(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def answers(backend: Backend) -> Iterator[None]:
    backend.answers = {
        "/on-connect": lambda body, _: (200, {}),
        "/told": lambda body, _: (204, None),
        "/may-say": lambda body, _: (
            (403, {"detail": "no"}) if "bad" in body["text"] else (200, {"said": {"text": body["text"].upper()}})
        ),
        "/may-watch": lambda body, _: (200 if body["table"] != "closed" else 403, {}),
        "/state": lambda body, _: (200, {"board": {"table": body["table"], "moves": []}, "version": 0}),
        "/move": lambda body, _: (
            (409, {"message": "not your turn"})
            if body["column"] > 6
            else (200, {"column": body["column"], "by": body["user"]})
        ),
    }
    yield
    backend.asked.clear()


def data_of(event: dict[str, Any]) -> Any:
    """What a publication carries: the SDKs tell it in different places."""
    return event["pub"]["data"] if "pub" in event else event["data"]


def offset_of(event: dict[str, Any]) -> int:
    return int(event["pub"]["offset"] if "pub" in event else event["offset"])


def snake(event: dict[str, Any], name: str) -> Any:
    """A field that one SDK names ``wasRecovering`` and the other ``was_recovering``."""
    return event[name] if name in event else event["".join(f"_{c.lower()}" if c.isupper() else c for c in name)]


def test_a_session(sdk: Driver, gateway: Running, backend: Backend, alice: str, bob: str, binary: bool) -> None:
    """
    Connect, subscribe, publish, presence, history, rpc, unsubscribe, disconnect: each says what it should.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    b = Client(sdk, gateway, bob, binary=binary)
    connected = a.connect()
    assert len(connected["client"]) >= 32
    told = backend.of("/on-connect")[-1]
    assert told.body["user"] == alice
    assert told.headers["x-user-id"] == alice

    subscribed = a.subscribe("lobby", options={"joinLeave": True})
    position = snake(subscribed, "streamPosition")
    assert (subscribed["recoverable"], subscribed["positioned"], snake(subscribed, "wasRecovering")) == (
        True,
        True,
        False,
    )
    b.connect()
    after = len(sdk.events)
    b.subscribe("lobby")
    joined = a.wait(after, event="join", user=bob)
    assert snake(joined["info"], "connInfo") == {"name": bob.title()}

    assert b.ask("publish", channel="lobby", data={"text": "hello"})["result"] == {}
    for listener in (a, b):
        heard = listener.wait(after, event="publication", channel="lobby")
        assert data_of(heard) == {"text": "HELLO"}
        assert offset_of(heard) == position["offset"] + 1
        info = heard["pub"]["info"] if "pub" in heard else heard["info"]
        assert (info["user"], snake(info, "connInfo")) == (bob, {"name": bob.title()})
    said = backend.of("/may-say")[-1]
    assert said.body == {"text": "hello", "user": bob}
    refused = b.ask("publish", channel="lobby", data={"text": "bad word"})["error"]
    assert refused["code"] == 103

    here = a.ask("presence", channel="lobby")["result"]["clients"]
    assert {one["user"] for one in here.values()} >= {alice, bob}
    assert connected["client"] in here
    counted = a.ask("presenceStats", channel="lobby")["result"]
    assert counted["numUsers"] == len({one["user"] for one in here.values()})
    assert counted["numClients"] == len(here)

    history = a.ask("history", channel="lobby", options={"limit": 1000})["result"]
    assert history["offset"] == position["offset"] + 1
    assert history["epoch"] == position["epoch"]
    assert history["publications"][-1]["data"] == {"text": "HELLO"}
    assert history["publications"][-1]["offset"] == history["offset"]

    assert a.ask("rpc", method="echo", data={"n": [1, "ä", None]})["result"]["data"] == {"n": [1, "ä", None]}
    moved = b.ask("rpc", method="game.move", data={"column": 3, "user": "mallory"})
    assert moved["result"]["data"] == {"column": 3, "by": bob}
    turn = b.ask("rpc", method="game.move", data={"column": 9})["error"]
    assert (turn["code"], "not your turn" in turn["message"]) == (1409, True)
    assert b.ask("rpc", method="no.such", data={})["error"]["code"] == 104

    after = len(sdk.events)
    b.say("unsubscribe", channel="lobby")
    assert b.wait(after, event="unsubscribed", channel="lobby")["code"] == 0
    a.wait(after, event="leave", user=bob)
    for client in (a, b):
        after = len(sdk.events)
        client.say("disconnect")
        assert client.wait(after, event="disconnected")["code"] == 0


def test_a_table(sdk: Driver, gateway: Running, backend: Backend, alice: str, bob: str, binary: bool) -> None:
    """
    The state comes with the subscription, then each move; a table that is closed is refused with 103.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    a.connect()
    name = f"table:{next(_names)}"
    subscribed = a.subscribe(name)
    assert subscribed["data"] == {"table": name.removeprefix("table:"), "moves": []}
    assert backend.of("/may-watch")[-1].body == {"user": alice, "table": name.removeprefix("table:")}
    after = len(sdk.events)
    a.say("subscribe", channel="table:closed")
    assert a.wait(after, event="unsubscribed", channel="table:closed")["code"] == 103
    assert a.ask("history", channel="table:closed")["error"]["code"] == 103
    a.say("disconnect")


def test_recovery(sdk: Driver, gateway: Running, alice: str, bob: str, binary: bool) -> None:
    """
    After a lost connection the SDK connects anew by itself and gets, in order and once, what was said meanwhile.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    b = Client(sdk, gateway, bob, binary=binary)
    name = f"table:{next(_names)}"
    for client in (a, b):
        client.connect()
    a.subscribe(name)
    assert b.ask("publish", channel=name, data={"move": 0})["result"] == {}
    after = len(sdk.events)
    a.say("cut")
    for number in range(1, 6):
        assert b.ask("publish", channel=name, data={"move": number})["result"] == {}
    again = a.wait(after, event="subscribed", channel=name)
    assert (snake(again, "wasRecovering"), again["recovered"]) == (True, True)
    a.wait(0, event="publication", channel=name)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        moves = [data_of(event)["move"] for event in sdk.of(0, client=a.name, channel=name, event="publication")]
        if len(moves) >= 6:
            break
        time.sleep(0.02)
    assert moves == [0, 1, 2, 3, 4, 5]
    for client in (a, b):
        client.say("disconnect")


def test_own_channel(sdk: Driver, gateway: Running, alice: str, bob: str, binary: bool) -> None:
    """
    Each connection is subscribed to its user's own channel by the server, and to nobody else's.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    after = len(sdk.events)
    a.connect()
    assert a.wait(after, event="subscribed")["channel"] == f"user:{alice}"
    assert a.ask("publish", channel=f"user:{alice}", data={"to": "myself"})["result"] == {}
    heard = a.wait(after, event="publication")
    assert (heard["channel"], data_of(heard)) == (f"user:{alice}", {"to": "myself"})
    after = len(sdk.events)
    a.say("subscribe", channel="user:bob")
    assert a.wait(after, event="unsubscribed", channel="user:bob")["code"] == 103
    a.say("disconnect")


def test_refresh(sdk: Driver, gateway: Running, alice: str, bob: str, binary: bool) -> None:
    """
    Before its token ends the SDK gets a new one and stays connected; a token for somebody else ends the connection.
    """
    a = Client(
        sdk, gateway, alice, binary=binary, options={"token": token(alice, ttl_s=2)}, tokens=[token(alice, ttl_s=3600)]
    )
    after = len(sdk.events)
    a.connect()
    a.wait(after, event="getToken")
    time.sleep(2.5)
    assert a.ask("rpc", method="echo", data={"still": "here"})["result"]["data"] == {"still": "here"}
    assert not sdk.of(after, client=a.name, event="disconnected")
    a.say("disconnect")
    mallory = Client(
        sdk, gateway, alice, binary=binary, options={"token": token(alice, ttl_s=2)}, tokens=[token("mallory")] * 3
    )
    after = len(sdk.events)
    mallory.connect()
    assert mallory.wait(after, event="disconnected")["code"] >= 3500


def test_subscription_tokens(sdk: Driver, gateway: Running, alice: str, bob: str, binary: bool) -> None:
    """
    A channel by token takes one for this user and this channel, and has it refreshed.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    a.connect()
    short = token(alice, ttl_s=2, channel="secret:one")
    long = token(alice, channel="secret:one")
    after = len(sdk.events)
    a.subscribe("secret:one", tokens=[short, long, long])
    time.sleep(3.5)
    assert len(sdk.of(after, client=a.name, channel="secret:one", event="getToken")) >= 2
    assert not sdk.of(after, client=a.name, channel="secret:one", event="unsubscribed")
    after = len(sdk.events)
    a.say("subscribe", channel="secret:two", tokens=[long] * 3)
    assert a.wait(after, event="unsubscribed", channel="secret:two")["code"] == 103
    a.say("disconnect")


def test_tokens_that_are_refused(
    sdk: Driver, gateway: Running, backend: Backend, alice: str, bob: str, binary: bool
) -> None:
    """
    A token that is no good ends the attempt for good, and no backend hears of it.
    """
    for bad in ("", "no.to.ken", token(alice, ttl_s=3600) + "x"):
        client = Client(sdk, gateway, alice, binary=binary, options={"token": bad})
        after = len(sdk.events)
        client.say("subscribe", channel="lobby")
        client.say("connect")
        assert client.wait(after, event="disconnected")["code"] in range(3500, 4000)
    assert not [asked for asked in backend.asked if asked.headers.get("x-user-id") == alice]


def test_pings(sdk: Driver, gateway: Running, alice: str, bob: str, binary: bool) -> None:
    """
    The SDK answers the server's pings, and stays connected beyond several of them.
    """
    a = Client(sdk, gateway, alice, binary=binary)
    after = len(sdk.events)
    a.connect()
    time.sleep(5.5)
    assert a.ask("rpc", method="echo", data=1)["result"]["data"] == 1
    assert not sdk.of(after, client=a.name, event="disconnected")
    assert len(sdk.of(after, client=a.name, event="connecting")) == 1
    a.say("disconnect")


TRANSPORTS = {
    "sse": ("/sse", False),
    "http_stream": ("/stream", False),
    "http_stream, protobuf": ("/stream", True),
}


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_without_websockets(name: str, gateway: Running, alice: str, bob: str) -> None:
    """
    A network without WebSockets: the SDK streams and emulates, with the same sessions, pushes and recovery.
    """
    path, binary = TRANSPORTS[name]
    transport = name.partition(",")[0]
    base = f"http://127.0.0.1:{gateway.port}"
    with driving("js") as driver:
        a = Client(
            driver,
            gateway,
            alice,
            binary=binary,
            endpoint=[{"transport": transport, "endpoint": base + path}],
            options={"token": token(alice), "emulationEndpoint": f"{base}/emulation"},
        )
        b = Client(driver, gateway, bob, binary=binary)
        assert a.connect()["transport"] == transport
        b.connect()
        channel = f"table:{next(_names)}"
        assert a.subscribe(channel)["data"]["moves"] == []
        assert b.ask("publish", channel=channel, data={"move": 1})["result"] == {}
        assert a.wait(event="publication", channel=channel)["data"] == {"move": 1}
        assert a.ask("rpc", method="game.move", data={"column": 2})["result"]["data"] == {"column": 2, "by": alice}
        assert a.ask("publish", channel=channel, data={"move": 2})["result"] == {}
        after = len(driver.events)
        a.say("disconnect")
        assert a.wait(after, event="disconnected")["code"] == 0


@pytest.mark.parametrize(
    ("kind", "transport"), [("js", "websocket"), ("python", "websocket"), ("js", "http_stream"), ("js", "sse")]
)
def test_drain(kind: str, transport: str, backend: Backend, alice: str, tmp_path: Path) -> None:
    """
    An instance that stops tells its clients to come back, and they do, to the next one, missing nothing told to them.
    """
    text = CONFIG.format(backend=backend.port)
    with driving(kind) as driver:
        with running(TWISTD, tmp_path, text) as first:
            more: dict[str, Any] = {}
            if transport != "websocket":
                base = f"http://127.0.0.1:{first.port}"
                path = {"http_stream": "/stream", "sse": "/sse"}[transport]
                more["endpoint"] = [{"transport": transport, "endpoint": base + path}]
                more["options"] = {"token": token(alice), "emulationEndpoint": f"{base}/emulation"}
            a = Client(driver, first, alice, binary=False, **more)
            a.connect()
            a.subscribe("lobby")
            after = len(driver.events)
            first.end()
            connecting = a.wait(after, event="connecting")
            assert (connecting["code"], connecting["reason"]) == (3001, "shutdown")
            assert not driver.of(after, client=a.name, event="disconnected")
        after = len(driver.events)
        command = [TWISTD, "-n", "--pidfile=", "gateway", "--config", "gateway.toml"]
        again = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            a.wait(after, event="subscribed", channel="lobby")
        finally:
            again.terminate()
            again.wait(30)
