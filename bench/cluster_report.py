"""
What was measured of several instances, as it stands in ``bench/RESULTS.md``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.chaos import Chaos
from bench.cluster import AWAY_S, CROWD, ENDINGS, GHOSTS, HERD, REVOKED, Seen
from bench.machine import Layout
from bench.report import Figure, figures_table

__all__ = ["chaos_figures", "chaos_section", "cluster_figures", "cluster_section"]

HOLD_S = 1.0
"""How long a place is held in the world that is measured."""

FREE_CORES = 4


def chaos_figures(seen: Mapping[str, Chaos]) -> list[Figure]:
    """
    Nothing acknowledged may be lost where Redis promises as much, and nothing silently elsewhere.
    """
    always, everysec = seen["always"], seen["everysec"]
    return [
        Figure(
            "Acknowledged publications lost, doubled or reordered, `appendfsync always`",
            0,
            always.lost + always.faults,
            "",
        ),
        Figure("Followers not recovered, `appendfsync always`", 0, always.unrecovered, ""),
        Figure("Publications lost, doubled or reordered silently, `appendfsync everysec`", 0, everysec.faults, ""),
        Figure("Positions given to two publications", 0, always.reused + everysec.reused, ""),
        Figure("Silent gaps on a channel without history", 0, always.silent + everysec.silent, ""),
    ]


def chaos_section(seen: Mapping[str, Chaos]) -> str:
    """
    Return what happened and what came of it.
    """
    rows = [
        f"| {name} | {run.acknowledged} | {run.kills} | {run.cuts} | {run.instances_killed} | {run.refused} | {run.unrecovered} | {run.seconds:.0f} |"
        for name, run in seen.items()
    ]
    return "\n".join(
        [
            "## Redis and an instance killed under load",
            "",
            (
                f"{_today()}. Three instances, 12 followers of 8 channels with history and one without. Each publication is "
                "sent again, with its idempotency key, until it is acknowledged. `refused` are tries that were told to come "
                "again, `unrecovered` followers that were told that they were not made whole."
            ),
            "",
            figures_table(chaos_figures(seen)),
            "",
            "| appendfsync | acknowledged | Redis killed | topics cut | instances killed | refused | unrecovered | s |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
        ]
    )


def cluster_figures(seen: Seen) -> list[Figure]:
    """
    The promises for several instances.
    """
    got = seen.numbers
    found = [
        (
            f"Clients disconnected by two outages of {AWAY_S:.0f} s, {CROWD} connected",
            0.0,
            "disconnected by outages",
            "",
        ),
        (
            f"Ghosts after kill -9 with {GHOSTS} sessions gone, leases of 15 s",
            20.0 + HOLD_S,
            "ghosts gone after s, default leases",
            "s",
        ),
        ("The same, leases of 1.5 s", 2.0 + HOLD_S, "ghosts gone after s, short leases", "s"),
        (f"Of {HERD} cut at once, not back", 0.0, "herd: not back", ""),
        ("CPU per delivery, Redis / memory", 1.3, "CPU per delivery, Redis / memory", "x"),
        ("Commands per publication, two instances that listen", 3.0, "commands per publication", ""),
        ("Connect p99, 1,000/s", 100.0, "connect p99 ms", "ms"),
        (
            "Delivery p99 from one instance to the other, one channel of 1,000",
            30.0,
            "delivery p99 ms, one channel",
            "ms",
        ),
        ("The same, 500 tables", 30.0, "delivery p99 ms, 500 tables", "ms"),
        ("Of these deliveries missing or out of order", 0.0, "deliveries missing or out of order", ""),
        (f"Sockets and requests that pass 1 s after {REVOKED} revocations", 0.0, "passed with a revoked token", ""),
        (f"Of {ENDINGS} sessions, ended twice or never", 0.0, "sessions ended twice or never", ""),
    ]
    figures = [Figure(what, most, got[name], unit) for what, most, name, unit in found if name in got]
    if "cores" in got:
        if got["cores"] >= FREE_CORES:
            what = "Throughput of one worker / of two, two cores for them (1 / 1.8)"
            figures.append(Figure(what, round(1 / 1.8, 3), got["throughput of 1 worker / 2 workers"]))
        figures.append(Figure("CPU per operation, two workers / one", 1.1, got["CPU per operation, 2 workers / 1"]))
    return figures


def cluster_section(seen: Seen, cores: Layout) -> str:
    """
    Return the figures and everything else that was seen.
    """
    return "\n".join(
        [
            "## Two instances on one Redis",
            "",
            f"{_today()}; {cores}. Each scene once, on instances and a Redis of its own; how stands in `bench/cluster.py`.",
            "",
            figures_table(cluster_figures(seen)),
            "",
            "| seen | |",
            "| --- | ---: |",
            *(f"| {name} | {value:.3g} |" for name, value in seen.numbers.items()),
        ]
    )


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
