"""
What is measured: the gateway and its peers, each a proxy in front of one and the same backend.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.machine import Layout, tree
from demo.ports import free_port

__all__ = [
    "BIN",
    "ISSUER",
    "MISSING",
    "PEERS",
    "Target",
    "backend",
    "make_key",
    "need",
    "nginx_command",
    "pinned",
    "targets",
    "token",
]

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
BIN = Path(sys.executable).parent
START_S = 20.0
ISSUER = "https://id.bench.example"
SMALL = (
    '{"id":"alice","name":"Alice","country":"DE","rating":1532,"games":[{"id":"g-1","players":4,"stake":250},'
    '{"id":"g-2","players":2,"stake":1000},{"id":"g-3","players":6,"stake":50}],"friends":["bob","carol","dave",'
    '"erin","frank"],"badges":["early","fair","loyal"],"motto":"all in, or not at all","version":17}'
)
"""Padded to 331 bytes, the size that earlier measurements of this kind had."""

MISSING = "{} is missing. Install the peers: make bench-peers"


@dataclass(frozen=True, slots=True)
class Target:
    """
    Attributes:
        name: In tables.
        port: Where it listens.
        pids: Its processes.
        version: What it is exactly.
    """

    name: str
    port: int
    pids: list[int]
    version: str


def need(program: str) -> str:
    """
    Return the path of *program*.

    Raises:
        SystemExit: it is not installed; a peer that is missing fails the run instead of losing its row.
    """
    found = shutil.which(program)
    if found is None:
        raise SystemExit("bench: " + MISSING.format(program))
    return found


@contextmanager
def pinned(core: int | str, command: list[str], folder: Path, port: int) -> Iterator[int]:
    """
    Run *command* on *core* (or several, ``0,1``) until the block ends; it listens on *port* when the block begins.
    """
    with (folder / f"{Path(command[0]).name}-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [need("taskset"), "-c", str(core), *command],
            cwd=folder,
            env=os.environ | {"NODE_ENV": "production"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: {command[0]} does not listen; see {log.name}:\n{Path(log.name).read_text()}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _said(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[.\d]*", ended.stdout + ended.stderr)
    return found[0] if found else "?"


def nginx_command(
    folder: Path,
    port: int,
    server: str,
    upstream: str = "",
    *,
    module: Path | None = None,
    log: str = "access_log off;",
) -> list[str]:
    """
    Write a configuration; return the command that serves by it on *port*.
    """
    name = f"nginx-{port}"
    (folder / name).mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / name / "nginx.conf").write_text(f"""
{f"load_module {module};" if module is not None else ""}
daemon off; worker_processes 1; {user} pid {folder}/{name}/pid; error_log {folder}/{name}/error.log;
events {{ worker_connections 4096; }}
http {{
  {log} keepalive_timeout 75s; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}/{name}/body; proxy_temp_path {folder}/{name}/proxy;
  fastcgi_temp_path {folder}/{name}/f; uwsgi_temp_path {folder}/{name}/u; scgi_temp_path {folder}/{name}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port} backlog=4096; {server} }}
}}
""")
    return [need("nginx"), "-p", f"{folder}/{name}", "-c", f"{folder}/{name}/nginx.conf"]


@contextmanager
def backend(folder: Path, core: int) -> Iterator[int]:
    """
    Run what every proxy stands in front of: nginx with 331 bytes of JSON, and a file of 1 MiB. Yields its port.
    """
    port = free_port()
    files = folder / "files"
    files.mkdir()
    (files / "big").write_bytes(os.urandom(1024 * 1024))
    small = SMALL[:-1] + f',"pad":"{"x" * (331 - len(SMALL) - 9)}"}}'
    assert len(small) == 331
    server = f"""
    location /api/small {{ default_type application/json; return 200 '{small}'; }}
    location /api/big {{ alias {files}/big; default_type application/octet-stream; }}
    location /v1/traces {{ default_type application/x-protobuf; return 200 ''; }}
    location / {{ return 200 'ok'; }}"""
    with pinned(core, nginx_command(folder, port, server), folder, port):
        yield port


def make_key(folder: Path) -> Path:
    """
    Write a new key for ES256, and its public half beside it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private


def token(
    private: Path, lifetime_s: int = 12 * 3600, *, subject: str = "player-4711", device: str = "b7ad6b7169203331"
) -> str:
    """
    Return a token that the gateway takes: an access token of usual size.

    Args:
        device: Its ``sid``. Without one each connection is a device of its own.
    """
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "gateway",
        "sub": subject,
        "iat": now,
        "exp": now + lifetime_s,
        "jti": "0af7651916cd43dd8448eb211c80319c",
        "scope": "play chat",
    }
    if device:
        claims["sid"] = device
    return jwt.encode(claims, private.read_bytes(), algorithm="ES256")


