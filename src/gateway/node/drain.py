"""
Sending an instance's clients elsewhere: evenly over a window, so that they do not arrive as a herd.

Each is closed with a code after which SDKs come back by themselves (``shutdown``), to whichever instance
the balancer chooses. Its session is suspended and its places are held, so it goes on there and nobody sees
it leave. A client whose commands are being answered is read no more, and closed behind its last reply.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from twisted.internet.task import deferLater

from gateway.core.verdicts import CloseReason

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["PACE", "flushed", "send_away"]

PACE = 20.0
"""Clients a second. Where there are few, the window is as short as this makes it: one client waits for no window."""

BATCH_S = 0.1
"""Between two batches at most, give or take half of it."""

MOST_AT_ONCE = 50
"""In a batch, give or take half of it: closing takes the time of others."""

WRITES: Final = frozenset(("session", "presence", "facts"))
"""First words of the tasks that tell stores and backends what became of a client."""


async def send_away(node: RealtimeNode, window_s: float, within_s: float) -> int:
    """
    Ask every client to come back elsewhere, those too that come meanwhile.

    Returns once none is left, or after *within_s* seconds; then whoever still waits for a reply is closed
    without it.

    Args:
        window_s: How long the closing takes; less where there are fewer than ``PACE`` a second, never more than *within_s*.

    Returns:
        How many did not get every reply.
    """
    return await _Leaving(node, min(window_s, within_s), within_s).run()


async def flushed(node: RealtimeNode, within_s: float) -> None:
    """
    Wait until stores and backends know what became of the clients that are gone, at most *within_s* seconds.
    """
    late = await node.background.settled(WRITES, within_s)
    if late:
        node.log.warning("drain.unwritten", tasks=len(late), names=sorted(set(late)))


class _Leaving:
    def __init__(self, node: RealtimeNode, window_s: float, within_s: float) -> None:
        self._node = node
        self._began = node.seconds()
        self._until = self._began + within_s
        self._first = self._left()
        self._window_s = min(window_s, self._first / PACE)
        self._batch_s = min(BATCH_S, self._window_s * MOST_AT_ONCE / max(1, self._first)) or BATCH_S
        self._queue: list[Client] = []
        self._busy: dict[Client, None] = {}

    async def run(self) -> int:
        node = self._node
        while True:
            now = node.seconds()
            self._close_answered()
            if now >= self._until:
                return self._cut()
            passed = (now - self._began) / self._window_s if self._window_s else 1.0
            may_stay = ceil(self._first * max(0.0, 1.0 - passed))
            for client in self._next(self._left() - len(self._busy) - may_stay):
                self._ask(client)
            if not self._left():
                return 0
            await deferLater(node.clock, self._batch_s * (0.5 + node.random()))

    def _left(self) -> int:
        return len(self._node.clients) + len(self._node.opening)

    def _next(self, number: int) -> list[Client]:
        """So many that were not asked yet, in no order: those of a channel are not sent away together."""
        queue = self._queue
        found: list[Client] = []
        if number > len(queue):
            queue[:] = self._here()
        while queue and len(found) < number:
            at = int(self._node.random() * len(queue))
            client, queue[at] = queue[at], queue[-1]
            queue.pop()
            if client.closing is None and client not in self._busy:
                found.append(client)
        return found

    def _here(self) -> list[Client]:
        return [client for client in (*self._node.opening, *self._node.clients.values()) if client not in self._busy]

    def _ask(self, client: Client) -> None:
        if client.lanes.idle:
            self._close(client)
        else:
            client.transport.pause()
            self._busy[client] = None

    def _close_answered(self) -> None:
        for client in list(self._busy):
            if client.closing is not None or client.lanes.idle:
                self._close(client)
            else:
                client.transport.pause()  # Its lanes read on by themselves once few of its bytes wait.

    def _cut(self) -> int:
        """Close everybody; how many of them had commands under way."""
        here = [*self._node.opening, *self._node.clients.values()]
        cut = sum(not client.lanes.idle for client in here)
        for client in here:
            self._close(client)
        return cut

    def _close(self, client: Client) -> None:
        if client in self._busy:
            del self._busy[client]
            client.transport.resume()  # What comes is the answer to the close frame; all else is dropped.
        if client.closing is None:
            client.close(CloseReason.SHUTDOWN.closing)
