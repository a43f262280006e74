"""
Two gateways on one Redis, behind a balancer that sends each request to the next: for SDKs they are one.
"""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.redis.server import RedisServer
from tests.sdk.backend import Backend
from tests.sdk.conftest import TWISTD, token
from tests.sdk.driving import Driver, driving
from tests.system.processes import Running, ask, eventually, running

from demo.ports import free_port

KEY = "a-key-for-everything-in-tests"
CONFIG = """
[store]
url = "{redis}"
beat = "1s"
lease = "4s"

[upstream.rules]
http = ["http://127.0.0.1:{backend}"]

[[admin.key]]
name = "all"
secret = "{key}"
scopes = ["*"]

[[websocket]]
path = "/ws"
sse = "/sse"
http_stream = "/stream"
emulation = "/emulation"

[channels.lobby]
subscribe = "authenticated"
publish = "authenticated"
presence = true
history = {{ size = 100, ttl = "5m" }}

[rpc.echo]
echo = true

[[route]]
path = "/told"
upstream = "rules"
"""

BALANCER = """
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen all
  bind 127.0.0.1:{port}
  balance roundrobin
  server one 127.0.0.1:{one}
  server two 127.0.0.1:{two}
"""

_names = itertools.count(1)


@dataclass
class Pair:
    """
    Attributes:
        port: Of the balancer.
    """

    one: Running
    two: Running
    port: int