WATCHED = """
[tracing]
otlp     = "http://127.0.0.1:{upstream}"
protocol = "http"
sample   = 0.01

[limits.policy.each]
rate  = "1000000/s"
burst = 1000000
key   = "address"
"""
"""Spans of a hundredth, and a limit that refuses nobody."""


def gateway(folder: Path, upstream: int, more: str = "") -> Callable[[int], list[str]]:
    """
    Write the gateway's configuration: everything that it does by default, nothing left out, and *more*.
    """

    def command(port: int) -> list[str]:
        path = folder / f"gateway-{port}.toml"
        path.write_text(f"""
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{free_port()}:interface=127.0.0.1"]

[[auth.issuer]]
issuer          = "{ISSUER}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[upstream.backend]
http   = ["http://127.0.0.1:{upstream}"]
health = "/health"
max_connections = 1024
idle_connections = 1024

[[route]]
path     = "/api/**"
upstream = "backend"
max_body = "4GiB"

[log]
format = "json"
{more}""")
        return [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(path)]

    return command


@contextmanager
def targets(folder: Path, cores: Layout, upstream: int) -> Iterator[list[Target]]:
    """
    Run the gateway and every peer, all on the measured core, in front of the backend at *upstream*.

    Raises:
        SystemExit: one of them is not installed or does not start.
    """
    url = f"http://127.0.0.1:{upstream}"
    if not (PEERS / "node_modules" / "undici").is_dir():
        raise SystemExit("bench: " + MISSING.format("undici"))

    def nginx(port: int) -> list[str]:
        behind = f"upstream backend {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}"
        server = """location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"""
        return nginx_command(folder, port, server, behind)

    def watched_nginx(port: int) -> list[str]:
        behind = f"""upstream backend {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
          limit_req_zone $binary_remote_addr zone=each:10m rate=1000000r/s;"""
        server = """location / { limit_req zone=each burst=1000000 nodelay; proxy_pass http://backend; proxy_http_version 1.1;
          proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"""
        log = f"""
          log_format lines escape=json '{{"ts":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
            '"path":"$uri","status":$status,"bytes_out":$body_bytes_sent,"duration_s":$request_time,"ua":"$http_user_agent",'
            '"upstream":"$upstream_addr","ttfb_s":"$upstream_header_time"}}';
          access_log {folder}/nginx-{port}/access.log lines buffer=64k flush=1s;"""
        return nginx_command(folder, port, server, behind, log=log)

    def haproxy(port: int) -> list[str]:
        (folder / "haproxy.cfg").write_text(f"""
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 30s
  http-reuse always
  option forwardfor
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend backend
backend backend
  server one 127.0.0.1:{upstream} pool-max-conn 256
""")
        return [need("haproxy"), "-f", str(folder / "haproxy.cfg"), "-db"]

    def node(port: int) -> list[str]:
        return [need("node"), str(PEERS / "node_proxy.mjs"), str(port), url]

    def stock(port: int) -> list[str]:
        return [sys.executable, str(PEERS / "twisted_proxy.py"), str(port), url]

    undici = json.loads((PEERS / "node_modules" / "undici" / "package.json").read_text())["version"]
    known: list[tuple[str, Callable[[int], list[str]], str]] = [
        ("nginx", nginx, f"nginx {_said(need('nginx'), '-v')}"),
        ("haproxy", haproxy, f"haproxy {_said(need('haproxy'), '-v')}"),
        ("node", node, f"Node {_said(need('node'), '-v')}, undici {undici}"),
        ("twisted.web + treq", stock, f"Twisted {version('twisted')}, treq {version('treq')}, epoll"),
        ("gateway", gateway(folder, upstream), f"Python {sys.version.split()[0]}"),
        ("nginx, watched", watched_nginx, "with a JSON access log and limit_req"),
        (
            "gateway, watched",
            gateway(folder, upstream, WATCHED.format(upstream=upstream)),
            "with spans of a hundredth and a limit",
        ),
    ]
    with ExitStack() as running:
        made = []
        for name, command, what in known:
            port = free_port()
            pid = running.enter_context(pinned(cores.measured, command(port), folder, port))
            made.append(Target(name, port, tree(pid), what))
        yield made
