"""
Many clients that behave as the SDKs do: they keep their position, and come back by themselves when they are sent away.

They live in a thread of their own, so that whoever has them can meanwhile start and end processes.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

__all__ = ["Crowd", "Member", "crowd"]

WITHIN_S = 60.0
FIRST_WAIT_S = 0.2
"""Before a client comes back, and once more by chance; doubled with each failure, as SDKs do (theirs is 0.5 s)."""
LONGEST_WAIT_S = 2.0
AT_ONCE = 50
"""Clients that come first at the same time: whoever tests endings wants no storm at the beginning."""


@dataclass
class Member:
    """
    One client of a crowd.

    Attributes:
        closings: When it was closed (``time.monotonic``), and with what code; 1006 where nobody said a word.
        sessions: Each session that it was told, in order, without repeats.
        got: The data of each publication.
        unrecovered: How often it was told that it could not be made whole.
        wrong: What it was told that it should not have been: errors, leaves.
        away: How long each absence was, from the loss to the subscription, in seconds.
        nodes: The instance of each connection.
    """

    bearer: str
    closings: list[tuple[float, int]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    unrecovered: int = 0
    wrong: list[Any] = field(default_factory=list)
    away: list[float] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    here: bool = False
    offset: int = 0
    epoch: str = ""


class Crowd:
    """
    Clients of one address, subscribed to one channel.

    Args:
        url: Of the WebSocket.
        bearers: A token for each.
        comes_back: Whether they do when they are sent away.
    """

    def __init__(self, url: str, bearers: Sequence[str], channel: str, *, comes_back: bool = True) -> None:
        self.members = [Member(bearer) for bearer in bearers]
        self._url = url
        self._channel = channel
        self._comes_back = comes_back
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._random = random.Random(5)

    def here(self) -> int:
        """How many are subscribed now."""
        return sum(member.here for member in self.members)

    def until(self, what: str, look: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait until *look* is true."""
        deadline = time.monotonic() + within_s
        while not look():
            assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}; {self.here()} are here"
            time.sleep(0.05)

    def end(self) -> None:
        """Have them all leave."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)

    async def run(self) -> None:
        """Be there until ``end``."""
        self._loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(AT_ONCE)
        living = [asyncio.create_task(self._live(member, gate)) for member in self.members]
        await self._ended.wait()
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)

    async def _live(self, member: Member, gate: asyncio.Semaphore) -> None:
        lost_at, attempts = 0.0, 0
        while True:
            code = 0
            socket = None
            try:
                async with gate:
                    socket = await connect(
                        self._url, proxy=None, open_timeout=10, close_timeout=2, ping_interval=None, compression=None
                    )
                    await self._begin(member, socket)
                attempts = 0
                if lost_at:
                    member.away.append(time.monotonic() - lost_at)
                async for text in socket:
                    await self._take(member, socket, text)
                code = socket.close_code or 1006
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else 1006
            except (OSError, WebSocketException, TimeoutError):
                pass
            finally:
                if socket is not None:
                    socket.transport.abort()
            if member.here:
                member.here = False
                lost_at = time.monotonic()
                member.closings.append((lost_at, code))
            if not self._comes_back:
                return
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempts)
            attempts += 1
            await asyncio.sleep(FIRST_WAIT_S + self._random.uniform(0, wait))

    async def _begin(self, member: Member, socket: Any) -> None:
        subscribe: dict[str, Any] = {"channel": self._channel, "join_leave": True}
        if member.epoch:
            subscribe |= {"recover": True, "offset": member.offset, "epoch": member.epoch}
        commands = [{"id": 1, "connect": {"token": member.bearer}}, {"id": 2, "subscribe": subscribe}]
        await socket.send("\n".join(json.dumps(command) for command in commands))
        while not member.here:
            await self._take(member, socket, await socket.recv())

    async def _take(self, member: Member, socket: Any, text: str | bytes) -> None:
        for line in text.splitlines():
            message = json.loads(line)
            if not message:
                await socket.send("{}")
            elif "connect" in message:
                connected = message["connect"]
                member.nodes.append(connected["node"])
                if connected["session"] not in member.sessions[-1:]:
                    member.sessions.append(connected["session"])
            elif "subscribe" in message:
                self._subscribed(member, message["subscribe"])
            elif "pub" in message.get("push", {}):
                self._publication(member, message["push"]["pub"])
            elif "join" not in message.get("push", {}):
                member.wrong.append(message)

    def _subscribed(self, member: Member, result: dict[str, Any]) -> None:
        if member.epoch and not result.get("recovered"):
            member.unrecovered += 1
        for publication in result.get("publications", ()):
            self._publication(member, publication)
        member.offset = max(member.offset, result.get("offset", 0))
        member.epoch = result.get("epoch", "")
        member.here = True

    def _publication(self, member: Member, publication: dict[str, Any]) -> None:
        member.got.append(publication["data"])
        member.offset = publication.get("offset", 0)


@contextmanager
def crowd(url: str, bearers: Sequence[str], channel: str, *, comes_back: bool = True) -> Iterator[Crowd]:
    """
    Have a client for each of *bearers*; all are subscribed when the block begins, and have left behind it.
    """
    made = Crowd(url, bearers, channel, comes_back=comes_back)
    thread = threading.Thread(target=lambda: asyncio.run(made.run()), name="crowd")
    thread.start()
    try:
        made.until("all are here", lambda: made.here() == len(bearers))
        yield made
    finally:
        made.end()
        thread.join(WITHIN_S)
