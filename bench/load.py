"""
The load: wrk, with one request as a browser's application sends it, and what it reports.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.targets import need

__all__ = ["Load", "load", "request_head"]

HEAD_BYTES = 792
"""Nine headers, one of them a bearer token; padded in the cookie."""

_SCRIPT = """
local file = io.open(os.getenv("BENCH_REQUEST"), "rb")
local raw = file:read("*a")
file:close()
request = function() return raw end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"duration_us":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """
    What one burst was answered.

    Attributes:
        failed: Answers that were not 2xx or 3xx, and failures of the connection.
    """

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float


def request_head(path: str, bearer: str, port: int) -> bytes:
    """
    Return the head of a GET that is ``HEAD_BYTES`` long, whatever the token's length.
    """
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
        "Accept: application/json",
        "Accept-Encoding: gzip, deflate, br",
        "Accept-Language: de-DE,de;q=0.9,en;q=0.8",
        "Referer: https://play.example/lobby",
        "Cache-Control: no-cache",
        f"Authorization: Bearer {bearer}",
    ]
    head = "\r\n".join(lines) + "\r\nCookie: c="
    missing = HEAD_BYTES - len(head) - 4
    assert missing > 0, f"the head is {-missing} bytes too long"
    return f"{head}{'x' * missing}\r\n\r\n".encode("ascii")


def load(folder: Path, core: int, port: int, head: bytes, connections: int, seconds: float) -> Load:
    """
    Send the request *head* on so many connections, each as soon as its last answer is there.
    """
    script, raw = folder / "wrk.lua", folder / "request"
    script.write_text(_SCRIPT)
    raw.write_bytes(head)
    ended = subprocess.run(
        [
            *(need("taskset"), "-c", str(core)),
            *(need("wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(script)),
            f"http://127.0.0.1:{port}/",
        ],
        env={"BENCH_REQUEST": str(raw)},
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=True,
    )
    found = json.loads(ended.stdout.rpartition("RESULT ")[2])
    return Load(
        requests=found["requests"],
        seconds=found["duration_us"] / 1e6,
        failed=sum(found[kind] for kind in ("connect", "read", "write", "status", "timeout")),
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
    )
