"""
A connection that is kept: made, prepared, watched, and made again with jitter when it is lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.core.backoff import backoff
from gateway.redis.connection import Connection

__all__ = ["Link"]

FIRST_WAIT_S: Final = 0.1
MOST_WAIT_S: Final = 2.0


class _Connections(Factory):
    """
    Makes connections. What txredisapi's protocol tells its factory is kept as the reason of a failure.
    """

    noisy = False
    isLazy = False

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make
        self.reason = ""
        self.made: Connection | None = None

    def buildProtocol(self, addr: Any) -> Connection:
        """Make one."""
        connection = self.made = self._make()
        connection.factory = self
        return connection

    def stopTrying(self) -> None:
        """A refused password is tried again: it may be set right while we run."""

    def connectionError(self, why: str) -> None:
        """Keep why it cannot be used."""
        self.reason = why


@implementer(IStreamClientEndpoint)
class _Told:
    """
    An endpoint whose failures are told.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, failed: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._tell)

    def _tell(self, failure: Failure) -> Failure:
        if not failure.check(CancelledError):
            self._failed(failure.getErrorMessage())
        return failure


class Link:
    """
    The connection to one server, again and again.

    Args:
        make: Makes a connection; it is told ``lost``.
        prepare: Done with each new connection before it is used; one that fails is closed and made again.
        up: Called when the connection can be used.
        down: Called with the reason when it cannot be used any more, or could not be made; each time.
        random: Evenly from 0 to 1.

    Attributes:
        connection: The one that can be used, or None.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        make: Callable[[Callable[[Connection, str], None]], Connection],
        *,
        prepare: Callable[[Connection], Awaitable[None]],
        up: Callable[[Connection], None],
        down: Callable[[str], None],
        random: Callable[[], float],
    ) -> None:
        self.connection: Connection | None = None
        self._prepare = prepare
        self._up = up
        self._down = down
        self._random = random
        self._rejected = 0
        self._preparing: Connection | None = None
        self._ready: Deferred[None] | None = None
        self._reason = ""
        self._factory = _Connections(lambda: make(self._lost))
        self._service = ClientService(
            _Told(endpoint, down),
            self._factory,
            retryPolicy=self._wait_s,
            clock=reactor,
            prepareConnection=self._prepared,
        )

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._service.startService()

    async def stop(self) -> None:
        """
        End the connection and connect no more.
        """
        for connection in (self.connection, self._preparing):
            if connection is not None and connection.transport is not None:
                connection.give_up("stopped")
        await self._service.stopService()

    def drop(self, reason: str) -> None:
        """
        Connect anew, perhaps elsewhere.
        """
        if self.connection is not None:
            self.connection.give_up(reason)

    def _wait_s(self, attempt: int) -> float:
        # A server that takes us and throws us out again counts as failed: ClientService would begin at 1.
        return backoff(max(attempt, self._rejected), FIRST_WAIT_S, MOST_WAIT_S, self._random)

    def _prepared(self, _proxy: Any) -> Deferred[None]:
        connection = self._factory.made
        assert connection is not None, "made just now"
        self._preparing = connection
        self._rejected += 1
        ready = self._ready = Deferred.fromCoroutine(self._make_ready(connection))
        return ready

    async def _make_ready(self, connection: Connection) -> None:
        try:
            await connection.whenConnected()
            await self._prepare(connection)
        except Exception as error:
            reason = self._factory.reason or self._reason or str(error)
            connection.give_up(reason)
            self._down(reason)
            raise
        finally:
            self._preparing = self._ready = None
        self._rejected = 0
        self._factory.reason = self._reason = ""
        self.connection = connection
        self._up(connection)

    def _lost(self, connection: Connection, reason: str) -> None:
        if connection is self._preparing and self._ready is not None:
            # A refused password ends the connection, and nobody else would say so.
            self._reason = reason
            self._ready.cancel()
        if connection is self.connection:
            self.connection = None
            self._down(reason)
