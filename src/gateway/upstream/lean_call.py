"""
One unary call of gRPC on a connection of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.ports.calls import CallFailed
from gateway.upstream.call_failures import CANCELLED, DEADLINE_EXCEEDED
from gateway.upstream.http2 import Field
from gateway.upstream.lean_answers import metadata_of, overdue
from gateway.upstream.unary import UnaryReply

__all__ = ["LeanCall"]

NEARLY_S: Final = 0.02
"""A backend's clock may be this much ahead of ours."""

_AT_THE_END: Final = frozenset((CANCELLED, DEADLINE_EXCEEDED))


class Carrier(Protocol):
    """
    The connection that a call was begun on.
    """

    def leave(self, call: LeanCall) -> None:
        """Nobody waits for *call* any more."""


class LeanCall:
    """
    A call, from when it is asked for until it is answered.

    Args:
        fields: Its header block.
        data: Its message, with the prefix.
        until: When it is given up, by the reactor's clock.
        seconds: That clock.
        ended: Called when it has ended, whatever became of it.

    Attributes:
        answer: Has what came of it.
        connection: On which it was begun.
        stream: Its number there; 0 before it was sent.
        resent: It was sent once, and the server said that it did not look at it.
    """

    __slots__ = (
        "_ended",
        "_seconds",
        "_until",
        "answer",
        "body",
        "connection",
        "data",
        "fields",
        "head",
        "resent",
        "size",
        "stream",
        "unsent",
        "window",
    )

    def __init__(
        self,
        fields: bytes,
        data: bytes,
        until: float,
        seconds: Callable[[], float],
        ended: Callable[[LeanCall], None],
    ) -> None:
        self.fields = fields
        self.data = data
        self.answer: Deferred[UnaryReply] = Deferred(self._cancelled)
        self.connection: Carrier | None = None
        self.stream = 0
        self.window = 0
        self.unsent = memoryview(b"")
        self.head: tuple[Field, ...] | None = None
        self.body: list[bytes] = []
        self.size = 0
        self.resent = False
        self._until = until
        self._seconds = seconds
        self._ended = ended

    def again(self) -> None:
        """
        Be as one that was not sent.
        """
        self.connection, self.stream, self.unsent = None, 0, memoryview(b"")

    def reply(self, data: bytes, trailers: tuple[Field, ...]) -> None:
        """
        End with a message.
        """
        self._ended(self)
        if not self.answer.called:
            self.answer.callback(UnaryReply(data, metadata_of(self.head or ()), metadata_of(trailers)))

    def fail(self, failed: CallFailed) -> None:
        """
        End without one.
        """
        self._ended(self)
        if failed.code in _AT_THE_END and self._seconds() >= self._until - NEARLY_S:
            # The backend knows the deadline as well, and may see it first.
            failed = overdue()
        if not self.answer.called:
            self.answer.errback(Failure(failed))

    def give_up(self, failed: CallFailed) -> None:
        """
        End it here, and at the backend.
        """
        if self.connection is not None:
            self.connection.leave(self)
        self.fail(failed)

    def _cancelled(self, _: Deferred[UnaryReply]) -> None:
        self._ended(self)
        if self.connection is not None:
            self.connection.leave(self)
