"""
What limits cost, and what they hold: exactness, an outage of Redis, overload, a herd, a flood.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.limits_crowd import Herd, flood, herd
from bench.limits_world import (
    ALL,
    DEADLINE_MS,
    beside_it,
    gateway,
    httpload,
    late_turns,
    on_core,
    open_loop,
    redis,
    third,
    workers_serve,
)
from bench.load import load, request_head
from bench.machine import Layout, cpu_s
from bench.realtime import INSTRUMENTS
from bench.targets import backend, make_key, need, pinned, token
from demo.ports import free_port

__all__ = ["BURST", "CLIENTS", "COSTS", "DEADLINE_MS", "FLOOD", "OPENINGS", "POOL", "SCENES", "Seen", "measure"]

BURST = 100
CLIENTS = 5000
OPENINGS = 500
FLOOD = 5000
EACH_S = 4.0
MISSES = 3
"""A rate that cannot be held so often in a row is too much; less often it was the machine."""

POOL = 2000
"""Connections that an open-loop load may have, as a balancer in front would."""

AMPLE = '[limits.policy."{name}"]\nrate = "1000000/s"\nburst = 100000000\nkey = "{key}"\n'
COSTS = {
    "none": "",
    "in the process": AMPLE.format(name="user", key="user") + "shared = false\n",
    "in Redis": AMPLE.format(name="user", key="user"),
    "in Redis, two policies": AMPLE.format(name="address", key="address") + AMPLE.format(name="user", key="user"),
}
"""What is configured, by its name in the table."""


@dataclass
class Seen:
    """
    What was seen, by the name of the figure.

    Attributes:
        cpu_us: CPU microseconds per request, by what is configured, by round.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)


def cost(
    folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None], rounds: int = 5, seconds: float = 3.0
) -> None:
    """CPU per request without limits, counted in the process, and in Redis, at 50 connections, in interleaved rounds."""
    bearer = token(make_key(folder))
    with ExitStack() as running:
        upstream = running.enter_context(backend(folder, cores.load))
        store = running.enter_context(redis(folder))
        url = f"redis://127.0.0.1:{store.port}"
        made = {}
        for name, body in COSTS.items():
            where = url if "Redis" in name else "memory://"
            made[name] = running.enter_context(gateway(folder, [cores.measured], upstream, where, body))
        names = list(made)
        for name in names:
            _burst(*made[name], folder, cores, bearer, 1.0)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seen.cpu_us.setdefault(name, []).append(_burst(*made[name], folder, cores, bearer, seconds))
            say(
                f"limits, round {number + 1}: "
                + ", ".join(f"{name} {seen.cpu_us[name][-1]:.1f}" for name in names)
                + " us"
            )
    bare = seen.cpu_us["none"]
    for name in names[1:]:
        ratios = [mine / without for mine, without in zip(seen.cpu_us[name], bare, strict=True)]
        seen.numbers[f"CPU added, {name}"] = median(ratios) - 1


def _burst(port: int, pids: list[int], folder: Path, cores: Layout, bearer: str, seconds: float) -> float:
    head = request_head("/api/small", bearer, port)
    before = cpu_s(pids)
    answered = load(folder, cores.load, port, head, 50, seconds)
    if answered.failed:
        raise SystemExit(f"bench: {answered.failed} of {answered.requests} requests failed")
    return (cpu_s(pids) - before) / answered.requests * 1e6


