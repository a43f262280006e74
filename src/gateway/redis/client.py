"""
Redis as the stores see it: scripts, commands and topics, whatever stands behind them.

``Redis`` is one server at a time: its address is fixed, or asked of sentinels at every connection.
``cluster.RedisCluster`` has the same face over many. Nothing here waits for a server that is away:
then every call fails at once with ``StoreUnavailable``, and ``Watcher`` hears when it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection, Part
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.keys import Keys
from gateway.redis.lineage import Lineage, Server, look_at
from gateway.redis.link import Link
from gateway.redis.scripts import Script
from gateway.redis.topics import Receiver, Topics

__all__ = ["CHAIN", "Credentials", "Redis", "Store", "Watcher"]


class Chain(Enum):
    """Stands among a script's arguments for the chain that holds when it is sent."""

    NOW = "now"


CHAIN: Final = Chain.NOW

MOST_BYTES: Final = 64 * 1024 * 1024
LOOK_S: Final = 1.0
"""How often a server is asked whether it is there: with the timeout this is how soon a hang is found."""


class Watcher(Protocol):
    """
    Who hears that Redis went away and came back.
    """

    def lost(self) -> None:
        """Calls fail at once from now on."""

    def back(self) -> None:
        """Calls are answered again. Topics follow by themselves: each receiver hears of its gap."""


