"""
The page of metrics, written from their declarations: ``python -m gateway.telemetry.reference docs/metrics.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Info

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.tally import Reading, Tally, Timing

__all__ = ["page"]

_BEFORE = """# Metrics

What `/metrics` shows on the admin port, and on those of `listen.metrics`. Written by `python -m gateway.telemetry.reference docs/metrics.md`.
Beside these there are `process_*` and `python_*`. Labels are words of the configuration or of the code: routes, upstreams, channel patterns, codes.
No path, user or channel makes a series; beyond 2,000 of one metric further ones are counted as `_other`.

A scraper that accepts OpenMetrics gets it, with the trace of a recent request beside each bucket of `gateway_http_request_duration_seconds`, where
it is recorded. With several workers each series has a `worker`; what the parent says of itself is `worker="parent"`.

| metric | type | labels | what |
| --- | --- | --- | --- |
"""


def _declared() -> Iterator[tuple[str, str, str, str]]:
    metrics = Metrics()
    realtime = RealtimeMetrics(metrics.registry, metrics.auth_failures)
    for metric in (
        *vars(metrics).values(),
        *(each for each in vars(realtime).values() if each is not metrics.auth_failures),
    ):
        if isinstance(metric, Info):
            yield "gateway_build_info", "gauge", "`version`, `python`", "What is running."
        elif isinstance(metric, (Tally, Timing, Reading)):
            counter = isinstance(metric, Tally) or (isinstance(metric, Reading) and metric.counter)
            kind = "counter" if counter else "histogram" if isinstance(metric, Timing) else "gauge"
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"{metric.name}_total" if counter else metric.name, kind, labels, metric.help


def page() -> str:
    """
    Return the page.
    """
    rows = [f"| `{name}` | {kind} | {labels} | {what} |\n" for name, kind, labels, what in _declared()]
    return _BEFORE + "".join(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
