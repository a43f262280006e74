"""
What a backend sees of real-time clients that are nobody: nothing, over every way to come and fault of a token.

Each client connects, subscribes, publishes, calls and asks in one breath. One with a good token comes at the end,
and must be seen: a backend that is unreachable would prove nothing.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from bench.machine import layout
from bench.refusals import faults, recording
from bench.targets import BIN, ISSUER, make_key, pinned
from demo.ports import free_port

__all__ = ["Opened", "measure"]

OPENINGS = 5000
AT_ONCE = 50
KEY = "a-key-of-the-bench-to-revoke-with"

CONFIG = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[[admin.key]]
name = "bench"
secret = "{key}"
scopes = ["revoke"]

[upstream.backend]
http = ["http://127.0.0.1:{upstream}"]

[[websocket]]
path = "/ws"
sse = "/sse"
http_stream = "/stream"
emulation = "/emulation"

[realtime]
on_connect = {{ upstream = "backend", http = "POST /on-connect" }}
on_disconnect = {{ upstream = "backend", http = "POST /told" }}
on_subscribe = {{ upstream = "backend", http = "POST /told" }}
on_unsubscribe = {{ upstream = "backend", http = "POST /told" }}

[channels."table:{{table_id}}"]
subscribe = {{ upstream = "backend", http = "POST /may-watch" }}
publish = {{ upstream = "backend", http = "POST /may-say" }}
snapshot = {{ upstream = "backend", http = "POST /state" }}
history = {{ size = 10, ttl = "1m" }}
presence = true

[rpc."*"]
upstream = "backend"
http = "POST /move"

[log]
access = false
"""

BREATH = [
    {"id": 2, "subscribe": {"channel": "table:1"}},
    {"id": 3, "publish": {"channel": "table:1", "data": {}}},
    {"id": 4, "rpc": {"method": "move", "data": {}}},
    {"id": 5, "history": {"channel": "table:1", "limit": 10}},
    {"id": 6, "presence": {"channel": "table:1"}},
    {"send": {"data": {}}},
]


@dataclass
class Opened:
    """
    What was tried and what came of it.

    Attributes:
        seen: Requests that reached the backend.
        outcomes: How often each close code or status.
    """

    faults: int
    ways: int
    tried: int = 0
    seen: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def _breath(token: str) -> str:
    commands = [{"id": 1, "connect": {"token": token}}, *BREATH]
    return "\n".join(json.dumps(command) for command in commands)


async def _by_socket(port: int, text: str, **options: Any) -> str:
    try:
        async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None, open_timeout=20, **options) as socket:
            await socket.send(text)
            async for _ in socket:
                pass
            return str(socket.close_code)
    except ConnectionClosed as closed:
        return str(closed.rcvd.code if closed.rcvd is not None else 1006)
    except WebSocketException as error:
        response = getattr(error, "response", None)
        return str(response.status_code) if response is not None else type(error).__name__
    except ValueError:
        return "not sent"  # No header can hold it.


async def _in_command(port: int, token: str) -> str:
    return await _by_socket(port, _breath(token))


async def _in_header(port: int, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    return await _by_socket(port, _breath(""), additional_headers=headers)


async def _in_protocol(port: int, token: str) -> str:
    protocols: Any = ["centrifuge-json", f"bearer.{token}"]
    return await _by_socket(port, _breath(""), subprotocols=protocols)


async def _by_stream(port: int, token: str) -> str:
    return await asyncio.to_thread(_posted, f"http://127.0.0.1:{port}/stream", _breath(token).encode())


async def _by_events(port: int, token: str) -> str:
    return await asyncio.to_thread(_posted, f"http://127.0.0.1:{port}/sse?cf_connect={quote(_breath(token))}", None)


async def _by_emulation(port: int, token: str) -> str:
    said = {"session": token[:32] or "x", "node": "x", "data": _breath(token)}
    return await asyncio.to_thread(_posted, f"http://127.0.0.1:{port}/emulation", json.dumps(said).encode())


def _posted(url: str, body: bytes | None) -> str:
    try:
        with urlopen(Request(url, body), timeout=20) as answer:
            return f"{answer.status} {b'disconnect' in answer.read()}"
    except HTTPError as error:
        return str(error.code)


WAYS: tuple[Callable[[int, str], Awaitable[str]], ...] = (
    _in_command,
    _in_header,
    _in_protocol,
    _by_stream,
    _by_events,
    _by_emulation,
)


def measure(openings: int = OPENINGS) -> Opened:
    """
    Try them against a gateway of its own.

    Raises:
        SystemExit: a good token did not reach the backend, so nothing was proved.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place, recording() as backend:
        folder = Path(place)
        private = make_key(folder).read_bytes()
        wrong = [
            lines[0].partition("Bearer ")[2]
            for lines in faults(private, (folder / "public.pem").read_bytes()).values()
            if len(lines) == 1 and lines[0].startswith("Authorization: Bearer ")
        ]
        now = int(time.time())
        good = {"iss": ISSUER, "aud": "gateway", "sub": "player-1", "iat": now, "exp": now + 600}
        revoked = jwt.encode({**good, "jti": "stolen"}, private, algorithm="ES256")
        port, admin = free_port(), free_port()
        text = CONFIG.format(port=port, admin=admin, issuer=ISSUER, upstream=backend.port, key=KEY)
        (folder / "gateway.toml").write_text(text)
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(folder / "gateway.toml")]
        with pinned(layout(None).measured, command, folder, port):
            order = Request(
                f"http://127.0.0.1:{admin}/api/revoke", b'{"token_id":"stolen"}', {"X-API-Key": KEY}, method="POST"
            )
            urlopen(order, timeout=20).close()
            opened = Opened(len(wrong) + 1, len(WAYS))
            asyncio.run(_try(port, [*wrong, revoked], openings, opened))
            opened.seen = len(backend.heads)
            seen = asyncio.run(_with_good_token(port, jwt.encode(good, private, algorithm="ES256"), backend))
            if not seen:
                raise SystemExit("bench: a client with a good token did not reach the backend either")
    return opened


async def _try(port: int, tokens: list[str], openings: int, opened: Opened) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(way: Callable[[int, str], Awaitable[str]], token: str) -> None:
        async with gate:
            opened.outcomes[await way(port, token)] += 1
            opened.tried += 1

    pairs = cycle([(way, token) for token in tokens for way in WAYS])
    await asyncio.gather(*(one(*next(pairs)) for _ in range(openings)))


async def _with_good_token(port: int, token: str, backend: Any) -> int:
    async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as socket:
        await socket.send(_breath(token))
        for _ in range(200):
            await asyncio.sleep(0.05)
            if backend.heads:
                break
    return len(backend.heads)
