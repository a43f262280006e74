"""
What being watched costs: requests at half of what can be held while the collector of spans takes them, and while it hangs.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from bench.limits_world import gateway, httpload, late_turns, on_core, open_loop, third
from bench.machine import Layout
from bench.report import Figure, figures_table
from bench.targets import make_key, pinned, token
from demo.ports import free_port

__all__ = ["Seen", "measure", "watched_figures", "watched_section"]

PAIRS = 10
EACH_S = 4.0
MOST_P99_US = 100_000


@dataclass
class Seen:
    """
    What was measured, by name; pairs of p99 in milliseconds, of a collector that is well and of one that hangs.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    pairs: list[tuple[float, float]] = field(default_factory=list)


class _Taking(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Takes whatever it is sent."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


@contextmanager
def _well() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_Taking(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(5)


@contextmanager
def _hanging() -> Iterator[int]:
    """Takes connections, and never says anything."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
        for each in taken:
            each.close()


def measure(cores: Layout, say: Callable[[str], None]) -> Seen:
    """
    Play pairs of rounds, in turn: the same requests to two gateways, one of which has a collector that hangs.
    """
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as running:
        folder = Path(name)
        bearer = token(make_key(folder))
        upstream = free_port()
        running.enter_context(on_core(third(cores)))
        running.enter_context(
            pinned(third(cores), [str(httpload(folder)), "--serve", str(upstream), "--delay-ms", "0"], folder, upstream)
        )
        ports = []
        for collector in (_well, _hanging):
            otlp = running.enter_context(collector())
            body = f'[tracing]\notlp = "http://127.0.0.1:{otlp}"\nsample = 0.1\n'
            port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, "memory://", body))
            ports.append(port)
        well, hanging = ports
        capacity, rate = 0.0, 1000.0
        while (told := open_loop(folder, cores, well, bearer, rate, EACH_S / 2))["p99_us"] < MOST_P99_US:
            if told["ok"] < 0.99 * told["sent"]:
                break
            say(f"watched: {rate:.0f}/s, p99 {told['p99_us'] / 1e3:.1f} ms")
            capacity, rate = rate, rate * 1.25
        if not capacity:
            raise SystemExit("bench: not even 1,000 requests a second are served in time; is the machine busy?")
        time.sleep(2)
        late = late_turns(folder, hanging)
        for number in range(PAIRS):
            order = (well, hanging) if number % 2 else (hanging, well)
            p99 = {port: open_loop(folder, cores, port, bearer, capacity / 2, EACH_S)["p99_us"] / 1e3 for port in order}
            seen.pairs.append((p99[well], p99[hanging]))
            say(f"watched, pair {number + 1}: p99 {p99[well]:.2f} ms, hanging {p99[hanging]:.2f} ms")
        seen.numbers["capacity, requests/s"] = capacity
        seen.numbers["p99, collector hanging / well"] = median(bad / good for good, bad in seen.pairs)
        seen.numbers["turns longer than 25 ms while it hangs"] = late_turns(folder, hanging) - late
    return seen


def watched_figures(seen: Seen) -> list[Figure]:
    """
    The promises.
    """
    got = seen.numbers
    return [
        Figure("p99 at half of capacity, collector hanging / well", 1.25, got["p99, collector hanging / well"]),
        Figure("Turns longer than 25 ms meanwhile", 0.0, got["turns longer than 25 ms while it hangs"], ""),
    ]


def watched_section(seen: Seen, cores: Layout) -> str:
    """
    Return what was seen.
    """
    return "\n".join(
        [
            "## Watched",
            "",
            (
                f"{time.strftime('%Y-%m-%d')}; {cores}. {len(seen.pairs)} interleaved pairs of {EACH_S:.0f} s at half of the highest open-loop "
                f"rate with p99 below 100 ms ({seen.numbers['capacity, requests/s']:.0f}/s); a tenth of the traces recorded. The median of the pairs counts."
            ),
            "",
            figures_table(watched_figures(seen)),
            "",
            "| pair | p99 ms, well | p99 ms, hanging |",
            "| ---: | ---: | ---: |",
            *(f"| {number} | {good:.2f} | {bad:.2f} |" for number, (good, bad) in enumerate(seen.pairs, 1)),
        ]
    )
