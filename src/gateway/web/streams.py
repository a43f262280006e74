"""
Real-time clients without a WebSocket: what they are told comes as an endless answer over HTTP.

``text/event-stream`` for EventSource, or lines (JSON) and length-prefixed messages (Protobuf) for
``fetch``. What such a client says after its first message comes in requests of its own, see
``web.emulation``. The same clients, sessions and channels as behind a WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.core.message import CHUNKED
from gateway.core.problems import Problem
from gateway.core.verdicts import reconnects
from gateway.ports.clients import ClientSide, ClientTransport, Form, Opening
from gateway.ports.dialect import Dialect
from gateway.ports.http import Exchange, Gathering

__all__ = ["LineForm", "MessageForm", "SseForm", "StreamEdge"]

Kind = Literal["sse", "http_stream"]
Accept = Callable[[ClientTransport, Opening], ClientSide]

_NO_BUFFERS: Final = b"Cache-Control: no-cache, no-store\r\nX-Accel-Buffering: no\r\n"
_SSE: Final = b"Content-Type: text/event-stream\r\n" + _NO_BUFFERS
_LINES: Final = b"Content-Type: application/x-ndjson\r\n" + _NO_BUFFERS
_MESSAGES: Final = b"Content-Type: application/octet-stream\r\n" + _NO_BUFFERS


class SseForm:
    """Server-Sent Events: a message is an event, its lines are lines of ``data``."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def frame(self, message: bytes) -> bytes:
        """Make an event."""
        return b"data: " + message.replace(b"\n", b"\ndata: ") + b"\n\n"


class LineForm:
    """JSON: a message a line."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def frame(self, message: bytes) -> bytes:
        """End the line."""
        return message + b"\n"


class MessageForm:
    """Protobuf: messages have their length in front already."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def frame(self, message: bytes) -> bytes:
        """Send it as it is."""
        return message


class StreamEdge:
    """
    One path at which streams begin (``ports.http.RouteHandler``).

    Args:
        kind: ``sse`` (a GET whose query has the first message) or ``http_stream`` (a POST whose body it is).
        text: The form for JSON clients.
        binary: The form for Protobuf ones; EventSource can only take text.
        open_: Who the client is, from its request; raises or fails with ``Problem``.
        accept: The node.
        most_bytes: Largest first message.
        refuse: The node's way to answer with a problem.
        crashed: The node's way to report a failure of our own.
        opened: Told when an answer has begun that goes on for as long as its client stays.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        text: Form,
        binary: Form | None,
        open_: Callable[[Exchange], Opening | Deferred[Opening]],
        accept: Accept,
        most_bytes: int,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
        opened: Callable[[Exchange], None],
    ) -> None:
        self._kind = kind
        self._text = text
        self._binary = binary
        self._open = open_
        self._accept = accept
        self._most_bytes = most_bytes
        self._refuse = refuse
        self._crashed = crashed
        self._opened = opened

    def handle(self, exchange: Exchange) -> None:
        """
        Take the first message, then answer for as long as the client stays.

        Raises:
            Problem: it cannot be let in.
        """
        if self._kind == "sse":
            self._begin(exchange, _first_of_query(exchange.query))
            return
        downstream = exchange.downstream
        downstream.max_body_bytes = min(downstream.max_body_bytes, self._most_bytes)
        if exchange.head.body_length > downstream.max_body_bytes:
            raise Problem("body_too_large", f"At most {downstream.max_body_bytes} bytes are taken here.")
        downstream.receive(Gathering(exchange, self._received))

    def _received(self, exchange: Exchange, first: bytes) -> None:
        try:
            self._begin(exchange, first)
        except Problem as problem:
            self._refuse(exchange, problem)
        except Exception:  # The body came in a turn of its own: nobody above us would answer.
            self._crashed(exchange, Failure())

    def _begin(self, exchange: Exchange, first: bytes) -> None:
        form, head = self._form(exchange)
        opened = self._open(exchange)
        if isinstance(opened, Deferred):
            exchange.on_gone = opened.cancel
            opened.addCallback(self._stream, exchange, form, head, first)
            opened.addErrback(self._failed, exchange)
        else:
            self._stream(opened, exchange, form, head, first)

    def _form(self, exchange: Exchange) -> tuple[Form, bytes]:
        if self._kind == "sse":
            return self._text, _SSE
        if self._binary is not None and exchange.head.fields.get(b"content-type") == b"application/octet-stream":
            return self._binary, _MESSAGES
        return self._text, _LINES

    def _stream(self, opening: Opening, exchange: Exchange, form: Form, head: bytes, first: bytes) -> None:
        if exchange.ended:
            return
        transport = StreamTransport(self._kind, form, exchange)
        exchange.start(200, b"", head, CHUNKED, b"", ended=False)
        self._opened(exchange)
        side = self._accept(transport, opening)
        transport.side = side
        exchange.on_gone = transport.gone
        exchange.downstream.register(transport)
        side.received(first)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        if exchange.ended:
            return
        if isinstance(failure.value, Problem):
            self._refuse(exchange, failure.value)
        else:
            self._crashed(exchange, failure)


class StreamTransport:
    """
    An answer that does not end, as a way to a client (``ports.clients.ClientTransport``).
    """

    __slots__ = ("_ended", "_exchange", "blocked", "direct", "form", "kind", "side")

    def __init__(self, kind: Kind, form: Form, exchange: Exchange) -> None:
        self.kind: str = kind
        self.form = form
        self.direct = None
        self.blocked = False
        self.side: ClientSide | None = None
        self._exchange = exchange
        self._ended = False

    def write(self, framed: bytes) -> None:
        """Send more of the answer."""
        if not self._ended:
            self._exchange.downstream.write(framed)

    def close(self, code: int, reason: str) -> None:
        """Say why, as such a client has no close codes, and end the answer."""
        if self._ended:
            return
        told = self.form.dialect.disconnect(code, reason, reconnect=reconnects(code))
        self.write(self.form.frame(told))
        self._ended = True
        self._exchange.on_gone = None
        self._exchange.downstream.finish()
        self._lose(code, reason)

    def abort(self) -> None:
        """Cut the connection."""
        if not self._ended:
            self._ended = True
            self._exchange.on_gone = None
            self._exchange.downstream.abort()
            self._lose(1006, "aborted")

    def gone(self) -> None:
        """The client left. It can do so in one way only, so it may be back."""
        if not self._ended:
            self._ended = True
            self._lose(1006, "")

    def _lose(self, code: int, reason: str) -> None:
        if self.side is not None:
            self.side.lost(code, reason, clean=False)

    def pause(self) -> None:
        """Nothing comes this way that could be held back: what the client says is in other requests."""

    def resume(self) -> None:
        """Nothing was held back."""

    def pauseProducing(self) -> None:
        """The client is slower than what is written."""
        if not self.blocked:
            self.blocked = True
            if self.side is not None:
                self.side.blocked()

    def resumeProducing(self) -> None:
        """It has taken everything."""
        if self.blocked:
            self.blocked = False
            if self.side is not None:
                self.side.drained()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.gone()


def _first_of_query(query: bytes) -> bytes:
    try:
        found = [value for name, value in parse_qsl(query.decode("ascii"), max_num_fields=16) if name == "cf_connect"]
    except ValueError:
        found = []
    if len(found) != 1:
        raise Problem("bad_request", "The query has one cf_connect, the first message.")
    return found[0].encode()
