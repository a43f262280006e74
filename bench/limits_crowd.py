"""
Clients that come back all at once, as SDKs do, and one that does not listen.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Flood", "Herd", "flood", "herd"]

PATIENCE_S = 5.0
"""How long an SDK waits for the reply to its ``connect``."""

LEAST_S, MOST_S = 0.5, 20.0
"""Between an SDK's attempts: at random up to twice as long each time (full jitter)."""

GIVE_UP_S = 120.0

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@dataclass
class Herd:
    """
    What became of them.

    Attributes:
        back: Those that are connected.
        stranded: Times that a client was let in and then not served in time.
        refused: Openings that were told to come back.
        last_s: When the last one was back.
    """

    port: int
    bearers: Sequence[str] = field(repr=False)
    clients: int
    back: int = 0
    stranded: int = 0
    refused: int = 0
    last_s: float = 0.0


def frame(text: str) -> bytes:
    """
    Make a client's text message; the mask is zeros.
    """
    data = text.encode()
    length = (
        struct.pack("!BB", 0x81, 0x80 | len(data)) if len(data) < 126 else struct.pack("!BBH", 0x81, 0xFE, len(data))
    )
    return length + b"\0\0\0\0" + data


def herd(crowd: Herd) -> None:
    """
    Let them come, until all are back.
    """
    asyncio.run(_herd(crowd))


async def _herd(crowd: Herd) -> None:
    began = time.monotonic()
    kept: list[asyncio.StreamWriter] = []
    chance = random.Random(7)

    async def one(number: int) -> None:
        bearer = crowd.bearers[number % len(crowd.bearers)]
        tries = 0
        while time.monotonic() - began < GIVE_UP_S:
            writer = await _attempt(crowd, bearer)
            if writer is not None:
                crowd.back += 1
                crowd.last_s = time.monotonic() - began
                kept.append(writer)
                return
            tries += 1
            await asyncio.sleep(LEAST_S + chance.random() * min(MOST_S, LEAST_S * 2**tries))

    await asyncio.gather(*(one(number) for number in range(crowd.clients)))
    for writer in kept:
        writer.transport.abort()


async def _attempt(crowd: Herd, bearer: str) -> asyncio.StreamWriter | None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", crowd.port)
    except OSError:
        return None
    try:
        writer.write(HANDSHAKE)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        if not head.startswith(b"HTTP/1.1 101"):
            crowd.refused += 1
            writer.transport.abort()
            return None
        writer.write(frame(json.dumps({"id": 1, "connect": {"token": bearer}})))
        reply = await asyncio.wait_for(reader.read(4096), PATIENCE_S)
    except (TimeoutError, OSError, EOFError):
        crowd.stranded += 1
        writer.transport.abort()
        return None
    if b'"connect"' not in reply:
        crowd.stranded += 1
        writer.transport.abort()
        return None
    return writer


class Flood(threading.Thread):
    """
    One connection that sends whatever it is told.

    Attributes:
        per_s: Messages that were taken a second.
    """

    def __init__(self, port: int, bearer: str, rate: int) -> None:
        super().__init__(daemon=True)
        self._rate = rate
        self._stopping = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(HANDSHAKE)
        assert b" 101 " in self._socket.recv(4096)[:20]
        self._socket.sendall(frame(json.dumps({"id": 1, "connect": {"token": bearer}})))
        assert b'"connect"' in self._socket.recv(4096)
        self.per_s = 0.0

    def run(self) -> None:
        """Send so many every 10 ms, and read what comes."""
        some = b"".join(
            frame(json.dumps({"id": 10 + number, "rpc": {"method": "echo", "data": {"n": number}}}))
            for number in range(self._rate // 100)
        )
        began, turns = time.monotonic(), 0
        self._socket.settimeout(5)
        while not self._stopping.is_set():
            self._socket.sendall(some)
            turns += 1
            self._read()
            time.sleep(max(0.0, began + turns / 100 - time.monotonic()))
        self.per_s = turns * (self._rate // 100) / (time.monotonic() - began)

    def _read(self) -> None:
        self._socket.setblocking(False)
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(5)

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self.join()
        self._socket.close()


@contextmanager
def flood(port: int, bearer: str, rate: int) -> Iterator[Flood]:
    """
    Flood while the block lasts; ``per_s`` is known behind it.
    """
    made = Flood(port, bearer, rate)
    made.start()
    try:
        yield made
    finally:
        made.stop()
