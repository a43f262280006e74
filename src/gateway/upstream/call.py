"""
One request under way at a backend, whether its connection stands already or not.

    CONNECTING --connection--> SENDING --finish--> SENT
    any --end of the response, fault, cancel--> over

What is written while it connects is kept, bounded: the producer is paused as it registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.message import CHUNKED
from gateway.ports.http import Producer
from gateway.ports.upstream import Fault, ResponseReceiver

if TYPE_CHECKING:
    from gateway.upstream.connection import Connection
    from gateway.upstream.pool import Pool

__all__ = ["Call"]


class Call:
    """
    One request under way (``ports.upstream.UpstreamCall``).

    Attributes:
        connection: Over which it goes; None before there is one, and after its end.
        give_up: Ends the attempt to connect; None when there is none.
        connect_by: Monotonic seconds by which there must be a connection.
        written: Bytes given to the connection's transport so far.
        sent: A byte of the request may have reached the backend.
        answered: The response head was told.
        finished: The request's body is whole.
        moved: The response went on since the last sweep.
        idle_since: Monotonic seconds of the sweep that saw the response go on; 0 before the first.
        over: Nothing more is told or sent.
    """

    __slots__ = (
        "_early",
        "_left",
        "_length",
        "_pool",
        "answered",
        "connect_by",
        "connection",
        "deadline",
        "finished",
        "give_up",
        "idle_body_s",
        "idle_since",
        "method",
        "moved",
        "over",
        "paused",
        "producer",
        "receiver",
        "sent",
        "written",
    )

    def __init__(self, pool: Pool, receiver: ResponseReceiver, method: bytes, length: int, left: int) -> None:
        self._pool = pool
        self.receiver = receiver
        self.method = method
        self._length = length
        self._left = left
        self._early: list[bytes] | None = None
        self.connection: Connection | None = None
        self.give_up: Callable[[], object] | None = None
        self.producer: Producer | None = None
        self.deadline = 0.0
        self.connect_by = 0.0
        self.idle_body_s = 0.0
        self.idle_since = 0.0
        self.written = 0
        self.moved = False
        self.paused = False
        self.sent = False
        self.answered = False
        self.finished = False
        self.over = False

    @property
    def has_body(self) -> bool:
        """
        Whether the request was announced with a body.
        """
        return self._length != 0

    def write(self, data: bytes) -> None:
        """
        Send more of the body.
        """
        if self.over or self.finished or not data:
            return
        if self._length == CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        else:
            self._left -= len(data)
            if self._left < 0:
                # Sent on, the rest would be taken for the next request.
                self.fail("cancelled", "the request's body is longer than it was announced")
                return
        self._put(data)

    def finish(self, trailers: bytes = b"") -> None:
        """
        End the body.
        """
        if self.over or self.finished:
            return
        if self._length == CHUNKED:
            self._put(b"0\r\n%b\r\n" % trailers)
        elif self._left:
            self.fail("cancelled", "the request's body is shorter than it was announced")
            return
        self.finished = True
        if self.producer is not None and self.connection is not None:
            self.connection.transport.unregisterProducer()
        self.producer = None

    def _put(self, data: bytes) -> None:
        if self.connection is not None:
            self.written += len(data)
            self.connection.transport.write(data)
        elif self._early is None:
            self._early = [data]
        else:
            self._early.append(data)

    def cancel(self) -> None:
        """
        Give the request up.
        """
        if not self.over:
            self._let_go()

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

    def begin(self, connection: Connection, payload: bytes) -> None:
        """
        Go on over *connection*: send *payload* and what was written before it was there.
        """
        self.connection = connection
        self.give_up = None
        self.sent = True
        early = self._early
        if early is not None:
            self._early = None
            payload = b"".join((payload, *early))
        self.written = len(payload)
        transport = connection.transport
        transport.write(payload)
        if self.paused:
            transport.pauseProducing()
        if self.producer is not None:
            transport.registerProducer(self.producer, streaming=True)
            self.producer.resumeProducing()

    def end(self) -> bool:
        """
        The response is whole: nothing more is told or sent.

        Returns:
            Whether the request was whole, too.
        """
        self.over = True
        connection, self.connection = self.connection, None
        self._pool.active.pop(self, None)
        producer = self.producer
        if producer is not None:
            self.producer = None
            if connection is not None:
                connection.transport.unregisterProducer()
            # Nobody holds it back any more; what it writes from now on is dropped.
            producer.resumeProducing()
        return self.finished

    def fail(self, kind: str, detail: str = "") -> None:
        """
        End with a fault; the connection is cut.
        """
        if self.over:
            return
        self._let_go()
        self.receiver.failed(Fault(kind, detail, sent=self.sent, answered=self.answered))

    def _let_go(self) -> None:
        self.over = True
        self._pool.active.pop(self, None)
        self._early = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.cut()
        elif self.give_up is not None:
            give_up, self.give_up = self.give_up, None
            give_up()
