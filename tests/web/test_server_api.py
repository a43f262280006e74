"""
The server API over HTTP: paths, keys, shapes of answers. A whole node behind a real admin port.
"""

from __future__ import annotations

import json
from typing import Any, Self

import pytest_twisted
from tests.realtime.house import House
from tests.web.harness import body_of, pause, status_of
from tests.web.test_admin import ENDPOINT, Admin, code_of
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from gateway.config.sections import AdminKey, Listen, Secret
from gateway.node.operations import Operations
from gateway.node.orders import ORDERS
from gateway.web.admin import AdminPort
from gateway.web.server_api import server_api_pages

CONFIG = """
[channels.lobby]
subscribe = "authenticated"
presence = true
history = { size = 5, ttl = "5m" }
coalesce = "0s"

[channels."table:{id}"]
subscribe = "authenticated"
snapshot = { upstream = "backend", http = "POST /state", set = { id = "channel.id" } }
"""

ALL, GAME, WATCH = "all-all-all-all-all", "game-game-game-game", "watch-watch-watch"
KEYS = (
    AdminKey("root", Secret(ALL), ("*",)),
    AdminKey("game", Secret(GAME), ("publish",), ("table:*",)),
    AdminKey("watch", Secret(WATCH), ("read",)),
)


class Served(Admin):
    """
    An admin port with the server API of a node.
    """

    def __init__(self) -> None:
        super().__init__(KEYS)
        self.house = House(CONFIG)
        pages = server_api_pages(Operations(self.house.node))
        self.port = AdminPort(self.operations, Listen(admin=(ENDPOINT,)), KEYS, pages)

    async def __aenter__(self) -> Self:
        await self.port.open(reactor)
        return self

    async def order(self, name: str, parameters: Any = None, *lines: str, key: str = ALL) -> bytes:
        """Do an operation; the whole answer."""
        body = parameters if isinstance(parameters, bytes) else json.dumps(parameters or {}).encode()
        return await self.ask(f"/api/{name}".rstrip("/"), *lines, method="POST", key=key, body=body)

    async def do(self, name: str, parameters: Any = None, *, key: str = ALL) -> Any:
        """Do an operation; what the answer says, which is 200 whatever it is."""
        answer = await self.order(name, parameters, key=key)
        assert status_of(answer) == 200
        assert b"Content-Type: application/json\r\n" in answer
        return json.loads(body_of(answer))


@pytest_twisted.ensureDeferred
async def test_every_operation_has_a_path() -> None:
    """
    Each operation is there, wants POST, and answers with a result or an error and nothing else.
    """
    async with Served() as served:
        for name in ORDERS:
            said = await served.do(name)
            assert set(said) in ({"result"}, {"error"})
            if "error" in said:
                assert set(said["error"]) == {"code", "message"}
                assert said["error"]["code"] == 107
            assert status_of(await served.ask(f"/api/{name}", key=ALL)) == 405
        assert status_of(await served.order("no_such")) == 404


@pytest_twisted.ensureDeferred
async def test_publish_over_http() -> None:
    """
    A publication is heard as it was sent, and its position is in the reply.
    """
    async with Served() as served:
        person = served.house.connected()
        person.reply(subscribe={"channel": "lobby"})
        said = await served.do("publish", {"channel": "lobby", "data": {"text": "hé"}})
        assert said["result"]["offset"] == 1
        assert len(said["result"]["epoch"]) == 8
        assert person.pushes() == [{"channel": "lobby", "pub": {"data": {"text": "hé"}, "offset": 1}}]
        history = await served.do("history", {"channel": "lobby", "limit": -1})
        assert history["result"]["publications"] == [{"data": {"text": "hé"}, "offset": 1}]


