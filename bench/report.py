"""
From measurements to figures, tables, and sections of ``RESULTS.md``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.crashes import Crashes
from bench.cuts import Cut
from bench.grpc_calls import Called
from bench.http_proxy import CONTROL, SIZES, Row, Run
from bench.machine import Layout
from bench.memory import MOST_GROWTH, Passed
from bench.openings import Opened
from bench.realtime import SLOW_OUTBOX, Measured
from bench.refusals import Counted

__all__ = [
    "Figure",
    "cuts_figure",
    "cuts_section",
    "figures_table",
    "grpc_figures",
    "grpc_section",
    "http_figures",
    "http_section",
    "memory_figure",
    "memory_section",
    "openings_figure",
    "openings_section",
    "realtime_figures",
    "realtime_section",
    "refusals_figure",
    "refusals_section",
    "write",
]

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
MIB = 1024 * 1024

SMALL, BIG = (size.name for size in SIZES)
PROMISED = (
    ("gateway", SMALL, "nginx", 3.0),
    ("gateway", SMALL, "node", 1.0),
    ("gateway", SMALL, "twisted.web + treq", 0.15),
    ("gateway", BIG, "nginx", 1.6),
    ("gateway, watched", SMALL, "nginx, watched", 3.5),
    ("gateway, watched", SMALL, "node", 1.2),
)
"""What the gateway costs at most, as a multiple of a peer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One promised figure and what was measured.
    """

    what: str
    most: float
    got: float
    unit: str = "x"

    @property
    def held(self) -> bool:
        """Whether the promise holds."""
        return self.got <= self.most


def figures_table(figures: list[Figure]) -> str:
    """
    Return a table of *figures*.
    """
    lines = ["| figure | at most | measured | |", "| --- | ---: | ---: | --- |"]
    for figure in figures:
        numbers = f"{figure.most:g} {figure.unit} | {figure.got:.3g} {figure.unit}"
        lines.append(f"| {figure.what} | {numbers} | {'held' if figure.held else '**missed**'} |")
    return "\n".join(lines)


def http_figures(runs: list[Run]) -> list[Figure]:
    """
    Compare the gateway with what is promised.
    """
    found = []
    for run in runs:
        for ours, size, peer, most in PROMISED:
            if size == run.size.name:
                got = run.row(ours).ratio(run.row(peer))
                shown = "" if ours == "gateway" else f"{ours}: "
                found.append(Figure(f"{shown}CPU per request, {size}, against {peer}", most, got))
    return found


def http_section(runs: list[Run], cores: Layout) -> str:
    """
    Return the tables of every size.
    """
    rounds = len(runs[0].rows[0].cpu_us)
    seconds = runs[0].rows[0].loads[0].seconds
    text = [
        "## HTTP proxy: CPU per request",
        "",
        (
            f"{_today()}; {cores}. {rounds} interleaved rounds of {seconds:.0f} s each; CPU from "
            "`/proc/PID/task/*/schedstat` over the process tree, user and system; the median of the rounds, and of the "
            "ratios within each round (with their extremes). The request has a head of 792 bytes with an ES256 bearer "
            "token, on kept connections. The gateway does all that it does by default: verify (from its cache), route, "
            "identity, health checks, breaker, retries, metrics, trace context, one JSON access line each. The others "
            "only proxy; those that are watched write a JSON line for each request and count it against a limit, and the gateway records "
            "a hundredth of the traces. wrk keeps its connections busy, so the times are those of saturation, and the fast "
            "targets' requests per second are limited by the core of the load."
        ),
        "",
        figures_table(http_figures(runs)),
    ]
    for run in runs:
        thrown = f"; {run.thrown} runs before it were thrown away" if run.thrown else ""
        text += [
            "",
            f"### {run.size.name}",
            "",
            f"{CONTROL} varied by {run.variation:.1%} between rounds{thrown}.",
            "",
            f"| target | CPU us | x {CONTROL} | x node | requests/s | p50 ms | p99 ms |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        text += [_row(row, run) for row in sorted(run.rows, key=lambda row: row.middle)]
    versions = "; ".join(f"{row.target.name}: {row.target.version}" for row in runs[0].rows)
    return "\n".join([*text, "", f"{versions}."])


def _row(row: Row, run: Run) -> str:
    rate = median(load.requests / load.seconds for load in row.loads)
    p50 = median(load.p50_ms for load in row.loads)
    p99 = median(load.p99_ms for load in row.loads)
    control, node = (_spread(row, run.row(name)) for name in (CONTROL, "node"))
    return f"| {row.target.name} | {row.middle:.1f} | {control} | {node} | {rate:.0f} | {p50:.2f} | {p99:.1f} |"


def _spread(row: Row, other: Row) -> str:
    if row is other:
        return "1"
    ratios = row.ratios(other)
    return f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def memory_figure(passed: Passed) -> Figure:
    """
    Compare the growth with what is promised.
    """
    return Figure("Growth of resident memory, 1 GB up and down", MOST_GROWTH / MIB, passed.growth / MIB, "MiB")


def memory_section(passed: Passed, cores: Layout) -> str:
    """
    Return what was seen while much passed through slowly.
    """
    return "\n".join(
        [
            "## Memory while 1 GB passes up and 1 GB down",
            "",
            (
                f"{_today()}; {cores}. An upload and a download at once, "
                f"{passed.up / 1e9:.2f} GB and {passed.down / 1e9:.2f} GB, both checked byte by byte (CRC), in "
                f"{passed.seconds:.0f} s, through a backend that stops reading for 2 s {passed.backend_stops} times and a "
                f"client that stops reading for 2 s {passed.client_stops} times. Resident memory sampled each 100 ms, "
                f"{passed.samples} times, after a warm-up."
            ),
            "",
            figures_table([memory_figure(passed)]),
            "",
            f"Before {passed.before / MIB:.1f} MiB, at most {passed.most / MIB:.1f} MiB.",
        ]
    )


def refusals_figure(counted: Counted) -> Figure:
    """
    Compare what a backend saw with what is promised.
    """
    return Figure("Requests without a valid token that a backend sees", 0, counted.seen, "requests")


def refusals_section(counted: Counted) -> str:
    """
    Return how much was tried.
    """
    return "\n".join(
        [
            "## Requests without a valid token",
            "",
            (
                f"{_today()}. {counted.tried} requests: every one of {counted.routes} routes that demand a token, by "
                f"{counted.methods} methods, with {counted.faults} faults of the token, in front of a backend that "
                f"records. Answers: {', '.join(f'{n} x {status}' for status, n in sorted(counted.answers.items()))}. "
                f'Beside them {counted.open_tried} requests to a route with `auth = "none"`, with the same faults: the '
                f"backend saw {counted.open_seen} of them, and in {counted.open_identified} an identity."
            ),
            "",
            figures_table([refusals_figure(counted)]),
        ]
    )


def write(name: str, text: str) -> None:
    """
    Replace the section *name* of the results.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{text}\n{end}"
    results = RESULTS.read_text()
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if found.search(results):
        results = found.sub(lambda _: block, results)
    else:
        results = f"{results.rstrip()}\n\n{block}\n"
    RESULTS.write_text(results)


