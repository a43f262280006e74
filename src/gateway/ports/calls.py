"""
The seam of a call to a backend that speaks messages: gRPC today. It does not know HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.trace import TraceContext

__all__ = ["Call", "CallFailed", "CallReply", "CallUpstream", "Metadata"]

Metadata = Sequence[tuple[str, str | bytes]]
"""Lower-case keys; values are ASCII text, or bytes for keys that end in ``-bin``."""


@dataclass(frozen=True, slots=True)
class Call:
    """
    What to call.

    Attributes:
        method: ``/pkg.Service/Method``.
        message: The request message, a protobuf message of the method's input class.
        metadata: What goes with it, already allowed and checked.
        timeout_s: Seconds left; every call has a deadline.
        idempotent: A second attempt is safe even after the backend may have seen the first.
        reply_class: The message class that comes back (its ``FromString`` is used); None gives bytes.
        trace: The place that the call is below; passed on as metadata, each attempt as a place of its own where the
            trace is recorded.
    """

    method: str
    message: Any
    metadata: Metadata = ()
    timeout_s: float = 10.0
    idempotent: bool = False
    reply_class: Any = None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class CallReply:
    """
    A message that came back, with what came along.
    """

    message: Any
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()
    attempts: int = 1
    target: str = ""


class CallFailed(Exception):
    """
    A call ended without a message.

    Attributes:
        code: The gRPC status number, 1 to 16 (unknown numbers are 2, UNKNOWN).
        message: The status message; the backend's own words, to be masked for clients.
        local: The failure was made here (no connection, deadline, too large), not sent by the backend.
        details: Serialised ``google.rpc.Status`` of ``grpc-status-details-bin``, or empty.
        kind: For local failures: ``connect`` (the backend saw nothing of it, as far as anybody knows), ``lost`` (it may
            have), ``deadline``, ``cancelled``, ``overload``, ``too_large_reply``, ``too_large_request``,
            ``too_large_message``, ``malformed``, ``no_message``, ``no_target``, ``open``.
        retry_after_s: When to try again, if known.
    """

    def __init__(
        self,
        code: int,
        message: str = "",
        *,
        local: bool = False,
        kind: str = "",
        details: bytes = b"",
        metadata: Metadata = (),
        retry_after_s: float | None = None,
        attempts: int = 1,
        target: str = "",
    ) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.local = local
        self.kind = kind
        self.details = details
        self.metadata = metadata
        self.retry_after_s = retry_after_s
        self.attempts = attempts
        self.target = target


class CallUpstream(Protocol):
    """
    One upstream that takes calls: several targets, balanced, with retries and a breaker behind it.
    """

    async def call(self, call: Call) -> CallReply:
        """
        Make a unary call. Cancelling the awaiting Deferred cancels the call.

        Raises:
            CallFailed: with the status; an OK without a message is a local ``no_message``.
        """

    def stream(self, call: Call) -> AsyncIterator[Any]:
        """
        Make a server-streaming call; messages are read one ahead of the consumer.

        Raises:
            CallFailed: from the iteration, also before the first message.
        """