class Store(Protocol):
    """
    The face of Redis towards the stores.

    Attributes:
        keys: Names of keys and topics.
        available: Calls can be answered now.
        chain: ``NUMBER-NAME`` of the life of the data, see ``lineage``. A script that finds a stream of a smaller
            number, or of another name with the same, begins a new epoch; one that finds a greater number answers with
            the error ``STALE``: the caller's is old, which ``run`` mends by asking anew and trying once more.
    """

    keys: Keys

    @property
    def available(self) -> bool: ...  # noqa: D102
    @property
    def chain(self) -> str: ...  # noqa: D102

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        """
        Run a script; all *keys* are of one slot, topics it publishes to among them, and ``CHAIN`` an argument of those
        that touch streams.

        Raises:
            StoreUnavailable: whether it ran is not known, but for ``RedisRefused``: it did not.
        """

    async def call(self, *command: Part, key: str | None = None) -> Any:
        """Send a command to the server that has *key*; the command's second word if it is not said."""

    async def everywhere(self, *command: Part) -> list[Any]:
        """Send a command to every server that holds a part of the data; return what each answers."""

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """Hear a topic from when this returns."""

    async def unsubscribe(self, topic: str) -> None:
        """Hear it no more."""

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* told of losses and returns from now on."""


class Credentials:
    """
    Who we are to a server.
    """

    __slots__ = ("database", "password", "username")

    def __init__(self, username: str | None = None, password: str | None = None, database: int = 0) -> None:
        self.username = username
        self.password = password
        self.database = database


class Redis:
    """
    One server (``Store``).

    Args:
        endpoint: Leads to the server that is master now.
        timeout_s: A server that owes an answer this long is taken for lost.
        alone: No other server takes its place: its restarts may lose nothing.
        random: Evenly from 0 to 1.
        fresh: Makes a name nobody else makes.
        event: Called with the name and fields of what operators should know.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        credentials: Credentials,
        keys: Keys,
        *,
        timeout_s: float,
        alone: bool,
        random: Callable[[], float],
        fresh: Callable[[], str],
        event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.keys = keys
        self.losses = 0
        self._reactor = reactor
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._alone = alone
        self._event = event
        self._watchers: list[Watcher] = []
        self._lineage = Lineage(keys.one("lineage"), fresh)
        self._server: Server | None = None
        self._told = False
        self._looking: Any = None
        self._topics = Topics(self._never_moves)
        self._commands = Link(
            reactor, endpoint, self._make, prepare=self._prepare, up=self._up, down=self._down, random=random
        )
        self._subscriptions = Link(
            reactor,
            endpoint,
            self._make_subscriber,
            prepare=self._prepare_topics,
            up=lambda _: None,
            down=lambda _: self._topics.lost(),
            random=random,
        )

    def start(self) -> None:
        """
        Begin to connect; what is asked before it is done fails.
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
        self._watchers.clear()
        self._told = True  # Nobody has to be told of an end that was asked for.
        await self._commands.stop()
        await self._subscriptions.stop()

    @property
    def available(self) -> bool:
        """Calls can be answered now."""
        return self._commands.connection is not None

    @property
    def hearing(self) -> bool:
        """Topics can be subscribed now."""
        return self._subscriptions.connection is not None

    @property
    def chain(self) -> str:
        """Which life of the data this is."""
        return self._lineage.chain

    def watch(self, watcher: Watcher) -> None:
        """
        Tell *watcher* of losses and returns.
        """
        self._watchers.append(watcher)

    # Asking.

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        """
        Run a script.
        """
        try:
            return await self._run(script, keys, args)
        except RedisRefused as refused:
            if refused.code != "STALE" or self._commands.connection is None:
                raise
            await self._settle(self._commands.connection)
            return await self._run(script, keys, args)

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        connection = self._connection()
        parts = [self.chain if arg is CHAIN else arg for arg in args]
        try:
            return await connection.send(("EVALSHA", script.sha, len(keys), *keys, *parts))
        except RedisFault as fault:
            if not str(fault).startswith("NOSCRIPT"):
                raise
            return await connection.send(("EVAL", script.text, len(keys), *keys, *parts))

    async def call(self, *command: Part, key: str | None = None) -> Any:
        """
        Send a command.
        """
        return await self._connection().send(command)

    async def everywhere(self, *command: Part) -> list[Any]:
        """
        Send a command to the one server there is.
        """
        return [await self._connection().send(command)]

    def _connection(self) -> Connection:
        connection = self._commands.connection
        if connection is None:
            raise StoreUnavailable("Redis is away")
        return connection

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """
        Hear a topic.
        """
        await self._topics.subscribe(topic, receiver)

    async def unsubscribe(self, topic: str) -> None:
        """
        Hear it no more.
        """
        await self._topics.unsubscribe(topic)

    @staticmethod
    def _never_moves(_topic: str, _receiver: Receiver) -> None:
        """One server has every slot."""

    # The connections.

    def _make(self, lost: Callable[[Connection, str], None], *, subscriber: bool = False) -> Connection:
        credentials = self._credentials
        return Connection(
            self._reactor,
            username=credentials.username,
            password=credentials.password,
            database=0 if subscriber else credentials.database,
            timeout_s=self._timeout_s,
            most_bytes=MOST_BYTES,
            message=self._topics.message if subscriber else None,
            ended=self._topics.ended if subscriber else None,
            lost=lost,
        )

    def _make_subscriber(self, lost: Callable[[Connection, str], None]) -> Connection:
        return self._make(lost, subscriber=True)

    async def _prepare(self, connection: Connection) -> None:
        await self._settle(connection)

    async def _prepare_topics(self, connection: Connection) -> None:
        await look_at(connection, alone=False)  # A replica hears what was published late, or never.
        await self._topics.again(connection)

    async def _settle(self, connection: Connection, server: Server | None = None) -> None:
        before = self._lineage.chain
        self._server = server or await look_at(connection, alone=self._alone)
        await self._lineage.settle(connection, self._server)
        if before and before != self._lineage.chain:
            self._event("store.went_back", {"chain": self._lineage.chain, "before": before})

    def _up(self, _: Connection) -> None:
        self._event("store.connected", {"chain": self.chain, "losses": self.losses})
        self._told = False
        for watcher in list(self._watchers):
            watcher.back()

    def _down(self, reason: str) -> None:
        if not self._told:
            # Once for each outage: every attempt that fails says the same.
            self._told = True
            self.losses += 1
            self._event("store.lost", {"reason": reason})
            for watcher in list(self._watchers):
                watcher.lost()

    def _look(self) -> None:
        """
        Ask both connections something, so that a server that hangs is found when nobody else asks.

        The mark that goes on with it shows whether what is there after a restart is older than this.
        """
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        commands, topics = self._commands.connection, self._subscriptions.connection
        if commands is not None:
            Deferred.fromCoroutine(self._settle(commands, self._server)).addErrback(self._look_failed)
        if topics is not None:
            topics.send(("PING",)).addErrback(self._look_failed)

    def _look_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, RedisRefused) and error.code == "READONLY":
            self._commands.drop("the server became a replica")
        elif not failure.check(StoreUnavailable):
            self._event("store.unexpected", {"reason": failure.getErrorMessage()})
