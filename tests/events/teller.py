"""
A teller on a memory outbox and a clock, and whom it tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from structlog.testing import CapturingLogger
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.config.events_section import Events
from gateway.core.partitions import PARTITIONS, partition_for, session_id
from gateway.core.trace import TraceContext
from gateway.events.content import ENDED, STARTED
from gateway.events.delivery import Delivery
from gateway.memory.outbox import MemoryOutbox
from gateway.node.background import Background
from gateway.ports.events import NotTaken, Refusal, ToldEvent
from gateway.ports.sessions import Event, SessionRecord
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.spans import Spans
from gateway.telemetry.tally import Tally

START = 1.8e9


class Taker:
    """
    Whoever is told (``ports.events.EventSink``): what it was told, and what it does not take.

    Attributes:
        away: It cannot be reached.
        poison: Events with which nothing of a batch is taken; ``refuses`` says whether it answers so.
        refusals: By event's id, what it answers of these alone.
    """

    def __init__(self) -> None:
        self.away = False
        self.poison: set[str] = set()
        self.refuses = False
        self.refusals: dict[str, Refusal] = {}
        self.batches: list[list[str]] = []
        self.taken: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.traces: list[TraceContext] = []
        self.keys: list[str] = []
        self.waits: Deferred[None] | None = None

    async def tell(self, events: Sequence[ToldEvent], key: str, trace: TraceContext) -> Sequence[Refusal]:
        """Take them, or not."""
        ids = [event.id for event in events]
        self.batches.append(ids)
        self.keys.append(key)
        self.traces.append(trace)
        if self.waits is not None:
            await self.waits
        if self.away:
            raise NotTaken("nobody there")
        if self.poison & set(ids):
            raise NotTaken("cannot be read", refused=self.refuses)
        refused = [self.refusals[id_] for id_ in ids if id_ in self.refusals]
        gone = {each.id for each in refused}
        self.taken.extend(id_ for id_ in ids if id_ not in gone)
        self.bodies.extend(msgspec.json.decode(event.body) for event in events if event.id not in gone)
        return refused


class Teller:
    """
    A ``Delivery`` with what it stands on.
    """

    def __init__(self, outbox: Any = None, name: str = "i1", *, spans: Spans | None = None, **section: Any) -> None:
        self.clock = Clock()
        self.outbox = outbox or MemoryOutbox(self.wall)
        self.taker = Taker()
        self.log = CapturingLogger()
        self.metrics = RealtimeMetrics(CollectorRegistry(), Tally("gateway_none", "None."))
        self.failures: list[Failure] = []
        self.background = Background(self.clock, lambda _, failure: self.failures.append(failure))
        self.partitions: Sequence[int] = range(PARTITIONS)
        self.delivery = Delivery(
            self.outbox,
            self.clock,
            instance=lambda: name,
            partitions=lambda: self.partitions,
            random=lambda: 0.5,
            spans=spans or Spans.off(),
            metrics=self.metrics,
            log=self.log,
        )
        self.section = Events(**section)
        self.delivery.configure(self.section, self.taker, 2.0)
        self._number = 0

    def wall(self) -> float:
        """The store's time."""
        return START + self.clock.seconds()

    def start(self) -> None:
        """Tell from now on."""
        self.background.spawn("events", self.delivery.run())

    def record(self, user: str = "alice") -> SessionRecord:
        """A session of somebody's, in the partition of their own."""
        self._number += 1
        id_ = session_id(self._number, partition_for(user, "d"))
        return SessionRecord(id_, user, "d", "i1", f"c{self._number}", self.wall(), self.wall(), {})

    def began(self, record: SessionRecord, **more: Any) -> str:
        """A session began; return the event's id."""
        return self._append(record, STARTED, "started", **more)

    def ended(self, record: SessionRecord) -> str:
        """A session ended."""
        return self._append(replace(record, resumes=1), ENDED, "ended")

    def _append(self, record: SessionRecord, kind: str, name: str, **more: Any) -> str:
        id_ = f"{record.id}-{name}"
        data = msgspec.json.encode({"kind": kind, "user": record.user, **more})
        self.outbox.append(record, Event(id_, data), self.wall())
        return id_

    def pass_time(self, seconds: float) -> None:
        """Let it pass, a tenth of a second after the other."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
        assert not self.failures

    def waiting(self) -> int:
        """How much waits in the outbox."""
        return int(_result(self.outbox.backlog()).waiting)

    def logged(self) -> list[str]:
        """What operators were told."""
        return [call.args[0] for call in self.log.calls if call.method_name != "debug"]

    def stop(self) -> Deferred[None]:
        """End it."""
        return Deferred.fromCoroutine(self.delivery.stop())


def _result(step: Any) -> Any:
    found: list[Any] = []
    add: Callable[[Any], None] = found.append
    Deferred.fromCoroutine(step).addCallback(add)
    return found[0]
