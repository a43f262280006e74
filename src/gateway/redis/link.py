"""
A connection that is kept: made, prepared, watched, and made again with jitter when it is lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from gateway.core.backoff import backoff
from gateway.redis.connection import Connection

__all__ = ["Link"]

FIRST_WAIT_S: Final = 0.1
MOST_WAIT_S: Final = 2.0

STEADY_S: Final = 5.0
"""A connection that lived this long and is lost is tried again as if it were the first."""

SHORT_LIVES: Final = 3
"""However often one was good and soon lost, the next is waited for as after this many attempts."""

PREPARED_S: Final = 10.0
"""However many questions preparing asks, each with its own deadline."""


class _Connections(Factory):
    """
    Makes connections.
    """

    noisy = False

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Connection:
        """Make one."""
        return self._make()


class Link:
    """
    The connection to one server, again and again.

    Args:
        make: Makes a connection; it is told ``lost``.
        prepare: Done with each new connection before it is used; one that fails is closed and made again.
        up: Called when the connection can be used.
        down: Called with the reason when it cannot be used any more, or could not be made; each time.
        random: Evenly from 0 to 1.
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
        self._connection: Connection | None = None
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = _Connections(lambda: make(self._lost))
        self._prepare = prepare
        self._up = up
        self._down = down
        self._random = random
        self._preparing: Connection | None = None
        self._gone: Deferred[None] = Deferred()
        self._keeping: Deferred[None] | None = None
        self._stopped = False

    @property
    def connection(self) -> Connection | None:
        """The one that can be used, or None."""
        connection = self._connection
        return connection if connection is not None and connection.open else None

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._keeping = Deferred.fromCoroutine(self._keep())

    async def stop(self) -> None:
        """
        End the connection and connect no more.
        """
        self._stopped = True
        for connection in (self._connection, self._preparing):
            if connection is not None:
                connection.give_up("stopped")
        if self._keeping is not None:
            if self._connection is None:
                self._keeping.cancel()
            await self._keeping

    def drop(self, reason: str) -> None:
        """
        Connect anew, perhaps elsewhere.
        """
        if self._connection is not None:
            self._connection.give_up(reason)

    async def _keep(self) -> None:
        attempts = 0
        try:
            while not self._stopped:
                self._gone = Deferred()
                if await self._connect():
                    began = self._reactor.seconds()
                    await self._gone
                    if self._stopped:
                        break
                    steady = self._reactor.seconds() - began >= STEADY_S
                    attempts = 1 if steady else min(attempts + 1, SHORT_LIVES)
                else:
                    attempts += 1
                await deferLater(self._reactor, backoff(attempts, FIRST_WAIT_S, MOST_WAIT_S, self._random))
        except CancelledError:
            if not self._stopped:
                raise

    async def _connect(self) -> bool:
        try:
            connection: Any = await self._endpoint.connect(self._factory)
            self._preparing = connection
            preparing = Deferred.fromCoroutine(self._made_ready(connection))
            await preparing.addTimeout(PREPARED_S, self._reactor)
        except Exception as error:  # Whatever it is: what could not be made is tried again, and the reason told.
            reason = str(error) or type(error).__name__
            if self._preparing is not None:
                self._preparing.give_up(reason)
            if self._stopped:
                raise CancelledError from error
            self._down(reason)
            return False
        finally:
            self._preparing = None
        self._connection = connection
        self._up(connection)
        return True

    async def _made_ready(self, connection: Connection) -> None:
        await connection.greet()
        await self._prepare(connection)

    def _lost(self, connection: Connection, reason: str) -> None:
        if connection is self._connection:
            self._connection = None
            if not self._stopped:
                self._down(reason)
            self._gone.callback(None)
