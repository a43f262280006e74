"""
A client for the server API: one kept connection for each port, JSON both ways.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Http"]


class Http:
    """
    Kept connections on loopback, one request at a time.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def post(self, port: int, path: str, body: Any, headers: Mapping[str, str], within_s: float) -> Any:
        """
        Send *body* as JSON, return what is answered as JSON.

        Raises:
            OSError, EOFError, ValueError, TimeoutError: nothing is known about what became of it.
        """
        try:
            return await asyncio.wait_for(self._post(port, path, body, headers), within_s)
        except BaseException:
            kept = self._open.pop(port, None)
            if kept is not None:
                kept[1].close()
            raise

    async def _post(self, port: int, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        if port not in self._open:
            self._open[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._open[port]
        data = json.dumps(body).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n{lines}\r\n".encode() + data
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
        return json.loads(await reader.readexactly(length))

    async def status(self, port: int, path: str, headers: Mapping[str, str]) -> int:
        """
        GET *path* on a connection of its own; return the status.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{lines}\r\n".encode())
        head = await reader.readline()
        writer.close()
        return int(head.split()[1])

    def close(self) -> None:
        """Close them all."""
        for _, writer in self._open.values():
            writer.close()
        self._open.clear()
