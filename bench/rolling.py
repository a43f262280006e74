"""
A rolling restart: instances behind haproxy are restarted one after another while clients listen and requests are made.

What is counted is what somebody outside would notice: publications that a client missed or got twice, requests that
failed, sessions that did not go on, how long clients were away.
"""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from bench.crowd import Crowd, crowd
from bench.targets import BIN, ISSUER, make_key, token
from demo.children import Children
from demo.ports import free_port

__all__ = ["Rolled", "measure"]

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 600
INSTANCES = 3
REQUESTERS = 4
PERIOD_S = 0.02
WITHIN_S = 60.0
CHANNEL = "room:1"
KEY = "only-for-the-benchmark"

CONFIG = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]
trusted_proxies = ["127.0.0.1"]

[gateway]
min_drain    = "1500ms"
drain_window = "{window}"

[store]
url   = "redis://127.0.0.1:{redis}"
beat  = "500ms"
lease = "1500ms"

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "{key}"

[[admin.key]]
name   = "publisher"
secret = "{secret}"
scopes = ["publish"]

[upstream.backend]
http = ["http://127.0.0.1:{backend}"]

[[route]]
path     = "/api/**"
upstream = "backend"
auth     = "none"

[[websocket]]
path = "/ws"

[channels."room:{{number}}"]
subscribe       = "authenticated"
history         = {{ size = 5000, ttl = "5m" }}
presence        = true
join_leave      = true
join_leave_most = 100000

