"""
A ``twisted.web`` resource tree as what a route leads to: small pages, not proxying.

The tree is walked along the canonical path, so what the route decided is what is rendered.
The request is given to ``twisted.web`` as HTTP/1.0: framing and persistence are the channel's,
and ``twisted.web`` then leaves both alone.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from gateway.core.message import CHUNKED
from gateway.core.problems import Problem
from gateway.ports.http import Exchange

__all__ = ["ResourceHandler"]

MAX_BODY_BYTES = 64 * 1024
_OURS = frozenset(b"connection content-length date keep-alive server transfer-encoding".split())


class ResourceHandler:
    """
    Answers exchanges from *resource* (``ports.http.RouteHandler``).

    Args:
        resource: The root of the tree.
        prefix: What the route's path begins with and the tree does not know, for instance ``/demo``.
        max_body_bytes: Bodies are collected before the tree is asked, up to this size.
    """

    def __init__(self, resource: IResource, *, prefix: bytes = b"", max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._site = Site(resource)
        self._site.displayTracebacks = False
        self._prefix = prefix
        self._max_body_bytes = max_body_bytes

    def handle(self, exchange: Exchange) -> None:
        """
        Collect the body, then render.

        Raises:
            Problem: ``body_too_large``.
        """
        downstream = exchange.downstream
        downstream.max_body_bytes = min(downstream.max_body_bytes, self._max_body_bytes)
        if exchange.head.body_length > downstream.max_body_bytes:
            raise Problem("body_too_large", f"At most {downstream.max_body_bytes} bytes are taken here.")
        downstream.receive(_Rendering(exchange, self._site, self._prefix))


class _Rendering:
    """
    One request while ``twisted.web`` renders it: its body's receiver, and the channel it believes in.
    """

    factory = None
    transport = None

    def __init__(self, exchange: Exchange, site: Site, prefix: bytes) -> None:
        self.site = site
        self._exchange = exchange
        self._prefix = prefix
        self._body = BytesIO()
        self._head: tuple[int, bytes, bytes, int] | None = None
        self._pulled: _Pulled | None = None

    def received(self, data: bytes, ended: bool) -> None:
        """
        Take the request's body.
        """
        self._body.write(data)
        if ended:
            self._render()

    def _render(self) -> None:
        exchange = self._exchange
        head = exchange.head
        target = exchange.target
        uri: bytes = head.target if target is None else target.path + (b"?" + target.query if target.query else b"")
        if self._prefix and uri.startswith(self._prefix):
            uri = uri[len(self._prefix) :]
        make: Any = Request
        request = make(self, False)
        request.requestHeaders = Headers()
        for name, value in head.headers:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        request.content = self._body
        exchange.on_gone = lambda: request.connectionLost(Failure(ConnectionDone()))
        request.requestReceived(head.method, uri if uri.startswith(b"/") else b"/" + uri, b"HTTP/1.0")

    # What a request asks of its channel.

    def getPeer(self) -> IPv4Address:
        """
        Tell the client's address, as the gateway's rule found it.
        """
        peer = self._exchange.peer
        return IPv4Address("TCP", self._exchange.client_host or peer.host, peer.port)

    def getHost(self) -> IPv4Address:
        """
        Tell an address for this side; links are made from ``Host``.
        """
        return IPv4Address("TCP", "127.0.0.1", 0)

    def isSecure(self) -> bool:
        """
        Tell whether the client came by TLS.
        """
        return self._exchange.client_scheme == "https"

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """
        Keep the head until there is a body to send it with.
        """
        lines: list[bytes] = []
        length = CHUNKED
        for name, values in headers.getAllRawHeaders():
            if name.lower() == b"content-length":
                length = int(values[-1])
            elif name.lower() not in _OURS:
                lines.extend(b"%b: %b\r\n" % (name, value) for value in values)
        self._head = (int(code), reason, b"".join(lines), length)

    def write(self, data: bytes) -> None:
        """
        Send *data*; all of it at once where it is the whole body.
        """
        if self._head is not None:
            head, self._head = self._head, None
            self._exchange.start(*head, data, ended=len(data) == head[3])
        else:
            self._exchange.downstream.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        """
        Send the joined *pieces*.
        """
        self.write(b"".join(pieces))

    def requestDone(self, request: Any) -> None:
        """
        End the answer.
        """
        self._exchange.on_gone = None
        if self._head is not None:
            head, self._head = self._head, None
            self._exchange.start(*head, b"", ended=True)
        else:
            self._exchange.downstream.finish()

    def loseConnection(self) -> None:
        """
        Cut the answer short.
        """
        self._exchange.downstream.abort()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """A form that is none; ``twisted.web`` calls this before it has answered anything."""
        self._exchange.on_gone = None
        self._exchange.start(400, b"", b"Content-Type: text/plain\r\n", 14, b"malformed form", ended=True)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Let *producer* write, held back as the client is.
        """
        if streaming:
            self._exchange.downstream.register(producer)
            return
        self._pulled = pulled = _Pulled(producer)
        self._exchange.downstream.register(pulled)
        pulled.resumeProducing()

    def unregisterProducer(self) -> None:
        """
        The producer has written everything.
        """
        if self._pulled is not None:
            self._pulled.asking = False


class _Pulled:
    """
    A producer that writes one piece each time it is asked; asked until the client is behind.
    """

    def __init__(self, producer: Any) -> None:
        self.asking = False
        self._producer = producer

    def pauseProducing(self) -> None:
        """
        Ask no more for now.
        """
        self.asking = False

    def resumeProducing(self) -> None:
        """
        Ask until paused, or done.
        """
        self.asking = True
        while self.asking:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """
        Ask never again.
        """
        self.asking = False
