"""
Browsers in front of a whole gateway: preflights, what pages may read, and what protects them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from tests.upstream.gate import Answer, head_of
from tests.web.harness import RawClient
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.web.resource import Resource
from twisted.web.server import Site

from demo.ports import free_port
from gateway.app import Gateway
from gateway.config.load import load
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink

PLAY, EVIL = "Origin: https://play.example", "Origin: https://evil.example"

CONFIG = """
[listen]
clients = "tcp:{port}:interface=127.0.0.1"
admin   = "tcp:{admin}:interface=127.0.0.1"

[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = "HS256"
secret     = "a-secret-that-only-this-test-knows"

[limits.policy."a few"]
rate = "6/h"
key  = "address"
on   = "requests"
routes = "/limited"

[cors]
origins     = ["https://play.example"]
credentials = true

[upstream.players]
http = "http://127.0.0.1:{backend}"

[[route]]
path     = "/players/{{id}}"
methods  = ["GET", "PUT"]
upstream = "players"

[[route]]
path     = "/limited"
upstream = "players"
auth     = "none"

[[route]]
path     = "/open"
upstream = "players"
auth     = "none"
[route.cors]
origins     = "*"
credentials = false
[route.headers]
frame_ancestors = "'self'"
resource_policy = "off"

[[route]]
path     = "/bare"
upstream = "players"
auth     = "none"
[route.cors]
origins = []

[[websocket]]
path        = "/ws"
sse         = "/sse"
http_stream = "/stream"
emulation   = "/emulation"
"""


class Loose(Resource):
    """A backend that lets in any page, and remembers who came."""

    isLeaf = True
    asked = 0

    def render(self, request: Any) -> bytes:
        """Let it in."""
        type(self).asked += 1
        request.setHeader(b"Access-Control-Allow-Origin", b"*")
        request.setHeader(b"Referrer-Policy", b"origin")
        return b"hello"


class House:
    """A gateway that runs."""

    def __init__(self, port: int, admin: int) -> None:
        self.port = port
        self.admin = admin

    async def raw(self, data: bytes, port: int = 0) -> Answer:
        """Send *data* and read until the connection is closed."""
        here: Any = reactor
        made: RawClient = await clientFromString(here, f"tcp:127.0.0.1:{port or self.port}").connect(
            Factory.forProtocol(RawClient)
        )
        made.send(data)
        return Answer(await made.closed(10.0))

    async def ask(self, target: str, *headers: str, method: str = "GET", port: int = 0) -> Answer:
        """Ask once."""
        return await self.raw(head_of(target, *headers, "Connection: close", method=method), port)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[House]:
    """Start a gateway before a backend."""
    here: Any = reactor
    backend = here.listenTCP(0, Site(Loose()), interface="127.0.0.1")
    house = House(free_port(), free_port())
    path = folder / "gateway.toml"
    path.write_text(CONFIG.format(port=house.port, admin=house.admin, backend=backend.getHost().port))
    with (folder / "log").open("wb") as log:
        sink = Sink(log.fileno())
        gateway = Gateway(reactor, load(path, {}), path, Logs(sink, pretty=False))
        await gateway.start()
        try:
            yield house
        finally:
            await gateway.stop()
            await backend.stopListening()
            sink.stop()


def protected(answer: Answer) -> bool:
    """Whether *answer* has what protects browsers, once."""
    names = [name.lower() for name, _ in answer.headers]
    wanted = ("x-content-type-options", "referrer-policy", "content-security-policy", "cross-origin-resource-policy")
    return all(names.count(name) == 1 for name in wanted)


@pytest_twisted.ensureDeferred
async def test_browsers(tmp_path: Path) -> None:
    """
    Preflights are answered for paths that exist, pages read what they may, and every answer protects.
    """
    async with running(tmp_path) as house:
        asks = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization")
        # Answered at the edge: no token, and the backend sees nothing.
        preflight = await house.ask("/players/7", PLAY, *asks, method="OPTIONS")
        assert preflight.status == 204
        assert preflight.header("access-control-allow-origin") == "https://play.example"
        assert preflight.header("access-control-allow-methods") == "GET, HEAD, PUT"
        # Browsers take no header of CORS that stands there twice.
        names = [name.lower() for name, _ in preflight.headers]
        assert len(set(names)) == len(names)
        assert preflight.header("access-control-allow-credentials") == "true"
        assert protected(preflight)
        elsewhere = await house.ask("/players/7", EVIL, *asks, method="OPTIONS")
        assert (elsewhere.status, elsewhere.code) == (403, "origin_refused")
        assert elsewhere.header("access-control-allow-origin") is None
        # A path that nobody has, and a method that it does not take, are what they are for any request.
        assert (await house.ask("/nothing", PLAY, *asks, method="OPTIONS")).status == 404
        assert (
            await house.ask("/players/7", PLAY, "Access-Control-Request-Method: DELETE", method="OPTIONS")
        ).status == 405
        assert Loose.asked == 0
        # Errors can be read by the page.
        for target, status in (("/players/7", 401), ("/nothing", 404), ("/a%00", 400)):
            answer = await house.ask(target, PLAY)
            assert (answer.status, answer.header("access-control-allow-origin")) == (status, "https://play.example")
            assert answer.header("vary") == "Origin"
            assert protected(answer)
        # A backend's own are replaced, not doubled; what it says about itself stands.
        answers = [await house.ask("/limited", PLAY) for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 6 + [429]
        for answer in answers:
            allowed = [value for name, value in answer.headers if name.lower() == "access-control-allow-origin"]
            assert allowed == ["https://play.example"]
            assert protected(answer)
        assert answers[0].header("referrer-policy") == "origin"
        # Of a route's own.
        open_ = await house.ask("/open", "Origin: https://whoever.example")
        assert open_.header("access-control-allow-origin") == "*"
        assert open_.header("access-control-allow-credentials") is None
        assert open_.header("content-security-policy") == "frame-ancestors 'self'"
        assert open_.header("cross-origin-resource-policy") is None
        # Without a list nothing of the backend's is touched, and OPTIONS is a method like others.
        bare = await house.ask("/bare", PLAY, *asks, method="OPTIONS")
        assert (bare.status, bare.header("access-control-allow-origin")) == (200, "*")


@pytest_twisted.ensureDeferred
async def test_streams_and_sockets_go_by_the_same_list(tmp_path: Path) -> None:
    """
    WebSockets, streams and their commands take pages of the list alone, and streams can be read by them.
    """
    async with running(tmp_path) as house:
        shake = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        refused = await house.ask("/ws", EVIL, *shake, key)
        assert (refused.status, refused.code) == (403, "origin_refused")
        here: Any = reactor
        client: RawClient = await clientFromString(here, f"tcp:127.0.0.1:{house.port}").connect(
            Factory.forProtocol(RawClient)
        )
        client.send(head_of("/ws", PLAY, *shake, key))
        assert (await client.containing(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        client.reset()
        for target, method in (("/sse", "GET"), ("/stream", "POST"), ("/emulation", "POST")):
            preflight = await house.ask(target, PLAY, f"Access-Control-Request-Method: {method}", method="OPTIONS")
            assert preflight.status == 204
            assert preflight.header("access-control-allow-methods") in {"GET, HEAD", "POST"}
            assert (
                await house.ask(f"{target}?cf_connect=%7B%7D", EVIL, "Content-Length: 0", method=method)
            ).status == 403
        answer = await house.ask("/emulation", PLAY, "Content-Length: 0", method="POST")
        assert (answer.status, answer.header("access-control-allow-origin")) == (400, "https://play.example")


@pytest_twisted.ensureDeferred
async def test_what_is_no_request_is_answered_alike(tmp_path: Path) -> None:
    """
    Refusals of bytes that are no request, on the clients' port and on the admin port, protect as well.
    """
    async with running(tmp_path) as house:
        for port in (house.port, house.admin):
            for data in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01\x00\xa5",
                b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n",
            ):
                answer = await house.raw(data, port)
                assert 400 <= answer.status < 500
                assert answer.header("x-content-type-options") == "nosniff"
                assert answer.header("cache-control") == "no-store"
            nothing = await house.ask("/nothing", port=port)
            assert protected(nothing)
            assert json.loads(nothing.body)["code"] in {"no_route", "bad_host"}
