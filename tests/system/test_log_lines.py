"""
What a running gateway writes: a line for each request whatever became of it, and nothing that holds it up.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import struct
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.redis.server import RedisServer
from tests.system.backend import Backend
from tests.system.processes import Running, ask, eventually, running, token
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from demo.ports import free_port

RULES = """
[tracing]
otlp = "https://127.0.0.1:{nobody_tls}"      # speaks no TLS, of which gRPC's C core complains
sample = 1
delay = "50ms"

[limits]
max_body = "1KiB"

[upstream.nobody]
http = ["http://127.0.0.1:{nobody}"]

[[route]]
path = "/nobody/**"
upstream = "nobody"
auth = "none"

[[websocket]]
path = "/ws"
sse = "/sse"
emulation = "/emulation"
origins = ["https://play.example"]
"""


def send(port: int, *pieces: bytes, until: bytes = b"", reset: bool = False) -> bytes:
    """Send bytes as they are; return what came until the other side closed, or until *until* has come."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        for piece in pieces:
            raw.sendall(piece)
        while not (until and until in got) and not reset:
            some = raw.recv(65536)
            if not some:
                break
            got += some
        if reset:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return got


def head(path: str, *more: str, method: str = "GET", close: bool = True, host: str = "gw.example") -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *more, *(["Connection: close"] if close else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def test_each_request_is_one_line(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    Answered, refused, malformed, abandoned, cut short, upgraded: there is exactly one line for each request.
    """
    body = backend.upstream + RULES.format(nobody=free_port(), nobody_tls=backend.port)
    sent: Counter[str] = Counter()
    malformed = 0
    with running(twistd, tmp_path, body) as served:
        port = served.port
        bearer = f"Authorization: Bearer {token(gateway, tmp_path)}"

        def ask_for(path: str, *more: str, tail: bytes = b"", method: str = "GET", status: int) -> None:
            sent[path] += 1
            answer = send(port, head(path, *more, method=method), tail)
            assert answer.startswith(b"HTTP/1.1 %d " % status), (path, answer[:300])

        for number in range(3):
            ask_for(f"/api/{number}", bearer, status=200)
        ask_for("/api/head", bearer, method="HEAD", status=200)
        ask_for("/api/put", bearer, "Content-Length: 2", method="PUT", tail=b"{}", status=200)
        ask_for("/api/no-token", status=401)
        ask_for("/api/bad-token", "Authorization: Bearer x.y.z", status=401)
        ask_for("/api/no-token-100", "Expect: 100-continue", "Content-Length: 9", method="POST", status=401)
        ask_for("/api/large", bearer, "Content-Length: 99999", method="POST", status=413)
        ask_for("/nowhere", status=404)
        ask_for("/nobody/is-there", status=503)
        ask_for("/ws", "Origin: https://evil.example", status=426)
        pipelined = [head(f"/api/pipelined/{number}", bearer, close=number == 4) for number in range(5)]
        assert send(port, *pipelined).count(b"HTTP/1.1 200 ") == 5
        sent.update({f"/api/pipelined/{number}": 1 for number in range(5)})
        for text in (
            b"nonsense\r\n\r\n",
            b"GET /api/x HTTP/1.1\r\nHost: a\r\nBad Name: 1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        ):
            assert b" 400 " in send(port, text)
            malformed += 1
        twice = head("/api/twice", "Content-Length: 1", "Transfer-Encoding: chunked", method="POST")
        assert b" 400 " in send(port, twice)
        malformed += 1
        # Left before the answer, in the middle of a body, and in the middle of a stream.
        send(port, head("/api/slow/1", bearer), reset=True)
        backend.asked.clear()
        send(port, head("/api/upload", bearer, "Content-Length: 100", method="POST"), b"{", reset=True)
        sent.update(["/api/slow/1", "/api/upload"])
        page: Any = {"origin": "https://play.example", "subprotocols": ["centrifuge-json"]}
        with connect(f"ws://127.0.0.1:{port}/ws", **page) as ws:
            ws.send('{"id":1,"connect":{}}')
        sent["/ws"] += 1
        connecting = "/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D"
        send(port, head(connecting, "Accept: text/event-stream"), until=b"data:", reset=True)
        sent["/sse"] += 1
        eventually("all lines", lambda: len(requests(served)) >= sent.total() + malformed, within_s=20)
        served.hear("tracing.unsent")
        assert served.end() == 0
    lines = requests(served)
    unreadable = [line for line in lines if line["route"] == "_none" and line["flag"] == "BR"]
    assert Counter(line["path"] for line in lines if line not in unreadable) == sent
    assert len(unreadable) == malformed
    by_path = {line["path"]: line for line in lines}
    assert by_path["/api/1"]["attempts"] == 1
    assert (by_path["/api/slow/1"]["status"], by_path["/api/slow/1"]["flag"]) == (499, "DC")
    assert by_path["/api/upload"]["whole"] is False
    assert all(line["duration_ms"] >= 0 and line["client"] == "127.0.0.1" for line in lines)
    assert served.complaints() == ""


def requests(served: Running) -> list[dict[str, Any]]:
    """Its access lines, but those of asking whether it is ready."""
    return [{"flag": "", **line} for line in served.events("request") if line["path"] != "/ready"]


SECRETS = """
[log]
level = "debug"

[auth]
cookie = "session"
query = "t"

[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = ["HS256"]
secret     = "{issuer}"

[[admin.key]]
name   = "ops"
secret = "{admin}"
scopes = ["*"]

[store]
url = "redis://127.0.0.1:{port}"
username = "user-of-redis"
password = "{redis}"

[tracing]
otlp = "http://127.0.0.1:{nobody}"
headers = {{ Authorization = "{collector}" }}
sample = 1
delay = "50ms"
timeout = "200ms"

[upstream.told]
http = ["http://127.0.0.1:{nobody}"]

[[route]]
path = "/told/**"
upstream = "told"
auth = "none"

[[websocket]]
path = "/ws"
credentials = ["command", "header", "subprotocol", "query", "cookie"]

[channels."secret:{{name}}"]
subscribe = "token"
publish = "authenticated"
history = {{ size = 10, ttl = "1m" }}

[rpc.tell]
upstream = "told"
http = "POST /tell"

[privacy]
user = "hash"
key = "{privacy}"
"""


class Canaries(dict[str, str]):
    """Secrets by where they are used; each is made at first sight and occurs nowhere else."""

    def __missing__(self, name: str) -> str:
        made = self[name] = f"canary-{name}-{secrets.token_hex(12)}"
        return made

    def found_in(self, text: str) -> set[str]:
        """Those that stand in *text*, as they are or as Base64."""
        return {name for name, secret in self.items() if any(form in text for form in _forms(secret.encode()))}


def _forms(secret: bytes) -> Iterator[str]:
    """As it is, and as it looks inside Base64, wherever it begins there."""
    yield secret.decode()
    for before in range(3):
        yield b64encode(b"." * before + secret).decode()[4:-4]


def test_no_secret_is_ever_written(twistd: str, tmp_path: Path) -> None:
    """
    Credentials, tokens, bodies, queries and the configuration's secrets are in no line at any level, whatever fails.
    """
    canary = Canaries()
    sessions = 0
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    body = SECRETS.format(
        issuer=canary["issuer"],
        admin=canary["admin"],
        redis=canary["redis"],
        collector=canary["collector"],
        privacy=canary["privacy"],
        port=redis.port,
        nobody=free_port(),
    )
    redis.ask("ACL", "SETUSER", "user-of-redis", "on", f">{canary['redis']}", "allkeys", "allchannels", "+@all")

    def token_for(**claims: Any) -> str:
        now = int(time.time())
        said = {"iss": "https://id.example", "aud": "gateway", "sub": canary["user"], "iat": now, "exp": now + 60}
        made = jwt.encode({**said, "name": canary["claim"], **claims}, canary["issuer"], "HS256")
        canary[f"token-{len(canary)}"] = made.rpartition(".")[2]
        return made

    try:
        with running(twistd, tmp_path, body, issuer="") as served:
            port = served.port
            for where in ("Authorization: Bearer {}", "Authorization: Basic {}", "Cookie: session={}", "X-API-Key: {}"):
                send(port, head("/ws", where.format(canary["bad-credential"]), where.format(token_for(exp=1))))
                send(
                    port,
                    head("/told/x", where.format(token_for()), "Content-Length: 99", method="POST"),
                    body_of(canary),
                )
                send(port, head("/bad", where.format(canary["bad-head"]), "Bad Header: 1"))
                send(
                    served.admin, head("/api/info", where.format(canary["bad-admin"]), method="POST", host="localhost")
                )
                send(served.admin, head("/config", where.format(canary["admin"]), host="localhost"))
            send(port, head(f"/told/x?t={canary['query']}&x={token_for()}#{canary['fragment']}"))
            send(port, f"GET /told/x?t={canary['broken-query']}\x01 HTTP/1.1\r\n\r\n".encode())
            ask(served.admin, "/api/publish", bearer=canary["admin"], method="POST")
            for first in (
                {"connect": {"token": canary["bad-connect"]}},
                {"connect": {"token": [canary["odd-connect"]]}},
                {"connect": canary["no-connect"]},
                {"connect": {"token": token_for(), "data": {"pin": canary["connect-data"]}, "name": "tester"}},
            ):
                for then in (
                    {"subscribe": {"channel": "secret:x", "token": canary["bad-sub"]}},
                    {"subscribe": {"channel": "secret:x", "token": token_for(channel="secret:x")}},
                    {"publish": {"channel": "secret:x", "data": {"pin": canary["publish"]}}},
                    {"rpc": {"method": "tell", "data": {"pin": canary["rpc"]}}},
                    {"refresh": {"token": canary["bad-refresh"]}},
                    {"refresh": {"token": [canary["odd-refresh"]]}},
                ):
                    with connect(f"ws://127.0.0.1:{port}/ws?t={canary['ws-query']}") as ws, suppress(ConnectionClosed):
                        for number, command in enumerate((first, then), 1):
                            ws.send(json.dumps({"id": number, **command}))
                            sessions += '"connect"' in str(ws.recv(timeout=10))
            for text in (f'{{"id":1,"connect":{{"token":"{canary["cut"]}"', canary["nonsense"]):
                with connect(f"ws://127.0.0.1:{port}/ws") as ws, suppress(ConnectionClosed):
                    ws.send(text)
                    ws.recv(timeout=10)
            redis.ask("ACL", "SETUSER", "user-of-redis", "resetpass", ">another")
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
            served.hear("store.lost")
            (tmp_path / "gateway.toml").write_text(
                (tmp_path / "gateway.toml").read_text().replace("[log]", f'[log]\nodd = "{canary["refused"]}"')
            )
            served.signal(signal.SIGHUP)
            served.hear("config.refused")
            served.hear("tracing.unsent")
            assert served.end() == 0
    finally:
        redis.stop()
    text = "\n".join(served.lines()) + served.complaints()
    assert canary.found_in(text) == set()
    assert len(canary) > 40
    assert len(served.events("store.lost")) == 1
    assert len(served.events("session.ended")) == sessions == 6
    told = {json.loads(line)["event"] for line in served.lines()}
    assert told >= {"request", "session.ended", "admin.refused", "client.malformed", "store.lost"}


def body_of(canary: Canaries) -> bytes:
    """99 bytes with a secret."""
    return json.dumps({"password": canary["body"]}).encode().ljust(99)


def flood(port: int, path: str, count: int) -> None:
    """Ask *count* times for what is not there, on one connection, fifty at a time."""
    request = head(path, "User-Agent: " + "a" * 250, close=False)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        answered, got = 0, b""
        for _ in range(count // 50):
            raw.sendall(request * 50)
            answered += 50
            while got.count(b"HTTP/1.1 404 ") < 50 or not got.endswith(b"}"):
                got += raw.recv(1 << 20)
            got = b""
    assert answered == count


def dropped(served: Running) -> int:
    """Lines lost so far."""
    found = re.search(r"^gateway_log_dropped_total (\S+)$", ask(served.admin, "/metrics").body.decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_a_pipe_that_nobody_reads_holds_up_no_request(twistd: str, tmp_path: Path) -> None:
    """
    Every request is answered; lines beyond the bound are counted, and told of to a reader that comes back.
    """
    reader, writer = os.pipe()
    got = b""

    def read() -> None:
        nonlocal got
        while some := os.read(reader, 1 << 20):
            got += some

    try:
        with running(twistd, tmp_path, stdout=writer) as served:
            os.close(writer)
            flood(served.port, "/" + "x" * 1000, 7500)
            lost = dropped(served)
            assert lost > 100
            assert ask(served.port, "/ready").status == 200
            reading = threading.Thread(target=read, daemon=True)
            reading.start()
            eventually("what was lost is told", lambda: b'"log.dropped"' in got)
            assert served.end() == 0
            reading.join(20)
    finally:
        os.close(reader)
    lines = [json.loads(line) for line in got.splitlines()]
    told = [line["lines"] for line in lines if line["event"] == "log.dropped"]
    assert told[0] >= lost
    assert sum(len(line.get("path", "")) > 1000 for line in lines) + sum(told) >= 7500
    assert lines[-1]["event"] == "gateway.stopped"
    assert served.complaints() == ""


@pytest.mark.parametrize("options", [(), ("--logfile=/dev/full",)])
def test_a_full_disk_holds_up_no_request(twistd: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """
    With no room for a single line, on standard output or in the log file, it serves, reloads, counts, and ends well.
    """
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with running(twistd, tmp_path, stdout=full, options=options) as served:
            flood(served.port, "/nowhere", 500)
            served.signal(signal.SIGHUP)
            eventually("all are counted", lambda: dropped(served) >= 500)
            assert ask(served.port, "/ready").status == 200
            assert served.end() == 0
    finally:
        os.close(full)
    assert served.complaints() == ""
