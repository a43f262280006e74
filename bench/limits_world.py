"""
What the scenes of limits stand on: a gateway, a Redis, an open-loop load.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import request_head
from bench.machine import Layout, tree
from bench.realtime import INSTRUMENTS
from bench.targets import BIN, ISSUER, need, pinned
from bench.world import RedisProcess
from demo.ports import free_port

__all__ = [
    "ALL",
    "DEADLINE_MS",
    "beside_it",
    "gateway",
    "httpload",
    "late_turns",
    "on_core",
    "open_loop",
    "redis",
    "third",
]
__all__ += ["workers_serve"]

DEADLINE_MS = 1000

ALL = sorted(os.sched_getaffinity(0))

GATEWAY = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]
workers = {workers}

[store]
url = "{store}"

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[upstream.backend]
http   = ["http://127.0.0.1:{upstream}"]
max_connections = 4096
idle_connections = 1024
breaker = {{ max_requests = 5000 }}

[[route]]
path     = "/api/**"
upstream = "backend"

[[websocket]]
path = "/ws"

[rpc.echo]
echo = true

[log]
access = false
"""


@contextmanager
def gateway(
    folder: Path, core: Sequence[int], upstream: int, store: str, body: str, *, workers: int = 1
) -> Iterator[tuple[int, list[int]]]:
    """
    Run a gateway while the block lasts; yield its port and processes.
    """
    port, admin = free_port(), free_port()
    settings = {"port": port, "admin": admin, "store": store, "upstream": upstream, "workers": workers}
    path = folder / f"gateway-{port}.toml"
    path.write_text(GATEWAY.format(**settings, issuer=ISSUER) + body)
    command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(path)]
    with pinned(",".join(map(str, core)), command, folder, port) as pid:
        yield port, tree(pid)


@contextmanager
def redis(folder: Path) -> Iterator[RedisProcess]:
    """
    Run a Redis while the block lasts.
    """
    made = RedisProcess(folder / "redis")
    made.start()
    try:
        yield made
    finally:
        made.kill()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """
    Run what this thread does, and threads and processes that it starts, on *core* while the block lasts.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def late_turns(folder: Path, port: int) -> float:
    """How often the gateway's timer of 100 ms was later than 25 ms, by its own account."""
    found = re.search(r'admin   = ."tcp:(\d+)', (folder / f"gateway-{port}.toml").read_text())
    assert found is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics") as answer:  # noqa: S310  # Our own.
        text = answer.read().decode()
    pattern = r'gateway_reactor_lag_seconds_bucket{le="([^"]+)"} (\S+)'
    counts = {le: float(count) for le, count in re.findall(pattern, text)}
    return counts["+Inf"] - counts["0.025"]


def httpload(folder: Path) -> Path:
    program = folder / "httpload"
    if not program.exists():
        subprocess.run([need("gcc"), "-O2", "-o", str(program), str(INSTRUMENTS / "httpload.c")], check=True)
    return program


def third(cores: Layout) -> int:
    """A core of the backend's own, where there is one."""
    others = set(ALL) - {cores.measured, cores.load}
    return min(others) if others else cores.load


def _command(
    folder: Path, cores: Layout, port: int, bearer: str, rate: float, seconds: float, conns: int, warm: int = 20
) -> list[str]:
    raw = folder / f"request-{port}"
    raw.write_bytes(request_head("/api/small", bearer, port))
    options = {
        "port": port,
        "rate": rate,
        "duration": seconds,
        "conns": conns,
        "warm": warm,
        "deadline-ms": DEADLINE_MS,
        "head": raw,
    }
    told = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [need("taskset"), "-c", str(cores.load), str(httpload(folder)), *told]


def open_loop(
    folder: Path,
    cores: Layout,
    port: int,
    bearer: str,
    rate: float,
    seconds: float,
    *,
    conns: int = 200,
    warm: int = 20,
) -> dict[str, Any]:
    """Send requests evenly, whatever becomes of them; return what became of them."""
    command = _command(folder, cores, port, bearer, rate, seconds, conns, warm)
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@contextmanager
def beside_it(
    folder: Path, cores: Layout, port: int, bearer: str, rate: float, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    command = _command(folder, cores, port, bearer, rate, seconds, 200)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def workers_serve(folder: Path, port: int) -> None:
    """Wait until every worker serves."""
    log = next(folder.glob(f"*-{port}.log"))
    deadline = time.monotonic() + 30
    while "workers.started" not in log.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: the workers do not serve; see {log}")
        time.sleep(0.05)
