"""
The epoll reactor for a gateway: time that only runs forward, and reads without ceremony.

``seconds`` is the monotonic clock, so that a step of the wall clock neither fires every timer
at once nor holds them back. A plain read event goes straight to ``doRead``: the stock reactor
sets up a log context for each. Every other event takes the stock path.
"""

from __future__ import annotations

import errno
import sys
import time
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log as _log

__all__ = ["GatewayReactor", "install"]

MAX_EVENTS = 1024
"""Events taken in one turn: the stock reactor makes room for one per connection each time."""

log: Final[Any] = _log  # Twisted leaves it, and much of the reactor, untyped
_READABLE = 1  # EPOLLIN alone: neither writable, nor an error, nor a hang-up


class GatewayReactor(EPollReactor):
    """
    ``EPollReactor`` on the monotonic clock, with a short way for read events.
    """

    seconds = staticmethod(time.monotonic)
    """Monotonic seconds; asked several times for each request, so nothing stands between."""

    def doPoll(self, timeout: float | None) -> None:
        """
        Wait for events at most *timeout* seconds and serve them.
        """
        this: Any = self
        selectables = self._selectables
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, min(len(selectables), MAX_EVENTS) or -1)
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue
            if event != _READABLE:
                log.callWithLogger(selectable, this._doReadOrWrite, selectable, fd, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException as error:  # As the stock reactor: whatever a protocol raises ends its connection.
                log.err()
                why = error
            if why:
                this._disconnectSelectable(selectable, why, True)

    doIteration = doPoll


def unsupported() -> str:
    """
    Name what this Twisted lacks for the short way; empty if nothing.
    """
    for name in ("_doReadOrWrite", "_disconnectSelectable", "doPoll"):
        if not hasattr(EPollReactor, name):
            return name
    return ""


def install() -> None:
    """
    Make this the process's reactor, or the platform's default where it cannot be.

    Only for ``tap.py``, before anybody imports ``twisted.internet.reactor``.
    """
    if sys.platform != "linux" or unsupported():
        from twisted.internet.default import install as install_default

        install_default()
        return
    make: Any = GatewayReactor
    put: Any = installReactor
    put(make())
