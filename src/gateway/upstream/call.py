"""
One request under way at a backend, whether its connection stands already or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.message import CHUNKED
from gateway.ports.http import Producer
from gateway.ports.upstream import Fault, ResponseReceiver

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection
    from gateway.upstream.pool import Pool

__all__ = ["Call"]


class Call:
    """
    One request under way (``ports.http.UpstreamCall``).

    Attributes:
        sent: A byte of the request may have reached the backend.
        moved: Something came since the last sweep.
    """

    __slots__ = (
        "answered",
        "cancel_connect",
        "connection",
        "deadline",
        "early",
        "finished",
        "idle_body_s",
        "idle_since",
        "length",
        "method",
        "moved",
        "over",
        "paused",
        "pool",
        "producer",
        "receiver",
        "sent",
    )

    def __init__(self, pool: Pool, receiver: ResponseReceiver, method: bytes, length: int) -> None:
        self.pool = pool
        self.receiver = receiver
        self.method = method
        self.length = length
        self.connection: Connection | None = None
        self.cancel_connect: Any = None
        self.early: list[bytes] = []
        self.producer: Producer | None = None
        self.deadline = 0.0
        self.idle_body_s = 0.0
        self.idle_since = 0.0
        self.moved = False
        self.paused = False
        self.sent = False
        self.answered = False
        self.finished = False
        self.over = False

    def write(self, data: bytes) -> None:
        """
        Send more of the body.
        """
        if self.over or self.finished or not data:
            return
        self._put(b"%x\r\n%b\r\n" % (len(data), data) if self.length == CHUNKED else data)

    def finish(self, trailers: bytes = b"") -> None:
        """
        End the body.
        """
        if self.over or self.finished:
            return
        self.finished = True
        if self.length == CHUNKED:
            self._put(b"0\r\n%b\r\n" % trailers)
        if self.producer is not None and self.connection is not None:
            self.connection.transport.unregisterProducer()
        self.producer = None

    def _put(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.transport.write(data)
        else:
            # Not connected yet; bounded, because the producer was paused when it registered.
            self.early.append(data)

    def cancel(self) -> None:
        """
        Give the request up.
        """
        if self.over:
            return
        self.over = True
        self.pool.active.pop(self, None)
        if self.connection is not None:
            self.connection.cut()
        elif self.cancel_connect is not None:
            self.cancel_connect()

    def pause(self) -> None:
        """
        Read no more until resumed.
        """
        if not self.over and not self.paused:
            self.paused = True
            if self.connection is not None:
                self.connection.transport.pauseProducing()

    def resume(self) -> None:
        """
        Read again.
        """
        if not self.over and self.paused:
            self.paused = False
            self.moved = True
            if self.connection is not None:
                self.connection.transport.resumeProducing()

    # A consumer's transport calls its producer by Twisted's names.
    pauseProducing = pause
    resumeProducing = resume

    def stopProducing(self) -> None:
        """
        The consumer is gone; whoever owns the exchange cancels it.
        """

    def register(self, producer: Producer) -> None:
        """
        Name who writes the body.
        """
        if self.over or self.finished:
            return
        self.producer = producer
        if self.connection is not None:
            self.connection.transport.registerProducer(producer, streaming=True)
        else:
            producer.pauseProducing()

    def attach(self, connection: Connection) -> bytes:
        """
        Go on over *connection*; return what was written before it was there.
        """
        self.connection = connection
        self.sent = True
        early = b"".join(self.early)
        self.early.clear()
        return early

    def attached(self) -> None:
        """
        What came early is on its way: let the producer go on.
        """
        connection = self.connection
        if connection is None:
            return
        if self.paused:
            connection.transport.pauseProducing()
        if self.producer is not None:
            connection.transport.registerProducer(self.producer, streaming=True)
            self.producer.resumeProducing()

    def fail(self, kind: str, detail: str = "") -> None:
        """
        End with a fault; the connection is cut.
        """
        if self.over:
            return
        self.over = True
        self.pool.active.pop(self, None)
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.cut()
        elif self.cancel_connect is not None:
            self.cancel_connect()
        self.receiver.failed(Fault(kind, detail, sent=self.sent, answered=self.answered))