def realtime_figures(seen: Measured) -> list[Figure]:
    """
    Compare the gateway's real-time side with what is promised.
    """
    quiet, full, busy = "fan-out, 1,000 x 20/s", "fan-out, 1,000 x 100/s", "busy channel, 200 x 500/s"
    connects, echoes = "connects, 1,500/s", "echoes, 100 connections"
    single = seen.single
    ratios = [
        *((load, peer, most) for load in (quiet, full) for peer, most in _FANOUT),
        (busy, "C send", 0.6),
        (connects, "Socket.IO", 1.0),
        (connects, "Autobahn", 0.8),
        (echoes, "Autobahn", 0.6),
    ]
    found = [Figure(f"CPU, {load}, against {peer}", most, seen.ratio(load, peer)) for load, peer, most in ratios]
    return [
        *found,
        Figure(f"p99, {busy}", 10, seen.late(busy), "ms"),
        Figure("connect p99, 1,000/s for 10 s, from when each was due", 50, single["connect p99 ms"], "ms"),
        Figure(
            "server API to the client p99, 1 channel, 100,000 deliveries/s",
            20,
            single["server API p99 ms, one channel"],
            "ms",
        ),
        Figure("server API to the client p99, 500 tables x 6", 20, single["server API p99 ms, 500 tables"], "ms"),
        Figure("memory of an idle connection with a subscription", 16, single["idle bytes"] / 1024, "KiB"),
        Figure(
            "memory for a reader that never reads",
            (SLOW_OUTBOX + 64 * 1024) / 1024,
            single["slow reader bytes"] / 1024,
            "KiB",
        ),
        Figure("10,000 connections for a minute: deliveries missing", 0, single["crowd missing"], ""),
        Figure("publications lost or out of order, over all loads", 0, seen.wrong, ""),
    ]


_FANOUT = (("nchan", 0.95), ("ws", 0.75), ("C send", 1.4), ("Autobahn", 0.35))