def exact(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """Four workers at once at a burst of 100 that comes back once an hour, by default time-outs and all."""
    policy = f'[limits.policy.hourly]\nrate = "1/h"\nburst = {BURST}\nkey = "user"\n'
    bearer = token(make_key(folder))
    with ExitStack() as running:
        upstream = running.enter_context(backend(folder, cores.load))
        store = running.enter_context(redis(folder))
        url = f"redis://127.0.0.1:{store.port}"
        port, _ = running.enter_context(gateway(folder, ALL, upstream, url, policy, workers=4))
        workers_serve(folder, port)
        told = open_loop(folder, cores, port, bearer, 1000, 3.0, conns=200, warm=0)
        say(f"limits, exact: {told}")
        if told["ok"] + told["refused"] != told["sent"]:
            raise SystemExit(f"bench: neither passed nor refused: {told}")
        seen.numbers["passed of a burst of 100"] = float(told["ok"] + told["late"])


def away(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """What an outage of Redis adds to a request, hung and killed, and what else comes of it."""
    bearer = token(make_key(folder))
    with ExitStack() as running:
        upstream = running.enter_context(backend(folder, cores.load))
        store = running.enter_context(redis(folder))
        url = f"redis://127.0.0.1:{store.port}"
        port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, url, COSTS["in Redis"]))
        open_loop(folder, cores, port, bearer, 300, 1.0)
        before = open_loop(folder, cores, port, bearer, 300, EACH_S)
        # Against the middle of before, not its tail: the tail is the machine's.
        usual_us, worst, wrong = before["p50_us"], 0.0, 0
        for name, harm in (("hung", store.pause), ("killed", store.kill)):
            harm()
            told = open_loop(folder, cores, port, bearer, 300, EACH_S)
            say(
                f"limits, Redis {name}: p99 {told['p99_us'] / 1e3:.1f} ms after a median of {usual_us / 1e3:.1f} ms; {told}"
            )
            worst = max(worst, (told["p99_us"] - usual_us) / 1e3)
            wrong += told["sent"] - told["ok"]
            if name == "hung":
                store.resume()
        store.start()
        seen.numbers["p99 added without Redis, ms"] = max(0.0, worst)
        seen.numbers["not answered 200 without Redis"] = float(wrong)


def goodput(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """What is answered in time at three times the rate that can be held, with shedding."""
    bearer = token(make_key(folder))
    upstream = free_port()
    slow = [str(httpload(folder)), "--serve", str(upstream), "--delay-ms", "5"]
    with ExitStack() as running:
        running.enter_context(pinned(third(cores), slow, folder, upstream))
        body = '[limits]\nshed_lag = "100ms"\n'
        port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, "memory://", body))
        capacity, peak, rate, missed = 0.0, 0.0, 2000.0, 0
        while True:
            told = open_loop(folder, cores, port, bearer, rate, EACH_S, conns=POOL)
            peak = max(peak, told["ok_per_s"])
            say(f"limits, {rate:.0f}/s: {told['ok_per_s']:.0f}/s in time, p99 {told['p99_us'] / 1e3:.0f} ms")
            if told["p99_us"] > 100_000 or told["ok"] < 0.99 * told["sent"]:
                missed += 1
                if missed == MISSES:
                    break
                continue
            capacity, rate, missed = rate, rate * 1.25, 0
        if not capacity:
            raise SystemExit("bench: not even 2,000 requests a second are served in time; is the machine busy?")
        time.sleep(2)
        told = open_loop(folder, cores, port, bearer, 3 * capacity, 2 * EACH_S, conns=POOL)
        say(f"limits, three times {capacity:.0f}/s: {told}")
        seen.numbers["capacity, requests/s"] = capacity
        seen.numbers["goodput lost at three times capacity"] = 1 - told["ok_per_s"] / peak


