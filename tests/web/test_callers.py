"""
Who a whole gateway says that calls: the holder of a client certificate, and the one address of a client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from tests.system.attacks import frame
from tests.upstream.gate import Answer, head_of
from tests.web.certificates import Authority, Made
from tests.web.harness import RawClient, clock
from tests.web.test_tls import Client
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from demo.ports import free_port
from gateway.app import Gateway
from gateway.config.load import load
from gateway.core.identity import Revocation
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink

CONFIG = """
[listen]
admin = []
{trusted}

[[listen.clients]]
endpoint = "tcp:{port}:interface=127.0.0.1"
{listener}

[upstream.backend]
http = "http://127.0.0.1:{backend}"
"""

TLS = """
client_ca_file     = "{authority}"
client_certificate = "optional"
[[listen.clients.certificate]]
certificate_file = "{certificate}"
key_file         = "{key}"
"""

BY_CERTIFICATE = """
[[route]]
path        = "/devices/{id}"
upstream    = "backend"
credentials = ["header", "certificate"]
when        = "claims.sub == 'certificate:' + path.id && 'device.example' in claims.certificate.dns"

[[route]]
path        = "/users"
upstream    = "backend"
credentials = ["certificate"]
"""

BY_TOKEN = """
[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = "HS256"
secret     = "a-secret-that-only-this-test-knows"

[[route]]
path     = "/token"
upstream = "backend"
"""

BY_SOCKET = """
[[websocket]]
path        = "/ws"
credentials = ["certificate"]

[channels."device:{id}"]
subscribe = "'certificate:' + channel.id == claims.sub"
"""

BY_ADDRESS = """
[limits.policy."one"]
rate = "1/h"

[[route]]
path     = "/**"
upstream = "backend"
auth     = "none"
"""


class Told(Resource):
    """A backend that tells what it was told."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        """Tell it."""
        names = ("x-user-id", "x-forwarded-for")
        return json.dumps({name: request.getHeader(name) for name in names}).encode()


class House:
    """A gateway that runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.gateway: Gateway

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    async def connect(self, made: Made | None = None, *, tls: bool = True) -> RawClient:
        """Connect, with a certificate."""
        here: Any = reactor
        plain: Any = Factory.forProtocol(RawClient)
        factory: Any = (
            TLSMemoryBIOFactory(Client("gw.example", made=made), True, plain, clock=clock()) if tls else plain
        )
        wrapper: Any = await TCP4ClientEndpoint(here, "127.0.0.1", self.port).connect(factory)
        raw: RawClient = wrapper.wrappedProtocol if tls else wrapper
        return raw

    async def ask(self, target: str, *headers: str, made: Made | None = None) -> Answer:
        """Ask over TLS."""
        raw = await self.connect(made)
        raw.send(head_of(target, *headers, "Connection: close"))
        return Answer(await raw.closed())


@asynccontextmanager
async def running(folder: Path, listener: str, body: str, trusted: str = "") -> AsyncIterator[House]:
    """Start a gateway before a backend."""
    here: Any = reactor
    backend = here.listenTCP(0, Site(Told()), interface="127.0.0.1")
    house = House(folder, free_port())
    path = folder / "gateway.toml"
    port = backend.getHost().port
    path.write_text(CONFIG.format(port=house.port, backend=port, listener=listener, trusted=trusted) + body)
    with (folder / "log").open("wb") as log:
        sink = Sink(log.fileno())
        house.gateway = gateway = Gateway(reactor, load(path, {}), path, Logs(sink, pretty=False))
        await gateway.start()
        try:
            yield house
        finally:
            await gateway.stop()
            await backend.stopListening()
            sink.stop()


@pytest_twisted.ensureDeferred
async def test_certificates_are_identities_where_a_route_takes_them(tmp_path: Path) -> None:
    """
    The holder of a certificate is known to rules and backends, on routes that say so, until it is revoked.
    """
    authority = Authority(tmp_path)
    own = authority.make("gw.example")
    files = {"authority": authority.file, "certificate": own.certificate, "key": own.key}
    device = authority.make("device.example", common_name="seven")
    other = authority.make("other.example", common_name="eight")
    stranger = Authority(tmp_path, "elsewhere").make("device.example", common_name="seven", file="stranger")
    async with running(tmp_path, TLS.format(**files), BY_CERTIFICATE + BY_TOKEN) as house:
        mine = await house.ask("/devices/seven", made=device)
        assert (mine.status, json.loads(mine.body)["x-user-id"]) == (200, "certificate:seven")
        assert mine.header("strict-transport-security") == "max-age=31536000"
        # Rules judge it as they judge a token.
        assert (await house.ask("/devices/eight", made=device)).status == 403
        assert (await house.ask("/devices/eight", made=other)).status == 403
        # Nobody without one, and nobody whom another authority vouches for.
        assert (await house.ask("/devices/seven")).status == 401
        assert (await (await house.connect(stranger)).closed()) == b""
        # A token that is none is not made good by it; where certificates are not taken they say nothing.
        assert (await house.ask("/devices/seven", "Authorization: Bearer a.b.c", made=device)).status == 401
        assert (await house.ask("/token", made=device)).status == 401
        assert (await house.ask("/users", "X-User-Id: root", made=other)).body == (
            b'{"x-user-id": "certificate:eight", "x-forwarded-for": "127.0.0.1"}'
        )
        house.gateway.revocations.add(Revocation(4e9, subject="certificate:seven", issued_before=4e9))
        assert (await house.ask("/devices/seven", made=device)).status == 401


@pytest_twisted.ensureDeferred
async def test_certificates_open_websockets(tmp_path: Path) -> None:
    """
    A WebSocket that takes certificates knows who is behind it, and lets in nobody without one.
    """
    authority = Authority(tmp_path)
    own = authority.make("gw.example")
    device = authority.make(common_name="seven")
    files = {"authority": authority.file, "certificate": own.certificate, "key": own.key}
    shake = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    said = frame(1, b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"device:seven"}}')
    said += frame(1, b'{"id":3,"subscribe":{"channel":"device:eight"}}')
    async with running(tmp_path, TLS.format(**files), BY_SOCKET) as house:
        for made, answers in ((device, (b'"id":2,"subscribe":{', b'"id":3,"error":{')), (None, (b"\x88",))):
            raw = await house.connect(made)
            raw.send(head_of("/ws", *shake, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
            await raw.containing(b"HTTP/1.1 101 ")
            raw.clear()
            raw.send(said)
            for answer in answers:
                assert answer in await raw.containing(answer)
            raw.reset()


@pytest_twisted.ensureDeferred
async def test_one_address_for_all(tmp_path: Path) -> None:
    """
    Behind a PROXY header and a trusted proxy, limits, log and backend go by the same address.
    """
    proxied = 'proxy_protocol_from = ["127.0.0.0/8"]'
    trusted = 'trusted_proxies = ["198.51.100.0/24"]'
    cases = [
        # PROXY header, X-Forwarded-For, the client's address
        ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
        ("198.51.100.9", "203.0.113.2", "203.0.113.2"),
        ("198.51.100.9", "203.0.113.9, 203.0.113.3, 198.51.100.8", "203.0.113.3"),
    ]
    async with running(tmp_path, proxied, BY_ADDRESS, trusted) as house:
        for peer, forwarded, client in cases:
            for status in (200, 429):
                raw = await house.connect(tls=False)
                head = head_of("/a", f"X-Forwarded-For: {forwarded}", "Connection: close")
                raw.send(f"PROXY TCP4 {peer} 192.0.2.1 4711 80\r\n".encode() + head)
                answer = Answer(await raw.closed())
                assert answer.status == status
                if status == 200:
                    assert json.loads(answer.body)["x-forwarded-for"].split(", ")[0] == client
    told = [line["client"] for line in house.lines() if line["event"] == "request"]
    assert told == [client for _, _, client in cases for _ in range(2)]
