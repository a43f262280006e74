"""
The server API over HTTP and gRPC does to real SDK clients what it says.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from tests.sdk.conftest import TWISTD, token
from tests.sdk.driving import Driver, driving
from tests.system.processes import Running, config, run, running

from demo.ports import free_port
from gateway.protos.gateway.v1 import api_pb2

KEY = "a-key-for-everything-in-tests"
CONFIG = """
[upstream.none]
http = ["http://127.0.0.1:1"]

[[admin.key]]
name = "all"
secret = "a-key-for-everything-in-tests"
scopes = ["*"]

[[admin.key]]
name = "publisher"
secret = "a-key-to-publish-with-only"
scopes = ["publish"]

[[websocket]]
path = "/ws"
info = "{'name': claims.name}"

[channels.lobby]
subscribe = "authenticated"
presence = true
history = { size = 5, ttl = "5m" }

[channels."plain:{name}"]
subscribe = "authenticated"
max_message = "1KiB"
"""

_names = itertools.count(1)

Do = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    with running(TWISTD, tmp_path_factory.mktemp("api"), CONFIG, listen=f'api = "127.0.0.1:{port}"') as process:
        process.api = port
        yield process


@pytest.fixture(scope="module")
def js() -> Iterator[Driver]:
    with driving("js") as driver:
        yield driver


def over_http(gateway: Running, name: str, key: str = KEY, **parameters: Any) -> dict[str, Any]:
    """Do an operation; ``result`` or ``error`` of the answer, or its problem."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.admin, timeout=30)
    headers = {"X-API-Key": key} if key else {}
    connection.request("POST", f"/api/{name}", json.dumps(parameters), headers)
    answer = connection.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    connection.close()
    assert answer.status == 200 or "code" in found
    return found


def over_grpc(gateway: Running, name: str, key: str = KEY, **parameters: Any) -> dict[str, Any]:
    """The same over gRPC, in the shapes of HTTP."""
    method = api_pb2.DESCRIPTOR.services_by_name["GatewayApi"].methods_by_name[
        "".join(part.title() for part in name.split("_"))
    ]
    request: Any = getattr(api_pb2, method.input_type.name)()
    ParseDict(_bytes(parameters), request)
    with grpc.insecure_channel(f"127.0.0.1:{gateway.api}") as channel:
        call = channel.unary_unary(
            f"/gateway.v1.GatewayApi/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(api_pb2, method.output_type.name).FromString,
        )
        reply = call(request, metadata=(("x-api-key", key),) if key else (), timeout=30)
    found: dict[str, Any] = _plain(MessageToDict(reply, preserving_proto_field_name=True))
    return found


def _bytes(value: Any) -> Any:
    """JSON in members that are bytes in the messages."""
    if isinstance(value, dict):
        return {
            name: base64.b64encode(json.dumps(inner).encode()).decode() if name in ("data", "info") else _bytes(inner)
            for name, inner in value.items()
        }
    return [_bytes(each) for each in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: json.loads(base64.b64decode(inner))
            if name in ("data", "conn_info", "chan_info")
            else int(inner)
            if name == "offset"
            else _plain(inner)
            for name, inner in value.items()
        }
    return [_plain(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(params=["http", "grpc"])
def do(request: pytest.FixtureRequest, gateway: Running) -> Do:
    over = over_http if request.param == "http" else over_grpc

    def operation(name: str, key: str = KEY, **parameters: Any) -> dict[str, Any]:
        return over(gateway, name, key, **parameters)

    return operation


class Person:
    """A connected SDK client."""

    def __init__(self, driver: Driver, gateway: Running, *, binary: bool = False, user: str = "") -> None:
        self.driver = driver
        self.user = user or f"user-{next(_names)}"
        self.name = f"n{next(_names)}"
        options = {"token": token(self.user)}
        driver.say("make", self.name, endpoint=f"ws://127.0.0.1:{gateway.port}/ws", binary=binary, options=options)
        after = len(driver.events)
        driver.say("connect", self.name)
        self.id = driver.wait(after, event="connected")["client"]

    def subscribe(self, channel: str) -> dict[str, Any]:
        """Subscribe."""
        after = len(self.driver.events)
        self.driver.say("subscribe", self.name, channel=channel)
        return self.driver.wait(after, client=self.name, channel=channel, event="subscribed")

    def hears(self, after: int, event: str, **wanted: Any) -> dict[str, Any]:
        """Wait for an event."""
        return self.driver.wait(after, client=self.name, event=event, **wanted)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "protobuf"])
