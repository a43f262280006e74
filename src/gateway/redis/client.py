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

from twisted.internet.interfaces import IStreamClientEndpoint

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection, Part
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.keys import Keys
from gateway.redis.lineage import Lineage, Server
from gateway.redis.master import Account, Master
from gateway.redis.scripts import Script
from gateway.redis.topics import Receiver

__all__ = ["CHAIN", "Chain", "Guide", "Linked", "Outages", "Redis", "Store", "Watcher"]


MOST_REASONS: Final = 8
"""In one outage this many are told."""


class Chain(Enum):
    """Stands among a script's arguments for the chain that holds when it is sent."""

    NOW = "now"


CHAIN: Final = Chain.NOW


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
        single: One server has every key: a script may take any of them.
        chain: The life of the data, see ``lineage``. A script that finds a stream of a smaller one (as texts) begins a new
            epoch; one that finds a greater one answers with the error ``STALE`` and that chain as the last word: the
            caller's is old, which ``run`` mends by asking anew and trying once more.
    """

    keys: Keys
    single: bool

    @property
    def available(self) -> bool: ...  # noqa: D102
    @property
    def chain(self) -> str: ...  # noqa: D102

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        """
        Run a script; all *keys* are of one slot unless the store is ``single``, topics it publishes to among them, and ``CHAIN`` an argument of those
        that touch streams.

        Raises:
            StoreUnavailable: whether it ran is not known, but for ``RedisRefused``: it did not.
        """

    async def call(self, *command: Part, key: str | None = None) -> Any:
        """Send a command to the server that has *key*; the command's second word if it is not said."""

    async def everywhere(self, *command: Part) -> list[Any]:
        """Send a command to every server that holds a part of the data; return what each answers."""

    async def replicas(self, key: str, wanted: int, within_s: float, chain: str) -> int:
        """
        Wait until *wanted* replicas have what was written to the server of *key* before this, at most *within_s*.

        Args:
            key: Set for a second, as a mark.
            chain: That held when it was written.

        Returns:
            How many have it for certain; 0 also if that cannot be known, or the chain is another by now.
        """

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """Hear a topic from when this returns."""

    async def unsubscribe(self, topic: str) -> None:
        """Hear it no more."""

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* told of losses and returns from now on."""


class Linked(Store, Protocol):
    """
    A store that is started and stopped.

    Attributes:
        hearing: Topics can be subscribed now.
        losses: How often it was lost.
    """

    @property
    def hearing(self) -> bool: ...  # noqa: D102
    @property
    def losses(self) -> int: ...  # noqa: D102

    def start(self) -> None:
        """Begin to connect; what is asked before it is done fails."""

    async def stop(self) -> None:
        """Close the connections."""


class Guide(Protocol):
    """
    Who knows where the master is.
    """

    def start(self, moved: Callable[[str], None]) -> None:
        """Look, and call *moved* with the reason when another is master."""

    async def stop(self) -> None:
        """Look no more."""


class Outages:
    """
    Whom losses and returns are told to, once each.

    Args:
        event: Called with the name and fields of what operators should know.

    Attributes:
        losses: How often it was lost.
    """

    def __init__(self, event: Callable[[str, dict[str, Any]], None]) -> None:
        self.losses = 0
        self._event = event
        self._reasons: set[str] = set()
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """
        Tell *watcher*, too.
        """
        self._watchers.append(watcher)

    def stop(self) -> None:
        """
        Tell nobody any more.
        """
        self._watchers.clear()

    def up(self, chain: str) -> None:
        """
        It can be asked.
        """
        self._event("store.connected", {"chain": chain, "losses": self.losses})
        self._reasons.clear()
        for watcher in list(self._watchers):
            self._tell(watcher.back)

    def down(self, reason: str) -> None:
        """
        It cannot be asked. Every attempt that fails says so; the loss is told once, and each reason that comes up after it.
        """
        if self._reasons:
            if reason not in self._reasons and len(self._reasons) < MOST_REASONS:
                self._reasons.add(reason)
                self._event("store.away", {"reason": reason})
            return
        self._reasons.add(reason)
        self.losses += 1
        self._event("store.lost", {"reason": reason})
        for watcher in list(self._watchers):
            self._tell(watcher.lost)

    def settled(self, before: str, chain: str) -> None:
        """
        It is known which chain holds, and which one held before.
        """
        if before and before != chain:
            self._event("store.went_back", {"chain": chain, "before": before})

    def odd(self, reason: str) -> None:
        """
        Something is not as it should be.
        """
        self._event("store.unexpected", {"reason": reason})

    def _tell(self, told: Callable[[], None]) -> None:
        try:
            told()
        except Exception as error:  # The link must go on.
            self.odd(f"{type(error).__name__}: {error}")


class Redis:
    """
    One server (``Store``).

    Args:
        endpoint: Leads to the server that is master now.
        guide: Knows where *endpoint* leads; without one it is always the same server, whose restarts may lose nothing.
        random: Evenly from 0 to 1.
        fresh: Makes a name nobody else makes.
        event: Called with the name and fields of what operators should know.
    """

    single = True

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        account: Account,
        keys: Keys,
        *,
        guide: Guide | None = None,
        random: Callable[[], float],
        fresh: Callable[[], str],
        event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.keys = keys
        self._guide = guide
        self._outages = Outages(event)
        self._lineage = Lineage(keys.one("lineage"), fresh, reactor.seconds)
        self._master = Master(
            reactor,
            endpoint,
            account,
            random=random,
            settle=self._settle,
            up=lambda: self._outages.up(self.chain),
            down=self._outages.down,
            moved=_never_moves,
            odd=self._outages.odd,
            alone=guide is None,
        )

    def start(self) -> None:
        """
        Begin to connect; what is asked before it is done fails.
        """
        if self._guide is not None:
            self._guide.start(self._master.drop)
        self._master.start()

    async def stop(self) -> None:
        """
        Close the connections.
        """
        self._outages.stop()
        await self._master.stop()
        if self._guide is not None:
            await self._guide.stop()

    @property
    def available(self) -> bool:
        """Calls can be answered now."""
        return self._master.connection is not None

    @property
    def hearing(self) -> bool:
        """Topics can be subscribed now."""
        return self._master.hearing

    @property
    def losses(self) -> int:
        """How often it was lost."""
        return self._outages.losses

    @property
    def chain(self) -> str:
        """Which life of the data this is."""
        return self._lineage.chain

    def watch(self, watcher: Watcher) -> None:
        """
        Tell *watcher* of losses and returns.
        """
        self._outages.watch(watcher)

    # Asking.

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        """
        Run a script.
        """
        try:
            return await self._run(script, keys, args)
        except RedisRefused as refused:
            if refused.code != "STALE":
                raise
            self._lineage.heard(str(refused))
            await self._master.look()
            if self._lineage.behind:
                raise
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

    async def replicas(self, key: str, wanted: int, within_s: float, chain: str) -> int:
        """
        Wait for replicas.
        """
        known = await self._master.waits.wait(key, wanted, within_s)
        return known if self.chain == chain else 0

    def _connection(self) -> Connection:
        connection = self._master.connection
        if connection is None:
            raise StoreUnavailable("Redis is away")
        return connection

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """
        Hear a topic.
        """
        await self._master.topics.subscribe(topic, receiver)

    async def unsubscribe(self, topic: str) -> None:
        """
        Hear it no more.
        """
        await self._master.topics.unsubscribe(topic)

    async def _settle(self, connection: Connection, server: Server) -> None:
        before = self._lineage.chain
        await self._lineage.settle(connection.send, server)
        self._outages.settled(before, self._lineage.chain)


def _never_moves(_topic: str, _receiver: Receiver) -> None:
    """One server has every slot."""
