"""
A herd of new connections: read in turns, all of them answered, and nobody behind those who say nothing.
"""

from __future__ import annotations

from typing import Any

import pytest_twisted
from tests.web.harness import clock, echo, eventually, request, serve, status_of
from twisted.internet.defer import Deferred, gatherResults

from gateway.ports.http import Exchange
from gateway.web.pacing import MOST_AT_ONCE

HERD = 150


class Turns:
    """Counts requests of the same turn of the reactor."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._counting = False

    def __call__(self, exchange: Exchange) -> None:
        if not self._counting:
            self._counting = True
            self.counts.append(0)
            clock().callLater(0, self._end)
        self.counts[-1] += 1
        echo(exchange)

    def _end(self) -> None:
        self._counting = False


async def herd(served: Any, number: int) -> list[Any]:
    """So many, connected at once."""
    connecting: list[Deferred[Any]] = [Deferred.fromCoroutine(served.connect()) for _ in range(number)]
    return list(await gatherResults(connecting))


@pytest_twisted.ensureDeferred
async def test_all_at_once() -> None:
    """
    Of many that connect and then all speak at once few are served in one turn, and each is served.
    """
    turns = Turns()
    served = await serve(turns)
    clients = await herd(served, HERD)
    await eventually(lambda: served.site.connections == HERD)
    assert len(served.site.pacing) > HERD // 2
    for client in clients:
        client.send(request("Connection: close"))
    for client in clients:
        assert status_of(await client.closed()) == 200
    assert sum(turns.counts) == HERD
    # Those that were read from the beginning, and a turn's.
    assert max(turns.counts) <= 4 * MOST_AT_ONCE
    await eventually(lambda: len(served.site.pacing) == 0)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_the_silent_hold_up_nobody() -> None:
    """
    Connections that say nothing keep nobody waiting who does, and end at their deadline.
    """
    served = await serve(head_timeout_s=1.5)
    silent = await herd(served, HERD)
    await eventually(lambda: served.site.connections == HERD)
    assert status_of(await served.ask(request("Connection: close"))) == 200
    silent[-1].send(request("Connection: close"))
    assert status_of(await silent[-1].closed()) == 200
    silent[-2].reset()
    for client in silent:
        await client.closed()
    await eventually(lambda: len(served.site.pacing) == 0)
    await served.stop()
