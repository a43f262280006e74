"""
One WebSocket: Autobahn's protocol as the carrier of a real-time client.

Autobahn reads frames, answers pings and closes; what it does not bound is bounded here: pongs to a
client that reads nothing, fragments without content, closing handshakes that nobody ends. Frames to
the client are made by the form, once for all clients, and go to the transport as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from autobahn.twisted import websocket as autobahn
from twisted.python.failure import Failure

from gateway.net.transports import direct_send, set_write_limit
from gateway.ports.clients import ClientSide, Form

if TYPE_CHECKING:
    from gateway.ws.closing import ClosingWatch

__all__ = ["OPEN", "Autobahn", "Connection", "Quiet"]

Autobahn: Any = autobahn.WebSocketServerProtocol
"""Not typed: its annotations say other things than it does (a reason is a string there, a transport None)."""

OPEN: Final[int] = Autobahn.STATE_OPEN

MOST_EMPTY = 1000
"""Fragments without a byte that a message may have: they count towards no limit of size."""

NO_STATUS = 1005
ABNORMAL = 1006
POLICY_VIOLATION = 1008
LONGEST_REASON = 123
"""Bytes of a close frame's reason."""

FAILED_S = 1.0
"""How long a client whose frames made no sense may take to read the close frame."""


class Quiet:
    """
    A logger that says nothing: what clients send is told by counters and close codes, not a line for each frame.
    """

    def debug(self, *_args: Any, **_fields: Any) -> None:
        """Say nothing."""

    info = warn = error = debug


class Connection(Autobahn):  # type: ignore[misc]  # not typed, as said
    """
    A client's WebSocket (``ports.clients.ClientTransport``), all of it by Autobahn.

    Args:
        form: How messages to it are framed.
        protocol: The sub-protocol that was chosen; empty for none.
        watch: Cuts it if closing takes too long.
        close_timeout_s: How long closing may take.

    Attributes:
        side: The node's side of it, once it is open.
        lines: Header lines that Autobahn is to answer with.
    """

    kind = "websocket"
    log = Quiet()

    side: ClientSide | None = None
    lines: dict[str, str] | None = None
    direct: Callable[[bytes], int] | None = None
    blocked = False
    _told = False
    _by_us = False
    _pong: bytes | None = None
    _empty = 0

    def __init__(self, form: Form, protocol: str, watch: ClosingWatch, close_timeout_s: float) -> None:
        super().__init__()
        self.form = form
        self._protocol = protocol
        self._watch = watch
        self._close_timeout_s = close_timeout_s

    def begin(self, transport: Any, request: bytes) -> bool:
        """
        Shake hands: Autobahn answers *request*.

        Returns:
            Whether the connection is open.
        """
        self.makeConnection(transport)
        self.dataReceived(request)
        return self._begun()

    def _begun(self) -> bool:
        """Prepare what is needed once it is open."""
        if self.state != OPEN:
            return False
        transport = self.transport
        set_write_limit(transport, 0)
        self.direct = direct_send(transport)
        transport.registerProducer(self, True)
        return True

    # What the node calls.

    def write(self, framed: bytes) -> None:
        """Send framed bytes."""
        self.transport.write(framed)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._by_us = True
        self.sendCloseFrame(code, _reason(reason))

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()

    def pause(self) -> None:
        """Read no more."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        if self.state == OPEN:
            self.transport.resumeProducing()

    # What the transport calls.

    def pauseProducing(self) -> None:
        """What was written waits for the client."""
        if not self.blocked:
            self.blocked = True
            if self.side is not None:
                self.side.blocked()

    def resumeProducing(self) -> None:
        """Everything was taken."""
        if not self.blocked:
            return
        self.blocked = False
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.sendPong(pong)
        if self.side is not None and not self.blocked:
            self.side.drained()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` says so."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._watch.forget(self)
        super().connectionLost(reason)

    # What Autobahn calls.

    def onConnect(self, request: Any) -> tuple[str | None, dict[str, str]]:
        """Choose the sub-protocol."""
        return self._protocol or None, self.lines or {}

    def onMessageBegin(self, isBinary: bool) -> None:
        """A message begins."""
        self._empty = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """A frame of it begins."""
        if not length:
            self._empty += 1
            if self._empty > MOST_EMPTY and not self.failedByMe:
                self._fail_connection(POLICY_VIOLATION, "too many empty fragments")
        super().onMessageFrameBegin(length)

    def onMessageEnd(self) -> None:
        """A message is whole."""
        parts: list[bytes] = self.message_data
        self.message_data: list[bytes] = []
        if not self.failedByMe and self.state == OPEN and self.side is not None:
            self.side.received(b"".join(parts))

    def onPing(self, payload: bytes) -> None:
        """Answer; while the client reads nothing only the last ping waits for its answer (RFC 6455, section 5.5.3)."""
        if self.blocked:
            self._pong = payload
        else:
            self.sendPong(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone."""
        if wasClean:
            self._lose(code or NO_STATUS, reason or "", clean=True)
        else:
            self._lose(ABNORMAL, "", clean=False)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Send a close frame; from here on the client is none to the node, and may not stay for ever."""
        was_open = self.state == OPEN
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if not was_open:
            return
        if self.failedByMe:
            # Our side of the connection ends; theirs is read out, or a reset would take the close frame with it.
            self._watch.add(self, FAILED_S)
            end = getattr(self.transport, "loseWriteConnection", None)
            (self.transport.loseConnection if end is None else end)()
        else:
            self._watch.add(self, self._close_timeout_s)
        if isReply:
            self._lose(self.remoteCloseCode or NO_STATUS, self.remoteCloseReason or "", clean=True)
        elif not self._by_us:
            self._lose(code or ABNORMAL, (reasonUtf8 or b"").decode(), clean=False)

    def _protocol_violation(self, reason: str) -> bool:
        super()._protocol_violation(reason)
        return True  # What follows a frame that makes no sense makes none either.

    def _invalid_payload(self, reason: str) -> bool:
        super()._invalid_payload(reason)
        return True

    def _closeConnection(self, abort: bool = False) -> None:
        # After a whole closing handshake nothing needs to be cut: a reset could take the close frame with it.
        if abort and not self.wasClean:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def _lose(self, code: int, reason: str, *, clean: bool) -> None:
        if not self._told and self.side is not None:
            self._told = True
            self.side.lost(code, reason, clean=clean)


def _reason(text: str) -> bytes:
    """Cut *text* to what a close frame holds, not within a character."""
    return text.encode()[:LONGEST_REASON].decode(errors="ignore").encode()
