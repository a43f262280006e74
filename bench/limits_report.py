"""
What was measured of limits, as it stands in ``bench/RESULTS.md``.
"""

from __future__ import annotations

import time
from statistics import median

from bench.limits import BURST, CLIENTS, COSTS, DEADLINE_MS, FLOOD, OPENINGS, POOL, Seen
from bench.machine import Layout
from bench.report import Figure, figures_table

__all__ = ["limits_figures", "limits_section"]

FIGURES = (
    ("CPU added to a request by an exact limit in Redis, 50 connections", 0.35, "CPU added, in Redis", "x"),
    ("Requests not as many as let through, 4 workers, a burst of 100, one an hour", 0.0, "off a burst of 100", ""),
    (
        "Added to a request while Redis is down, p99 against the median before",
        25.0,
        "p99 added without Redis, ms",
        "ms",
    ),
    ("Requests that were not answered 200 while Redis was down", 0.0, "not answered 200 without Redis", ""),
    ("Goodput lost at three times capacity", 0.2, "goodput lost at three times capacity", ""),
    (f"Of {CLIENTS} clients that return at once, not back", 0.0, "herd: not back", ""),
    ("Of those let in, not served in 5 s", 0.0, "herd: let in and not served in 5 s", ""),
    ("HTTP p99 beside them, of connections that stand, against idle", 3.0, "herd: HTTP p99 beside it / idle", "x"),
    (f"p99 of others beside {FLOOD} messages/s of one user", 1.5, "flood: p99 of others, with / without", "x"),
    ("Turns longer than 25 ms meanwhile", 0.0, "flood: turns longer than 25 ms", ""),
)


def limits_figures(seen: Seen) -> list[Figure]:
    """
    The promises, of the scenes that were played.
    """
    passed = seen.numbers.get("passed of a burst of 100")
    got = seen.numbers | ({} if passed is None else {"off a burst of 100": abs(passed - BURST)})
    return [Figure(what, most, got[name], unit) for what, most, name, unit in FIGURES if name in got]


def limits_section(seen: Seen, cores: Layout) -> str:
    """
    Return what was seen.
    """
    text = [
        "## Limits",
        "",
        (
            f"{time.strftime('%Y-%m-%d')}; {cores}. CPU by interleaved rounds of the same load; the outage is a Redis that hangs, then one that is "
            f"killed, at 300 requests/s; capacity is the highest open-loop rate with p99 below 100 ms, on a backend that takes 5 ms, "
            f"over at most {POOL} connections, and an answer counts within {DEADLINE_MS} ms; the herd comes back as SDKs do "
            f"(at random up to twice as long each time), let in at {OPENINGS}/s, beside 100 requests/s over connections that stand; "
            "the flooding user is never closed. `instruments/httpload.c` is the load."
        ),
        "",
        figures_table(limits_figures(seen)),
        "",
    ]
    if seen.cpu_us:
        text += ["| limits of a request | CPU us, median | least |", "| --- | ---: | ---: |"]
        text += [f"| {name} | {median(seen.cpu_us[name]):.1f} | {min(seen.cpu_us[name]):.1f} |" for name in COSTS]
        text.append("")
    text += ["| seen | |", "| --- | ---: |"]
    text += [f"| {name} | {number:.3g} |" for name, number in seen.numbers.items()]
    return "\n".join(text)
