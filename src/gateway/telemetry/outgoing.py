"""
Spans on their way to a collector: gathered, sent together, tried again for a while, dropped and counted beyond.

Nothing here waits for a collector but one task. What waits is bounded in number and bytes, an attempt has a
deadline, so has the same batch over all its attempts, and so has the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.core.backoff import backoff
from gateway.telemetry.metrics import Metrics

__all__ = ["Outgoing", "Queue", "Sender", "Unsent"]

_FIRST_S: Final = 0.5
_MOST_S: Final = 10.0
_SLACK_S: Final = 1.0
"""What a sender may take beyond its deadline until it is given up on."""

MOST_BATCH_BYTES: Final = 1024 * 1024
"""Sent together; collectors take 4 MiB by default."""


class Unsent(Exception):
    """
    A batch did not arrive.

    Attributes:
        lasting: It never will: the collector does not take it.
        after_s: When to try again, if the collector said so.
    """

    def __init__(self, reason: str, *, lasting: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.after_s = after_s


class Sender(Protocol):
    """
    One way to one collector.
    """

    async def send(self, spans: list[bytes], timeout_s: float) -> int:
        """
        Send *spans*, as ``SpanBytes`` makes them; return how many of them the collector rejected.

        Raises:
            Unsent: with the reason.
        """

    async def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Queue:
    """
    How much waits, and how long.

    Attributes:
        spans: That may wait.
        bytes: Likewise.
        batch: Spans sent together.
        delay_s: How long spans gather.
        timeout_s: For one attempt.
        retry_s: For all attempts at the same batch.
    """

    spans: int = 8192
    bytes: int = 8 * 1024 * 1024
    batch: int = 256
    delay_s: float = 1.0
    timeout_s: float = 5.0
    retry_s: float = 60.0


class Outgoing:
    """
    The spans that wait for one collector.

    Args:
        random: Evenly from 0 to 1.
        event: Told when the collector begins and ceases to fail: the event's name and its fields.
        crashed: Told of failures of our own.

    Attributes:
        bytes: How much waits, what is being sent included.
    """

    def __init__(
        self,
        sender: Sender,
        queue: Queue,
        clock: IReactorTime,
        random: Callable[[], float],
        metrics: Metrics,
        event: Callable[[str, dict[str, Any]], None],
        crashed: Callable[[Failure], None],
    ) -> None:
        self._sender = sender
        self._queue = queue
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._event = event
        self._crashed = crashed
        self._waiting: deque[bytes] = deque()
        self._sending = 0
        self.bytes = 0
        self._failing = False
        self._stopping = False
        self._gathers = False
        self._runs = False
        self._run: Deferred[None] | None = None
        self._asleep: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + self._sending

    def put(self, span: bytes) -> None:
        """
        Take a span; beyond the bound it is dropped and counted. Never blocks.
        """
        queue = self._queue
        if len(self) >= queue.spans or self.bytes + len(span) > queue.bytes or self._stopping:
            self._metrics.spans.inc("stopped" if self._stopping else "overflow")
            return
        self._waiting.append(span)
        self.bytes += len(span)
        if not self._runs:
            self._run = Deferred.fromCoroutine(self._work()).addErrback(self._failed)
        elif self._gathers and len(self._waiting) >= queue.batch:
            self._gathers = False
            # Not in the turn of the request whose span it is.
            self._clock.callLater(0, self._wake)

    async def stop(self, within_s: float) -> None:
        """
        Send what waits, for at most *within_s* seconds, and drop the rest.
        """
        self._stopping = True
        run = self._run
        if run is not None and self._runs:
            limit = self._clock.callLater(within_s, run.cancel)
            self._wake()
            await run
            if limit.active():
                limit.cancel()
        self._drop(len(self._waiting), "stopped")
        await self._sender.close()

    async def _work(self) -> None:
        """Send until nothing waits, and end then: who puts the next span begins anew."""
        self._runs = True
        try:
            while self._waiting:
                if not self._stopping and len(self._waiting) < self._queue.batch and self.bytes < MOST_BATCH_BYTES:
                    self._gathers = True
                    await self._sleep(self._queue.delay_s)
                self._gathers = False
                await self._batch()
        finally:
            self._runs = self._gathers = False

    def _failed(self, failure: Failure) -> None:
        # Cancelled is the end, when the time is over; what is left is counted there.
        if not failure.check(CancelledError):
            self._crashed(failure)

    async def _batch(self) -> None:
        batch: list[bytes] = []
        size = 0
        while self._waiting and len(batch) < self._queue.batch:
            if batch and size + len(self._waiting[0]) > MOST_BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        self._sending = len(batch)
        outcome = "stopped"
        rejected = 0
        try:
            rejected = await self._sent(batch)
            outcome = "sent"
        except Unsent as unsent:
            outcome = "refused" if unsent.lasting else "unsent"
        finally:
            self._sending = 0
            self.bytes -= size
            self._metrics.spans.inc(outcome, by=len(batch) - rejected)
            if rejected:
                self._metrics.spans.inc("refused", by=rejected)

    async def _sent(self, batch: list[bytes]) -> int:
        """Send *batch* until it has arrived; return how many of its spans were rejected all the same."""
        queue, clock = self._queue, self._clock
        until = clock.seconds() + queue.retry_s
        attempt = 0
        while True:
            attempt += 1
            sending = Deferred.fromCoroutine(self._sender.send(batch, queue.timeout_s))
            try:
                rejected: int = await sending.addTimeout(queue.timeout_s + _SLACK_S, clock)
            except (Unsent, TookTooLong) as error:
                unsent = error if isinstance(error, Unsent) else Unsent("took too long")
                self._metrics.span_exports.inc("refused" if unsent.lasting else "failed")
                self._tell(unsent)
                wait = max(unsent.after_s, backoff(attempt, _FIRST_S, _MOST_S, self._random))
                if unsent.lasting or self._stopping or clock.seconds() + wait > until:
                    raise unsent from None
                await self._sleep(wait)
            else:
                self._metrics.span_exports.inc("sent")
                self._tell(None)
                return rejected

    def _tell(self, unsent: Unsent | None) -> None:
        """Tell once that it fails, and once that it no longer does."""
        if unsent is not None and not self._failing:
            self._event("tracing.unsent", {"reason": str(unsent)[:300]})
        elif unsent is None and self._failing:
            self._event("tracing.resumed", {})
        self._failing = unsent is not None

    async def _sleep(self, seconds: float) -> None:
        asleep = self._asleep = Deferred()
        timer = self._clock.callLater(seconds, self._wake)
        try:
            await asleep
        finally:
            self._asleep = None
            if timer.active():
                timer.cancel()

    def _wake(self) -> None:
        asleep, self._asleep = self._asleep, None
        if asleep is not None:
            asleep.callback(None)

    def _drop(self, number: int, outcome: str) -> None:
        for _ in range(number):
            self.bytes -= len(self._waiting.popleft())
        if number:
            self._metrics.spans.inc(outcome, by=number)
