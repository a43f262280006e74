"""
Where clients that are told everything in one endless answer send what they have to say.

Each request holds messages for one session: ``{"session": …, "node": …, "data": "…"}``, or the same as
Protobuf, after the official SDKs. The session's id is what lets in: random bits that only this client was
told. A request may reach any instance: the one that has the client's connection is given what it says, and the
answer is 204 when it has taken it. 404 when there is no such instance: SDKs then connect anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gateway.core.problems import Problem
from gateway.ports.http import Exchange, Gathering
from gateway.protos.gateway.wire.centrifuge_pb2 import EmulationRequest

__all__ = ["Emulation", "Take"]

Take = Callable[[str, str, bytes], "bool | Deferred[bool]"]
"""
Gives a message to its client: called with the instance that has its connection, its session, and the message.
False, now or later: there is no such instance. Raises or fails with ``Problem``.
"""

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
        take: Gives messages to their clients.
        check_origin: Raises ``Problem`` for pages that may not connect.
    """

    def __init__(
        self,
        take: Take,
        *,
        check_origin: Callable[[Exchange], None],
        most_bytes: int,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
    ) -> None:
        self._take = take
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
            taken = self._take(node, session, data)
            if isinstance(taken, Deferred):
                exchange.on_gone = taken.cancel
                taken.addCallback(self._answer, exchange).addErrback(self._failed, exchange)
            else:
                self._answer(taken, exchange)
        except Problem as problem:
            self._refuse(exchange, problem)
        except Exception:  # The body came in a turn of its own: nobody above us would answer.
            self._crashed(exchange, Failure())

    def _answer(self, taken: bool, exchange: Exchange) -> None:
        if exchange.ended:
            return
        if not taken:
            raise Problem("no_session", "No instance has such a session.")
        exchange.start(204, b"", _CLOSED_TO_BROWSERS, 0, b"", ended=True)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        if exchange.ended or failure.check(CancelledError):
            return
        if isinstance(failure.value, Problem):
            self._refuse(exchange, failure.value)
        else:
            self._crashed(exchange, failure)

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
