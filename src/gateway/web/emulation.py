"""
Where clients that are told everything in one endless answer send what they have to say.

Each request holds messages for one session: ``{"session": …, "node": …, "data": "…"}``, or the same as
Protobuf, after the official SDKs. The session's id is what lets in: 128 random bits that only this
client was told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from twisted.python.failure import Failure

from gateway.core.problems import Problem
from gateway.ports.clients import ClientSide
from gateway.ports.http import Exchange, Gathering
from gateway.protos.gateway.wire.centrifuge_pb2 import EmulationRequest

__all__ = ["Emulation"]

_CLOSED_TO_BROWSERS: Final = b"Cache-Control: no-store\r\n"


class _Said(msgspec.Struct):
    session: str = ""
    node: str = ""
    data: str = ""


_decode = msgspec.json.Decoder(_Said).decode


class Emulation:
    """
    The path (``ports.http.RouteHandler``).

    Args:
        node: Tells this instance's name: others' clients are not here (404, after which SDKs connect anew).
        sessions: Clients by session id.
        check_origin: Raises ``Problem`` for pages that may not connect.
    """

    def __init__(
        self,
        node: Callable[[], str],
        sessions: Mapping[str, ClientSide],
        *,
        check_origin: Callable[[Exchange], None],
        most_bytes: int,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
    ) -> None:
        self._node = node
        self._sessions = sessions
        self._check_origin = check_origin
        self._most_bytes = most_bytes
        self._refuse = refuse
        self._crashed = crashed

    def handle(self, exchange: Exchange) -> None:
        """
        Take the body, then hand its messages to the client they come from.

        Raises:
            Problem: it is too large, or from a page that may not.
        """
        self._check_origin(exchange)
        downstream = exchange.downstream
        downstream.max_body_bytes = min(downstream.max_body_bytes, 2 * self._most_bytes)
        if exchange.head.body_length > downstream.max_body_bytes:
            raise Problem("body_too_large", f"At most {downstream.max_body_bytes} bytes are taken here.")
        downstream.receive(Gathering(exchange, self.said))

    def said(self, exchange: Exchange, body: bytes) -> None:
        """
        Take a whole body.
        """
        try:
            session, node, data = self._read(exchange, body)
            if node != self._node():
                raise Problem("no_session", "This instance has no such session.")
            side = self._sessions.get(session)
            if side is not None:
                side.received(data)
            exchange.start(204, b"", _CLOSED_TO_BROWSERS, 0, b"", ended=True)
        except Problem as problem:
            self._refuse(exchange, problem)
        except Exception:  # The body came in a turn of its own: nobody above us would answer.
            self._crashed(exchange, Failure())

    def _read(self, exchange: Exchange, body: bytes) -> tuple[str, str, bytes]:
        if exchange.head.fields.get(b"content-type") == b"application/octet-stream":
            message = EmulationRequest()
            try:
                message.ParseFromString(body)
            except DecodeError:
                raise Problem("bad_request", "The body is no EmulationRequest.") from None
            return message.session, message.node, message.data
        try:
            said = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem("bad_request", "The body is a JSON object with session, node and data.") from None
        return said.session, said.node, said.data.encode()
