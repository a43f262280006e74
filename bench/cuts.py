"""
Clients whose connections are cut again and again while a channel goes on: what they got, in order and once, or not.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.machine import layout
from bench.targets import BIN, ISSUER, make_key, pinned, token
from demo.ports import free_port

__all__ = ["Cut", "measure"]

CLIENTS = 25
CUTS = 500
PERIOD_S = 0.01
CHANNEL = "table:1"

CONFIG = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[[websocket]]
path = "/ws"

[channels."table:{{table_id}}"]
subscribe = "authenticated"
publish   = "authenticated"
history   = {{ size = 5000, ttl = "5m" }}

[log]
access = false
"""


@dataclass
class Cut:
    """
    What was seen.

    Attributes:
        published: Publications in all.
        wrong: Publications that one of the clients missed, or got twice, or out of order.
        unrecovered: Returns that were told that they could not be made whole.
    """

    cuts: int = 0
    published: int = 0
    received: int = 0
    wrong: int = 0
    unrecovered: int = 0


class _Client:
    """
    One that keeps its position, as an SDK does.
    """

    def __init__(self, url: str, bearer: str, seen: Cut, rng: random.Random) -> None:
        self._url = url
        self._bearer = bearer
        self._seen = seen
        self._rng = rng
        self.offset = -1
        self.epoch = ""
        self.got: list[int] = []

    async def run(self, cuts: int, until: asyncio.Event) -> None:
        """Listen, and be cut so often; then listen until the end."""
        for number in range(cuts + 1):
            try:
                async with connect(self._url, proxy=None, open_timeout=30, ping_interval=None) as socket:
                    await self._begin(socket)
                    life = asyncio.create_task(self._listen(socket))
                    if number == cuts:
                        await until.wait()
                        await asyncio.sleep(1.0)
                    else:
                        await asyncio.sleep(self._rng.uniform(0.0, 0.2))
                        self._seen.cuts += 1
                    socket.transport.abort()
                    await asyncio.gather(life, return_exceptions=True)
            except (OSError, WebSocketException):
                continue

    async def _begin(self, socket: Any) -> None:
        subscribe: dict[str, Any] = {"channel": CHANNEL}
        if self.epoch:
            subscribe |= {"recover": True, "offset": self.offset, "epoch": self.epoch}
        commands = [{"id": 1, "connect": {"token": self._bearer}}, {"id": 2, "subscribe": subscribe}]
        await socket.send("\n".join(json.dumps(command) for command in commands))

    async def _listen(self, socket: Any) -> None:
        async for text in socket:
            for line in text.splitlines():
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        result = message.get("subscribe")
        if result is not None:
            if self.epoch and not result.get("recovered"):
                self._seen.unrecovered += 1
            for publication in result.get("publications", ()):
                self._publication(publication)
            self.offset, self.epoch = max(self.offset, result.get("offset", 0)), result["epoch"]
        push = message.get("push", {})
        if "pub" in push:
            self._publication(push["pub"])

    def _publication(self, publication: dict[str, Any]) -> None:
        self.got.append(publication["data"])
        self.offset = publication["offset"]


async def _run(port: int, bearer: str, cuts: int, seed: int) -> Cut:
    seen = Cut()
    url = f"ws://127.0.0.1:{port}/ws"
    until = asyncio.Event()
    clients = [_Client(url, bearer, seen, random.Random(seed * 1000 + number)) for number in range(CLIENTS)]
    running = [asyncio.create_task(client.run(cuts // CLIENTS, until)) for client in clients]
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": bearer}}))
        await socket.recv()
        listening = asyncio.create_task(_drain(socket))
        while seen.cuts < (cuts // CLIENTS) * CLIENTS:
            command = {"id": seen.published + 2, "publish": {"channel": CHANNEL, "data": seen.published}}
            await socket.send(json.dumps(command))
            seen.published += 1
            await asyncio.sleep(PERIOD_S)
        until.set()
        await asyncio.gather(*running)
        listening.cancel()
    for client in clients:
        seen.received += len(client.got)
        # Whoever came late begins where it came; from there on nothing may be missing or come twice.
        expected = list(range(client.got[0], seen.published)) if client.got else []
        if client.got != expected:
            seen.wrong += sum(one != other for one, other in zip(client.got, expected, strict=False))
            seen.wrong += abs(len(client.got) - len(expected))
    return seen


async def _drain(socket: Any) -> None:
    async for _ in socket:
        pass


def measure(cuts: int = CUTS, seed: int = 1) -> Cut:
    """
    Cut so often, spread over ``CLIENTS`` clients of a gateway of its own.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        key = make_key(folder)
        port = free_port()
        (folder / "gateway.toml").write_text(CONFIG.format(port=port, admin=free_port(), issuer=ISSUER))
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", str(folder / "gateway.toml")]
        with pinned(layout(None).measured, command, folder, port):
            return asyncio.run(_run(port, token(key), cuts, seed))