def test_publish(do: Do, gateway: Running, js: Driver, binary: bool) -> None:
    """
    What is published is heard, with the position that the reply told; tags go along.
    """
    person = Person(js, gateway, binary=binary)
    person.subscribe("lobby")
    after = len(js.events)
    reply = do("publish", channel="lobby", data={"text": "hé\nllo"}, tags={"kind": "news"})["result"]
    heard = person.hears(after, "publication", channel="lobby")
    assert (heard["data"], heard["offset"], heard["tags"]) == ({"text": "hé\nllo"}, reply["offset"], {"kind": "news"})
    history = do("history", channel="lobby", limit=1, reverse=True)["result"]
    assert history["publications"] == [
        {"data": {"text": "hé\nllo"}, "offset": reply["offset"], "tags": {"kind": "news"}}
    ]
    assert (history["offset"], history["epoch"]) == (reply["offset"], reply["epoch"])


def test_versions_and_keys(do: Do) -> None:
    """
    A second publication with a key, and one whose version is not newer, are not made; the position is the first one's.
    """
    key = f"key-{next(_names)}"
    epoch = f"epoch-{next(_names)}"
    first = do("publish", channel="lobby", data=1, idempotency_key=key)["result"]
    assert do("publish", channel="lobby", data=1, idempotency_key=key)["result"] == first
    newer = do("publish", channel="lobby", data=2, version=5, version_epoch=epoch)["result"]
    assert newer["offset"] == first["offset"] + 1
    for version in (5, 4):
        do("publish", channel="lobby", data=3, version=version, version_epoch=epoch)
    assert do("history", channel="lobby")["result"]["offset"] == newer["offset"]
    newest = do("publish", channel="lobby", data=4, version=6, version_epoch=epoch)["result"]
    assert newest["offset"] == newer["offset"] + 1


def test_broadcast_and_batch(do: Do) -> None:
    """
    Each channel, and each command, has a result or an error of its own.
    """
    responses = do("broadcast", channels=["lobby", "no-such", "plain:x"], data=[1])["result"]["responses"]
    assert responses[0]["result"]["offset"] > 0
    assert responses[1]["error"]["code"] == 102
    assert "error" not in responses[2]
    commands = [
        {"publish": {"channel": "lobby", "data": 1}},
        {"publish": {"channel": "no-such", "data": 1}},
        {"presence_stats": {"channel": "lobby"}},
    ]
    replies = do("batch", commands=commands)["result"]["replies"]
    assert replies[0]["publish"]["offset"] == responses[0]["result"]["offset"] + 1
    assert replies[1]["error"]["code"] == 102
    assert "presence_stats" in replies[2]


def test_subscriptions(do: Do, gateway: Running, js: Driver) -> None:
    """
    A user's connections are subscribed, hear the channel, and are unsubscribed for good.
    """
    person = Person(js, gateway)
    after = len(js.events)
    assert "error" not in do("subscribe", user=person.user, channel="plain:gift", data={"from": "server"})
    subscribed = person.hears(after, "subscribed", channel="plain:gift")
    assert subscribed["data"] == {"from": "server"}
    do("publish", channel="plain:gift", data={"a": 1})
    assert person.hears(after, "publication", channel="plain:gift")["data"] == {"a": 1}
    found = do("connections", user=person.user)["result"]["connections"]
    assert found[person.id]["channels"] == ["plain:gift"]
    assert (found[person.id]["transport"], found[person.id]["protocol"]) == ("websocket", "json")
    assert do("channels", pattern="plain:gift")["result"]["channels"] == {"plain:gift": {"num_clients": 1}}
    do("unsubscribe", user=person.user, channel="plain:gift")
    person.hears(after, "unsubscribed", channel="plain:gift")
    assert not do("connections", user=person.user)["result"]["connections"][person.id].get("channels")


