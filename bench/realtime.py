"""
Real time beside its peers: fan-out, connects, echoes and memory, by the load generator in ``instruments/``.

Every target runs on one core and the load on another, one after the other in interleaved rounds. The
gateway verifies a token, opens a session, decides about the subscription, counts and logs; the others
only move bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import Layout, resident_bytes, tree
from bench.targets import BIN, ISSUER, MISSING, PEERS, make_key, need, nginx_command, pinned, token
from demo.ports import free_port

__all__ = ["Measured", "measure"]

INSTRUMENTS = Path(__file__).resolve().parent / "instruments"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
KEY = "a-key-of-the-bench-to-publish-with"
SIZE = "200"
SLOW = 40
SLOW_OUTBOX = 1024 * 1024


@dataclass
class Measured:
    """
    What was seen, by load and target, a value for each round.

    Attributes:
        cpu_us: Server time for each delivery, connect or echo.
        p99_ms: Of deliveries or connects, from when each was due.
        single: What is measured once, by name: bytes, or milliseconds.
        wrong: Publications that were missing or out of order, over all loads.
    """

    cpu_us: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    p99_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    single: dict[str, float] = field(default_factory=dict)
    wrong: int = 0

    def cpu(self, load: str, target: str) -> float:
        """The median."""
        return median(self.cpu_us[load][target])

    def ratio(self, load: str, peer: str) -> float:
        """The median of the gateway's ratios to *peer* within each round."""
        mine, theirs = self.cpu_us[load]["gateway"], self.cpu_us[load][peer]
        return median(one / other for one, other in zip(mine, theirs, strict=True))

    def late(self, load: str, target: str = "gateway") -> float:
        """The median p99."""
        return median(self.p99_ms[load][target])


@dataclass(frozen=True)
class Target:
    """
    A server, and how the load speaks to it.
    """

    name: str
    command: Callable[[int], list[str]]
    subscribe: list[str]
    publish: list[str]
    connect: list[str]
    echo: list[str]


FANOUT = {
    "fan-out, 1,000 x 20/s": ("1000", "20", ("C send", "nchan", "ws", "Autobahn")),
    "fan-out, 1,000 x 100/s": ("1000", "100", ("C send", "nchan", "ws", "Autobahn")),
    "busy channel, 200 x 500/s": ("200", "500", ("C send",)),
}
CONNECTS = ("C send", "ws", "Socket.IO", "Autobahn")
ECHOES = ("C send", "ws", "Autobahn")


def measure(cores: Layout, rounds: int, seconds: float, say: Callable[[str], None]) -> Measured:
    """
    Measure everything.
    """
    found = Measured()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        bench = _Bench(Path(name), cores, f"{max(seconds, 3.0):.0f}", found, say)
        for number in range(1, rounds + 1):
            for load, (subscribers, rate, peers) in FANOUT.items():
                for target in (*peers, "gateway"):
                    bench.fanout(load, target, subscribers, rate)
            for target in (*CONNECTS, "gateway"):
                bench.storm("connects, 1,500/s", target, "5000", "1500")
            for target in (*ECHOES, "gateway"):
                bench.echo("echoes, 100 connections", target)
            say(f"real time, round {number}: " + bench.line())
        bench.once()
    return found