[log]
access = false
"""


@dataclass
class Rolled:
    """
    What was seen.

    Attributes:
        requests: Made over HTTP, half of them POST.
        failed: Those that were not answered 200, with what came instead.
        published: Publications acknowledged.
        wrong: Publications that one of the clients missed, or got twice, or out of order.
        unrecovered: Returns that were told that they could not be made whole.
        odd: What clients were told that they should not have been: leaves, errors.
        sessions: Sessions in all; as many as clients if each went on.
        codes: How often clients were closed, by code.
        away: How long each absence was, in seconds.
        exits: The exit codes of the instances that were stopped.
        took: How long each took from its signal to its end, in seconds.
    """

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    published: int = 0
    wrong: int = 0
    unrecovered: int = 0
    odd: list[Any] = field(default_factory=list)
    sessions: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    away: list[float] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


class _Fleet:
    """
    Instances, Redis and haproxy, as processes.
    """

    def __init__(self, folder: Path, number: int, window: str, backend: int) -> None:
        self.folder = folder
        self.children = Children(folder, folder)
        free: list[int] = []
        while len(free) < 3 + 2 * number:
            port = free_port()
            free += [port] if port not in free else []
        self.port, self.state, redis, *rest = free
        self.ports, self.admins = rest[:number], rest[number:]
        self.key = make_key(folder)
        for index in range(number):
            (folder / f"gateway-{index}.toml").write_text(
                CONFIG.format(
                    port=self.ports[index],
                    admin=self.admins[index],
                    window=window,
                    redis=redis,
                    issuer=ISSUER,
                    key=folder / "public.pem",
                    secret=KEY,
                    backend=backend,
                )
            )
        self._start_all(redis)

    def _start_all(self, redis: int) -> None:
        server = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.children.start("redis", server, {})
        for index in range(len(self.ports)):
            self.start(index)
        for index in range(len(self.ports)):
            self.until_ready(self.ports[index])
        # The configuration that is shipped, with one line more for each further instance.
        text = (ROOT / "deploy" / "haproxy.cfg").read_text()
        for index, port in enumerate(self.ports[2:], 3):
            text += f"    server gateway-{index} 127.0.0.1:{port}\n"
        (self.folder / "haproxy.cfg").write_text(text)
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if program is None:
            raise SystemExit("haproxy is missing. As root: apt-get install haproxy")
        told = {
            "HAPROXY_CLIENTS": f"127.0.0.1:{self.port}",
            "HAPROXY_STATS": f"127.0.0.1:{self.state}",
            "GATEWAY_1": f"127.0.0.1:{self.ports[0]}",
            "GATEWAY_2": f"127.0.0.1:{self.ports[1]}",
        }
        self.children.start("haproxy", [program, "-db", "-f", "haproxy.cfg"], told)
        self.until_ready(self.port)

    def start(self, index: int) -> None:
        """Start an instance."""
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", f"gateway-{index}.toml"]
        self.children.start(f"gateway-{index}", command, {})

    def restart(self, index: int, seen: Rolled) -> None:
        """Have an instance drain and end, start it again, and wait until haproxy sends clients there."""
        began = time.monotonic()
        seen.exits.append(self.children.end(f"gateway-{index}"))
        seen.took.append(time.monotonic() - began)
        self.start(index)
        self.until_ready(self.ports[index])
        up = f'haproxy_server_status{{proxy="gateways",server="gateway-{index + 1}",state="UP"}} 1'
        _until(f"haproxy sees gateway-{index + 1}", lambda: up in _get(self.state, "/metrics"))

    def stop(self) -> None:
        """End them all, the instances together."""
        for index in range(len(self.ports)):
            self.children.ask_to_end(f"gateway-{index}")
        self.children.stop()

    def until_ready(self, port: int) -> None:
        """Wait until /ready says yes."""

        def look() -> bool:
            ended = self.children.ended()
            assert not ended, f"{ended} ended; {self.children.said(ended)}"
            return bool(_get(port, "/ready"))

        _until(f"/ready on {port}", look)


def _until(what: str, look: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: not within {WITHIN_S:.0f} s: {what}")
        time.sleep(0.05)


_open = build_opener(ProxyHandler({})).open


def _get(port: int, path: str) -> str:
    try:
        with _open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _publish(fleet: _Fleet, seen: Rolled, ending: threading.Event) -> None:
    """Publish numbers, one after the other, by whichever instance answers; each is tried until one has taken it."""
    admins = itertools.cycle(fleet.admins)
    admin = next(admins)
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
    while not ending.is_set():
        number = seen.published
        body = {"channel": CHANNEL, "data": number, "idempotency_key": f"n{number}"}
        try:
            connection.request(
                "POST", "/api/publish", json.dumps(body), {"X-API-Key": KEY, "Host": f"127.0.0.1:{admin}"}
            )
            answer = json.loads(connection.getresponse().read())
            taken = "offset" in answer.get("result", {})
        except (OSError, http.client.HTTPException, ValueError):
            taken = False
        if taken:
            seen.published += 1
            time.sleep(PERIOD_S)
        else:
            connection.close()
            admin = next(admins)
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
            time.sleep(0.01)
    connection.close()


def _request(port: int, seen: Rolled, ending: threading.Event, lock: threading.Lock) -> None:
    """Make requests on a connection that is kept, every other one a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for number in itertools.count():
        if ending.is_set():
            break
        try:
            if number % 2:
                connection.request("POST", "/api/thing", b"x" * 100)
            else:
                connection.request("GET", "/api/thing")
            answer = connection.getresponse()
            body = answer.read()
            what = "" if (answer.status, body) == (200, b"ok") else f"{answer.status} {body[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            what = repr(error)
            connection.close()
        with lock:
            seen.requests += 1
            if what:
                seen.failed.append(what)
        time.sleep(0.005)
    connection.close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: connections that are kept end with the gateway that keeps them."""


@contextmanager
def _backend() -> Iterator[int]:
    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = _Quiet(("127.0.0.1", 0), Handle)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def measure(clients: int = CLIENTS, instances: int = INSTANCES, window: str = "10s") -> Rolled:
    """
    Restart each of *instances* once, under load.

    Args:
        window: ``gateway.drain_window``.
    """
    seen = Rolled()
    ending, lock = threading.Event(), threading.Lock()
    with tempfile.TemporaryDirectory(prefix="bench-") as place, _backend() as backend:
        fleet = _Fleet(Path(place), instances, window, backend)
        try:
            bearers = [token(fleet.key, subject=f"user{number}", device=f"device{number}") for number in range(clients)]
            with crowd(f"ws://127.0.0.1:{fleet.port}/ws", bearers, CHANNEL) as people:
                working = [threading.Thread(target=_publish, args=(fleet, seen, ending))]
                working += [
                    threading.Thread(target=_request, args=(fleet.port, seen, ending, lock)) for _ in range(REQUESTERS)
                ]
                for thread in working:
                    thread.start()
                try:
                    for index in range(instances):
                        fleet.restart(index, seen)
                    people.until("all are back", lambda: people.here() == clients)
                finally:
                    ending.set()
                    for thread in working:
                        thread.join()
                people.until("all have heard all", lambda: all(_heard(people, seen)), 10.0)
        finally:
            fleet.stop()
    _judge(people, seen)
    return seen


def _heard(people: Crowd, seen: Rolled) -> Iterator[bool]:
    for member in people.members:
        yield bool(member.got) and member.got[-1] >= seen.published - 1


def _judge(people: Crowd, seen: Rolled) -> None:
    for member in people.members:
        expected = list(range(seen.published))
        if member.got != expected:
            seen.wrong += sum((Counter(member.got) - Counter(expected)).values())
            seen.wrong += sum((Counter(expected) - Counter(member.got)).values())
            seen.wrong += sum(later < earlier for earlier, later in itertools.pairwise(member.got))
        seen.unrecovered += member.unrecovered
        seen.odd += member.wrong
        seen.sessions += len(set(member.sessions))
        seen.codes.update(code for _, code in member.closings)
        seen.away += member.away
