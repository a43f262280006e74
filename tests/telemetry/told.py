"""
Spans of a test without a collector: what they would say there.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.telemetry.collector import Collector, Seen

from gateway.telemetry.span_bytes import request_of
from gateway.telemetry.spans import SCOPE, Spans

__all__ = ["Told"]


class Told:
    """
    Spans that are kept.

    Attributes:
        spans: What makes them.
    """

    def __init__(self, seconds: Callable[[], float], sample: float = 1.0, users: tuple[str, ...] = ()) -> None:
        self._frames: list[bytes] = []
        self._take = self._frames.append
        chance = random.Random(5)
        self.spans = Spans(seconds, lambda: 1.8e9 + seconds(), chance.getrandbits, chance.random)
        self.choose(sample, users)

    def choose(self, sample: float, users: tuple[str, ...] = ()) -> None:
        """Record as many, and of whom."""
        self.spans.configure(self._take, sample, users)

    def seen(self) -> list[Seen]:
        """What was told since this was last asked."""
        frames = list(self._frames)
        self._frames.clear()
        return Collector(requests=[ExportTraceServiceRequest.FromString(request_of({}, "", SCOPE, frames))]).spans()

    def one(self, name: str) -> Seen:
        """The only one that was told, by its name."""
        seen = self.seen()
        assert [span.name for span in seen] == [name]
        return seen[0]
