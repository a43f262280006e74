"""
WebSockets over real sockets, plain and TLS: the way through the channel, and what slow readers do to a transport.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.web.certificates import Authority
from tests.web.harness import RawClient, Served, eventually, serve
from tests.ws.wire import JSON_FORM, KEY, Echo, frame, frames_of
from twisted.internet import reactor as installed
from twisted.internet.endpoints import clientFromString, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate as Shown
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates

from gateway.config.realtime_sections import WebSocket
from gateway.config.sections import Certificate, Listener
from gateway.core.problems import Problem
from gateway.ports.clients import Opening
from gateway.ports.http import Exchange
from gateway.ws.closing import ClosingWatch
from gateway.ws.edge import WebSocketEdge

reactor: Any = installed
BOTH = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class Door:
    """
    A server whose clients are echoed.

    Attributes:
        sides: The node's side of each connection.
        refused: Why openings were refused.
    """

    def __init__(self, served: Served, authority: Authority | None) -> None:
        self.served = served
        self.authority = authority
        self.sides: list[Echo] = []
        self.refused: list[str] = []

    async def client(self, *lines: str) -> RawClient:
        """Open a WebSocket; return once it was answered."""
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{self.served.port}")
        if self.authority is not None:
            trusted = trustRootFromCertificates([Shown.loadPEM(self.authority.file.read_bytes())])
            endpoint = wrapClientTLS(optionsForClientTLS("localhost", trustRoot=trusted), endpoint)
        made: RawClient = await endpoint.connect(Factory.forProtocol(RawClient))
        self.served.clients.append(made)
        head = ["GET /ws HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: keep-alive, Upgrade"]
        head += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY.decode()}", *lines, "", ""]
        made.send("\r\n".join(head).encode("latin-1"))
        await made.containing(b"\r\n\r\n")
        return made


@asynccontextmanager
async def opened(folder: Path, *, tls: bool, section: WebSocket | None = None) -> AsyncIterator[Door]:
    section = section or WebSocket()
    door: Door

    def accept(transport: Any, _opening: Opening) -> Echo:
        door.sides.append(Echo(transport))
        return door.sides[-1]

    def never(*given: Any) -> Any:
        raise AssertionError(given)

    edge = WebSocketEdge(
        reactor,
        section,
        forms={"centrifuge-json": JSON_FORM},
        compressed={},
        open_=lambda _exchange, _token: Opening("127.0.0.1", section),
        accept=accept,
        watch=ClosingWatch(reactor),
        lean=True,
        refuse=never,
        crashed=never,
    )

    def answer(exchange: Exchange) -> None:
        try:
            edge.handle(exchange)
        except Problem as problem:
            door.refused.append(problem.kind.code)
            exchange.start(problem.kind.status, b"", b"", 0, b"", ended=True)

    listener = Listener("tcp:0:interface=127.0.0.1")
    authority = None
    if tls:
        authority = Authority(folder)
        made = authority.make("localhost")
        listener = Listener("tcp:0:interface=127.0.0.1", certificate=(Certificate(made.certificate, made.key, ()),))
    door = Door(await serve(answer, listener=listener), authority)
    try:
        yield door
    finally:
        await door.served.stop()


def messages(client: RawClient) -> list[bytes]:
    """What came after the handshake's answer."""
    return [payload for _, payload in frames_of(client.data.partition(b"\r\n\r\n")[2])]


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_connection(tls: bool, tmp_path: Path) -> None:
    """
    A handshake through the HTTP channel, messages there and back, a close; only a plain socket is sent to directly.
    """
    async with opened(tmp_path, tls=tls) as door:
        client = await door.client()
        assert client.data.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.data
        client.send(frame(1, b"one") + frame(1, b"two"))
        await client.containing(b"two")
        assert messages(client) == [b"one", b"two"]
        assert (door.sides[0].connection.direct is None) is tls
        client.send(frame(8, b"\x03\xe8bye"))
        await client.closed()
        assert messages(client)[-1] == b"\x03\xe8bye"
        assert door.sides[0].lost_as == [(1000, "bye", True)]
        await eventually(lambda: not door.served.site.connections)


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_reader_that_stops(tls: bool, tmp_path: Path) -> None:
    """
    What a client does not read is told as blocked, and as drained once it has read everything; nothing is lost or torn.
    """
    async with opened(tmp_path, tls=tls) as door:
        client = await door.client()
        client.transport.pauseProducing()
        side = door.sides[0]
        sent = 0
        while not side.connection.blocked:
            side.connection.write(JSON_FORM.frame(b"%07d" % sent * 1000))
            sent += 1
            assert sent < 10_000
        assert side.changes == ["blocked"]
        client.transport.resumeProducing()
        await eventually(lambda: side.changes == ["blocked", "drained"])
        # Its size is asked, not its frames: those are read again from the beginning each time.
        await client.until(lambda: len(client.data) > sent * 7000)
        await client.until(lambda: len(messages(client)) >= sent)
        assert messages(client) == [b"%07d" % number * 1000 for number in range(sent)]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["Sec-WebSocket-Version: 8"], "upgrade_required"),
        (["Sec-WebSocket-Key: short"], "bad_request"),
        (["Sec-WebSocket-Protocol: a b"], "bad_request"),
        (["Sec-WebSocket-Protocol: bearer.x, bearer.y"], "credentials_conflict"),
        (["Sec-WebSocket-Protocol: bearer.x"], "bad_request"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_handshakes_that_are_none(lines: list[str], code: str, tmp_path: Path) -> None:
    """
    What is wrong with a handshake is answered over HTTP, and nothing of a connection exists.
    """
    async with opened(tmp_path, tls=False) as door:
        await door.client(*lines)
        assert door.refused == [code]
        assert door.sides == []


@pytest_twisted.ensureDeferred
async def test_sub_protocols(tmp_path: Path) -> None:
    """
    The first sub-protocol that we speak is chosen and named; a token among them is not.
    """
    async with opened(tmp_path, tls=False) as door:
        client = await door.client("Sec-WebSocket-Protocol: other, centrifuge-json, bearer.a.b.c")
        chosen = [line for line in client.data.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Protocol")]
        assert chosen == [b"Sec-WebSocket-Protocol: centrifuge-json"]
