"""
The span of a batch of events, below the first of its events whose trace is recorded, and linked to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from gateway.core.trace import TraceContext
from gateway.ports.events import NotTaken
from gateway.telemetry.spans import PRODUCER, Spans

__all__ = ["BatchSpan"]


class BatchSpan(AbstractContextManager[TraceContext]):
    """
    Around the telling of a batch: it gives the place that is passed on, and tells of itself at its end.

    Args:
        traces: Where events of the batch happened, as far as that is recorded.
        count: Events of the batch.
        seconds: The monotonic clock.
    """

    def __init__(self, spans: Spans, traces: Sequence[TraceContext], count: int, seconds: Callable[[], float]) -> None:
        self._spans = spans
        self._parent = traces[0] if traces else None
        self._links = traces[1:]
        self._count = count
        self._seconds = seconds
        self._began = seconds()
        self._place = spans.child(traces[0]) if traces else spans.begin()

    def __enter__(self) -> TraceContext:
        return self._place

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not self._place.sampled:
            return
        said: dict[str, str | int | bool | float] = {
            "messaging.system": "gateway",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": "events",
            "messaging.batch.message_count": self._count,
        }
        if isinstance(error, NotTaken):
            said["error.type"] = "refused" if error.refused else "failed"
        elif kind is not None:
            said["error.type"] = kind.__name__
        self._spans.tell(
            "publish events",
            PRODUCER,
            self._place,
            self._began,
            self._seconds(),
            said,
            parent=self._parent,
            remote=True,
            links=self._links,
            failed=kind is not None,
        )
