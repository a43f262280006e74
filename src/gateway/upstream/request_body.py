"""
The body of a request on its way to a backend.

It streams, held back by whoever is slower, and what is small is kept for a second attempt. While
it comes the deadline moves along: the time-out is for a backend's answer, and no backend
answers for how long a client takes to send.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.headers import trailer_block
from gateway.ports.http import Exchange
from gateway.upstream.call import Call

__all__ = ["RequestBody"]


class RequestBody:
    """
    What the client sends, as it comes (``ports.http.BodyReceiver``), and what holds it back.

    Args:
        max_kept: Bytes that are kept for another attempt once they were sent.
        try_timeout_s: For one attempt, or None.
        drop: Names that a trailer may not have, for ``core.headers.trailer_block``.
        seconds: The monotonic clock.
    """

    __slots__ = (
        "_asked",
        "_call",
        "_drop",
        "_ended",
        "_exchange",
        "_held",
        "_kept",
        "_kept_bytes",
        "_max_kept",
        "_paused",
        "_seconds",
        "_timeout_s",
        "_try_timeout_s",
        "replayable",
    )

    def __init__(
        self,
        exchange: Exchange,
        max_kept: int,
        try_timeout_s: float | None,
        drop: frozenset[bytes],
        seconds: Callable[[], float],
    ) -> None:
        self._exchange = exchange
        self._max_kept = max_kept
        self._timeout_s = exchange.deadline - exchange.started_at
        self._try_timeout_s = self._timeout_s if try_timeout_s is None else try_timeout_s
        self._drop = drop
        self._seconds = seconds
        self._call: Call | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._asked = False
        self._ended = False
        self._held = False
        self._paused = False
        self.replayable = True
        """All that came so far is here."""

    @property
    def awaited(self) -> bool:
        """
        Whether it is the client that keeps everybody waiting.
        """
        return not (self._ended or self._paused)

    def ask(self) -> None:
        """
        Let the client send it; what is here already comes at once.
        """
        if not self._asked:
            self._asked = True
            self._exchange.downstream.receive(self)

    def so_far(self) -> tuple[bytes, bool]:
        """
        What there is to send with the head, and whether nothing comes after it.
        """
        kept = self._kept
        data = kept[0] if len(kept) == 1 else b"".join(kept)
        return data, self._ended and not self._exchange.downstream.trailers

    def attach(self, call: Call) -> None:
        """
        Send what comes from now on over *call*, which has what came so far.
        """
        self._call = call
        self._paused = False
        if self._ended:
            # Does nothing to a call that was told the end with its head.
            call.finish(self._trailers())
            return
        if self._held:
            self._held = False
            self._exchange.downstream.resume_body()
        call.register(self)

    def detach(self) -> None:
        """
        The attempt is over; keep what comes for the next one, which takes it from the beginning.
        """
        self._call = None
        if not self._ended:
            self._held = True
            self._exchange.downstream.pause_body()

    def forget(self) -> None:
        """
        There will be no other attempt.
        """
        self.replayable = False
        self._kept.clear()

    def release(self) -> None:
        """
        The exchange is over; what still comes goes nowhere. Without this, body and call would hold each other.
        """
        self._call = None
        self.forget()

    def received(self, data: bytes, ended: bool) -> None:
        """
        Take more of the body.
        """
        self._ended = ended
        call = self._call
        now = self._seconds()
        self._exchange.deadline = now + self._timeout_s
        if data and self.replayable:
            self._kept.append(data)
            self._kept_bytes += len(data)
            # Before it was sent it must be kept, however much it is; what comes then is bounded by whoever holds it back.
            if self._kept_bytes > self._max_kept and call is not None and call.sent:
                self.forget()
        if call is None:
            return
        call.deadline = now + min(self._timeout_s, self._try_timeout_s)
        call.write(data)
        if ended:
            call.finish(self._trailers())

    def _trailers(self) -> bytes:
        trailers = self._exchange.downstream.trailers
        return trailer_block(trailers, self._drop) if trailers else b""

    # Held back by the backend's transport, under Twisted's names.

    def pauseProducing(self) -> None:
        """
        The backend is slower than the client.
        """
        if self._call is not None and not self._ended:
            self._paused = True
            self._exchange.downstream.pause_body()

    def resumeProducing(self) -> None:
        """
        The backend takes more.
        """
        self._paused = False
        if self._call is not None and not self._ended:
            self._exchange.downstream.resume_body()

    def stopProducing(self) -> None:
        """
        The attempt is over; its end is told elsewhere.
        """
