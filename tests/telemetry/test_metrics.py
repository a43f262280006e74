"""
What is declared as a metric: names, forms, and the page that explains them.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openly_read
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.merged import merged
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.reference import page

ROOT = Path(__file__).resolve().parents[2]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def everything() -> Metrics:
    """All metrics of an instance."""
    metrics = Metrics()
    RealtimeMetrics(metrics.registry, metrics.auth_failures)
    return metrics


def test_the_published_page_is_the_code_s() -> None:
    """
    docs/metrics.md has each metric as it is declared. Made again by: python -m gateway.telemetry.reference docs/metrics.md.
    """
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == page()


def test_names() -> None:
    """
    Every family is the gateway's, but for those of the process and of Python; there are at least sixty.
    """
    names = [family.name for family in text_string_to_metric_families(everything().render().decode())]
    assert len(names) == len(set(names))
    ours = [name for name in names if name.startswith("gateway_")]
    assert len(ours) >= 60
    assert {name.split("_")[0] for name in names} == {"gateway", "process", "python"}


def test_traces_beside_the_buckets() -> None:
    """
    OpenMetrics names the trace of the newest request in each bucket, also where several processes are one answer.
    """
    metrics = everything()
    series = metrics.request_seconds.series(("players",))
    for amount, trace in ((0.02, "1" * 32), (0.021, TRACE), (3.0, "2" * 32)):
        series.observe(amount)
        series.show(amount, trace)
    text = metrics.render(openmetrics=True)
    for read in (text, merged("worker", [("1", text), ("2", text)], openly=True)):
        (family,) = [
            each for each in openly_read(read.decode()) if each.name == "gateway_http_request_duration_seconds"
        ]
        shown = {
            (sample.labels["le"], sample.exemplar.labels["trace_id"], sample.exemplar.value)
            for sample in family.samples
            if sample.exemplar is not None
        }
        assert shown == {("0.025", TRACE, 0.021), ("5.0", "2" * 32, 3.0)}
    assert TRACE not in metrics.render().decode()


def test_no_input_makes_series_without_end() -> None:
    """
    A label that took its value from outside, by a mistake, would still be bounded.
    """
    metrics = everything()
    for number in range(100_000):
        metrics.requests.inc(f"route-{number}", "GET", "200")
        metrics.request_seconds.observe(0.1, f"route-{number}")
    (family,) = list(metrics.requests.collect())
    assert len(family.samples) == 2001
    assert sum(sample.value for sample in family.samples) == 100_000
