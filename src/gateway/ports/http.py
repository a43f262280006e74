"""
The seams of an HTTP request: the channel on one side, backends on the other, the node between.

One request is one ``Exchange``. The channel makes it at the *end of the headers* and calls
``HttpHandler.begin``; from then on whoever holds the exchange answers it. Nothing has been
read of the body yet, and no ``100 Continue`` was sent: that happens in ``Downstream.receive``.

Everything here is called on the reactor thread. Calls are plain and synchronous because they
are made for every request; a coroutine per request would cost more than the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.interfaces import IProtocol, ITransport

from gateway.core.browser_rules import BrowserRules
from gateway.core.certificate import ClientCertificate
from gateway.core.headers import response_block
from gateway.core.identity import Identity
from gateway.core.message import Header, RequestHead, ResponseHead

__all__ = [
    "BodyReceiver",
    "Downstream",
    "Exchange",
    "Gathering",
    "HttpHandler",
    "Peer",
    "Producer",
    "RouteHandler",
    "Upgrade",
]


class Producer(Protocol):
    """
    Something whose output can be held back. The names are those of Twisted's IPushProducer.
    """

    def pauseProducing(self) -> None:
        """Stop delivering until resumed."""

    def resumeProducing(self) -> None:
        """Deliver again."""

    def stopProducing(self) -> None:
        """The consumer is gone; deliver nothing more."""


class Peer:
    """
    The connection a request came over, as the listener saw it.

    Attributes:
        host: The peer's address (after PROXY protocol, if the listener takes it), or ``"unix"``.
        port: The peer's port; 0 for a unix socket.
        socket_host: The address of the socket itself, before PROXY protocol.
        tls: Whether the connection is encrypted here.
        certificate_subject: The verified client certificate's subject (RFC 4514), or None.
        certificate: The whole of it, or None.
        listener: The endpoint string that accepted it.
    """

    __slots__ = ("certificate", "certificate_subject", "host", "listener", "port", "socket_host", "tls")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        socket_host: str = "",
        tls: bool = False,
        certificate_subject: str | None = None,
        listener: str = "",
    ) -> None:
        self.host = host
        self.port = port
        self.socket_host = socket_host or host
        self.tls = tls
        self.certificate_subject = certificate_subject
        self.certificate: ClientCertificate | None = None
        self.listener = listener


class BodyReceiver(Protocol):
    """
    Where a request's body goes.
    """

    def received(self, data: bytes, ended: bool) -> None:
        """
        Take the next bytes (perhaps none); *ended* with the last. Never called after ``ended``,
        and never once the client is gone (``Exchange.on_gone`` tells that).
        """


class Downstream(Protocol):
    """
    One request's way back to its client; the channel keeps it.

    The channel adds what framing needs (``Content-Length`` or ``Transfer-Encoding``,
    ``Connection``) and leaves out bodies that must not be (HEAD, 204, 304). Answers of
    pipelined requests leave in order. After ``finish`` or ``abort`` every further call does nothing.

    Attributes:
        head: What was asked.
        peer: Over which connection.
        started: A response head has been given.
        bytes_in: Body bytes taken from the client so far.
        bytes_out: Body bytes given to the client so far.
        max_body_bytes: Largest body taken; the channel's limit until the node sets the route's.
            A body that turns out larger is answered 413 where that is still possible, else cut.
        trailers: The request's trailer lines, filled before the end of its body is delivered;
            names with an underscore are dropped, names that frame, route or identify were refused.
    """

    head: RequestHead
    peer: Peer
    started: bool
    bytes_in: int
    bytes_out: int
    max_body_bytes: int
    trailers: list[Header]

    def start(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        """
        Send the response head, and with it the first bytes of the body.

        Args:
            reason: May be empty: the standard phrase is used.
            block: Header lines (see ``core.message``), hygienic, without framing headers.
            length: Body bytes to come in all, or ``CHUNKED``.
            data: First bytes of the body, perhaps none.
            ended: *data* is the whole body; the exchange is finished by this call.
        """

    def write(self, data: bytes) -> None:
        """Send more of the body."""

    def finish(self, trailers: bytes = b"") -> None:
        """End the body; *trailers* is a block, sent only where the framing can carry it."""

    def abort(self) -> None:
        """Cut the connection, so that a body cut short can never be taken for a whole one."""

    def inform(self, status: int, block: bytes) -> None:
        """Send an interim response (103 and the like; never 100 or 101)."""

    def receive(self, receiver: BodyReceiver) -> None:
        """
        Begin delivering the request's body; answers ``100 Continue`` if the client waits for it.

        At most once. A request without a body delivers ``received(b"", True)`` at once. If nobody
        receives, the channel drops the body (within a bound, else it closes after the answer).
        """

    def pause_body(self) -> None:
        """Hold the request's body back (the backend is slower than the client)."""

    def resume_body(self) -> None:
        """Let the request's body come again."""

    def register(self, producer: Producer) -> None:
        """
        Name who writes the response body, to be paused while the client is slower than it.

        At most once per exchange; forgotten at ``finish``. May pause the producer at once.
        """


