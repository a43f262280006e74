"""
Counters and histograms that are read by prometheus-client.
"""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tally import MAX_SERIES, Reading, Tally, Timing


def samples(metric: Tally | Timing | Reading) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    registry = CollectorRegistry()
    registry.register(metric)
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_tally_counts_per_label_set() -> None:
    """
    Each label set is a series with its own count.
    """
    tally = Tally("requests", "Requests.", ("route", "status"))
    tally.inc("players", "200")
    tally.inc("players", "200")
    tally.inc("players", "404", by=3)
    assert samples(tally)["requests_total"] == {
        (("route", "players"), ("status", "200")): 2,
        (("route", "players"), ("status", "404")): 3,
    }


def test_tally_without_labels_starts_at_zero() -> None:
    """
    A counter without labels is shown before it ever counted.
    """
    assert samples(Tally("bytes", "Bytes."))["bytes_total"] == {(): 0}


def test_series_are_bounded() -> None:
    """
    Label sets beyond the bound are counted together, and none is lost.
    """
    tally = Tally("requests", "Requests.", ("path",))
    for number in range(MAX_SERIES + 500):
        tally.inc(str(number))
    series = samples(tally)["requests_total"]
    assert len(series) == MAX_SERIES + 1
    assert series[("path", "_other"),] == 500
    assert sum(series.values()) == MAX_SERIES + 500


def test_timing_buckets_are_cumulative() -> None:
    """
    A bucket counts everything up to its bound, and the sum is the sum.
    """
    timing = Timing("lasted_seconds", "Lasted.", (), (0.1, 1.0))
    for amount in (0.05, 0.1, 0.5, 7.0):
        timing.observe(amount)
    found = samples(timing)
    assert found["lasted_seconds_bucket"] == {
        (("le", "0.1"),): 2,
        (("le", "1.0"),): 3,
        (("le", "+Inf"),): 4,
    }
    assert found["lasted_seconds_sum"] == {(): 7.65}
    assert timing.count() == 4


def test_reading_asks_its_source() -> None:
    """
    A reading shows what its owner says at the time of the scrape.
    """
    reading = Reading("open", "Open.", ("listener",))
    assert samples(reading) == {}
    reading.from_source(lambda: [(("tcp:4000",), 3.0)])
    assert samples(reading) == {"open": {(("listener", "tcp:4000"),): 3}}


def test_every_metric_is_named_for_the_gateway() -> None:
    """
    All metrics begin with ``gateway_``, but the process's and Python's own.
    """
    text = Metrics().render().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    foreign = {name for name in names if not name.startswith(("gateway_", "process_", "python_"))}
    assert foreign == set()
    assert "gateway_http_response_body_bytes" in names


def test_instances_count_apart() -> None:
    """
    Two sets of metrics in one process share nothing.
    """
    one, two = Metrics(), Metrics()
    one.refusals.inc("no_route")
    assert two.refusals.value("no_route") == 0
