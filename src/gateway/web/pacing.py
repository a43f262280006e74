"""
When new connections are first read: a herd in turns, so that connections which stand are served in between.

A reactor serves whatever can be read in one turn, and a herd that has connected and speaks all at once would make
that turn as long as the herd. So of many that come at once few are read, and the others wait unread until they
have said something and it is their turn. What is silent costs one look in a while, and its deadline.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReactorTime

from gateway.net.transports import has_news

if TYPE_CHECKING:
    from gateway.web.connection import Connection

__all__ = ["Pacing"]

TURN_S: Final = 0.005
MOST_AT_ONCE: Final = 16
"""Connections that are first read in one turn; more than that in 5 ms are a herd."""

MOST_LOOKS: Final = 128
"""Of those that wait, how many are looked at in a turn for whether they have said something."""


class Pacing:
    """
    The new connections of one instance.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = 0.0
        self._came = 0
        self._waiting: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def came(self, connection: Connection) -> None:
        """
        Let *connection* be read, now or when it is its turn.
        """
        if not self._waiting:
            now = self._clock.seconds()
            if now - self._began > TURN_S:
                self._began, self._came = now, 0
            self._came += 1
            if self._came <= MOST_AT_ONCE:
                return
            self._clock.callLater(TURN_S, self._turn)
        connection.wait()
        self._waiting.append(connection)

    def _turn(self) -> None:
        waiting, chosen = self._waiting, 0
        for _ in range(min(MOST_LOOKS, len(waiting))):
            connection = waiting.popleft()
            if not connection.waits:
                continue
            if has_news(connection.transport):
                connection.go()
                chosen += 1
                if chosen == MOST_AT_ONCE:
                    break
            else:
                waiting.append(connection)
        if waiting:
            # While there is something to read it is as fast as everything else lets it be.
            self._clock.callLater(0 if chosen == MOST_AT_ONCE else TURN_S, self._turn)