@contextmanager
def balancing(folder: Path, one: int, two: int) -> Iterator[int]:
    """Run haproxy; its port."""
    # It is where only root looks.
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    assert program, "haproxy is missing. As root: apt-get install haproxy"
    port = free_port()
    (folder / "haproxy.cfg").write_text(BALANCER.format(port=port, one=one, two=two))
    process = subprocess.Popen([program, "-db", "-f", str(folder / "haproxy.cfg")], stdout=subprocess.DEVNULL)
    try:
        eventually("haproxy", lambda: ask(port, "/ready").status == 200)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def pair(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    backend.answers = {"/told": lambda body, _: (200, body)}
    folder: Path = tmp_path_factory.mktemp("pair")
    server = RedisServer(folder / "redis").start()
    text = CONFIG.format(redis=server.url, backend=backend.port, key=KEY)
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
        with (
            running(TWISTD, folder / "one", text) as one,
            running(TWISTD, folder / "two", text) as two,
            balancing(folder, one.port, two.port) as port,
        ):
            yield Pair(one, two, port)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def js() -> Iterator[Driver]:
    with driving("js") as driver:
        yield driver


def order(gateway: Running, name: str, **parameters: Any) -> Any:
    """Order something at a gateway's admin port."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin, timeout=30)
    connection.request("POST", f"/api/{name}", json.dumps(parameters), {"X-API-Key": KEY})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, found
    return found.get("result", found)


def clients(gateway: Running) -> dict[str, int]:
    """How many clients each instance has, as one tells."""
    told = order(gateway, "info")
    assert "silent" not in told
    return {node["uid"]: node["num_clients"] for node in told["nodes"]}


def make(js: Driver, endpoint: Any, bearer: str, **options: Any) -> str:
    """A client that connects, and is waited for; its name."""
    name = f"p{next(_names)}"
    after = len(js.events)
    js.say("make", name, endpoint=endpoint, options={"token": bearer, **options})
    js.say("connect", name)
    js.wait(after, event="connected")
    return name


@pytest.mark.parametrize(("transport", "path"), [("sse", "/sse"), ("http_stream", "/stream")])
def test_streams_need_no_sticky_sessions(pair: Pair, js: Driver, transport: str, path: str) -> None:
    """
    A client of a stream, each of whose requests reaches another instance, works as on one, and never connects anew.
    """
    base = f"http://127.0.0.1:{pair.port}"
    after = len(js.events)
    endpoint = [{"transport": transport, "endpoint": base + path}]
    before = clients(pair.one)
    names = [make(js, endpoint, token(f"s{number}"), emulationEndpoint=f"{base}/emulation") for number in range(4)]
    for number in range(15):
        for name in names:
            assert js.ask("rpc", name, method="echo", data=number)["result"]["data"] == number
    for name in names:
        js.say("subscribe", name, channel="lobby")
        js.wait(after, client=name, event="subscribed", channel="lobby")
    assert js.ask("publish", names[0], channel="lobby", data={"by": transport})["result"] == {}
    for name in names:
        heard = js.wait(after, client=name, event="publication", channel="lobby")
        assert heard["data"] == {"by": transport}
    assert len(js.of(after, event="connecting")) == len(names)
    # Each instance has some of them, so half of what they said came to the other one.
    assert [number - before[instance] for instance, number in clients(pair.two).items()] == [2, 2]
    for name in names:
        js.say("disconnect", name)
        js.wait(after, client=name, event="disconnected")


def test_orders_at_either(pair: Pair, js: Driver) -> None:
    """
    What is ordered of one is done by both, and what is asked of one is told of both.
    """
    after = len(js.events)
    names = [
        make(js, f"ws://127.0.0.1:{gateway.port}/ws", token("carol")) for gateway in (pair.one, pair.two, pair.two)
    ]
    assert len(order(pair.one, "connections", user="carol")["connections"]) == 3
    assert order(pair.two, "subscribe", user="carol", channel="lobby") == {}
    for name in names:
        js.wait(after, client=name, event="subscribed", channel="lobby")
    lobby = [order(gateway, "channels")["channels"]["lobby"]["num_clients"] for gateway in (pair.one, pair.two)]
    assert lobby[0] == lobby[1] >= 3
    assert order(pair.one, "disconnect", user="carol") == {}
    for name in names:
        assert js.wait(after, client=name, event="disconnected")["code"] == 3503
    assert order(pair.two, "connections", user="carol")["connections"] == {}


def test_revoked_everywhere_within_a_second(pair: Pair, js: Driver) -> None:
    """
    R6: a second after a revocation at one instance no socket and no HTTP request passes with the token, at either; nor does
    a connection that comes back.
    """
    number = 20
    tokens = [token(f"r{each}", jti=f"jti-{each}", sid=f"sid-{each}") for each in range(number)]
    gateways = (pair.one, pair.two)
    after = len(js.events)
    names = [make(js, f"ws://127.0.0.1:{gateways[at % 2].port}/ws", tokens[at]) for at in range(number)]
    stays = make(js, f"ws://127.0.0.1:{pair.two.port}/ws", token("stays"))
    for gateway in gateways:
        assert ask(gateway.port, "/told", method="POST", bearer=tokens[0]).status == 200
    now = time.time()
    for at in range(number):
        if at % 3 == 0:
            told = order(gateways[at % 2], "revoke", token_id=f"jti-{at}", ttl_s=600)
        elif at % 3 == 1:
            told = order(gateways[at % 2], "revoke", token_id=f"sid-{at}", ttl_s=600)
        else:
            told = order(gateways[at % 2], "revoke", subject=f"r{at}", issued_before=now + 60, ttl_s=600)
        assert told["revoked"]
    time.sleep(1.0)  # The promise.
    ended = {event["client"]: event["code"] for event in js.of(after, event="disconnected")}
    assert ended == dict.fromkeys(names, 3500)
    for gateway in gateways:
        for bearer in tokens:
            assert ask(gateway.port, "/told", method="POST", bearer=bearer).status == 401
    after = len(js.events)
    for at in range(number):
        name = f"p{next(_names)}"
        port = gateways[(at + 1) % 2].port
        js.say("make", name, endpoint=f"ws://127.0.0.1:{port}/ws", options={"token": tokens[at]})
        js.say("connect", name)
        assert js.wait(after, client=name, event="disconnected")["code"] == 3500
    assert not js.of(after, event="connected")
    assert js.ask("rpc", stays, method="echo", data=1)["result"]["data"] == 1
