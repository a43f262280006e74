"""
Counters and histograms that cost an addition on the hot path.

prometheus-client's own objects take a lock and build label keys on each call; these are plain
attributes, read only when somebody scrapes, through prometheus-client's collector interface
(``Collector.collect``). One thread writes them: the reactor's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

__all__ = ["DURATION_BUCKETS_S", "Count", "Reading", "Series", "Tally", "Timing"]

DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds: OpenTelemetry's advice for HTTP, with two finer ones below."""

MAX_SERIES = 2000
OVERFLOW = "_other"


class Count:
    """
    One series of a ``Tally``; whoever counts often keeps it and adds to ``number``.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: float = 0


class Tally:
    """
    A counter with labels.

    A label set beyond ``MAX_SERIES`` is counted under ``_other``, so that no input can grow
    the number of series without bound.
    """

    __slots__ = ("_counts", "help", "labels", "name")

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        self._counts: dict[tuple[str, ...], Count] = {} if labels else {(): Count()}

    def inc(self, *values: str, by: float = 1) -> None:
        """Add *by* to the series of these label values, in the order of declaration."""
        self.series(values).number += by

    def series(self, values: tuple[str, ...] = ()) -> Count:
        """Return the series of these label values; it exists from now on, and stays."""
        counts = self._counts
        count = counts.get(values)
        if count is None:
            if len(counts) >= MAX_SERIES:
                values = (OVERFLOW,) * len(self.labels)
            count = counts.setdefault(values, Count())
        return count

    def value(self, *values: str) -> float:
        """Return the count of one series; 0 if it never counted."""
        count = self._counts.get(values)
        return count.number if count is not None else 0

    def collect(self) -> Iterator[Metric]:
        """Yield the family, as prometheus-client asks for it."""
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count.number)
        yield family


class Series:
    """
    One series of a ``Timing``.
    """

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] | None = None

    def observe(self, amount: float) -> None:
        """Count *amount* in its bucket."""
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.total += amount

    def show(self, amount: float, trace_id: str) -> None:
        """
        Name the trace of an amount that was observed, instead of its bucket's earlier one.
        """
        if self.exemplars is None:
            self.exemplars = {}
        self.exemplars[bisect_left(self._bounds, amount)] = Exemplar({"trace_id": trace_id}, amount)


class Timing:
    """
    A histogram of seconds (or bytes) with labels, bounded as a ``Tally`` is.
    """

    __slots__ = ("_bounds", "_series", "help", "labels", "name")

    def __init__(
        self, name: str, help_text: str, labels: tuple[str, ...] = (), bounds: tuple[float, ...] = DURATION_BUCKETS_S
    ) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Series] = {}

    def observe(self, amount: float, *values: str) -> None:
        """Count *amount* in its bucket of the series of these label values."""
        self.series(values).observe(amount)

    def series(self, values: tuple[str, ...] = ()) -> Series:
        """Return the series of these label values; it exists from now on, and stays."""
        series = self._series.get(values)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                values = (OVERFLOW,) * len(self.labels)
            series = self._series.setdefault(values, Series(self._bounds))
        return series

    def count(self, *values: str) -> int:
        """Return how many amounts one series has seen."""
        series = self._series.get(values)
        return sum(series.counts) if series is not None else 0

    def collect(self) -> Iterator[Metric]:
        """Yield the family with cumulative buckets."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for values, series in list(self._series.items()):
            running = 0
            buckets: list[Any] = []
            shown = series.exemplars or {}
            for number, (bound, count) in enumerate(zip((*map(str, self._bounds), "+Inf"), series.counts, strict=True)):
                running += count
                exemplar = shown.get(number)
                buckets.append((bound, running, exemplar) if exemplar is not None else (bound, running))
            family.add_metric(values, buckets, sum_value=series.total)
        yield family


class Reading:
    """
    A gauge (or counter) whose values are read from their owner at scrape time.
    """

    __slots__ = ("_read", "counter", "help", "labels", "name")

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: tuple[str, ...] = (),
        *,
        counter: bool = False,
    ) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        self.counter = counter
        self._read: Callable[[], Iterable[tuple[tuple[str, ...], float]]] | None = None

    def from_source(self, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        """Name who gives the values: pairs of label values and number. Replaces an earlier one."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield the family; without a source it is empty."""
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        family = kind(self.name, self.help, labels=self.labels)
        if self._read is not None:
            for values, number in self._read():
                family.add_metric(values, number)
        yield family
