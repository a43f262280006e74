"""
CPU per HTTP request that becomes a gRPC call, beside Node doing the same with grpc-js.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.load import load, request_head
from bench.machine import Layout, cpu_s, tree
from bench.targets import BIN, ISSUER, MISSING, PEERS, make_key, need, pinned, token
from bench.transcoding import Pair
from bench.transcoding import measure as measure_json
from demo.ports import free_port

__all__ = ["Called", "measure"]

PATH = "/api/players/p-000042"
CONNECTIONS = 50


@dataclass
class Called:
    """
    What was seen.

    Attributes:
        cpu_us: CPU microseconds per request, by target, a value for each round.
        p99_ms: Likewise.
        pairs: JSON beside protobuf's own.
    """

    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    p99_ms: dict[str, list[float]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    def ratio(self) -> float:
        """The median of the gateway's ratios to Node within each round."""
        return median(
            mine / theirs for mine, theirs in zip(self.cpu_us["gateway"], self.cpu_us["node + grpc-js"], strict=True)
        )


def measure(cores: Layout, rounds: int, seconds: float, say: Callable[[str], None]) -> Called:
    """
    Measure both in interleaved rounds.

    Raises:
        SystemExit: a peer is missing, or an answer was wrong.
    """
    if not (PEERS / "node_modules" / "@grpc").is_dir():
        raise SystemExit("bench: " + MISSING.format("grpc-js"))
    found = Called()
    with tempfile.TemporaryDirectory(prefix="bench-") as place, ExitStack() as running:
        folder = Path(place)
        bearer = token(make_key(folder))
        backend = free_port()
        command = [need("node"), str(PEERS / "grpc_backend.mjs"), str(backend)]
        running.enter_context(pinned(cores.load, command, folder, backend))
        _describe(folder)
        targets = {}
        for name, make in (("node + grpc-js", _node), ("gateway", _gateway)):
            port = free_port()
            pid = running.enter_context(pinned(cores.measured, make(folder, port, backend), folder, port))
            targets[name] = port, tree(pid)
        for number in range(-1, rounds):
            for name, (port, pids) in targets.items():
                head = request_head(PATH, bearer, port)
                before = cpu_s(pids)
                answered = load(folder, cores.load, port, head, CONNECTIONS, seconds if number >= 0 else 1.0)
                spent = cpu_s(pids) - before
                if answered.failed or not answered.requests:
                    raise SystemExit(f"bench: {name}: {answered.failed} of {answered.requests} requests failed")
                if number >= 0:  # The first round warms up.
                    found.cpu_us.setdefault(name, []).append(spent / answered.requests * 1e6)
                    found.p99_ms.setdefault(name, []).append(answered.p99_ms)
            if number >= 0:
                say(
                    f"HTTP to gRPC, round {number + 1}: {', '.join(f'{n} {v[-1]:.1f}' for n, v in found.cpu_us.items())} us"
                )
    found.pairs = list(measure_json())
    return found


def _describe(folder: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PEERS}", "--include_imports"]
    command += [f"--descriptor_set_out={folder / 'bench.binpb'}", "bench_call.proto"]
    subprocess.run(command, check=True)


def _node(_folder: Path, port: int, backend: int) -> list[str]:
    return [need("node"), str(PEERS / "node_grpc.mjs"), str(port), str(backend)]


def _gateway(folder: Path, port: int, backend: int) -> list[str]:
    (folder / "gateway.toml").write_text(f"""
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{free_port()}:interface=127.0.0.1"]

[[auth.issuer]]
issuer          = "{ISSUER}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[upstream.players]
grpc        = ["127.0.0.1:{backend}"]
descriptors = "bench.binpb"

[[route]]
path     = "/api/players/{{player_id}}"
methods  = ["GET"]
upstream = "players"
call     = "bench.call.Players/Get"

[log]
format = "json"
""")
    return [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(folder / "gateway.toml")]
