"""
One connection to a backend: HTTP/1.1 on llhttp, one exchange at a time.

llhttp refuses most of what is ambiguous: two lengths, a length beside chunks, bare line ends,
folded or broken headers, control bytes in values, odd chunk sizes. What it lets through and
should not is refused here or in ``upstream.response``: RTSP and ICE, bodies of interim responses,
more heads or trailers than may be. After any of these the connection is cut and not used again.

What comes after the end of a response is nobody's: the response counts, whether its excess
came in the same segment or a second later, and the connection does not. RFC 9112, sections 6.3 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.core.message import CHUNKED, Header, ResponseHead
from gateway.net.tls_faults import tls_fault
from gateway.net.transports import pending_bytes
from gateway.upstream.call import Call
from gateway.upstream.response import FRAMING, Framing, Unclear, check_interim, final_head, head_bytes, stays_open

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

__all__ = ["Connection", "TlsConnection"]

MAX_INTERIM = 32
"""Most interim responses before a final one."""

_USUAL = b"HTTP/1.1 "
_FIRST = ord("H")  # Of HTTP; llhttp would take RTSP/1.0 and ICE/1.0 for HTTP/1.0.
_SWITCHING, _FINAL_STATUS, _NO_CONTENT = 101, 200, 204
_NO_BODY = (_NO_CONTENT, 304)

# What of a response is awaited.
_HEAD, _BODY, _UNTIL_CLOSE, _NOTHING = range(4)


class Connection(Protocol):
    """
    One connection of a pool.

    Attributes:
        idle_since: Monotonic seconds; 0 while in use.
        forgotten: The pool no longer counts it.
    """

    transport: Any  # Connected as long as anything here is called.

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._call: Call | None = None
        self.idle_since = 0.0
        self.forgotten = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fresh()

    def _fresh(self) -> None:
        self._awaited = _HEAD
        self._headers: list[Header] = []
        self._reason = b""
        self._version = ""
        self._parts: list[bytes] = []
        self._response: ResponseHead | None = None
        self._reusable = False
        self._unclear = ""
        self._spent_bytes = 0  # On heads; after the head on trailers and chunk framing.
        self._interim = 0
        self._interim_bytes = 0
        self._informs: list[tuple[int, list[Header]]] | None = None

    def connectionMade(self) -> None:
        """
        Small requests must not wait for an acknowledgement.
        """
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)

    def begin(self, call: Call, payload: bytes) -> None:
        """
        Send the beginning of *call*'s request.
        """
        self._call = call
        self.idle_since = 0.0
        call.begin(self, payload)

    def cut(self) -> None:
        """
        Close at once; nobody is told.
        """
        self._call = None
        self._parser = None  # It holds this connection, and this one it: no garbage in circles.
        self._pool.forget(self)
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """
        Read what came, then tell the receiver once.
        """
        call = self._call
        if call is None:
            # Nobody asked: a late answer or an error before closing. Never a connection to use again.
            self.cut()
            return
        if self._awaited == _HEAD:
            if not self._spent_bytes:
                size = data.find(b"\r\n\r\n") + 4
                head = self._pool.plain_heads.read(data, size) if call.method != b"HEAD" else None
                if head is not None and head.body_length == len(data) - size:
                    # All of it is here, and nothing about it is unusual: llhttp has nothing to add.
                    self._whole(call, head, data[size:])
                    return
                if data[:9] == _USUAL:
                    self._version = "1.1"
                elif data[0] != _FIRST:
                    call.fail("malformed", "not HTTP")
                    return
            self._spent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # A mistake of ours, not the backend's: it belongs in the log.
        except httptools.HttpParserUpgrade:
            self._unclear = "an upgrade that was not asked for"
        except httptools.HttpParserError as error:
            self._unclear = self._unclear or str(error)
        response = self._response
        if response is None:
            self._head_goes_on(call)
        else:
            self._tell(call, response, data)

    def _whole(self, call: Call, head: ResponseHead, data: bytes) -> None:
        """Tell of a response that came whole, and give the connection back first."""
        call.answered = True
        self._call = None
        if call.end() and not (call.has_body and pending_bytes(self.transport)):
            if call.paused:
                # A paused connection would hang whoever gets it next.
                self.transport.resumeProducing()
            self._pool.put(self)
        else:
            self.cut()
        call.receiver.responded(head, data, True)

    def _head_goes_on(self, call: Call) -> None:
        if self._unclear:
            call.fail("malformed", self._unclear)
        elif self._spent_bytes > self._pool.max_head_bytes:
            call.fail("malformed", "head too large")
        else:
            self._inform(call)

    def _inform(self, call: Call) -> None:
        informs, self._informs = self._informs, None
        for status, headers in informs or ():
            if not call.over:
                call.receiver.informed(status, headers)

    def _tell(self, call: Call, response: ResponseHead, read: bytes) -> None:
        ended = self._awaited == _NOTHING
        parts = self._parts
        if not ended:
            if parts:
                self._spent_bytes = 0
            elif call.answered:
                self._spent_bytes += len(read)
                if self._spent_bytes > self._pool.max_head_bytes:
                    self._unclear = self._unclear or "more framing than body"
            if self._unclear:
                call.fail("malformed", self._unclear)
                return
        if self._informs is not None:
            self._inform(call)
            if call.over:
                return
        data = b""
        if parts:
            call.moved = True
            data = parts.pop() if len(parts) == 1 else b"".join(parts)
            parts.clear()
        answered = call.answered
        call.answered = True
        if ended:
            if call.method == b"HEAD":
                # Nothing may have come after the head; llhttp takes it for a body.
                self._reusable = self._reusable and not data and read.endswith(b"\r\n\r\n")
                data = b""
            self._end(call)
        if not answered:
            call.receiver.responded(response, data, ended)
        elif data or ended:
            call.receiver.received(data, ended)

    def _end(self, call: Call) -> None:
        """The response is whole: give the connection back, or away."""
        self._call = None
        request_is_whole = call.end() and not (call.has_body and pending_bytes(self.transport))
        if not (self._reusable and request_is_whole) or self._unclear:
            self.cut()
            return
        if call.paused:
            # A paused connection would hang whoever gets it next.
            self.transport.resumeProducing()
        if call.method == b"HEAD":
            # llhttp waits for a body after HEAD; it must not see the next response as one.
            self._parser = httptools.HttpResponseParser(self)
        self._fresh()
        self._pool.put(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The backend closed: the end of a body that ends so, else a fault.
        """
        self._pool.forget(self)
        self._parser = None
        call, self._call = self._call, None
        if call is None or call.over:
            return
        if self._awaited == _UNTIL_CLOSE and isinstance(reason.value, ConnectionDone):
            call.end()
            call.receiver.received(b"", True)
            return
        if not call.answered and pending_bytes(self.transport) == call.written:
            # It was closed before: the kernel took nothing.
            call.sent = False
        call.fail("reset", type(reason.value).__name__)

    # llhttp's callbacks.

    def on_message_begin(self) -> None:
        """
        A message begins: the first, one after an interim one, or one too many.
        """
        if self._response is not None:
            self._unclear = "bytes after the response"
        self._headers = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """
        The reason phrase, or a part of it.
        """
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        A header, or a trailer.
        """
        response = self._response
        if response is None:
            self._headers.append((name, value))
        elif self._awaited == _BODY and not self._unclear:
            if name.lower() in FRAMING:
                self._unclear = "a trailer that frames"
            else:
                response.trailers.append((name, value))

    def on_headers_complete(self) -> None:
        """
        Judge the head.
        """
        call = self._call
        if self._unclear or call is None:
            return
        parser = self._parser
        status = parser.get_status_code()
        version = self._version or parser.get_http_version()
        headers = self._headers
        try:
            if status < _FINAL_STATUS:
                self._version = ""  # What was seen of it was this one's.
                self._interim += 1
                self._interim_bytes += head_bytes(headers)
                check_interim(status, version, headers)
                if self._interim > MAX_INTERIM:
                    raise Unclear("too many interim responses")
                if status > _SWITCHING:  # 100 speaks to us alone; after 101 llhttp stops.
                    self._informs = self._informs or []
                    self._informs.append((status, headers))
                return
            if self._interim and version != "1.1":
                raise Unclear("status line")
            most = self._pool.max_head_bytes
            response, framing = final_head(
                status,
                version,
                self._reason,
                headers,
                most - self._interim_bytes if self._spent_bytes > most else None,
            )
        except Unclear as unclear:
            self._unclear = str(unclear)
            return
        self._response = response
        self._spent_bytes = 0
        if call.method == b"HEAD":
            self._awaited = _NOTHING
            self._reusable = stays_open(version, headers)
        elif status in _NO_BODY:
            self._awaited = _NOTHING
            # Whoever announces a body that cannot be may send one all the same.
            odd = framing is Framing.CHUNKS or (framing is Framing.LENGTH and status == _NO_CONTENT)
            self._reusable = parser.should_keep_alive() and not (odd and response.body_length)
        elif framing is Framing.CLOSE:
            self._awaited = _UNTIL_CLOSE
        else:
            self._awaited = _BODY

    def on_body(self, data: bytes) -> None:
        """
        Bytes of the body.
        """
        if self._awaited != _NOTHING or not self._unclear:  # Else it is of a second message, which nobody asked for.
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """
        The end of the message. ``should_keep_alive`` is true to it only in here.
        """
        call, response = self._call, self._response
        if self._awaited == _BODY:
            if not self._unclear:
                self._awaited = _NOTHING
                self._reusable = self._parser.should_keep_alive()
        elif call is not None and call.method == b"HEAD" and response is not None and response.body_length == CHUNKED:
            # The last chunk of a body that a response to HEAD does not have.
            self._reusable = False


@implementer(IHandshakeListener)
class TlsConnection(Connection):
    """
    A connection that is verified before the first byte of a request goes out.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._verified = False
        self._waiting: tuple[Call, bytes] | None = None

    def begin(self, call: Call, payload: bytes) -> None:
        """
        Send the beginning of *call*'s request, once the backend is known to be who it should be.
        """
        if self._verified:
            super().begin(call, payload)
        else:
            self._waiting = (call, payload)

    def cut(self) -> None:
        """
        Close at once; nobody is told.
        """
        self._waiting = None
        super().cut()

    def handshakeCompleted(self) -> None:
        """
        The handshake is over; Twisted tells it even where the certificate was refused.
        """
        if self.transport.disconnecting:
            return
        self._verified = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            super().begin(*waiting)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Without a handshake there was no connection, and nothing was sent.
        """
        waiting, self._waiting = self._waiting, None
        super().connectionLost(reason)
        if waiting is not None:
            waiting[0].fail("connect", tls_fault(reason.value))