@pytest_twisted.ensureDeferred
async def test_the_operation_in_the_body() -> None:
    """
    ``POST /api`` does what its body names, by the key's scopes, and says what is no operation.
    """
    async with Served() as served:
        published = {"method": "publish", "params": {"channel": "lobby", "data": 1}}
        assert (await served.do("", published))["result"]["offset"] == 1
        assert "nodes" in (await served.do("", {"method": "info"}, key=WATCH))["result"]
        assert (await served.do("", published, key=WATCH))["error"]["code"] == 103
        assert (await served.do("", {"method": "no_such"}))["error"]["code"] == 104
        for wrong in (
            b"",
            b"[]",
            b'{"params":{}}',
            b'{"method":"info","more":1}',
            b'{"method":1}',
            b'{"method":"\xff"}',
        ):
            assert (await served.do("", wrong or b" "))["error"]["code"] == 107
        assert code_of(await served.order("", published, key="")) == "admin_key_missing"


@pytest_twisted.ensureDeferred
async def test_keys_in_each_form() -> None:
    """
    A key counts in ``X-API-Key``, as ``apikey`` or ``Bearer``; one is wanted, no more and no other.
    """
    async with Served() as served:
        for line in (f"X-API-Key: {ALL}", f"Authorization: apikey {ALL}", f"Authorization: Bearer {ALL}"):
            assert status_of(await served.order("info", {}, line, key="")) == 200
        for lines in ((), ("X-API-Key: wrong-wrong-wrong",), (f"X-API-Key: {ALL}", f"Authorization: Bearer {ALL}")):
            answer = await served.order("info", {}, *lines, key="")
            assert (status_of(answer), code_of(answer)) == (401, "admin_key_missing")
        assert code_of(await served.ask(f"/api/info?key={ALL}", method="POST", body=b"{}")) == "admin_key_missing"


@pytest_twisted.ensureDeferred
async def test_scopes_and_channels_of_keys() -> None:
    """
    A key without the scope of a path is refused before its body was taken; in a batch each command is.
    """
    async with Served() as served:
        answer = await served.order("disconnect", {"user": "alice"}, key=GAME)
        assert (status_of(answer), code_of(answer)) == (403, "forbidden")
        refused = await served.do("publish", {"channel": "lobby", "data": 1}, key=GAME)
        assert refused["error"]["code"] == 103
        assert "result" in await served.do("publish", {"channel": "table:1", "data": 1}, key=GAME)
        commands = [{"info": {}}, {"publish": {"channel": "table:1", "data": 1}}]
        for key, codes in ((GAME, [103, 0]), (WATCH, [0, 103]), (ALL, [0, 0])):
            replies = (await served.do("batch", {"commands": commands}, key=key))["result"]["replies"]
            assert [reply.get("error", {}).get("code", 0) for reply in replies] == codes


@pytest_twisted.ensureDeferred
async def test_what_is_no_order() -> None:
    """
    A body that is not the operation's JSON is told what is wrong with it; one that is too large is not taken.
    """
    async with Served() as served:
        for body, word in (
            (b"{", "truncated"),
            (b"[]", "array"),
            (b'{"channel":"lobby","data":1,"dela":true}', "dela"),
            (b'{"channel":7,"data":1}', "channel"),
            (b"[" * 100_000, ""),
            (b'{"channel":"\xff","data":1}', "utf-8"),
        ):
            error = (await served.do("publish", body))["error"]
            assert (error["code"], word in error["message"]) == (107, True), error
        answer = await served.ask("/api/publish", "Content-Length: 1048577", method="POST", key=ALL)
        assert (status_of(answer), code_of(answer)) == (413, "body_too_large")


@pytest_twisted.ensureDeferred
async def test_who_hangs_up_is_not_worked_for() -> None:
    """
    An operation whose caller has gone is cancelled, down to the backend it was waiting for.
    """
    async with Served() as served:
        cancelled: list[bool] = []
        served.house.answers["POST /state"] = Deferred(lambda _: cancelled.append(True))
        served.house.connected("alice")
        client = await served.connect()
        body = json.dumps({"user": "alice", "channel": "table:1"})
        client.send(
            f"POST /api/subscribe HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ALL}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        for _ in range(200):
            await pause(0.02)
            if served.house.backends["POST /state"].calls:
                break
        assert not cancelled
        client.transport.abortConnection()
        for _ in range(200):
            await pause(0.02)
            if cancelled:
                break
        assert cancelled
        assert served.house.node.clients
        (found,) = (await served.do("connections", {"user": "alice"}))["result"]["connections"].values()
        assert found["channels"] == []
