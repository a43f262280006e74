"""
Frames of one HTTP/2 connection, on the client's side: read, put together, answered where no call is meant.

What is sent within a reactor turn leaves in one write.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol

from gateway.upstream import http2 as h

__all__ = ["MAX_WINDOW", "Wire"]

MAX_WINDOW: Final = 2**31 - 1
TOP_UP: Final = 1 << 24
"""Bytes taken after which the connection's window is made whole again."""

_PROTOCOL_ERROR: Final = 1


class Wire(Protocol):
    """
    A connection; what its frames mean is for the class that builds on it.

    Args:
        tls: It is only used if the server agreed to HTTP/2 by ALPN.

    Attributes:
        greeted: The server's settings have come.
        heard_at: When the server said something the last time, by the reactor's clock.
        asked_at: When it was asked whether it is there; None if it was not, or has said something since.
    """

    def __init__(self, reactor: Any, *, tls: bool) -> None:
        self._reactor = reactor
        self._tls = tls
        self._blocks = h.Blocks()
        self._rest = b""
        self._block: tuple[int, int, list[bytes]] | None = None
        self._taken = 0
        self._out: list[bytes] = []
        self._flushing: IDelayedCall | None = None
        self.greeted = False
        self.heard_at = 0.0
        self.asked_at: float | None = None

    def connectionMade(self) -> None:
        """Send small things at once."""
        self.heard_at = self._reactor.seconds()
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    # What is sent.

    def write(self, data: bytes) -> None:
        """
        Send frames with this turn's others.
        """
        self._out.append(data)
        if self._flushing is None:
            self._flushing = self._reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        out, self._out = self._out, []
        self.transport.write(b"".join(out))  # type: ignore[union-attr]

    def flush_now(self) -> None:
        """
        Send now what waits for the end of the turn.
        """
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def forget(self) -> None:
        """
        Send nothing any more.
        """
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def ask(self) -> None:
        """
        Ask whether anybody is there.
        """
        self.asked_at = self._reactor.seconds()
        self.write(h.frame(h.PING, 0, 0, b"gateway."))

    def goodbye(self, code: int) -> None:
        """
        Say that it ends.
        """
        self.write(h.frame(h.GOAWAY, 0, 0, b"\0\0\0\0" + code.to_bytes(4, "big")))

    # What comes.

    def dataReceived(self, data: bytes) -> None:
        """Take frames."""
        self.heard_at = self._reactor.seconds()
        self.asked_at = None
        if not self.greeted and self._tls and getattr(self.transport, "negotiatedProtocol", None) != b"h2":
            self.give_up("the server does not speak HTTP/2 (ALPN)")
            return
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        read = int.from_bytes
        try:
            while end - at >= 9:
                size = read(data[at : at + 3], "big")
                if size > h.MAX_FRAME:
                    raise h.ProtocolError(f"a frame of {size} bytes")
                behind = at + 9 + size
                if behind > end:
                    break
                self._frame(
                    data[at + 3], data[at + 4], read(data[at + 5 : at + 9], "big") & MAX_WINDOW, data[at + 9 : behind]
                )
                at = behind
        except h.ProtocolError as error:
            self.goodbye(_PROTOCOL_ERROR)
            self.give_up(f"not gRPC: {error}")
            return
        self._rest = data[at:] if at < end else b""
        if self._taken > TOP_UP:
            self.write(h.frame(h.WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != h.CONTINUATION:
            raise h.ProtocolError("a header block that is not ended")
        if not self.greeted and kind != h.SETTINGS:
            raise h.ProtocolError("no settings")
        if kind == h.DATA:
            self._taken += len(payload)
            self.take_data(flags, stream, h.unpadded(payload) if flags & h.PADDED else payload)
        elif kind == h.HEADERS:
            if flags & h.PADDED:
                payload = h.unpadded(payload)
            if flags & h.PRIORITY:
                payload = payload[5:]
            if flags & h.END_HEADERS:
                self.take_fields(flags, stream, self._blocks.decode(payload))
            else:
                self._block = (flags, stream, [payload])
        elif kind == h.CONTINUATION:
            self._continued(flags, stream, payload)
        elif kind == h.SETTINGS:
            self._settings(flags, payload)
        elif kind == h.RST_STREAM:
            self.take_reset(stream, int.from_bytes(payload, "big"))
        elif kind == h.PING:
            if not flags & h.ACK:
                self.write(h.frame(h.PING, h.ACK, 0, payload[:8]))
        elif kind == h.GOAWAY:
            self.take_goodbye(int.from_bytes(payload[:4], "big") & MAX_WINDOW)
        elif kind == h.WINDOW_UPDATE:
            self.take_window(stream, int.from_bytes(payload, "big") & MAX_WINDOW)
        elif kind == h.PUSH_PROMISE:
            raise h.ProtocolError("a push, which was not allowed")

    def _continued(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[1] != stream:
            raise h.ProtocolError("a continuation of nothing")
        begun, _, parts = self._block
        parts.append(payload)
        if sum(map(len, parts)) > h.MAX_BLOCK:
            raise h.ProtocolError("a header block that is too large")
        if flags & h.END_HEADERS:
            self._block = None
            self.take_fields(begun, stream, self._blocks.decode(b"".join(parts)))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & h.ACK:
            return
        if len(payload) % 6:
            raise h.ProtocolError("settings that are none")
        settings = {
            int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
            for at in range(0, len(payload), 6)
        }
        self.write(h.frame(h.SETTINGS, h.ACK, 0))
        self.greeted = True
        self.take_settings(settings)

    # For the class that builds on it.

    def take_data(self, flags: int, stream: int, payload: bytes) -> None:
        """Bytes of a stream, without padding."""
        raise NotImplementedError

    def take_fields(self, flags: int, stream: int, fields: tuple[h.Field, ...]) -> None:
        """A header block of a stream, whole."""
        raise NotImplementedError

    def take_reset(self, stream: int, code: int) -> None:
        """The server ended a stream."""
        raise NotImplementedError

    def take_settings(self, settings: dict[int, int]) -> None:
        """The server's settings, for the first time or again; they are acknowledged."""
        raise NotImplementedError

    def take_window(self, stream: int, size: int) -> None:
        """More may be sent, on a stream or (0) on the connection."""
        raise NotImplementedError

    def take_goodbye(self, last: int) -> None:
        """No stream behind *last* is looked at."""
        raise NotImplementedError

    def give_up(self, reason: str) -> None:
        """Cut it now."""
        raise NotImplementedError
