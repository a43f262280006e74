"""
What requests notice while the console lists everybody, again and again, over ssh.

At half of what the gateway can serve, in interleaved pairs with and without. How much a turn of the reactor takes at
most is watched from inside, by a timer of 2 ms that a developer's prompt starts: in CPU time, so that what others do on
the machine does not count.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import Key

from bench.limits_crowd import HANDSHAKE, frame
from bench.limits_world import gateway, on_core, open_loop, third
from bench.machine import Layout
from bench.report import Figure, figures_table
from bench.targets import backend, make_key, need, token
from demo.ports import free_port

__all__ = ["Dumped", "console_figures", "console_section", "measure"]

SESSIONS = 10_000
PAIRS = 10
EACH_S = 4.0
AT_ONCE = 50

PROBE = """
import time
gateway.longest, gateway.spent = 0.0, time.thread_time()
def look():
    now = time.thread_time()
    gateway.longest, gateway.spent = max(gateway.longest, now - gateway.spent), now
    gateway.reactor.callLater(0.002, look)

look()
"""


@dataclass
class Dumped:
    """
    What was seen.

    Attributes:
        ratios: p99 with the dump against without, by pair.
        rows: Connections that were listed meanwhile.
        longest_ms: The longest turn of the reactor in CPU time, with the dump and without.
    """

    sessions: int = 0
    rate: float = 0.0
    without_ms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    rows: int = 0
    longest_ms: dict[str, float] = field(default_factory=dict)
    failed: int = 0


def measure(cores: Layout, say: Any, *, sessions: int = SESSIONS, pairs: int = PAIRS, each_s: float = EACH_S) -> Dumped:
    """
    Let it serve, and list.
    """
    seen = Dumped(sessions)
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        key = make_key(folder)
        bearer = token(key)
        ssh = _people(folder)
        upstream = running.enter_context(backend(folder, third(cores)))
        section = f'[console]\nssh = "tcp:{ssh}:interface=127.0.0.1"\nusers_file = "users.toml"\npython = true\n'
        port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, "memory://", section))
        running.enter_context(_idle(port, [token(key, subject=f"user-{n}", device="") for n in range(100)], sessions))
        capacity, rate = 0.0, 1000.0
        while True:
            told = open_loop(folder, cores, port, bearer, rate, each_s / 2)
            say(f"console, {rate:.0f}/s: p99 {told['p99_us'] / 1e3:.1f} ms")
            if told["p99_us"] > 100_000 or told["ok"] < 0.99 * told["sent"]:
                break
            capacity, rate = rate, rate * 1.25
        seen.rate = capacity / 2
        time.sleep(1)
        _python(folder, ssh, *PROBE.strip("\n").split("\n"))
        for number in range(pairs):
            _python(folder, ssh, "gateway.longest = 0.0")
            without = open_loop(folder, cores, port, bearer, seen.rate, each_s)
            seen.longest_ms["without"] = max(seen.longest_ms.get("without", 0.0), _longest(folder, ssh))
            with on_core(third(cores)), _listing(folder, ssh) as listed:
                _python(folder, ssh, "gateway.longest = 0.0")
                beside = open_loop(folder, cores, port, bearer, seen.rate, each_s)
                seen.longest_ms["with"] = max(seen.longest_ms.get("with", 0.0), _longest(folder, ssh))
            seen.rows += listed[0]
            seen.failed += sum(each["sent"] - each["ok"] for each in (without, beside))
            seen.without_ms.append(without["p99_us"] / 1e3)
            seen.ratios.append(beside["p99_us"] / without["p99_us"])
            say(
                f"console, pair {number + 1}: p99 {without['p99_us'] / 1e3:.2f} ms, x {seen.ratios[-1]:.2f}, {listed[0]} listed; {seen.longest_ms}"
            )
    return seen


def _people(folder: Path) -> int:
    key = Key(Ed25519PrivateKey.generate())
    with open(folder / "dora", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:  # noqa: PTH123
        file.write(key.toString("OPENSSH"))
    public = key.public().toString("OPENSSH").decode()
    (folder / "users.toml").write_text(f'[user.dora]\nrole = "developer"\nkeys = ["{public}"]\n')
    return free_port()


def _ssh(folder: Path, port: int, *more: str) -> list[str]:
    known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    return [need("ssh"), "-F", "none", *known, "-i", str(folder / "dora"), "-p", str(port), *more, "dora@127.0.0.1"]


def _python(folder: Path, port: int, *lines: str) -> str:
    """Type into a developer's prompt; return what it showed."""
    typed = "".join(f"{line}\r" for line in ("python", *lines))
    client = subprocess.Popen(
        _ssh(folder, port, "-tt"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    shown, _ = client.communicate(f"{typed}\x04exit\r", timeout=30)
    return shown


def _longest(folder: Path, port: int) -> float:
    found = re.search(r"longest: ([0-9.e-]+)", _python(folder, port, "'longest' + ': ' + str(gateway.longest * 1000)"))
    assert found is not None
    return float(found[1])


@contextmanager
def _listing(folder: Path, port: int) -> Iterator[list[int]]:
    """List everybody over and over; yield how many were listed so far."""
    listed, stop = [0], threading.Event()

    def lists() -> None:
        while not stop.is_set():
            client = subprocess.Popen(
                [*_ssh(folder, port), "who"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
            )
            assert client.stdout is not None
            for line in client.stdout:
                listed[0] += "websocket" in line
                if stop.is_set():
                    client.kill()
                    break
            client.wait()

    thread = threading.Thread(target=lists)
    thread.start()
    try:
        yield listed
    finally:
        stop.set()
        thread.join()


@contextmanager
def _idle(port: int, bearers: list[str], number: int) -> Iterator[None]:
    """Keep so many connections that do nothing but answer pings."""
    come, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_stay(port, bearers, number, come, stop)))
    thread.start()
    try:
        if not come.wait(120):
            raise SystemExit("bench: the sessions do not come")
        yield
    finally:
        stop.set()
        thread.join()


async def _stay(port: int, bearers: list[str], number: int, come: threading.Event, stop: threading.Event) -> None:
    doors = asyncio.Semaphore(AT_ONCE)
    writers: list[asyncio.StreamWriter] = []

    async def one(index: int) -> None:
        async with doors:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame(json.dumps({"id": 1, "connect": {"token": bearers[index % len(bearers)]}})))
            await reader.read(4096)
        while await reader.read(4096):
            writer.write(frame("{}"))

    tasks = [asyncio.ensure_future(one(index)) for index in range(number)]
    while not stop.is_set():
        if len(writers) == number and not doors.locked():
            come.set()
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    for writer in writers:
        writer.transport.abort()


def console_figures(seen: Dumped) -> list[Figure]:
    """
    The promises.
    """
    return [
        Figure("p99 of requests at half of capacity while the console lists everybody", 1.25, median(seen.ratios)),
        Figure("The longest turn of the reactor meanwhile, in CPU time", 20.0, seen.longest_ms["with"], "ms"),
        Figure("Requests that failed meanwhile", 0, seen.failed, "requests"),
    ]


def console_section(seen: Dumped, cores: Layout) -> str:
    """
    Return what was seen.
    """
    return "\n".join(
        [
            "## The console",
            "",
            (
                f"{time.strftime('%Y-%m-%d')}; {cores}. {seen.sessions} idle connections; {seen.rate:.0f} requests/s, half of the highest rate "
                f"with p99 below 100 ms; {len(seen.ratios)} interleaved pairs, in one half of which ssh lists all connections over and over "
                f"({seen.rows} rows in all). p99 without it {median(seen.without_ms):.2f} ms, median; ratios from {min(seen.ratios):.2f} to "
                f"{max(seen.ratios):.2f}. The longest turn without it {seen.longest_ms['without']:.1f} ms, of CPU, by a timer of 2 ms inside."
            ),
            "",
            figures_table(console_figures(seen)),
        ]
    )
