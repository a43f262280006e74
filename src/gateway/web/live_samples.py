"""
What operators watch live: one sample a second for all who look, and none while nobody does.

A sample is made of what the admin port tells anyway (metrics, upstreams, the server API's ``info``), so that it speaks for
every worker where there are several.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gateway.core.problems import Problem
from gateway.node.api_keys import Key
from gateway.ports.http import Downstream
from gateway.web.admin_pages import Answer, Operations

__all__ = ["EVERY_S", "Samples", "read_metrics"]

EVERY_S: Final = 1.0
SELDOM: Final = 5
"""Instances and upstreams are asked with every fifth sample: others have to answer."""

KEPT: Final = 120
"""Samples that who comes gets at once."""

MOST_VIEWERS: Final = 16
MOST_BEHIND: Final = 10
"""Samples that a viewer may not take before it is cut."""

_T = TypeVar("_T")

_encode = msgspec.json.Encoder().encode
_line = re.compile(
    r'^(gateway_\w+|process_\w+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? ([-+0-9.eEinfNa]+)', re.MULTILINE
)
_label = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_SUMS: Final = frozenset(
    (
        "gateway_connections",
        "gateway_http_active_requests",
        "gateway_clients",
        "gateway_users",
        "gateway_sessions",
        "gateway_channels",
        "gateway_subscriptions",
        "gateway_clients_slow",
        "gateway_outbox_bytes",
        "gateway_events_waiting",
        "gateway_events_overflow",
        "gateway_publications_total",
        "gateway_deliveries_total",
        "gateway_commands_total",
        "gateway_fan_out_bytes_total",
        "gateway_log_dropped_total",
        "gateway_reactor_lag_seconds_sum",
        "gateway_reactor_lag_seconds_count",
        "gateway_http_request_duration_seconds_sum",
        "gateway_http_request_duration_seconds_count",
        "gateway_delivery_duration_seconds_sum",
        "gateway_delivery_duration_seconds_count",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    )
)
_MOST: Final = frozenset(("gateway_events_oldest_age_seconds", "gateway_shed_share"))
_LEAST: Final = frozenset(("gateway_ready", "gateway_store_up"))
_SPLIT: Final = {
    "gateway_http_requests_total": ("status",),
    "gateway_ratelimit_decisions_total": ("policy", "decision"),
    "gateway_publications_total": ("channels",),
    "gateway_deliveries_total": ("channels",),
}
"""Counters told apart by labels: ``NAME by LABEL``."""


def read_metrics(text: str) -> dict[str, Any]:
    """
    Read from the Prometheus text what a sample says: sums over workers and labels, and some told apart.

    Returns:
        By name a number; by ``NAME by LABEL, LABEL`` the numbers of each value, joined by a space.
    """
    found: dict[str, Any] = dict.fromkeys(_SUMS, 0.0)
    apart: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, number in _line.findall(text):
        value = float(number)
        if name in _SUMS:
            found[name] += value
        elif name in _MOST:
            found[name] = max(found.get(name, value), value)
        elif name in _LEAST:
            found[name] = min(found.get(name, value), value)
        by = _SPLIT.get(name)
        if by is not None:
            said = dict(_label.findall(labels))
            apart[f"{name} by {', '.join(by)}"][" ".join(said.get(label, "") for label in by)] += value
    return {**found, **apart}


class _Viewer:
    """
    One who looks; its reader's pace is told by pausing and resuming.
    """

    def __init__(self, downstream: Downstream) -> None:
        self.downstream = downstream
        self.paused = False
        self.behind = 0

    def pauseProducing(self) -> None:
        """It takes no more for now."""
        self.paused = True

    def resumeProducing(self) -> None:
        """It does again."""
        self.paused = False
        self.behind = 0

    def stopProducing(self) -> None:
        """It is gone."""
        self.paused = True


class Samples:
    """
    The samples, and who looks at them.

    Args:
        info: The server API's ``info``, which asks all instances; None where there is none.
        may: What a key is shown to be allowed beside looking.
    """

    def __init__(
        self,
        operations: Operations,
        info: Callable[[], Answer | Deferred[Answer]] | None,
        may: Callable[[Key], dict[str, bool]],
    ) -> None:
        self._operations = operations
        self._info = info
        self._may = may
        self._viewers: dict[_Viewer, None] = {}
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self._number = 0
        self._seldom: dict[str, Any] = {}
        self._loop: LoopingCall | None = None
        self._clock: Any = None

    def open(self, clock: Any) -> None:
        """
        Sample by *clock* from the first viewer on.
        """
        self._clock = clock

    def close(self) -> None:
        """
        Look no more, and let the viewers go.
        """
        self._rest()
        viewers, self._viewers = self._viewers, {}
        for viewer in viewers:
            viewer.downstream.finish()

    def watch(self, key: Key, downstream: Downstream, block: bytes) -> Callable[[], None]:
        """
        Answer with samples until the asker goes; return what ends it.

        Args:
            block: Header lines of the answer.

        Raises:
            Problem: as many look as may.
        """
        if len(self._viewers) >= MOST_VIEWERS:
            raise Problem("too_many_connections", f"{MOST_VIEWERS} look already.")
        viewer = _Viewer(downstream)
        hello = _event("hello", _encode({"key": key.name, "may": self._may(key), "every_s": EVERY_S}))
        first = hello + b"".join(self._kept)
        downstream.start(200, b"", b"Content-Type: text/event-stream\r\n" + block, -1, first, False)
        downstream.register(viewer)
        self._viewers[viewer] = None
        if self._loop is None:
            self._loop = LoopingCall(self._sample)
            self._loop.clock = self._clock
            self._loop.start(EVERY_S)

        def gone() -> None:
            self._viewers.pop(viewer, None)
            if not self._viewers:
                self._rest()

        return gone

    def _rest(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
            self._kept.clear()
            self._number = 0

    def _sample(self) -> Deferred[None]:
        """Ask, and tell all; the next one waits for this."""
        return Deferred.fromCoroutine(self._sampled())

    async def _sampled(self) -> None:
        operations = self._operations
        sample: dict[str, Any] = {"at": operations.wall()}
        try:
            text = await _got(operations.metrics(False))
            sample["metrics"] = read_metrics(text.decode("utf-8"))
            if self._number % SELDOM == 0:
                self._seldom = {"upstreams": await _got(operations.upstreams()), **await self._instances()}
                sample |= self._seldom
            sample["ready"] = operations.ready()
        except Exception:  # Whatever cannot be told just now is told as such; who looks goes on looking.
            sample["failed"] = Failure().getErrorMessage()[:200]
        self._number += 1
        self._tell(_event("sample", _encode(sample)))

    async def _instances(self) -> dict[str, Any]:
        if self._info is None:
            return {}
        answer = await _got(self._info())
        told = msgspec.json.decode(answer.body)
        return {"instances": told.get("result", {}).get("nodes", [])}

    def _tell(self, event: bytes) -> None:
        self._kept.append(event)
        for viewer in list(self._viewers):
            if viewer.paused:
                viewer.behind += 1
                if viewer.behind > MOST_BEHIND:
                    self._viewers.pop(viewer, None)
                    viewer.downstream.abort()
            else:
                viewer.downstream.write(event)


async def _got(value: _T | Deferred[_T]) -> _T:
    return await value if isinstance(value, Deferred) else value


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), data)
