"""
The seam of a wire protocol: what a dialect must do so that its clients can be served.

A dialect is stateless and shared by all its connections. A *frame* is the payload of one
WebSocket message (or of one emulated one), which may carry several messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gateway.core.commands import Command, Result
from gateway.core.publications import ClientInfo, Position, Publication
from gateway.core.verdicts import ClientError

__all__ = ["BadFrame", "Dialect"]


class BadFrame(Exception):
    """
    A frame that is not of the dialect; the connection is closed for it.
    """


class Dialect(Protocol):
    """
    One wire protocol.

    Attributes:
        name: For metrics and logs: ``centrifuge-json``.
        subprotocol: What ``Sec-WebSocket-Protocol`` asks for it.
        binary: Whether its frames are binary messages.
    """

    name: str
    subprotocol: str
    binary: bool

    def commands(self, frame: bytes) -> list[Command]:
        """
        Read the commands of a frame, in order.

        Raises:
            BadFrame: with a reason for the log.
        """

    def reply(self, id_: int, result: Result) -> bytes:
        """Encode the success of command *id_*."""

    def error(self, id_: int, error: ClientError) -> bytes:
        """Encode the failure of command *id_*."""

    def publication(self, channel: str, publication: Publication) -> bytes:
        """Encode a push; made once per channel and publication and sent to every subscriber."""

    def join(self, channel: str, info: ClientInfo) -> bytes:
        """Encode that somebody came."""

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        """Encode that somebody went."""

    def subscribed(
        self, channel: str, position: Position, *, recoverable: bool, positioned: bool, data: bytes
    ) -> bytes:
        """Encode that the server subscribed the client."""

    def unsubscribed(self, channel: str, code: int, reason: str) -> bytes:
        """Encode that the server ended a subscription."""

    def message(self, data: bytes) -> bytes:
        """Encode a message to this client outside any channel."""

    def refresh(self, *, expires: bool, ttl_s: int) -> bytes:
        """Encode that the server extended the connection."""

    def disconnect(self, code: int, reason: str, *, reconnect: bool) -> bytes:
        """Encode why the connection is about to be closed, for transports without close codes."""

    def ping(self) -> bytes:
        """Encode the server's ping."""

    def batch(self, messages: Iterable[bytes]) -> bytes:
        """Join encoded messages into one frame."""