class _Bench:
    """
    Runs loads and keeps what they saw.
    """

    def __init__(self, folder: Path, cores: Layout, seconds: str, found: Measured, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._cores = cores
        self._seconds = seconds
        self._found = found
        self._say = say
        self._key = make_key(folder)
        for program in ("wsload", "wscast"):
            command = [need("gcc"), "-O2", "-o", str(folder / program), str(INSTRUMENTS / f"{program}.c")]
            subprocess.run(command, check=True)
        if not NCHAN.exists():
            raise SystemExit("bench: " + MISSING.format("nchan"))
        for package in ("ws", "socket.io"):
            if not (PEERS / "node_modules" / package).is_dir():
                raise SystemExit("bench: " + MISSING.format(package))
        self._targets = {target.name: target for target in self._all()}

    def _all(self) -> Iterator[Target]:
        bare: dict[str, Any] = {
            "subscribe": ["--path", "/sub"],
            "publish": ["--pub-mode", "ws", "--pub-path", "/pub"],
            "connect": ["--path", "/echo"],
            "echo": ["--path", "/echo"],
        }
        yield Target("C send", lambda port: [str(self._folder / "wscast"), str(port), "send"], **bare)
        yield Target("ws", lambda port: [need("node"), str(PEERS / "ws_server.mjs"), str(port)], **bare)
        yield Target("Autobahn", lambda port: [sys.executable, str(PEERS / "autobahn_server.py"), str(port)], **bare)
        posted = {**bare, "publish": ["--pub-mode", "http", "--pub-path", "/pub"]}
        yield Target("nchan", lambda port: nginx_command(self._folder, port, _NCHAN, module=NCHAN), **posted)
        path = ["--path", "/socket.io/?EIO=4&transport=websocket", "--first", "40", "--auto", "2=3"]
        connected = {**bare, "connect": [*path, "--expect", "1", "--expect-match", '40{"sid"']}
        yield Target(
            "Socket.IO", lambda port: [need("node"), str(PEERS / "socketio_server.mjs"), str(port)], **connected
        )
        said = json.dumps({"id": 1, "connect": {"token": token(self._key, device="")}})
        ready = ["--path", "/ws", "--first", f'{said}\n{{"id":2,"subscribe":{{"channel":"c{{c}}"}}}}']
        ready += ["--expect", "1", "--expect-match", '"id":2']
        push = '{"id":1{n},"publish":{"channel":"c0","data":{"t":{t},"n":{n},"p":"{pad}"}}}'
        publisher = ["--pub-mode", "ws", "--pub-path", "/ws", "--pub-first", said, "--pub-expect", "1"]
        yield Target(
            "gateway",
            self._gateway,
            subscribe=[*ready, "--match", '"push"'],
            publish=[*publisher, "--pub-msg", push],
            connect=ready,
            echo=[
                *["--path", "/ws", "--first", said, "--expect", "1"],
                *["--echo-msg", '{"id":1{n},"rpc":{"method":"echo","data":{"n":{n},"p":"{pad}"}}}'],
            ],
        )

    def _gateway(self, port: int, admin: int = 0) -> list[str]:
        (self._folder / "gateway.toml").write_text(f"""
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin or free_port()}:interface=127.0.0.1"]

[[auth.issuer]]
issuer          = "{ISSUER}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[[admin.key]]
name   = "bench"
secret = "{KEY}"
scopes = ["publish"]

[[websocket]]
path = "/ws"
ping = "10m"

[channels."c{{n}}"]
subscribe = "authenticated"
publish   = "authenticated"

[channels.slow]
subscribe   = "authenticated"
publish     = "authenticated"
overflow    = "drop"

[rpc.echo]
echo = true

[log]
format = "json"
""")
        return [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(self._folder / "gateway.toml")]

    @contextmanager
    def _running(self, name: str, admin: int = 0) -> Iterator[tuple[int, list[int]]]:
        port = free_port()
        target = self._targets[name]
        command = self._gateway(port, admin) if admin else target.command(port)
        with pinned(self._cores.measured, command, self._folder, port) as pid:
            yield port, tree(pid)

    def _load(self, port: int, pids: list[int], mode: str, *options: str) -> Any:
        command = [need("taskset"), "-c", str(self._cores.load), str(self._folder / "wsload"), mode]
        command += ["--port", str(port), "--size", SIZE, *options]
        for pid in pids:
            command += ["--pid", str(pid)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        try:
            seen = json.loads(ended.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise SystemExit(f"bench: wsload said nothing: {ended.stderr[-500:]}") from None
        return seen

    def fanout(self, load: str, name: str, subscribers: str, rate: str) -> None:
        """Publications to many."""
        target = self._targets[name]
        with self._running(name) as (port, pids):
            seen = self._load(
                port,
                pids,
                "fanout",
                *target.subscribe,
                *target.publish,
                *["--conns", subscribers, "--pub-rate", rate, "--duration", self._seconds],
            )["fanout"]
        self._keep(load, name, seen["server"]["us_per_delivery"], seen["delivery_us"]["p99"] / 1e3)
        if name == "gateway":
            self._found.wrong += seen["missing"] + seen["out_of_order"]

    def storm(self, load: str, name: str, number: str, rate: str) -> None:
        """Connections."""
        with self._running(name) as (port, pids):
            seen = self._load(port, pids, "storm", *self._targets[name].connect, "--conns", number, "--rate", rate)
        opened = seen["open"]
        if opened["ready"] != int(number):
            raise SystemExit(f"bench: {name}: only {opened['ready']} of {number} connections: {seen['errors']}")
        self._keep(load, name, opened["server"]["us_per_connect"], opened["ready_from_schedule_us"]["p99"] / 1e3)

    def echo(self, load: str, name: str) -> None:
        """One message there and back at a time."""
        with self._running(name) as (port, pids):
            options = [*self._targets[name].echo, "--conns", "100", "--duration", self._seconds]
            seen = self._load(port, pids, "echo", *options)["echo"]
        self._keep(load, name, seen["server"]["us_per_echo"], seen["rtt_us"]["p99"] / 1e3)

    def _keep(self, load: str, name: str, cpu_us: float, p99_ms: float) -> None:
        self._found.cpu_us.setdefault(load, {}).setdefault(name, []).append(cpu_us)
        self._found.p99_ms.setdefault(load, {}).setdefault(name, []).append(p99_ms)

    def line(self) -> str:
        """The last round in a line."""
        return "; ".join(
            f"{load}: " + ", ".join(f"{name} {values[-1]:.1f}" for name, values in names.items())
            for load, names in self._found.cpu_us.items()
        )

    def once(self) -> None:
        """What the gateway alone is measured by."""
        gateway = self._targets["gateway"]
        single = self._found.single
        with self._running("gateway") as (port, pids):
            options = [*gateway.connect, "--conns", "10000", "--rate", "1500", "--duration", "10"]
            seen = self._load(port, pids, "idle", *options)
            single["idle bytes"] = seen["memory"]["rss_per_conn_bytes"]
            single["idle connections"] = seen["open"]["ready"]
        with self._running("gateway") as (port, pids):
            options = [*gateway.subscribe, *gateway.publish, "--conns", "10000", "--rate", "1500", "--src-ips", "4"]
            options += ["--auto", "{}={}"]  # Pings are answered.
            seen = self._load(port, pids, "fanout", *options, "--pub-rate", "0.2", "--duration", "61")
            single["crowd deliveries"] = seen["fanout"]["delivered"]
            single["crowd missing"] = abs(seen["fanout"]["missing"]) + 10_000 - seen["open"]["ready"]
        with self._running("gateway") as (port, pids):
            options = [*gateway.connect, "--conns", "10000", "--rate", "1000"]
            opened = self._load(port, pids, "storm", *options)["open"]
            single["connect p99 ms"] = opened["ready_from_schedule_us"]["p99"] / 1e3
        for name, conns, channels, rate in (
            ("one channel", "1000", "1", "100"),
            ("500 tables", "3000", "500", "500"),
        ):
            admin = free_port()
            with self._running("gateway", admin) as (port, pids):
                body = '{"channel":"c{c}","data":{"t":{t},"n":{n},"p":"{pad}"}}'
                options = [*gateway.subscribe, "--conns", conns, "--channels", channels]
                options += ["--pub-mode", "http", "--pub-port", str(admin), "--pub-path", "/api/publish"]
                options += ["--pub-header", f"X-API-Key: {KEY}", "--pub-msg", body, "--pub-rate", rate]
                fan = self._load(port, pids, "fanout", *options, "--pub-intended", "--duration", self._seconds)[
                    "fanout"
                ]
            single[f"server API p99 ms, {name}"] = fan["delivery_us"]["p99"] / 1e3
            self._found.wrong += fan["missing"] + fan["out_of_order"]
        self._slow()
        self._say("real time, once: " + ", ".join(f"{name} {value:.4g}" for name, value in single.items()))

    def _slow(self) -> None:
        """Readers that never read, in a channel that drops what they do not take."""
        with self._running("gateway") as (port, pids):
            said = json.dumps({"id": 1, "connect": {"token": token(self._key, device="")}})
            options = ["--path", "/ws", "--first", f'{said}\n{{"id":2,"subscribe":{{"channel":"slow"}}}}']
            options += ["--expect", "1", "--expect-match", '"id":2', "--match", '"push"']
            push = '{"id":1{n},"publish":{"channel":"slow","data":{"t":{t},"n":{n},"p":"{pad}"}}}'
            options += ["--pub-mode", "ws", "--pub-path", "/ws", "--pub-first", said, "--pub-expect", "1"]
            options += ["--pub-msg", push, "--size", "50000", "--pub-rate", "60", "--duration", "6"]
            before = resident_bytes(pids)
            most = 0
            process = subprocess.Popen(
                [
                    *[need("taskset"), "-c", str(self._cores.load), str(self._folder / "wsload"), "fanout"],
                    *["--port", str(port), "--conns", str(SLOW + 1), "--slow", str(SLOW), *options],
                ],
                stdout=subprocess.PIPE,
            )
            while process.poll() is None:
                most = max(most, resident_bytes(pids))
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            process.communicate()
            self._found.single["slow reader bytes"] = (most - before) / SLOW


_NCHAN = """
  location /sub { nchan_subscriber websocket; nchan_channel_id c; nchan_message_buffer_length 1; }
  location /pub { nchan_publisher http; nchan_channel_id c; nchan_message_buffer_length 1; }
"""
