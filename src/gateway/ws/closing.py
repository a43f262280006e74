"""
The end of closing: connections whose client never answers the close frame are cut.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Abortable", "ClosingWatch"]

LOOK_S = 0.5
"""How late a connection may be cut."""


class Abortable(Protocol):
    """What can be cut."""

    def abort(self) -> None:
        """Cut it now."""


class ClosingWatch:
    """
    Connections that are closing. One timer for all, set only while there are some.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: dict[Abortable, float] = {}
        self._timer: IDelayedCall | None = None

    def add(self, connection: Abortable, within_s: float) -> None:
        """
        Cut *connection* unless it is forgotten within *within_s*.
        """
        self._due[connection] = self._clock.seconds() + within_s
        if self._timer is None:
            self._timer = self._clock.callLater(LOOK_S, self._look)

    def forget(self, connection: Abortable) -> None:
        """
        *connection* is gone.
        """
        if self._due.pop(connection, None) is not None and not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        late = [connection for connection, due in self._due.items() if due <= now]
        for connection in late:
            del self._due[connection]
            connection.abort()
        if self._due:
            self._timer = self._clock.callLater(LOOK_S, self._look)
