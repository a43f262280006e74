"""
One master as we are connected to it: a connection for commands and one for topics, both asked something each second,
and one that waits for its replicas once somebody wants that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection
from gateway.redis.errors import RedisRefused
from gateway.redis.lineage import Server, look_at
from gateway.redis.link import Link
from gateway.redis.topics import Receiver, Topics
from gateway.redis.waits import Waits

__all__ = ["Account", "Master"]

MOST_BYTES: Final = 64 * 1024 * 1024
LOOK_S: Final = 1.0
"""How often a server is asked whether it is there: with the timeout this is how soon a hang is found."""

ELSEWHERE: Final = "the other connection leads to another server now"


@dataclass(frozen=True, slots=True)
class Account:
    """
    Who we are to servers, and how long they may take.

    Attributes:
        timeout_s: A server that owes an answer this long is taken for lost.
        took: Called with the seconds that the first answer of those that came together took.
    """

    username: str | None = None
    password: str | None = None
    database: int = 0
    timeout_s: float = 2.0
    took: Callable[[float], None] | None = None

    def connection(
        self, reactor: Any, lost: Callable[[Connection, str], None], topics: Topics | None = None
    ) -> Connection:
        """
        Make a connection, for *topics* or for commands.
        """
        return Connection(
            reactor,
            username=self.username,
            password=self.password,
            database=self.database if topics is None else 0,
            timeout_s=self.timeout_s,
            most_bytes=MOST_BYTES,
            message=topics.message if topics is not None else None,
            ended=topics.ended if topics is not None else None,
            lost=lost,
            took=self.took if topics is None else None,
        )


class Master:
    """
    A master.

    Args:
        endpoint: Leads to it, whichever server it is now.
        cluster: It is one of many.
        alone: No other server takes its place under the same name.
        settle: Called each second and before commands are sent to it, with what it says of itself; raises what speaks against it.
        up: Called when commands can be sent.
        down: Called with the reason when they cannot any more, or it could not be connected to; each time.
        moved: Called with a topic and its receiver if the slot is not here any more.
        odd: Called with what should not happen.

    Attributes:
        tried: It was tried to hear topics there, and either they are heard or it failed.
        topics: What is heard there.
        waits: Who waits for its replicas.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        account: Account,
        *,
        random: Callable[[], float],
        settle: Callable[[Connection, Server], Awaitable[None]],
        up: Callable[[], None],
        down: Callable[[str], None],
        moved: Callable[[str, Receiver], None],
        odd: Callable[[str], None],
        cluster: bool = False,
        alone: bool = True,
    ) -> None:
        self._reactor = reactor
        self._account = account
        self._cluster = cluster
        self._alone = alone
        self._settle = settle
        self._odd = odd
        self._looking: IDelayedCall | None = None
        self._runs: list[tuple[Link, str]] = []
        self.tried = False
        self.topics = Topics(moved)
        self._commands = Link(
            reactor,
            endpoint,
            self._make,
            prepare=self._prepare,
            up=lambda _: up(),
            down=down,
            random=random,
        )
        self._subscriptions = Link(
            reactor,
            endpoint,
            self._make_subscriber,
            prepare=self._prepare_topics,
            up=lambda _: self._heard(),
            down=lambda _: self._deaf(),
            random=random,
        )
        self._waited = ""
        self.waits = Waits(
            reactor,
            endpoint,
            self._make,
            prepare=self._prepare_waits,
            same=self._is_waited_for,
            random=random,
            round_s=account.timeout_s / 2,
        )

    def start(self) -> None:
        """
        Begin to connect.
        """
        self._commands.start()
        self._subscriptions.start()
        self._looking = self._reactor.callLater(LOOK_S, self._look)

    async def stop(self) -> None:
        """
        Close the connections.
        """
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        await self.waits.stop()
        await self._commands.stop()
        await self._subscriptions.stop()

    def drop(self, reason: str) -> None:
        """
        Connect anew, perhaps elsewhere.
        """
        self._commands.drop(reason)
        self._subscriptions.drop(reason)

    @property
    def connection(self) -> Connection | None:
        """For commands; None while it is away."""
        return self._commands.connection

    @property
    def hearing(self) -> bool:
        """Whether topics are heard."""
        return self._subscriptions.connection is not None

    def _make(self, lost: Callable[[Connection, str], None]) -> Connection:
        return self._account.connection(self._reactor, lost)

    def _make_subscriber(self, lost: Callable[[Connection, str], None]) -> Connection:
        return self._account.connection(self._reactor, lost, self.topics)

    def _heard(self) -> None:
        self.tried = True

    def _deaf(self) -> None:
        self.tried = True
        self.topics.lost()

    async def _prepare(self, connection: Connection) -> None:
        try:
            server = await look_at(connection, cluster=self._cluster, alone=self._alone)
        except RedisRefused as refused:
            if refused.code == "READONLY":
                # What is published is not heard on a replica, or late; and it may never be master again.
                self._subscriptions.drop(str(refused))
            raise
        self._leads_to(self._commands, server.run)
        await self._settle(connection, server)

    async def _prepare_topics(self, connection: Connection) -> None:
        server = await look_at(connection, cluster=self._cluster, alone=self._alone)
        self._leads_to(self._subscriptions, server.run)
        await self.topics.again(connection)

    async def _prepare_waits(self, connection: Connection) -> None:
        self._waited = (await look_at(connection, cluster=self._cluster, alone=self._alone)).run

    def _is_waited_for(self) -> bool:
        """Whether what waits for replicas leads to the server that is written to."""
        return self.connection is not None and (self._commands, self._waited) in self._runs

    async def look(self) -> None:
        """
        Settle now.

        Raises:
            StoreUnavailable: it could not be done.
        """
        if self._commands.connection is None:
            raise StoreUnavailable("Redis is away")
        await self._prepare(self._commands.connection)

    def _leads_to(self, link: Link, run: str) -> None:
        """Have both connections at one server: the one that was made before goes where this one went."""
        self._runs = [(other, its) for other, its in self._runs if other is not link]
        for other, its in self._runs:
            if its != run:
                other.drop(ELSEWHERE)
        self._runs.append((link, run))

    def _look(self) -> None:
        """
        Ask both connections something, so that a server that hangs is found when nobody else asks.

        The mark that goes on with it shows whether what is there after a restart is older than this.
        """
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        commands, topics = self._commands.connection, self._subscriptions.connection
        if commands is not None:
            Deferred.fromCoroutine(self._prepare(commands)).addErrback(self._look_failed)
        if topics is not None:
            topics.send(("PING",)).addErrback(self._look_failed)

    def _look_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, RedisRefused) and error.code == "READONLY":
            self._commands.drop(str(error))
        elif not failure.check(StoreUnavailable):
            self._odd(failure.getErrorMessage())