def realtime_section(seen: Measured, cores: Layout) -> str:
    """
    Return the tables of every load.
    """
    rounds = len(next(iter(next(iter(seen.cpu_us.values())).values())))
    text = [
        "## Real time: CPU per delivery, connect and echo",
        "",
        (
            f"{_today()}; {cores}. {rounds} interleaved rounds, a fresh server for each load, `instruments/wsload.c` as the "
            "load; CPU from `/proc/PID/task/*/schedstat` over the process tree; medians of the rounds, and of the ratios "
            "within each round. A publication has 200 bytes before the protocol's framing, which only the gateway "
            "adds. A connect of the gateway's is the handshake, a verified token, a session, the reply and one "
            "subscription; of the others the bare handshake. On loopback a send also runs the receiver's TCP in the "
            "sender's time, which everybody pays alike. At 100 publications/s some servers are at the limit of a core: they "
            "then join what waits, which makes them look cheap and late."
        ),
        "",
        figures_table(realtime_figures(seen)),
    ]
    for load, names in seen.cpu_us.items():
        text += ["", f"### {load}", "", "| target | CPU us | gateway is | p99 ms |", "| --- | ---: | ---: | ---: |"]
        text += [
            f"| {name} | {seen.cpu(load, name):.2f} | {seen.ratio(load, name):.2f} x | {seen.late(load, name):.1f} |"
            for name in sorted(names, key=lambda name: seen.cpu(load, name))
        ]
    return "\n".join(text)


def grpc_figures(seen: Called) -> list[Figure]:
    """
    Compare calls, and JSON, with what is promised.
    """
    calls = Figure("CPU, HTTP GET to gRPC unary to JSON, 50 connections, against Node and grpc-js", 0.7, seen.ratio())
    return [calls, *(Figure(f"CPU, {pair.what}, against json_format", 0.5, pair.ratio) for pair in seen.pairs)]


def grpc_section(seen: Called, cores: Layout) -> str:
    """
    Return the tables of calls and of JSON.
    """
    rounds = len(seen.cpu_us["gateway"])
    text = [
        "## HTTP to gRPC: CPU per call",
        "",
        (
            f"{_today()}; {cores}. {rounds} interleaved rounds in front of one grpc-js backend; a GET with a head of 792 bytes "
            "becomes a unary call, its reply of 8 fields JSON. The gateway verifies, routes, checks and logs as always; "
            "Node only transcodes. JSON is measured in one process, the least of several rounds."
        ),
        "",
        figures_table(grpc_figures(seen)),
        "",
        "| target | CPU us | p99 ms |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {median(cost):.1f} | {median(seen.p99_ms[name]):.1f} |" for name, cost in seen.cpu_us.items()),
        "",
        "| JSON | ours us | json_format us |",
        "| --- | ---: | ---: |",
        *(f"| {pair.what} | {pair.ours_us:.1f} | {pair.theirs_us:.1f} |" for pair in seen.pairs),
    ]
    return "\n".join(text)


def cuts_figure(seen: Cut) -> Figure:
    """
    Nothing may be lost, come twice, or out of order.
    """
    return Figure("Publications lost, doubled or out of order", 0, seen.wrong, "")


def cuts_section(seen: Cut) -> str:
    """
    Return what was seen of connections that were cut.
    """
    return "\n".join(
        [
            "## Connections that are cut",
            "",
            (
                f"{_today()}. {seen.cuts} cuts at random moments of up to 0.2 s of connection, by clients that keep "
                f"their position as SDKs do, in a channel with 100 publications/s: {seen.published} published, "
                f"{seen.received} received by all together; {seen.unrecovered} returns could not be made whole."
            ),
            "",
            figures_table([cuts_figure(seen)]),
        ]
    )


def crashes_figure(seen: Crashes) -> Figure:
    """
    Every session is counted once, in order, and ended when it ended.
    """
    return Figure("Sessions not counted exactly once, by an instance that is killed with -9", 0, seen.faults, "")


def crashes_section(seen: Crashes) -> str:
    """
    Return what was seen of an instance that was killed again and again.
    """
    return "\n".join(
        [
            "## A single instance without Redis, killed with -9",
            "",
            (
                f"{_today()}. {seen.trials} kills at random moments while sessions begin and end, with `events.spool`; in {seen.away} "
                f"of them the Event Service is away until the instance runs again. {seen.sessions} sessions whose client was told "
                f"that it is connected, {seen.events} events, {seen.again} that came once more and were told apart by their ids; "
                f"{seen.missing} sessions without a beginning or an end, {seen.doubled} with two, {seen.disordered} out of order, "
                f"{seen.wrong} that ended more than 6 s away from when they did."
            ),
            "",
            figures_table([crashes_figure(seen)]),
        ]
    )


def openings_figure(seen: Opened) -> Figure:
    """
    A backend may see nothing.
    """
    return Figure("Commands of clients without a valid token that a backend sees", 0, seen.seen, "")


def openings_section(seen: Opened) -> str:
    """
    Return what became of clients that are nobody.
    """
    outcomes = ", ".join(f"{number} x {outcome}" for outcome, number in sorted(seen.outcomes.items()))
    return "\n".join(
        [
            "## Real-time clients without a valid token",
            "",
            (
                f"{_today()}. {seen.tried} openings by {seen.ways} ways (command, header, sub-protocol, HTTP stream, events, "
                f"emulation) with {seen.faults} faults of the token, revocation among them; each client connects, subscribes, "
                f"publishes, calls and asks at once. Close codes, or statuses: {outcomes}."
            ),
            "",
            figures_table([openings_figure(seen)]),
        ]
    )


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
