"""
Spans on their way: bounded, tried again, counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outgoing import Outgoing, Queue, Unsent


class Collector:
    """
    A sender in the test's own process: what it was sent, and what it answers.
    """

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.answer: Callable[[], Any] = lambda: 0
        self.closed = False

    async def send(self, spans: list[bytes], timeout_s: float) -> int:
        """Answer as the test wants it."""
        self.sent.append(list(spans))
        answer = self.answer()
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    async def close(self) -> None:
        """Note it."""
        self.closed = True


class Way:
    """One queue with its collector and its clock."""

    def __init__(self, **queue: Any) -> None:
        self.clock = Clock()
        self.collector = Collector()
        self.metrics = Metrics()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.crashes: list[Failure] = []
        self.outgoing = Outgoing(
            self.collector,
            Queue(**{"batch": 4, "delay_s": 1.0, **queue}),
            self.clock,
            lambda: 1.0,
            self.metrics,
            lambda event, fields: self.events.append((event, fields)),
            self.crashes.append,
        )

    def put(self, number: int, size: int = 10) -> None:
        """Put so many spans."""
        for _ in range(number):
            self.outgoing.put(b"x" * size)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)

    def counts(self) -> dict[str, float]:
        """What became of spans."""
        outcomes = ("sent", "overflow", "refused", "unsent", "stopped")
        return {outcome: count for outcome in outcomes if (count := self.metrics.spans.value(outcome))}


def test_spans_gather() -> None:
    """
    Spans are sent together, after a while, or as soon as a batch is full; in the order in which they ended.
    """
    way = Way()
    way.put(3)
    way.pass_time(0.75)
    assert way.collector.sent == []
    way.pass_time(0.25)
    assert [len(batch) for batch in way.collector.sent] == [3]
    way.put(9)
    way.clock.advance(0)
    assert [len(batch) for batch in way.collector.sent] == [3, 4, 4]
    way.pass_time(1)
    assert [len(batch) for batch in way.collector.sent] == [3, 4, 4, 1]
    assert way.counts() == {"sent": 12}
    assert (len(way.outgoing), way.outgoing.bytes) == (0, 0)
    assert way.clock.getDelayedCalls() == []


@pytest.mark.parametrize(("queue", "fits"), [({"spans": 6}, 6), ({"bytes": 57}, 5)])
def test_what_waits_is_bounded(queue: dict[str, int], fits: int) -> None:
    """
    While a collector hangs, spans beyond either bound are dropped and counted, what is being sent included.
    """
    way = Way(**queue)
    way.collector.answer = Deferred
    way.put(4)
    way.clock.advance(0)
    assert [len(batch) for batch in way.collector.sent] == [4]
    way.put(10)
    assert len(way.outgoing) == fits
    assert way.counts() == {"overflow": 14 - fits}


def test_a_large_batch_is_split() -> None:
    """
    What is sent together is bounded in bytes, too; a span that is larger alone is sent alone.
    """
    way = Way(bytes=10**8)
    for size in (600_000, 600_000, 2_000_000, 10):
        way.put(1, size)
    way.pass_time(2)
    assert [[len(span) for span in batch] for batch in way.collector.sent] == [[600_000], [600_000], [2_000_000], [10]]


def test_a_collector_that_comes_back_gets_what_waited() -> None:
    """
    A batch that could not be sent is sent again, less and less often; that it fails is told once, and so is its end.
    """
    way = Way()
    way.collector.answer = lambda: Unsent("away")
    way.put(2)
    way.pass_time(10)
    assert 3 < len(way.collector.sent) < 8
    way.put(1)
    way.collector.answer = lambda: 0
    way.pass_time(20)
    assert way.counts() == {"sent": 3}
    assert way.events == [("tracing.unsent", {"reason": "away"}), ("tracing.resumed", {})]


def test_what_cannot_be_sent_for_long_is_dropped() -> None:
    """
    A batch is given up after a while, or at once where the collector will never take it; spans that it
    rejects out of a batch are counted, too.
    """
    way = Way(retry_s=20.0)
    way.collector.answer = lambda: Unsent("away")
    way.put(2)
    way.pass_time(25)
    assert way.counts() == {"unsent": 2}
    way.collector.answer = lambda: Unsent("status 400", lasting=True)
    way.put(1)
    way.pass_time(2)
    way.collector.answer = lambda: 2
    way.put(3)
    way.pass_time(2)
    assert way.counts() == {"unsent": 2, "refused": 3, "sent": 1}
    assert way.outgoing.bytes == 0


def test_the_collector_says_when() -> None:
    """
    A collector that names a time is not asked before.
    """
    way = Way()
    way.collector.answer = lambda: Unsent("busy", after_s=30.0)
    way.put(1)
    way.pass_time(30)
    assert len(way.collector.sent) == 1
    way.collector.answer = lambda: 0
    way.pass_time(2)
    assert way.counts() == {"sent": 1}


def test_a_sender_that_hangs_is_given_up_on() -> None:
    """
    An attempt has its deadline even where the sender does not keep it.
    """
    way = Way(timeout_s=3.0)
    way.collector.answer = Deferred
    way.put(1)
    way.pass_time(6)
    assert way.events == [("tracing.unsent", {"reason": "took too long"})]
    way.collector.answer = lambda: 0
    way.pass_time(5)
    assert way.counts() == {"sent": 1}


def test_the_end_sends_what_waits() -> None:
    """
    At the end everything that waits is sent without delay, and the connection is let go of.
    """
    way = Way()
    way.put(2)
    way.clock.advance(0)
    way.put(4)
    stopping = Deferred.fromCoroutine(way.outgoing.stop(2.0))
    way.clock.advance(0)
    assert stopping.called
    assert way.counts() == {"sent": 6}
    assert way.collector.closed
    way.put(1)
    assert way.counts() == {"sent": 6, "stopped": 1}
    assert way.clock.getDelayedCalls() == []


@pytest.mark.parametrize("answer", [Deferred, lambda: Unsent("away")])
def test_the_end_waits_for_nobody(answer: Callable[[], Any]) -> None:
    """
    A collector that hangs or is away holds the end up for no longer than was said; what is left is counted.
    """
    way = Way()
    way.collector.answer = answer
    way.put(10)
    way.pass_time(1)
    stopping = Deferred.fromCoroutine(way.outgoing.stop(2.0))
    way.pass_time(2)
    assert stopping.called
    counts = way.counts()
    assert sum(counts.values()) == 10
    assert set(counts) <= {"stopped", "unsent"}
    assert way.collector.closed
    assert (len(way.outgoing), way.outgoing.bytes) == (0, 0)
    assert way.clock.getDelayedCalls() == []


def test_a_fault_of_ours_is_told_and_the_next_span_begins_anew() -> None:
    """
    A sender that fails in a way nobody foresaw loses its batch and nothing else.
    """
    way = Way()
    way.collector.answer = lambda: RuntimeError("a bug")
    way.put(1)
    way.pass_time(1)
    assert [failure.check(RuntimeError) for failure in way.crashes] == [RuntimeError]
    way.collector.answer = lambda: succeed(0)
    way.put(1)
    way.pass_time(1)
    assert way.counts() == {"stopped": 1, "sent": 1}
