"""
A client that follows channels as an SDK does: it keeps its positions, comes back, and recovers.

It writes down what it was given, and where it was told that it was not made whole.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

__all__ = ["Follower", "Life"]

RECONNECTS = range(3000, 3500)
WAIT_S = 0.05


@dataclass
class Life:
    """
    What one follower had of one channel from a beginning, or from where it was not recovered, until the next.

    Attributes:
        offsets: In the order they came, with their data.
        epoch: The stream's.
    """

    epoch: str
    start: int
    offsets: list[tuple[int, Any]] = field(default_factory=list)

    def faults(self) -> int:
        """How many publications are missing, doubled or out of order."""
        wrong, expected = 0, self.start + 1
        for offset, _ in self.offsets:
            if offset != expected:
                wrong += max(1, offset - expected)
            expected = offset + 1
        return wrong


class Follower:
    """
    One connection at a time, to whichever instance takes it.

    Args:
        urls: Tried one after the other.
        bearer: Its token.

    Attributes:
        lives: By channel.
        connects: How often it was let in; the rest are returns.
        ended: Times that the other side ended a connection or it broke.
    """

    def __init__(self, urls: Sequence[str], bearer: str, channels: Sequence[str], rng: random.Random) -> None:
        self._urls = list(urls)
        self._bearer = bearer
        self._channels = list(channels)
        self._rng = rng
        self._position: dict[str, tuple[int, str]] = {}
        self._socket: Any = None
        self._next = rng.randrange(len(self._urls))
        self._waiting: dict[int, str] = {}
        self._id = 0
        self._later: list[asyncio.Task[None]] = []
        self.lives: dict[str, list[Life]] = {channel: [] for channel in channels}
        self.connects = 0
        self.ended = 0
        self.live: set[str] = set()
        self.stopping = False

    async def run(self) -> None:
        """Follow until ``stop``."""
        failures = 0
        while not self.stopping:
            url = self._urls[self._next % len(self._urls)]
            try:
                async with connect(url, proxy=None, open_timeout=5, ping_interval=None, max_size=None) as socket:
                    self._socket = socket
                    self._waiting.clear()
                    self._id = 1
                    await self._say({"connect": {"token": self._bearer}})
                    for channel in self._channels:
                        await self._subscribe(channel)
                    failures = 0
                    async for text in socket:
                        await self._take(str(text))
            except (TimeoutError, OSError, WebSocketException):
                pass
            self._socket = None
            self.live.clear()
            if self.stopping:
                return
            self.ended += 1
            failures += 1
            self._next += 1
            await asyncio.sleep(self._rng.uniform(0, min(1.0, WAIT_S * 2**failures)))

    async def stop(self) -> None:
        """Follow no more."""
        self.stopping = True
        for task in self._later:
            task.cancel()
        if self._socket is not None:
            await self._socket.close()

    def cut(self) -> None:
        """Break the connection."""
        if self._socket is not None:
            self._socket.transport.abort()

    def at(self, channel: str) -> int:
        """The offset that it has."""
        return self._position.get(channel, (-1, ""))[0]

    async def _say(self, command: dict[str, Any]) -> int:
        number, self._id = self._id, self._id + 1
        await self._socket.send(json.dumps({"id": number, **command}))
        return number

    async def _subscribe(self, channel: str) -> None:
        asked: dict[str, Any] = {"channel": channel}
        if channel in self._position:
            offset, epoch = self._position[channel]
            asked |= {"recover": True, "offset": offset, "epoch": epoch}
        self._waiting[await self._say({"subscribe": asked})] = channel

    async def _take(self, text: str) -> None:
        for line in text.splitlines():
            message = json.loads(line)
            if not message:
                await self._socket.send("{}")
                continue
            channel = self._waiting.pop(message.get("id", 0), "")
            if "connect" in message:
                self.connects += 1
            elif "subscribe" in message:
                self._subscribed(channel, message["subscribe"])
            elif "error" in message:
                if not channel:
                    await self._socket.close()  # Not let in for now.
                    return
                self._later.append(asyncio.create_task(self._again(channel)))
            elif "push" in message:
                push = message["push"]
                if "pub" in push:
                    self._publication(push["channel"], push["pub"])
                elif "unsubscribe" in push and push["unsubscribe"]["code"] >= 2500:
                    self.live.discard(push["channel"])
                    await self._subscribe(push["channel"])

    async def _again(self, channel: str) -> None:
        await asyncio.sleep(self._rng.uniform(0.05, 0.3))
        if self._socket is not None and channel not in self.live and channel not in self._waiting.values():
            try:
                await self._subscribe(channel)
            except WebSocketException:
                return

    def _subscribed(self, channel: str, result: dict[str, Any]) -> None:
        offset, epoch = result.get("offset", 0), result.get("epoch", "")
        if not result.get("recovered") or channel not in self._position:
            # The offset is that of the last publication that comes along, if any does.
            offset -= len(result.get("publications", ()))
            self._position[channel] = (offset, epoch)
            self.lives[channel].append(Life(epoch, offset))
        for publication in result.get("publications", ()):
            self._publication(channel, publication)
        self.live.add(channel)

    def _publication(self, channel: str, publication: dict[str, Any]) -> None:
        offset = publication.get("offset", 0)
        self.lives[channel][-1].offsets.append((offset, publication["data"]))
        self._position[channel] = (offset, self._position[channel][1])