def returning(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """Everybody comes back at once, and is let in at the rate that is set; requests go on beside it."""
    key = make_key(folder)
    bearer = token(key)
    with ExitStack() as running:
        upstream = running.enter_context(backend(folder, cores.load))
        body = f'[limits]\nopenings = "{OPENINGS}/s"\n'
        port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, "memory://", body))
        bearers = [token(key, subject=f"user-{number}", device="") for number in range(50)]
        herd(Herd(port, bearers, 50))
        idle = open_loop(folder, cores, port, bearer, 100, EACH_S)
        crowd = Herd(port, bearers, CLIENTS)
        # Its connections stand before the herd comes, as those of a balancer do.
        beside = running.enter_context(beside_it(folder, cores, port, bearer, 100, 1.0 + CLIENTS / OPENINGS))
        time.sleep(1.0)
        with on_core(third(cores)):
            herd(crowd)
        output, _ = beside.communicate()
        told = json.loads(output)
        late = late_turns(folder, port)
        say(f"limits, a herd: {crowd}; beside it {told}, after {idle}; late {late}")
        seen.numbers["herd: not back"] = float(CLIENTS - crowd.back)
        seen.numbers["herd: let in and not served in 5 s"] = float(crowd.stranded)
        seen.numbers["herd: refused openings"] = float(crowd.refused)
        seen.numbers["herd: last back after s"] = crowd.last_s
        seen.numbers["herd: HTTP p99 beside it / idle"] = told["p99_us"] / idle["p99_us"]
        seen.numbers["herd: failed requests beside it"] = float(told["sent"] - told["ok"])


def flooding(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """One user sends 5,000 messages a second and is never closed; what the others notice, in interleaved rounds."""
    key = make_key(folder)
    bearer, other = token(key, subject="flood", device=""), token(key, subject="others", device="")
    policy = '[limits]\nunheeded = 1000000000\n[limits.policy.frames]\nrate = "300/s"\nburst = 600\nkey = "user"\non = "frames"\n'
    with ExitStack() as running:
        upstream = running.enter_context(backend(folder, cores.load))
        store = running.enter_context(redis(folder))
        url = f"redis://127.0.0.1:{store.port}"
        port, _ = running.enter_context(gateway(folder, [cores.measured], upstream, url, policy))
        ratios, sent = [], []
        for number in range(5):
            without = _echoes(folder, cores, port, other)
            with on_core(third(cores)), flood(port, bearer, FLOOD) as told:
                beside = _echoes(folder, cores, port, other)
            sent.append(told.per_s)
            ratios.append(beside / without)
            say(f"limits, flood {number + 1}: p99 {without:.2f} ms, beside {told.per_s:.0f} messages/s {beside:.2f} ms")
        seen.numbers["flood: messages/s"] = min(sent)
        seen.numbers["flood: turns longer than 25 ms"] = late_turns(folder, port)
        seen.numbers["flood: p99 of others, with / without"] = median(ratios)


def _echoes(folder: Path, cores: Layout, port: int, bearer: str) -> float:
    program = folder / "wsload"
    if not program.exists():
        subprocess.run([need("gcc"), "-O2", "-o", str(program), str(INSTRUMENTS / "wsload.c")], check=True)
    first = json.dumps({"id": 1, "connect": {"token": bearer}})
    command = [
        *(need("taskset"), "-c", str(cores.load), str(program), "echo", "--port", str(port), "--path", "/ws"),
        *("--first", first, "--expect", "1", "--echo-msg", '{"id":1{n},"rpc":{"method":"echo","data":{"n":{n}}}}'),
        *("--conns", "20", "--echo-rate", "200", "--duration", "4"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    echo = json.loads(ended.stdout.strip().splitlines()[-1])["echo"]
    return float(echo["rtt_us"]["p99"]) / 1e3


SCENES: dict[str, Callable[[Path, Layout, Seen, Callable[[str], None]], None]] = {
    "cost": cost,
    "exact": exact,
    "away": away,
    "goodput": goodput,
    "returning": returning,
    "flooding": flooding,
}


def measure(cores: Layout, say: Callable[[str], None], only: Sequence[str] = ()) -> Seen:
    """
    Play every scene, or those of *only*.
    """
    seen = Seen()
    for name, scene in SCENES.items():
        if not only or name in only:
            say(f"limits: {name}")
            with tempfile.TemporaryDirectory(prefix="bench-") as place:
                scene(Path(place), cores, seen, say)
    return seen
