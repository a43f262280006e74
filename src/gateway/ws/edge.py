"""
A path at which WebSockets are opened.

Everything that can refuse a client does so before the 101, as an HTTP answer with a reason: the
origin, the token, the handshake itself. Afterwards the connection is the node's client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autobahn.twisted import websocket as autobahn
from autobahn.websocket import compress
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gateway.config.realtime_sections import WebSocket
from gateway.core.problems import Problem
from gateway.ports.clients import ClientSide, ClientTransport, Form, Opening
from gateway.ports.http import Exchange
from gateway.ws.closing import ClosingWatch
from gateway.ws.connection import FAILED_S, Connection
from gateway.ws.handshake import answer, key_of, offered, query_protocol, request_again, token_of
from gateway.ws.lean import LeanConnection

__all__ = ["Accept", "Open", "WebSocketEdge"]

Accept = Callable[[ClientTransport, Opening], ClientSide]
Open = Callable[[Exchange, bytes], Opening | Deferred[Opening]]

_autobahn: Any = autobahn
_compress: Any = compress
_WINDOW_BITS = 15


class WebSocketEdge:
    """
    One path (``ports.http.RouteHandler``).

    Args:
        forms: By sub-protocol; the first is that of clients who name none.
        compressed: The same for clients with permessage-deflate; empty if it is not offered.
        open_: Who the client is, from its request and a token among its sub-protocols; raises or fails with ``Problem``.
        accept: The node.
        lean: Take the short ways (``ws.lean``).
        refuse: The node's way to answer with a problem.
        crashed: The node's way to report a failure of our own.
    """

    def __init__(
        self,
        reactor: Any,
        section: WebSocket,
        *,
        forms: Mapping[str, Form],
        compressed: Mapping[str, Form],
        open_: Open,
        accept: Accept,
        watch: ClosingWatch,
        lean: bool,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
    ) -> None:
        self._section = section
        self._forms = forms
        self._first = next(iter(forms))
        self._compressed = compressed
        self._open = open_
        self._accept = accept
        self._watch = watch
        self._refuse = refuse
        self._crashed = crashed
        factory = _factory(reactor, section)
        self._lean = lean
        base: type[Connection] = LeanConnection if lean else Connection
        options = {name: getattr(factory, name) for name in base.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(factory.perMessageCompressionAccept)
        self._class: Any = type("WebSocketConnection", (base,), {"factory": factory, **options})

    def handle(self, exchange: Exchange) -> None:
        """
        Open a WebSocket, or say why not.

        Raises:
            Problem: it is not asked for as it should be; the client may not; see ``node.opening``.
        """
        head = exchange.head
        key = key_of(head)
        names = offered(head)
        token = b""
        if names and "subprotocol" in self._section.credentials:
            names, token = token_of(names)
        protocol = self._protocol(names, exchange.query)
        if token and protocol not in names:
            raise Problem("bad_request", f"A token among the sub-protocols needs one of ours too: {self._first}.")
        opened = self._open(exchange, token)
        if isinstance(opened, Deferred):
            exchange.on_gone = opened.cancel
            opened.addCallback(self._begin, exchange, key, protocol, protocol if protocol in names else "")
            opened.addErrback(self._failed, exchange)
        else:
            self._begin(opened, exchange, key, protocol, protocol if protocol in names else "")

    def _protocol(self, names: list[str], query: bytes) -> str:
        for name in names:
            if name in self._forms:
                return name
        asked = query_protocol(query)
        if asked:
            for name in self._forms:
                if name.endswith(f"-{asked}"):
                    return name
        return self._first

    def _begin(self, opening: Opening, exchange: Exchange, key: bytes, protocol: str, chosen: str) -> None:
        if exchange.ended:
            return
        fields = exchange.head.fields
        form = self._forms[protocol]
        extensions = bool(self._compressed) and b"sec-websocket-extensions" in fields
        connection = self._class(form, chosen, self._watch, self._section.close_timeout_s)
        exchange.on_gone = None
        exchange.status = 101
        transport, data = exchange.downstream.take_over(connection)  # type: ignore[attr-defined]  # ports.http.Upgrade
        if self._lean and not extensions:
            opened = connection.open(transport, answer(key, chosen, exchange.response_block))
        else:
            connection.lines = _lines(exchange.response_block)
            opened = connection.begin(transport, request_again(fields, key, chosen))
        if not opened:
            self._watch.add(connection, FAILED_S)
            return
        if connection.websocket_extensions_in_use:
            connection.form = self._compressed[protocol]
        connection.side = self._accept(connection, opening)
        if data:
            connection.dataReceived(data)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        error = failure.value
        if exchange.ended or isinstance(error, CancelledError):
            return
        if isinstance(error, Problem):
            self._refuse(exchange, error)
        else:
            self._crashed(exchange, failure)


def _lines(block: bytes) -> dict[str, str]:
    pairs = (line.partition(": ") for line in block.decode("latin-1").split("\r\n") if line)
    return {name: value for name, _, value in pairs}


def _factory(reactor: Any, section: WebSocket) -> Any:
    """What Autobahn takes its options from. Its own timers are off: others look after every connection."""
    factory = _autobahn.WebSocketServerFactory(server="", reactor=reactor)
    factory.setProtocolOptions(
        versions=[13],
        webStatus=False,
        maxFramePayloadSize=section.max_message_bytes,
        maxMessagePayloadSize=section.max_message_bytes,
        failByDrop=False,
        echoCloseCodeReason=True,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        tcpNoDelay=True,
        autoPingInterval=0,
        perMessageCompressionAccept=_accept if section.compression else lambda _offers: None,
    )
    return factory


class _Accept(_compress.PerMessageDeflateOfferAccept):  # type: ignore[misc]  # not typed
    """
    What is agreed; it says ``server_no_context_takeover`` also to clients that did not ask (RFC 7692, section 7.1.1.1).
    """

    def get_extension_string(self) -> str:
        agreed = str(super().get_extension_string())
        return agreed if "server_no" in agreed else f"{agreed}; server_no_context_takeover"


def _accept(offers: list[Any]) -> Any:
    """Without context takeover on either side: one frame serves all, and no memory is kept for each."""
    for offer in offers:
        # A smaller window than deflate's own would need frames of its own.
        if isinstance(offer, _compress.PerMessageDeflateOffer) and offer.request_max_window_bits in (0, _WINDOW_BITS):
            return _Accept(
                offer,
                request_no_context_takeover=offer.accept_no_context_takeover,
                no_context_takeover=True,
            )
    return None