def test_presence(do: Do, gateway: Running, js: Driver) -> None:
    """
    Who is there is told with what is told of them; a channel without presence says so.
    """
    person = Person(js, gateway)
    person.subscribe("lobby")
    here = do("presence", channel="lobby")["result"]["presence"]
    assert here[person.id] == {"client": person.id, "user": person.user, "conn_info": {"name": person.user.title()}}
    assert do("presence_stats", channel="lobby")["result"]["num_clients"] == len(here)
    assert do("presence", channel="plain:x")["error"]["code"] == 108


def test_disconnect_and_refresh(do: Do, gateway: Running, js: Driver) -> None:
    """
    One connection is closed with the code that was ordered, others stay; a refresh is told.
    """
    one = Person(js, gateway)
    other = Person(js, gateway, user=one.user)
    after = len(js.events)
    do("refresh", user=one.user, client=other.id, expire_at=time.time() + 1000)
    do("disconnect", user=one.user, client=one.id, disconnect={"code": 4501, "reason": "banned"})
    gone = one.hears(after, "disconnected")
    assert (gone["code"], gone["reason"]) == (4501, "banned")
    assert set(do("connections", user=one.user)["result"]["connections"]) == {other.id}
    do("disconnect", user=one.user)
    assert other.hears(after, "disconnected")["code"] == 3503


def test_history_is_removed(do: Do) -> None:
    """
    What is removed is gone, and the offset goes on.
    """
    before = do("publish", channel="lobby", data=1)["result"]
    do("history_remove", channel="lobby")
    history = do("history", channel="lobby", limit=-1)["result"]
    assert not history.get("publications")
    assert do("publish", channel="lobby", data=2)["result"]["offset"] > before["offset"]


def test_info(do: Do) -> None:
    """
    The instance describes itself.
    """
    (node,) = do("info")["result"]["nodes"]
    assert len(node["uid"]) == 16
    assert node["version"]


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("publish", {"channel": "no-such", "data": 1}, 102),
        ("publish", {"channel": "lobby"}, 107),
        ("publish", {"channel": "plain:x", "data": "a" * 2000}, 106),
        ("history", {"channel": "plain:x"}, 108),
        ("disconnect", {"user": "u", "disconnect": {"code": 1000, "reason": ""}}, 107),
    ],
)
def test_errors(do: Do, name: str, parameters: dict[str, Any], code: int) -> None:
    """
    What cannot be done has the code that clients know.
    """
    assert do(name, **parameters)["error"]["code"] == code


def test_unknown_members(gateway: Running) -> None:
    """
    A member that means nothing here is refused by name: somebody counts on it.
    """
    error = over_http(gateway, "publish", channel="lobby", data=1, dela=True)["error"]
    assert (error["code"], "dela" in error["message"]) == (107, True)


def test_keys(gateway: Running) -> None:
    """
    Without a key, or with one that may not, nothing is done, by either protocol.
    """
    assert over_http(gateway, "publish", key="", channel="lobby", data=1)["code"] == "admin_key_missing"
    assert (
        over_http(gateway, "publish", key="wrong-key-wrong-key", channel="lobby", data=1)["code"] == "admin_key_missing"
    )
    publisher = "a-key-to-publish-with-only"
    assert "result" in over_http(gateway, "publish", key=publisher, channel="lobby", data=1)
    assert over_http(gateway, "disconnect", key=publisher, user="x")["code"] == "forbidden"
    for key in ("", "wrong-key-wrong-key"):
        with pytest.raises(grpc.RpcError) as refused:
            over_grpc(gateway, "publish", key=key, channel="lobby", data=1)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "result" in over_grpc(gateway, "publish", key=publisher, channel="lobby", data=1)
    assert over_grpc(gateway, "disconnect", key=publisher, user="x")["error"]["code"] == 103
    batch = over_http(gateway, "batch", key=publisher, commands=[{"disconnect": {"user": "x"}}])
    assert batch["result"]["replies"][0]["error"]["code"] == 103


def test_second_instance(gateway: Running, tmp_path: Path) -> None:
    """
    A second instance on the server API's port does not start, and says why in the ordinary words.
    """
    config(tmp_path, CONFIG, listen=f'api = "127.0.0.1:{gateway.api}"')
    ended = run([TWISTD, "-n", "--pidfile=", "gateway", "--config", "gateway.toml"], tmp_path)
    assert ended.returncode != 0
    assert f"cannot listen on 127.0.0.1:{gateway.api}" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
