"""
Whether the other end takes what it is sent.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["Flow"]


@implementer(IPushProducer)
class Flow:
    """
    What a transport tells of itself, for one who waits.

    Attributes:
        blocked: What was written last has not been taken.
    """

    def __init__(self) -> None:
        self.blocked = False
        self._waiting: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        """It is full."""
        self.blocked = True

    def resumeProducing(self) -> None:
        """It takes more."""
        self.blocked = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """It is gone."""
        self.end()

    def end(self) -> None:
        """
        Whoever waits is told; it finds out by itself that nobody is there.
        """
        self.resumeProducing()

    async def taken(self) -> None:
        """
        Wait until more is taken. One at a time.
        """
        if self.blocked:
            self._waiting = Deferred()
            await self._waiting
