"""
CPU per proxied request, the gateway beside its peers.

All of them stand on one core in front of the same backend; load and backend have another core. In every round
each gets the same load once, in an order that moves on from round to round, and its
processes' run time is read from ``/proc`` before and after. What counts is the ratio within a round;
a run in which the control, nginx, varies too much says nothing and is thrown away.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.load import Load, load, request_head
from bench.machine import Layout, cpu_s
from bench.targets import Target, backend, make_key, targets, token

__all__ = ["CONTROL", "Row", "Run", "Size", "measure"]

CONTROL = "nginx"
MOST_VARIATION = 0.15
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Size:
    """What is asked for, and by how many at once."""

    name: str
    path: str
    connections: int


SIZES = (Size("small JSON, 50 connections", "/api/small", 50), Size("1 MiB, 20 connections", "/api/big", 20))


@dataclass(slots=True)
class Row:
    """
    One target's rounds.

    Attributes:
        cpu_us: CPU microseconds per request, by round.
    """

    target: Target
    cpu_us: list[float] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """The median of its rounds."""
        return median(self.cpu_us)

    def ratios(self, other: Row) -> list[float]:
        """Its cost over that of *other*, round by round."""
        return [mine / theirs for mine, theirs in zip(self.cpu_us, other.cpu_us, strict=True)]

    def ratio(self, other: Row) -> float:
        """The median of the ratios."""
        return median(self.ratios(other))


@dataclass(frozen=True, slots=True)
class Run:
    """
    One size, measured.

    Attributes:
        thrown: How many runs before it were thrown away.
    """

    size: Size
    rows: list[Row]
    thrown: int

    def row(self, name: str) -> Row:
        """The row of the target called *name*."""
        return next(row for row in self.rows if row.target.name == name)

    @property
    def variation(self) -> float:
        """How far the control's rounds lie apart, as a share of their median."""
        cost = self.row(CONTROL).cpu_us
        return (max(cost) - min(cost)) / median(cost)


def measure(cores: Layout, rounds: int, seconds: float, tries: int, say: Callable[[str], None]) -> list[Run]:
    """
    Measure every size; return one run of each that counts.

    Raises:
        SystemExit: a peer is missing, an answer was wrong, or the control never held still.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        bearer = token(make_key(folder))
        with backend(folder, cores.load) as upstream, targets(folder, cores, upstream) as made:
            return [_steady(size, made, folder, cores, bearer, rounds, seconds, tries, say) for size in SIZES]


def _steady(
    size: Size,
    made: list[Target],
    folder: Path,
    cores: Layout,
    bearer: str,
    rounds: int,
    seconds: float,
    tries: int,
    say: Callable[[str], None],
) -> Run:
    for thrown in range(tries):
        rows = [Row(target) for target in made]
        for row in rows:
            _burst(row.target, size, folder, cores, bearer, WARM_UP_S)
        for number in range(rounds):
            first = number % len(rows)
            for row in rows[first:] + rows[:first]:
                cost, answered = _burst(row.target, size, folder, cores, bearer, seconds)
                row.cpu_us.append(cost)
                row.loads.append(answered)
            costs = ", ".join(f"{row.target.name} {row.cpu_us[-1]:.1f}" for row in rows)
            say(f"{size.name}, round {number + 1}: {costs} us")
        run = Run(size, rows, thrown)
        if run.variation <= MOST_VARIATION:
            return run
        say(f"{size.name}: {CONTROL} varied by {run.variation:.0%}, so this run does not count")
    raise SystemExit(f"bench: {CONTROL} varied by more than {MOST_VARIATION:.0%} in {tries} runs; is the machine busy?")


def _burst(target: Target, size: Size, folder: Path, cores: Layout, bearer: str, seconds: float) -> tuple[float, Load]:
    head = request_head(size.path, bearer, target.port)
    before = cpu_s(target.pids)
    answered = load(folder, cores.load, target.port, head, size.connections, seconds)
    spent = cpu_s(target.pids) - before
    if answered.failed or not answered.requests:
        raise SystemExit(f"bench: {target.name}: {answered.failed} of {answered.requests} requests failed")
    return spent / answered.requests * 1e6, answered
