"""
``python -m bench``: measure, show, and write ``bench/RESULTS.md``; with ``--check`` fail where a promised figure is missed.
"""

from __future__ import annotations

import argparse
import sys

from bench import (
    chaos,
    cluster,
    cluster_report,
    console,
    crashes,
    cuts,
    grpc_calls,
    http_proxy,
    limits,
    limits_report,
    memory,
    openings,
    realtime,
    refusals,
    report,
    sessions,
    sessions_killed,
    sessions_report,
    watched,
)
from bench.machine import layout

PARTS = (
    "http",
    "grpc",
    "memory",
    "refusals",
    "openings",
    "cuts",
    "realtime",
    "chaos",
    "crashes",
    "cluster",
    "events",
    "limits",
    "watched",
    "console",
)


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """
    Return 0, or 1 where a figure is missed and ``--check`` was given.
    """
    parser = argparse.ArgumentParser(prog="bench", description="Measure the gateway beside its peers.")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; at least 5 for a result that counts")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each target in each round")
    parser.add_argument("--tries", type=int, default=4, help="runs, until one has a steady control")
    parser.add_argument("--cores", help="two cores, measured and load, such as 2,3; else the last two")
    parser.add_argument("--only", choices=PARTS, action="append", help="not everything; may be repeated")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a figure is missed")
    parser.add_argument(
        "--scene",
        choices=sorted([*cluster.SCENES, *limits.SCENES]),
        action="append",
        help="of a part with scenes only these",
    )
    options = parser.parse_args()
    if options.rounds < 5 and options.check:
        parser.error("--check needs 5 rounds at least")

    parts = options.only or PARTS
    cores = layout(options.cores)
    figures: list[report.Figure] = []
    sections: dict[str, str] = {}
    if "http" in parts:
        runs = http_proxy.measure(cores, options.rounds, options.seconds, options.tries, say)
        sections["http"] = report.http_section(runs, cores)
        figures += report.http_figures(runs)
    if "grpc" in parts:
        called = grpc_calls.measure(cores, options.rounds, options.seconds, say)
        sections["grpc"] = report.grpc_section(called, cores)
        figures += report.grpc_figures(called)
    if "memory" in parts:
        passed = memory.measure(cores, say)
        sections["memory"] = report.memory_section(passed, cores)
        figures.append(report.memory_figure(passed))
    if "refusals" in parts:
        counted = refusals.measure()
        sections["refusals"] = report.refusals_section(counted)
        figures.append(report.refusals_figure(counted))
    if "openings" in parts:
        opened = openings.measure()
        sections["openings"] = report.openings_section(opened)
        figures.append(report.openings_figure(opened))
    if "cuts" in parts:
        cut = cuts.measure()
        sections["cuts"] = report.cuts_section(cut)
        figures.append(report.cuts_figure(cut))
    if "realtime" in parts:
        seen = realtime.measure(cores, options.rounds, options.seconds, say)
        sections["realtime"] = report.realtime_section(seen, cores)
        figures += report.realtime_figures(seen)
    if "chaos" in parts:
        killed = {fsync: chaos.measure(chaos.Plan(fsync=fsync)) for fsync in ("always", "everysec")}
        sections["chaos"] = cluster_report.chaos_section(killed)
        figures += cluster_report.chaos_figures(killed)
    if "crashes" in parts:
        crashed = crashes.measure()
        sections["crashes"] = report.crashes_section(crashed)
        figures.append(report.crashes_figure(crashed))
    if "cluster" in parts:
        several = cluster.measure(cores, say, options.scene or ())
        sections["cluster"] = cluster_report.cluster_section(several, cores)
        figures += cluster_report.cluster_figures(several)
    if "events" in parts:
        played, lost = sessions.play(), sessions_killed.kills()
        sections["events"] = sessions_report.events_section(played, lost)
        figures += sessions_report.events_figures(played, lost)
    if "limits" in parts:
        limited = limits.measure(cores, say, options.scene or ())
        sections["limits"] = limits_report.limits_section(limited, cores)
        figures += limits_report.limits_figures(limited)
    if "watched" in parts:
        looked = watched.measure(cores, say)
        sections["watched"] = watched.watched_section(looked, cores)
        figures += watched.watched_figures(looked)
    if "console" in parts:
        dumped = console.measure(cores, say)
        sections["console"] = console.console_section(dumped, cores)
        figures += console.console_figures(dumped)
    print(report.figures_table(figures))
    for name, text in sections.items():
        print(text)
        report.write(name, text)
    return int(options.check and not all(figure.held for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
