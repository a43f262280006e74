"""
WebSockets without sockets: frames a client would send, and protocols that talk to a string.
"""

from __future__ import annotations

import struct
from typing import Any

from autobahn.twisted import websocket as autobahn
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.config.realtime_sections import WebSocket
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.ports.clients import Form
from gateway.ws.closing import ClosingWatch
from gateway.ws.edge import WebSocketEdge
from gateway.ws.framing import CompressedForm, FrameForm, header
from gateway.ws.handshake import answer, request_again

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x01\x9c\x55\xf0"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    form: int = 0,
) -> bytes:
    """
    Make a client's frame; *form* forces the length to be written in 126's or 127's way.
    """
    size = len(payload)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if form == 126:
        head = struct.pack("!BBH", first, 126, size)
    elif form == 127:
        head = struct.pack("!BBQ", first, 127, size)
    else:
        head = header(first, size)
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
    return bytes((head[0], head[1] | 0x80)) + head[2:] + mask + masked


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """
    Read a server's frames: first byte and payload.
    """
    found = []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        found.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return found


class Wire(StringTransport):
    """
    A transport that keeps what it is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def setTcpNoDelay(self, _: bool) -> None:
        """Nothing to delay."""

    def unregisterProducer(self) -> None:
        """As real transports do: there need be none."""
        self.producer = None

    def abortConnection(self) -> None:
        """Note it."""
        self.cut = True


class Echo:
    """
    The node's side of a connection: sends back what comes.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.got: list[bytes] = []
        self.lost_as: list[tuple[int, str, bool]] = []
        self.changes: list[str] = []

    def received(self, message: bytes) -> None:
        """Send it back."""
        self.got.append(message)
        self.connection.write(self.connection.form.frame(message))

    def blocked(self) -> None:
        """Note it."""
        self.changes.append("blocked")

    def drained(self) -> None:
        """Note it."""
        self.changes.append("drained")

    def lost(self, code: int, reason: str, *, clean: bool) -> None:
        """Note it."""
        self.lost_as.append((code, reason, clean))


JSON_FORM = FrameForm(CentrifugeJson())
COMPRESSED = CompressedForm(CentrifugeJson())


class Socket:
    """
    One of our connections over a string.
    """

    def __init__(
        self, *, lean: bool = True, section: WebSocket | None = None, extensions: bytes = b"", form: Form = JSON_FORM
    ) -> None:
        self.clock = Clock()
        self.watch = ClosingWatch(self.clock)
        self.section = section or WebSocket()
        edge = WebSocketEdge(
            self.clock,
            self.section,
            forms={"centrifuge-json": form},
            compressed={"centrifuge-json": COMPRESSED} if self.section.compression else {},
            open_=_never,
            accept=_never,
            watch=self.watch,
            lean=lean,
            refuse=_never,
            crashed=_never,
        )
        self.wire = Wire()
        self.connection: Any = edge._class(form, "", self.watch, self.section.close_timeout_s)
        fields = {b"sec-websocket-extensions": extensions} if extensions else {}
        if lean and not (extensions and self.section.compression):
            self.opened = self.connection.open(self.wire, answer(KEY, "", b""))
        else:
            self.opened = self.connection.begin(self.wire, request_again(fields, KEY, ""))
        if self.opened and self.connection.websocket_extensions_in_use:
            self.connection.form = COMPRESSED
        self.echo = Echo(self.connection)
        self.connection.side = self.echo
        self.handshake, _, rest = self.wire.value().partition(b"\r\n\r\n")
        assert not rest
        self.wire.clear()

    def talk(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        """Send bytes; return the frames that came back."""
        for piece in pieces:
            if not self.wire.disconnecting and not self.wire.cut:
                self.connection.dataReceived(piece)
        found = frames_of(self.wire.value())
        self.wire.clear()
        return found

    def lose(self, reason: Failure) -> None:
        """The connection is gone."""
        self.connection.connectionLost(reason)


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("not asked in these tests")


class _StockEcho(autobahn.WebSocketServerProtocol):  # type: ignore[misc,unused-ignore]
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        del isBinary
        self.transport.write(JSON_FORM.frame(payload))  # type: ignore[union-attr]


class Stock:
    """
    Autobahn's own connection over a string.
    """

    def __init__(self, most: int = 65536) -> None:
        factory: Any = autobahn.WebSocketServerFactory(reactor=Clock())
        factory.setProtocolOptions(
            failByDrop=False,
            echoCloseCodeReason=True,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            maxFramePayloadSize=most,
            maxMessagePayloadSize=most,
        )
        self.wire = Wire()
        self.connection: Any = _StockEcho()
        self.connection.factory = factory
        self.connection.makeConnection(self.wire)
        self.connection.dataReceived(request_again({}, KEY, ""))
        self.handshake, _, _ = self.wire.value().partition(b"\r\n\r\n")
        self.wire.clear()

    def talk(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        """Send bytes; return the frames that came back."""
        for piece in pieces:
            if not self.wire.disconnecting and not self.wire.cut:
                self.connection.dataReceived(piece)
        found = frames_of(self.wire.value())
        self.wire.clear()
        return found
