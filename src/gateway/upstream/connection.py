"""
One connection to a backend: HTTP/1.1 on llhttp, one exchange at a time.

llhttp refuses most of what is ambiguous (two lengths, a length beside chunks, bare line ends,
folded or broken headers); what it lets through is refused here: other transfer codings, chunks
in HTTP/1.0, statuses beyond 599, heads without end, bytes that nobody asked for. After any of
these the connection is cut and not used again. RFC 9112, sections 6.3 and 9.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from gateway.core.message import CHUNKED, Header, ResponseHead, values_of
from gateway.upstream.call import Call

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

__all__ = ["Connection"]

MAX_INTERIM = 8
"""Most interim responses before a final one."""

_VERSIONS = ("1.1", "1.0")
_plain_reason = re.compile(rb"[\t -~\x80-\xff]*").fullmatch
_LAST_STATUS = 599
_NO_BODY = (204, 304)


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
        self._fresh(httptools.HttpResponseParser(self))

    def _fresh(self, parser: Any) -> None:
        self._parser: Any = parser
        self._headers: list[Header] = []
        self._reason = b""
        self._parts: list[bytes] = []
        self._response: ResponseHead | None = None
        self._told = False
        self._complete = False
        self._reusable = False
        self._bodyless = False
        self._until_close = False
        self._broken = ""
        self._head_bytes = 0
        self._interim = 0
        self._informs: list[tuple[int, list[Header]]] = []

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
        early = call.attach(self)
        self.transport.write(payload + early if early else payload)
        call.attached()

    def cut(self) -> None:
        """
        Close at once; nobody is told.
        """
        self._let_go()

    def dataReceived(self, data: bytes) -> None:
        """
        Read what came, then tell the receiver once.
        """
        call = self._call
        if call is None:
            # Nobody asked: a late answer or an error before closing. Never a connection to use again.
            self.cut()
            return
        call.moved = True
        if self._response is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._broken = "an upgrade that was not asked for"
        except httptools.HttpParserError as error:
            self._broken = str(error)
        self._tell(call)

    def _tell(self, call: Call) -> None:
        response = self._response
        if response is None:
            if not self._broken and self._head_bytes > self._pool.max_head_bytes:
                self._broken = "head too large"
            if self._broken:
                call.fail("malformed", self._broken)
            elif self._informs:
                self._inform(call)
            return
        ended = self._complete or self._bodyless
        if self._broken and not ended:
            call.fail("malformed", self._broken)
            return
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if parts:
            self._parts = []
        told = self._told
        self._told = call.answered = True
        if self._informs:
            self._inform(call)
        if ended:
            if self._bodyless:
                self._reusable = self._reusable and not data
                data = b""
            self._end(call)
        if not told:
            call.receiver.responded(response, data, ended)
        elif data or ended:
            call.receiver.received(data, ended)

    def _inform(self, call: Call) -> None:
        informs, self._informs = self._informs, []
        for status, headers in informs:
            call.receiver.informed(status, headers)

    def _end(self, call: Call) -> None:
        """The response is whole: give the connection back, or away."""
        call.over = True
        call.connection = None
        self._call = None
        self._pool.active.pop(call, None)
        if call.producer is not None:
            self.transport.unregisterProducer()
            call.producer.resumeProducing()
            call.producer = None
        if self._reusable and call.finished and not self._broken:
            # A paused connection would hang whoever gets it next.
            if call.paused:
                self.transport.resumeProducing()
            # llhttp waits for a body after HEAD; it must not see the next response as one.
            self._fresh(self._parser if call.method != b"HEAD" else httptools.HttpResponseParser(self))
            self._pool.put(self)
        else:
            self._let_go()

    def _let_go(self) -> None:
        self._call = None
        self._parser = None  # It holds this connection, and this one it: no garbage in circles.
        self._pool.forget(self)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The backend closed: the end of a body that ends so, else a fault.
        """
        self._pool.forget(self)
        self._parser = None
        call, self._call = self._call, None
        if call is None or call.over:
            return
        call.connection = None
        if self._until_close and self._told and isinstance(reason.value, ConnectionDone):
            call.over = True
            self._pool.active.pop(call, None)
            call.receiver.received(b"", True)
            return
        call.fail("reset", type(reason.value).__name__)

    # llhttp's callbacks.

    def on_message_begin(self) -> None:
        """
        A message begins: the first, one after an interim one, or one too many.
        """
        if self._response is not None:
            self._broken = "bytes after the response"
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
        elif not self._broken:
            response.trailers.append((name, value))

    def on_headers_complete(self) -> None:
        """
        Judge the head.
        """
        if self._broken:
            return
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:  # noqa: PLR2004
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._broken = "too many interim responses"
            elif status not in (100, 101):
                self._informs.append((status, self._headers))
            return
        headers = self._headers
        fields = {name.lower(): value for name, value in headers}
        call = self._call
        if parser.get_http_version() not in _VERSIONS or status > _LAST_STATUS or not _plain_reason(self._reason):
            self._broken = "status line"
            return
        length = self._length(headers, fields)
        if self._broken or call is None:
            return
        keep_alive = parser.should_keep_alive()
        if status in _NO_BODY or call.method == b"HEAD":
            self._bodyless = True
            self._reusable = keep_alive
        framing = b"content-length" in fields or b"transfer-encoding" in fields
        self._until_close = not framing and not self._bodyless
        if framing:
            kept = [header for header in headers if header[0].lower() not in _FRAMING]
        else:
            kept = headers
        self._response = ResponseHead(status, self._reason, kept, fields, length)

    def _length(self, headers: list[Header], fields: dict[bytes, bytes]) -> int:
        coding = fields.get(b"transfer-encoding")
        if coding is not None:
            if (
                self._parser.get_http_version() != "1.1"
                or coding.lower() != b"chunked"
                or len(values_of(headers, b"transfer-encoding")) > 1
            ):
                self._broken = "transfer coding"
            return CHUNKED
        length = fields.get(b"content-length")
        if length is not None:
            return int(length)
        return CHUNKED

    def on_body(self, data: bytes) -> None:
        """
        Bytes of the body.
        """
        if not self._complete:  # Else of a second message, which nobody asked for.
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """
        The end of the message. ``should_keep_alive`` is true to it only in here.
        """
        if self._response is not None and not self._complete:
            self._complete = True
            if not self._bodyless:
                self._reusable = self._parser.should_keep_alive()


_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
