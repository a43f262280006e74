"""
Metrics of several processes become one answer that Prometheus reads.
"""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.merged import merged
from gateway.telemetry.metrics import Metrics


def read(text: bytes) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    """What a scraper understands: by family its samples."""
    families = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in families}) == len(families)
    return {
        family.name: [(sample.name, sample.labels, sample.value) for sample in family.samples] for family in families
    }


def test_each_series_says_whose_it_is() -> None:
    """
    Every sample of every process is there once, with the label; a family stands once.
    """
    texts = {}
    plain = {}
    for number in ("1", "2"):
        metrics = Metrics()
        metrics.requests.inc("players", "GET", "200", by=int(number))
        metrics.request_seconds.observe(0.02, 'a "route" {x} \\ \n')
        metrics.ready.from_source(lambda: [((), 1.0)])
        texts[number] = metrics.render()
        plain[number] = read(texts[number])
    joined = read(merged("worker", texts.items()))
    assert joined.keys() == plain["1"].keys()
    for name, samples in joined.items():
        for number in ("1", "2"):
            mine = [(each, labels, value) for each, labels, value in samples if labels["worker"] == number]
            assert mine == [(each, labels | {"worker": number}, value) for each, labels, value in plain[number][name]]
        assert len(samples) == len(plain["1"][name]) + len(plain["2"][name])


def test_who_speaks_of_another_keeps_its_label() -> None:
    """
    A series that names another process is that one's; a value that looks like the label is none.
    """
    text = (
        b'# HELP x X\n# TYPE x gauge\nx{worker="2"} 1.0\nx{a="b",worker="3"} 2.0\nx{a=",worker=\\"4\\""} 3.0\nx 4.0\n'
    )
    assert read(merged("worker", [("parent", text)])) == {
        "x": [
            ("x", {"worker": "2"}, 1.0),
            ("x", {"a": "b", "worker": "3"}, 2.0),
            ("x", {"a": ',worker="4"', "worker": "parent"}, 3.0),
            ("x", {"worker": "parent"}, 4.0),
        ]
    }


def test_families_that_only_some_have() -> None:
    """
    A family of one process alone is described by it, wherever it comes.
    """
    one = b"# HELP x X\n# TYPE x gauge\nx 1.0\n"
    two = b"# HELP y Y\n# TYPE y gauge\ny 2.0\n# HELP x X\n# TYPE x gauge\nx 3.0\n"
    assert merged("worker", [("1", one), ("2", two)]) == (
        b'# HELP x X\n# TYPE x gauge\nx{worker="1"} 1.0\nx{worker="2"} 3.0\n# HELP y Y\n# TYPE y gauge\ny{worker="2"} 2.0\n'
    )
    assert merged("worker", []) == b""
