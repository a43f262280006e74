"""
Telling what happened to sessions: out of the outbox, in order for each session, at least once.

Each instance tells the events of its own partitions, so in the normal case an event is told once. It stays in the
outbox until it was taken; whoever tells it again, this instance or another, tells it under the same id.
Nothing of this is waited for by clients: an outage of whoever is told fills the outbox, up to its bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gateway.config.events_section import Events
from gateway.core.backoff import backoff
from gateway.core.partitions import PARTITIONS, partition_of
from gateway.core.trace import parse
from gateway.events.batch_span import BatchSpan
from gateway.events.batches import Batches
from gateway.events.content import told_of, traceparent_of
from gateway.ports.events import EventSink, NotTaken, ToldEvent
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import Backlog, EventOutbox, OutboxEvent
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.spans import Spans

__all__ = ["Delivery"]

HOLD_MORE_S: Final = 3.0
"""A partition stays with its teller so much longer than a call may take."""

FIRST_S: Final = 0.5
LOOK_S: Final = 5.0
"""How often what waits is counted."""

LOOK_AGAIN_S: Final = 0.01

LEAST_TAKEN: Final = 16
"""Events of a partition that are in hand at once."""


class Delivery:
    """
    The teller of one instance.

    Args:
        instance: This instance's name.
        partitions: Those that are its to tell.
        random: Evenly from 0 to 1.
        log: A structlog logger.

    Attributes:
        backlog: What waits in its partitions, as of the last look.
    """

    def __init__(
        self,
        outbox: EventOutbox,
        clock: IReactorTime,
        *,
        instance: Callable[[], str],
        partitions: Callable[[], Collection[int]],
        random: Callable[[], float],
        spans: Spans,
        metrics: RealtimeMetrics,
        log: Any,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._instance = instance
        self._partitions = partitions
        self._random = random
        self._spans = spans
        self._metrics = metrics
        self._log = log
        self._section = Events()
        self._sink: EventSink | None = None
        self._timeout_s = 0.0
        self._batches = Batches(self._section.batch, self._section.attempts)
        self._settled: dict[str, None] = {}
        self._failures = 0
        self._looked_at = float("-inf")
        self._ends_at: float | None = None
        self._nap: Deferred[None] | None = None
        self._ended: Deferred[None] | None = None
        self.backlog = Backlog(0, 0)

    def configure(self, section: Events, sink: EventSink | None, timeout_s: float) -> None:
        """
        Tell *sink* from now on; None for nobody.

        Args:
            timeout_s: How long a call may take.
        """
        self._section = section
        self._sink = sink
        self._timeout_s = timeout_s
        self._batches = Batches(section.batch, section.attempts)
        self._wake()

    # Its life.

    async def run(self) -> None:
        """
        Tell until ``stop``.
        """
        self._ended = Deferred()
        try:
            while True:
                pause_s = await self._turn()
                if self._ends_at is not None and self._is_over(pause_s):
                    return
                await self._sleep(pause_s)
        finally:
            self._ended.callback(None)

    def _is_over(self, pause_s: float) -> bool:
        assert self._ends_at is not None
        empty = pause_s > 0 and not self._failures
        return self._sink is None or empty or self._clock.seconds() >= self._ends_at

    async def stop(self) -> None:
        """
        Tell what is left, as long as ``flush_timeout`` allows; then others may tell it.
        """
        if self._ended is not None:
            self._ends_at = now = self._clock.seconds()
            self._ends_at += self._section.flush_timeout_s
            self._wake()
            while not self._ended.called and self._clock.seconds() < self._ends_at + self._timeout_s:
                await deferLater(self._clock, LOOK_AGAIN_S)
            self._log.debug("events.flushed", took_s=round(self._clock.seconds() - now, 3))
        if self._sink is None:
            return
        try:
            await self._forget()
            await self._look(now=True)
            await self._outbox.release(self._instance(), range(PARTITIONS))
        except StoreUnavailable:
            return
        if self.backlog.waiting:
            self._log.warning("events.left", waiting=self.backlog.waiting)

    def _wake(self) -> None:
        nap, self._nap = self._nap, None
        if nap is not None:
            nap.cancel()

    async def _sleep(self, pause_s: float) -> None:
        if self._ends_at is not None:
            pause_s = min(pause_s, max(0.0, self._ends_at - self._clock.seconds()))
        nap: Deferred[None] = deferLater(self._clock, pause_s)
        self._nap = nap
        try:
            await nap
        except CancelledError:
            if self._nap is nap:
                raise  # Not woken: the task itself is cancelled.
        finally:
            self._nap = None

    # What it does.

    async def _turn(self) -> float:
        """Tell what waits; return how long to pause then."""
        sink, interval_s = self._sink, self._section.interval_s
        if sink is None:
            return interval_s
        try:
            await self._forget()
            await self._look()
            partitions = self._partitions()
            if not partitions:
                return interval_s
            until = self._clock.seconds() + HOLD_MORE_S
            most = max(LEAST_TAKEN, 2 * self._batches.most // len(partitions))
            hold_s = self._timeout_s + HOLD_MORE_S
            found = await self._outbox.take(self._instance(), partitions, most, for_s=hold_s)
            took, cut = await self._tell_all(sink, [event for event in found if event.ref not in self._settled], until)
            full = most in Counter(partition_of(event.session) for event in found).values()
        except StoreUnavailable:
            return interval_s
        except NotTaken as error:
            if not self._failures:
                self._log.warning("events.untaken", reason=error.reason)
            self._failures += 1
            return backoff(self._failures, FIRST_S, self._section.retry_max_s, self._random)
        return 0.0 if took and (full or cut) else interval_s

    async def _tell_all(self, sink: EventSink, waiting: Sequence[OutboxEvent], until: float) -> tuple[bool, bool]:
        """
        Tell *waiting* batch by batch, while its partitions are certain to be ours.

        Returns:
            Whether anything was taken, and whether it was too much for that time.

        Raises:
            NotTaken: nothing was taken, of anybody.
        """
        batches = self._batches
        batches.forget({event.id for event in waiting})
        held: set[str] = set()
        alone: dict[OutboxEvent, str] = {}
        took, in_a_row = False, 0
        while batch := batches.next(waiting, held):
            if self._clock.seconds() >= until:
                return took, True
            try:
                settled, again = await self._tell(sink, batch)
            except NotTaken as error:
                self._metrics.event_batches.inc("refused" if error.refused else "failed")
                if len(batch) > 1:
                    if batches.failed(batch, answers=error.refused or took):
                        continue
                    raise
                alone[batch[0]] = error.reason
                in_a_row += 1
                held.add(batch[0].session)
                if in_a_row > 1:
                    break  # They have nothing to do with each other: neither need be to blame.
                continue
            in_a_row = 0
            took = took or bool(settled)
            held.update(event.session for event in again)
            alone |= again
            await self._forget()
            gone = {event.ref for event in settled}
            waiting = [event for event in waiting if event.ref not in gone]
        if not took and held:
            batches.unlucky()
            raise NotTaken(next(iter(alone.values())))
        for event, reason in alone.items():
            if batches.failed_alone(event):
                self._give_up(event, reason)
        await self._forget()
        return took, False

    async def _tell(
        self, sink: EventSink, batch: Sequence[OutboxEvent]
    ) -> tuple[Sequence[OutboxEvent], Mapping[OutboxEvent, str]]:
        """Tell one batch: which of it is settled, and which is to be told again, and why."""
        told: dict[str, ToldEvent] = {}
        settled: list[OutboxEvent] = []
        for event in batch:
            try:
                told[event.id] = told_of(event)
            except ValueError as error:
                self._give_up(event, f"unreadable: {error}")
                settled.append(event)
        if not told:
            return settled, {}
        traces = [trace for trace in (parse(traceparent_of(event).encode("ascii")) for event in batch) if trace]
        with BatchSpan(self._spans, traces, len(told), self._clock.seconds) as place:
            refused = {each.id: each for each in await sink.tell(list(told.values()), _key_of(told), place)}
        self._metrics.event_batches.inc("taken")
        taken = [event for event in batch if event.id in told and event.id not in refused]
        if taken:
            self._batches.took(taken)
            if self._failures:
                self._failures = 0
                self._log.info("events.taken_again", waiting=self.backlog.waiting)
        for event in taken:
            self._metrics.events_told.inc(told[event.id].kind)
            self._settled[event.ref] = None
        again: dict[OutboxEvent, str] = {}
        for event in batch:
            refusal = refused.get(event.id) if event.id in told else None
            if refusal is None:
                continue
            if refusal.again:
                again[event] = refusal.reason
            else:
                self._give_up(event, refusal.reason)
                settled.append(event)
        return [*settled, *taken], again

    # What comes of it.

    async def _forget(self) -> None:
        """Have the outbox forget what is settled."""
        if self._settled:
            refs = list(self._settled)
            await self._outbox.done(refs)
            for ref in refs:
                del self._settled[ref]

    def _give_up(self, event: OutboxEvent, reason: str) -> None:
        self._metrics.events_given_up.inc("refused")
        self._settled[event.ref] = None
        self._log.error("event.given_up", event_id=event.id, session=event.session, reason=reason)

    async def _look(self, *, now: bool = False) -> None:
        """Count what waits, now and then."""
        seconds = self._clock.seconds()
        if not now and seconds < self._looked_at + LOOK_S:
            return
        self._looked_at = seconds
        before = self.backlog
        self.backlog = after = await self._outbox.backlog(self._partitions())
        if after.lost > before.lost:
            self._log.error("events.overflow", lost=after.lost - before.lost, waiting=after.waiting)


def _key_of(ids: Iterable[str]) -> str:
    """The same for the same events."""
    return blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()
