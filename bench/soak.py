"""
``python -m bench.soak --minutes 60``: mixed load for a long time, and what is left of it.

Every few seconds something else: keep-alive requests, big answers, requests without a token, clients that
hang up in the middle, clients that send half a head and stay, ten thousand that say nothing. Resident memory and descriptors are
sampled; what counts is that they are at the end what they were after the first tenth.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.load import load, request_head
from bench.machine import Layout, layout, resident_bytes, tree
from bench.targets import backend, gateway, make_key, pinned, token
from demo.ports import free_port

MOST_GROWTH = 0.10
BURST_S = 3.0
PAUSE_S = 1.0
RELOAD_EVERY = 20
IDLE = 10_000
"""Connections that say nothing, as far as the descriptor limit allows."""
MOST_WAIT_S = 1.0

Burst = Callable[[Path, Layout, int, str], None]


def _small(folder: Path, cores: Layout, port: int, bearer: str) -> None:
    load(folder, cores.load, port, request_head("/api/small", bearer, port), 50, BURST_S)


def _big(folder: Path, cores: Layout, port: int, bearer: str) -> None:
    load(folder, cores.load, port, request_head("/api/big", bearer, port), 20, BURST_S)


def _refused(folder: Path, cores: Layout, port: int, bearer: str) -> None:
    load(folder, cores.load, port, request_head("/api/small", bearer[:-6] + "AAAAAA", port), 50, BURST_S)


def _hung_up(_: Path, __: Layout, port: int, bearer: str) -> None:
    for _number in range(200):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request_head("/api/big", bearer, port))
            connection.recv(1000)


def _half(_: Path, __: Layout, port: int, bearer: str) -> None:
    head = request_head("/api/small", bearer, port)
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=10) for _number in range(100)]
    for connection in waiting:
        connection.sendall(head[: random.randrange(1, len(head))])
    time.sleep(BURST_S)
    for connection in waiting:
        connection.close()


def _idle(_: Path, __: Layout, port: int, bearer: str) -> None:
    _most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quiet: list[socket.socket] = []
    with ExitStack() as held:
        quiet.extend(
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _number in range(min(IDLE, hard - 500))
        )
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request_head("/api/small", bearer, port))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic() - began
        assert answered < MOST_WAIT_S, f"beside {len(quiet)} idle connections an answer took {answered:.2f} s"


BURSTS: tuple[Burst, ...] = (_small, _big, _refused, _hung_up, _half, _idle)


def main() -> int:
    """
    Return 0 if nothing is left behind.
    """
    parser = argparse.ArgumentParser(prog="bench.soak", description="Mixed load for a long time.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cores", help="two cores, measured and load, such as 2,3; else the last two")
    options = parser.parse_args()
    cores = layout(options.cores)
    samples: list[tuple[float, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        folder = Path(place)
        bearer = token(make_key(folder), lifetime_s=7 * 86400)
        port = free_port()
        with (
            backend(folder, cores.load) as upstream,
            pinned(cores.measured, gateway(folder, upstream)(port), folder, port) as pid,
        ):
            begun = time.monotonic()
            number = 0
            while (passed := time.monotonic() - begun) < options.minutes * 60:
                BURSTS[number % len(BURSTS)](folder, cores, port, bearer)
                number += 1
                if number % RELOAD_EVERY == 0:
                    os.kill(pid, signal.SIGHUP)
                time.sleep(PAUSE_S)
                descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                samples.append((passed, resident_bytes(tree(pid)), descriptors))
                print(
                    f"{passed / 60:7.1f} min {samples[-1][1] / 2**20:8.1f} MiB {descriptors:6d} descriptors", flush=True
                )
    return _judge(samples)


def _judge(samples: list[tuple[float, int, int]]) -> int:
    tenth = max(len(samples) // 10, 2 * len(BURSTS))
    if len(samples) < 3 * tenth:
        print(f"soak: {len(samples)} samples are too few to say anything; give it more minutes", file=sys.stderr)
        return 1
    first, last = samples[tenth : 2 * tenth], samples[-tenth:]
    grown = median(rss for _, rss, _ in last) / median(rss for _, rss, _ in first) - 1
    # The same kind of burst comes before a sample at the same place of each cycle, so least is compared with least.
    more = min(fds for _, _, fds in last) - min(fds for _, _, fds in first)
    print(f"memory {grown:+.1%} (at most {MOST_GROWTH:+.0%}), descriptors {more:+d} (at most +1)")
    return int(grown > MOST_GROWTH or more > 1)


if __name__ == "__main__":
    sys.exit(main())