class Upgrade(Downstream, Protocol):
    """
    A downstream whose connection can be taken over; every downstream of the channel is one.
    """

    def take_over(self, successor: IProtocol) -> tuple[ITransport, bytes]:
        """
        Give the connection to *successor*, who from now on speaks for it (a WebSocket, say).

        Only before ``start``, for a request without a body. The channel writes nothing more; it
        still counts the connection and hands over what arrives: ``successor.dataReceived`` and,
        once, ``successor.connectionLost`` are called from now on; ``makeConnection`` is the
        caller's affair. The exchange is over, whole: set its ``status`` first.

        Returns:
            The transport, without a producer, and the bytes that were received after the head.

        Raises:
            RuntimeError: when the exchange cannot be taken over (any more).
        """


class Exchange:
    """
    One request while it is served: what was asked, what was found out, what was answered.

    Made by the channel, filled in by the node's filters, answered by a route's handler.

    Attributes:
        downstream: The way back.
        head: Same as ``downstream.head``.
        peer: Same as ``downstream.peer``.
        target: The one canonical path (``core.path.Target``), set by the node.
        route: The route that matched (``core.routes``), else None.
        params: Values of the template's variables, decoded.
        client_host: The client's address by the one rule (``core.address``).
        client_scheme: ``"http"`` or ``"https"`` as the client saw it, by the same rule.
        trusted: The peer is a trusted proxy: its request id and trace context are believed.
        request_id: Ours, or a trusted peer's.
        trace: The W3C context to pass on (``core.trace.TraceContext``); set by the trace filter.
        identity: Set once the caller is known.
        started_at: Monotonic seconds at the end of the headers.
        deadline: Monotonic seconds after which the answer is 504, retries included.
        on_gone: Set by the handler in charge; called once if the client leaves, or the node
            gives up on the exchange, before it was finished. Must cancel what runs for it.
        response_block: Header lines that the gateway adds to whatever is answered.
        browsers: What browsers are told beside it (``core.browser_rules``): for all, then the route's; perhaps None.
        outbound_block: Header lines that the gateway adds to whatever a backend is asked:
            forwarded address, request id. Identity and trace are the affair of whoever asks.
        query: The raw query to forward, without ``?`` and without a token that stood in it.
        status: Of the final response; 499 if the client left before one was sent.
        flag: Two or three letters of what went wrong (``core.problems``); empty if nothing.
        reason: For the log: the precise cause.
        upstream: Name of the upstream asked.
        upstream_target: ``host:port`` or path of the last target tried.
        attempts: How many times a backend was tried.
        upstream_started_at: Monotonic seconds of the first attempt.
        upstream_ttfb_s: Seconds from the last attempt's start to its response head.
        ended: Set by the node when the exchange is over; whoever was still working on it stops.
    """

    __slots__ = (
        "attempts",
        "browsers",
        "client_host",
        "client_scheme",
        "deadline",
        "downstream",
        "ended",
        "flag",
        "head",
        "identity",
        "on_gone",
        "outbound_block",
        "params",
        "peer",
        "query",
        "reason",
        "request_id",
        "response_block",
        "route",
        "started_at",
        "status",
        "target",
        "trace",
        "trusted",
        "upstream",
        "upstream_started_at",
        "upstream_target",
        "upstream_ttfb_s",
    )

    def __init__(self, downstream: Downstream, started_at: float) -> None:
        self.downstream = downstream
        self.head = downstream.head
        self.peer = downstream.peer
        self.started_at = started_at
        self.deadline = 0.0
        self.target: Any = None
        self.route: Any = None
        self.params: Mapping[str, str] = {}
        self.client_host = ""
        self.client_scheme = "http"
        self.trusted = False
        self.request_id = ""
        self.trace: Any = None
        self.identity: Identity | None = None
        self.on_gone: Callable[[], None] | None = None
        self.ended = False
        self.response_block = b""
        self.browsers: BrowserRules | None = None
        self.outbound_block = b""
        self.query = b""
        self.status = 0
        self.flag = ""
        self.reason = ""
        self.upstream = ""
        self.upstream_target = ""
        self.attempts = 0
        self.upstream_started_at = 0.0
        self.upstream_ttfb_s = 0.0

    def start(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        """
        Answer: as ``Downstream.start``, with the gateway's own headers added.
        """
        self.relay(status, reason, block + self.browser_block(), length, data, ended)

    def browser_block(self) -> bytes:
        """
        Make the lines that browsers are told beside an answer of the gateway's own.
        """
        browsers = self.browsers
        if browsers is None:
            return b""
        return browsers.own(self.head.fields.get(b"origin"), secure=self.client_scheme == "https")

    def block_of(self, head: ResponseHead) -> bytes:
        """
        Make the block for ``relay`` of a backend's *head*: what of it goes on, and what browsers are told beside it.
        """
        browsers = self.browsers
        if browsers is None:
            return response_block(head)
        return browsers.relayed(
            head,
            self.head.fields.get(b"origin"),
            secure=self.client_scheme == "https",
            authenticated=self.identity is not None,
        )

    def relay(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        """
        The same with a backend's answer, whose *block* comes from ``block_of``.
        """
        self.status = status
        if ended:
            self.on_gone = None
        self.downstream.start(status, reason, block + self.response_block, length, data, ended)


class Gathering:
    """
    Takes a whole body, whose size the channel holds to the limit.
    """

    __slots__ = ("_done", "_exchange", "_parts")

    def __init__(self, exchange: Exchange, done: Callable[[Exchange, bytes], None]) -> None:
        self._exchange = exchange
        self._done = done
        self._parts: list[bytes] = []

    def received(self, data: bytes, ended: bool) -> None:
        """Take more of it."""
        if data:
            self._parts.append(data)
        if ended and not self._exchange.ended:
            self._done(self._exchange, b"".join(self._parts))


class HttpHandler(Protocol):
    """
    Who decides what happens to requests: the node.
    """

    def begin(self, downstream: Downstream) -> Exchange:
        """
        Take a request whose headers have arrived; answer now or later, from this thread.

        Must not raise.
        """

    def ended(self, exchange: Exchange, *, whole: bool) -> None:
        """
        The exchange is over: answered to the last byte (*whole*), or cut short or abandoned
        by the client. Called exactly once for each ``begin``. The access line is written here.
        """

    def refused(self, peer: Peer, status: int, code: str, head: bytes) -> bytes:
        """
        A request that cannot be read was refused by the channel before it became an exchange.

        Returns:
            The problem's body. *head* is a short beginning of what was received, for the log.
        """


class RouteHandler(Protocol):
    """
    What a route leads to: the proxy, a transcoded call, a resource.
    """

    def handle(self, exchange: Exchange) -> None:
        """
        Answer *exchange*, now or later. Called after every filter passed it.

        Raises:
            Problem: to have the node answer with it.
        """
