"""
The server side of an HTTP/1.1 connection (RFC 9110, RFC 9112).

A connection is in one of these states; requests are served one after the other, so answers
leave in the order of their requests, and what is pipelined waits, bounded, in the buffer:

    HEAD --head complete--> SERVING --answered--> HEAD           (kept)
                            SERVING --answered--> DRAINING --rest of a small body--> HEAD
                            SERVING --answered--> lingering or closing, taken over
    HEAD --refused--> lingering                                  (see ``web.connection``)

The node is asked at the end of the *head*. The body is neither read nor invited before
somebody receives it, so a refused request never costs its body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.core.message import CHUNKED
from gateway.core.problems import CATALOGUE, Problem, problem_body
from gateway.net.transports import has_news, pending_bytes
from gateway.ports.http import Peer
from gateway.web.body import BodyReader, ChunkedBody, LengthBody
from gateway.web.connection import LINGERING, NEVER, Connection
from gateway.web.exchange import ClientRequest
from gateway.web.head import Refused
from gateway.web.reply import refusal

if TYPE_CHECKING:
    from gateway.web.factory import ChannelFactory

__all__ = ["Channel"]

DRAINING, SERVING, HEAD = -2, -1, 0
"""What an open connection is doing; ``HEAD`` is ``connection.OPEN``."""

AHEAD_BYTES = 64 * 1024
"""Unread input held while it cannot be used; beyond it the socket is not read."""
DRAIN_BYTES = 64 * 1024
"""A body that nobody wants is dropped up to this size to keep the connection."""
HALF_CLOSE_S = 0.75
"""A client that shut its sending side is taken for gone after this long without a byte of answer.
A FIN does not tell whether anybody still reads."""
RETIRE_S = 1.0
"""When the instance leaves, a connection may use this long for one more request, whose answer announces
the end. Closed at once it would lose the request that is already on its way."""


@implementer(IProtocol, IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Channel(Connection):
    """
    HTTP/1.1 on a connection.
    """

    __slots__ = ("_begun", "_blank", "_body", "_body_since", "_buffer", "_in_loop", "_paused_at", "_request", "_seen")

    def __init__(self, site: ChannelFactory, peer: Peer) -> None:
        super().__init__(site, peer)
        self._buffer = b""
        # Of the head: its first byte was seen; an empty line before it was; bytes already searched.
        self._begun = False
        self._blank = False
        self._seen = 0
        self._in_loop = False
        self._request: ClientRequest | None = None
        self._body: BodyReader | None = None
        self._body_since = 0.0
        self._paused_at: float | None = None

    # What the transport calls.

    def dataReceived(self, data: bytes) -> None:
        """
        Take what has arrived.
        """
        state = self._state
        if state == HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._serve(data)
        elif state == SERVING:
            self._buffer = self._buffer + data if self._buffer else data
            self._pump()
        elif state == DRAINING:
            self._buffer = data
            self._drain()
        else:
            Connection.dataReceived(self, data)

    def readConnectionLost(self) -> None:
        """
        The client will send nothing more; perhaps it still reads.
        """
        Connection.readConnectionLost(self)
        if self._state == SERVING:
            self._await_answer()
            self._pump()
        elif self._state == HEAD and self.blocked:
            self.deadline = NEVER
        elif self._state < LINGERING:
            self._close()

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection is gone.
        """
        Connection.connectionLost(self, reason)
        self._buffer = b""
        self._body = None
        request, self._request = self._request, None
        if request is not None:
            request.detach()
            self._tell(request)

    def pauseProducing(self) -> None:
        """
        The client takes less than it is sent.
        """
        if self.blocked:
            return
        Connection.pauseProducing(self)
        request = self._request
        if request is not None and request.producer is not None:
            request.producer.pauseProducing()

    def resumeProducing(self) -> None:
        """
        The client has taken what was queued.
        """
        if not self.blocked:
            return
        Connection.resumeProducing(self)
        request = self._request
        if request is not None:
            if request.producer is not None:
                request.producer.resumeProducing()
        elif self._state == HEAD:
            self._go_on()

    # The head.

    def _serve(self, data: bytes) -> None:
        """
        Serve requests from *data*, all that is unread, as long as they are answered at once.
        """
        if self._in_loop:
            self._buffer += data
            return
        self._in_loop = True
        site = self.site
        reader = site.reader
        while True:
            if self.blocked:
                # Who does not take its answers is asked for no more requests.
                self._buffer = data
                self.deadline = NEVER
                if len(data) > AHEAD_BYTES:
                    self._hold()
                break
            end = data.find(b"\r\n\r\n", self._seen)
            if end < 0 or end + 4 > reader.max_head or data[:1] == b"\r":
                data = self._await_head(data)
                if not data:
                    break
                continue
            end += 4
            if end == len(data):
                raw, data = data, b""
            else:
                raw, data = data[:end], data[end:]
            try:
                head = reader.read(raw)
            except Refused as refused:
                self._refuse(refused, raw)
                break
            self._begun = self._blank = False
            self._seen = 0
            self._buffer = data
            self._state = SERVING
            self.deadline = NEVER
            length = head.body_length
            if length:
                self._body = ChunkedBody(site.max_body_bytes) if length == CHUNKED else LengthBody(length)
            self._request = request = ClientRequest(self, head, site.max_body_bytes)
            request.exchange = site.handler.begin(request)
            if request.over:
                self._tell(request)
            if self._state != HEAD:
                break
            data = self._buffer
            if not data:
                break
            self._buffer = b""
        self._in_loop = False
        self._settle()

    def _settle(self) -> None:
        """Leave the loop: read on or not, and close where the client has closed."""
        state = self._state
        if state == SERVING:
            request = self._request
            if len(self._buffer) > AHEAD_BYTES:
                self._hold()
            elif request is not None and not request.body_paused:
                self._release()
        elif state == HEAD and not self.blocked:
            if self._eof:
                self._close()
            else:
                self._release()

    def _await_head(self, data: bytes) -> bytes:
        """Keep the beginning of a head, or refuse it; returns what is to be looked at again."""
        if data[:1] == b"\r" and not self._blank:
            # One empty line before a request is forgiven (RFC 9112, 2.2).
            if data[:2] == b"\r\n":
                self._blank = True
                self._seen = 0
                return data[2:]
            doom = None if len(data) == 1 else self.site.reader.doom(data)
        else:
            doom = self.site.reader.doom(data, self._seen)
        if doom is not None:
            self._refuse(doom, data)
            return b""
        if not self._begun:
            self._begun = True
            self.deadline = self.site.now + self.site.head_timeout_s
        self._seen = max(0, len(data) - 3)
        self._buffer = data
        return b""

    def _refuse(self, refused: Refused, raw: bytes) -> None:
        site = self.site
        body = site.handler.refused(self.peer, refused.status, refused.code, raw[:128])
        preamble = site.preamble_for(self.peer)
        self.transport.write(refusal(refused.status, refused.code, preamble, body, head_only=raw[:5] == b"HEAD "))
        self._linger()

    def _go_on(self) -> None:
        """Serve what was pipelined."""
        data, self._buffer = self._buffer, b""
        if data:
            self._serve(data)
        else:
            self._settle()

    # What the current request asks for (``web.exchange``).

    def write(self, data: bytes) -> None:
        """
        Send *data*.
        """
        self.transport.write(data)

    def has_input(self) -> bool:
        """
        Whether something of the body has already arrived.
        """
        return bool(self._buffer)

    def may_keep(self, request: ClientRequest, ended: bool) -> bool:
        """
        Settle whether the connection can be used again after *request*; *ended*: its answer is whole.
        """
        if not request.keep or self.site.draining or (self._eof and not self._buffer):
            return False
        body = self._body
        if body is None or body.ended or request.receiver is not None:
            return True
        if request.head.expect_continue:
            # Nobody can tell whether the body will come.
            return False
        if not ended:
            return True
        data, self._buffer = self._buffer, b""
        body.room = DRAIN_BYTES
        _, self._buffer = body.feed(data)
        return body.ended or (isinstance(body, LengthBody) and body.left <= DRAIN_BYTES)

    def answered(self, request: ClientRequest) -> None:
        """
        *request* is answered to the last byte.
        """
        self._request = None
        if request.exchange is not None:
            self._tell(request)
            if self._state != SERVING:
                return
        body = self._body
        unread = body is not None and not body.ended
        if not request.keep:
            if unread or self._buffer:
                self._linger()
            else:
                self._close()
        elif unread:
            self._drain()
        else:
            self._rest()

    def cut(self, request: ClientRequest) -> None:
        """
        End the connection so that what was sent cannot be taken for whole.
        """
        self._request = None
        request.detach()
        self._abort()
        self._tell(request)

    def fail(self, request: ClientRequest, status: int, code: str) -> None:
        """
        Answer *request* with a problem of its body, or cut where an answer has begun.
        """
        self._request = None
        request.fault = (status, code)
        request.detach()
        if request.started:
            self._abort()
        else:
            exchange = request.exchange
            body = problem_body(Problem(code), request_id=exchange.request_id if exchange is not None else "")
            block = exchange.response_block + exchange.browser_block() if exchange is not None else b""
            head_only = request.head.method == b"HEAD"
            self.transport.write(refusal(status, code, self.site.preamble.block + block, body, head_only=head_only))
            self._linger()
        self._tell(request)

    def begin_body(self, request: ClientRequest) -> None:
        """
        Deliver the body from now on.
        """
        body = self._body
        if isinstance(body, ChunkedBody):
            body.room = request.max_body_bytes
        now = self.site.now
        self._body_since = now
        self._paused_at = now if request.body_paused else None
        self.deadline = now + self.site.body_grace_s
        self._take_body(request)

    def body_paused(self) -> None:
        """
        Read no more of the body.
        """
        self._paused_at = self.site.now
        self._hold()

    def body_resumed(self, request: ClientRequest) -> None:
        """
        Deliver what is here, and read again.
        """
        if self._paused_at is not None:
            # The time it was held back is not the client's.
            self._body_since += self.site.now - self._paused_at
            self._paused_at = None
        self._take_body(request)

    def _take_body(self, request: ClientRequest) -> None:
        self._pump()
        if self._request is request and not request.body_paused and len(self._buffer) <= AHEAD_BYTES:
            self._release()

    def give_away(self, request: ClientRequest, successor: IProtocol) -> tuple[ITransport, bytes]:
        """
        Let *successor* have the connection.
        """
        self._request = None
        self._give_away(successor)
        data, self._buffer = self._buffer, b""
        if request.exchange is not None:
            self._tell(request)
        return self.transport, data

    # The body.

    def _pump(self) -> None:
        """Give the receiver what is here, as far as it wants it."""
        request = self._request
        body = self._body
        if request is None:
            return
        if body is not None and not body.ended and request.receiver is not None and not request.body_paused:
            data, self._buffer = self._buffer, b""
            payload, self._buffer = body.feed(data)
            request.bytes_in += len(payload)
            ended = body.ended
            if ended:
                request.trailers = body.trailers
                self.deadline = NEVER
                if self._eof:
                    self._await_answer()
            if payload or ended:
                request.receiver.received(payload, ended)
                if self._request is not request:
                    return
            if body.fault is not None:
                self.fail(request, body.fault.status, body.fault.code)
                return
            if self._eof and not ended and not request.body_paused:
                # It closed in the middle of its own request.
                self.cut(request)
                return
        if len(self._buffer) > AHEAD_BYTES:
            self._hold()

    def _drain(self) -> None:
        """Drop the rest of a body that nobody wanted, if it is small."""
        body = self._body
        if body is None:
            return
        if self._state == SERVING:
            self._state = DRAINING
            self.deadline = self.site.now + self.site.head_timeout_s
            body.room = min(body.room, DRAIN_BYTES)
            if isinstance(body, LengthBody) and body.left > DRAIN_BYTES:
                self._linger()
                return
        data, self._buffer = self._buffer, b""
        _, self._buffer = body.feed(data)
        if body.fault is not None:
            self._linger()
        elif body.ended:
            self._rest()
        elif self._eof:
            self._close()
        else:
            self._release()

    def _rest(self) -> None:
        """Wait for the next request, or serve the one that is here."""
        self._body = None
        self._state = HEAD
        self.deadline = self.site.now + self.site.idle_timeout_s
        if not self._in_loop:
            self._go_on()

    # Endings.

    def overdue(self, now: float) -> None:
        """
        The deadline has passed; the factory says so.
        """
        if self._state == SERVING:
            self._overdue_request(now)
        elif self._state == HEAD and self._begun:
            self._refuse(Refused(408, "request_timeout"), self._buffer)
        elif self._state == HEAD and has_news(self.transport):
            self.deadline = now  # A request has come in time to be served.
        else:
            Connection.overdue(self, now)

    def _overdue_request(self, now: float) -> None:
        request = self._request
        body = self._body
        self.deadline = NEVER
        if request is None:
            return
        if body is not None and not body.ended and request.receiver is not None:
            self.deadline = now + 1.0
            expected = self.site.min_body_rate_bytes * (now - self._body_since)
            if not request.body_paused and request.bytes_in < expected:
                self.fail(request, 408, "request_timeout")
        elif self._eof:
            moved = self._moved()
            if moved == self._progress:
                self.cut(request)
            else:
                self._await_answer()

    def _await_answer(self) -> None:
        """Watch whether a client that closed its side is still being served."""
        self._progress = self._moved()
        self.deadline = self.site.now + HALF_CLOSE_S

    def _moved(self) -> tuple[int, int | None]:
        request = self._request
        return request.bytes_out if request is not None else 0, pending_bytes(self.transport)

    def retire(self) -> None:
        """
        Close soon unless something comes: the instance is leaving.
        """
        if self._state == HEAD and not self._begun and not self.blocked:
            self.deadline = min(self.deadline, self.site.now + RETIRE_S)

    def _tell(self, request: ClientRequest) -> None:
        """Tell the node that the exchange is over; once ``begin`` has returned, and once."""
        # Either knows the other; let go here, or every request waits for the garbage collector.
        exchange, request.exchange = request.exchange, None
        if exchange is None:
            return
        if request.fault is not None:
            status, code = request.fault
            if not request.started:
                exchange.status = status
            exchange.flag = CATALOGUE[code].flag
            exchange.reason = code
        self.site.handler.ended(exchange, whole=request.whole)
