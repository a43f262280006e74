"""
A request's body from Twisted's ``IBodyProducer`` to a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from gateway.upstream.call import Call

__all__ = ["Upload"]


@implementer(IConsumer)
class Upload:
    """
    The consumer of a body's producer, and towards the call its producer.

    The source is started once there is a connection, paused and resumed in turn, and stopped
    once: body producers are not made for anything else.

    Args:
        failed: Told why the source could not go on.
    """

    def __init__(self, call: Call, source: IBodyProducer, failed: Callable[[Failure], None]) -> None:
        self._call = call
        self._source = source
        self._failed = failed
        self._held = False
        self._started = False
        self._over = False

    def begin(self) -> None:
        """
        Start, now or when the call is connected.
        """
        self._call.register(self)
        if not self._held:
            self._start()

    def stop(self) -> None:
        """
        Nobody takes any more of it.
        """
        if not self._over:
            self._over = True
            if self._started:
                self._source.stopProducing()

    def _start(self) -> None:
        self._started = True
        try:
            producing: Any = self._source.startProducing(self)
        except Exception:  # Whatever a caller's producer raises is the caller's to hear.
            self._broke(Failure())
        else:
            producing.addCallbacks(self._whole, self._broke)

    def _whole(self, _: object) -> None:
        if not self._over:
            self._over = True
            self._call.finish()

    def _broke(self, failure: Failure) -> None:
        if not self._over:
            self._over = True
            self._failed(failure)

    # The call's producer.

    def pauseProducing(self) -> None:
        """
        The backend is slower.
        """
        if not self._held:
            self._held = True
            if self._started and not self._over:
                self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """
        The backend takes more, or is there at last.
        """
        if self._held:
            self._held = False
            if self._over:
                return
            if self._started:
                self._source.resumeProducing()
            else:
                self._start()

    def stopProducing(self) -> None:
        """
        The connection is gone.
        """
        self.stop()

    # The source's consumer.

    def write(self, data: bytes) -> None:
        """
        Send more of the body.
        """
        if not self._over:
            self._call.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Body producers are registered by ``begin``.
        """

    def unregisterProducer(self) -> None:
        """
        See ``registerProducer``.
        """
