"""
The masters of a cluster, as the map names them: each connected to while it has slots.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.interfaces import IStreamClientEndpoint

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.atlas import Atlas
from gateway.redis.connection import Connection, all_of
from gateway.redis.lineage import Server
from gateway.redis.master import Account, Master
from gateway.redis.slots import Address, SlotMap
from gateway.redis.topics import Receiver, Topics

__all__ = ["Shards"]

GUEST_S: Final = 30.0
"""How long a master is kept that has no slot yet: one to which a slot is on its way."""


class Follower(Protocol):
    """
    Who hears topics, wherever they are.
    """

    def moved(self, topic: str, receiver: Receiver) -> None:
        """A master does not have the topic any more."""

    def changed(self, slots: set[int]) -> None:
        """*slots* are another's now."""

    def left(self, topics: Topics) -> None:
        """The master of *topics* is left."""


class Shards:
    """
    The masters.

    Args:
        seeds: Some nodes; they name the others.
        endpoint: Makes the endpoint of a node.
        settle: Called with address, connection and what a master says of itself before commands are sent to it, and each second.
        weigh: Called when a master came, with the reason when one went, and when the map is another.
        odd: Called with what should not happen.

    Attributes:
        atlas: Knows the map.
        follower: Hears of what concerns topics.
    """

    def __init__(
        self,
        reactor: Any,
        seeds: Sequence[Address],
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        account: Account,
        *,
        random: Callable[[], float],
        settle: Callable[[Address, Connection, Server], Awaitable[None]],
        weigh: Callable[[str], None],
        odd: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._account = account
        self._random = random
        self._settle = settle
        self.follower: Follower | None = None
        self._weigh = weigh
        self._odd = odd
        self._masters: dict[Address, Master] = {}
        self._guests: dict[Address, float] = {}
        self._young: dict[Address, list[Deferred[None]]] = {}
        self._leaving: set[Deferred[None]] = set()
        self._stopped = False
        self.atlas = Atlas(
            reactor,
            seeds,
            endpoint,
            lambda lost: account.connection(reactor, lost),
            connected=self.connected,
            restless=lambda: not (self.all_up and self.all_heard),
            changed=self._changed,
            failed=weigh,
            random=random,
        )

    def start(self) -> None:
        """
        Begin to connect.
        """
        self.atlas.start()

    async def stop(self) -> None:
        """
        Close the connections.
        """
        self._stopped = True
        await self.atlas.stop()
        for address in list(self._masters):
            self._remove(address)
        await all_of(list(self._leaving))

    @property
    def slots(self) -> SlotMap:
        """Who has which slot."""
        return self.atlas.slots

    @property
    def all_up(self) -> bool:
        """Whether every slot's master answers."""
        return self.slots.complete and all(self.ready(address) is not None for address in self.slots.masters)

    @property
    def all_heard(self) -> bool:
        """Whether topics of every slot can be heard."""
        masters = [self._masters.get(address) for address in self.slots.masters]
        return self.slots.complete and all(master is not None and master.hearing for master in masters)

    def away(self) -> str:
        """Say what is not there, and is not just coming for the first time; empty if that is nothing."""
        if not self.slots.complete:
            return "there are slots that nobody has"
        here = self._young.keys() | {address for address, _ in self.connected()}
        away = [f"{host}:{port}" for host, port in sorted(set(self.slots.masters) - here)]
        return f"not connected to {', '.join(away)}" if away else ""

    def connected(self) -> list[tuple[Address, Connection]]:
        """Masters that answer."""
        found = [(address, master.connection) for address, master in self._masters.items()]
        return [(address, connection) for address, connection in found if connection is not None]

    def masters(self) -> list[tuple[Address, Master]]:
        """Those that are connected to."""
        return list(self._masters.items())

    def at(self, address: Address | None) -> Master | None:
        """Who is connected to there."""
        return self._masters.get(address) if address is not None else None

    def of(self, slot: int) -> Master:
        """
        Who has *slot*.

        Raises:
            StoreUnavailable: nobody that we know.
        """
        master = self.at(self.slots.owner(slot))
        if master is None:
            raise StoreUnavailable(f"Redis is away: nobody has slot {slot}")
        return master

    def ready(self, address: Address) -> Connection | None:
        """Return the connection for commands of a master that answers."""
        master = self._masters.get(address)
        return master.connection if master is not None else None

    def expect(self, address: Address) -> None:
        """Connect to a master though the map does not name it: we are sent there."""
        self._guests[address] = self._reactor.seconds() + GUEST_S
        if address not in self._masters and not self._stopped:
            self._add(address)

    async def arrival(self, address: Address) -> Connection:
        """
        Wait for a master that is being connected to for the first time.

        Raises:
            StoreUnavailable: it did not come, or was lost before: then it is not waited for.
        """
        waiting = self._young.get(address)
        if waiting is not None:
            arrived: Deferred[None] = Deferred()
            waiting.append(arrived)
            try:
                await arrived.addTimeout(self._account.timeout_s, self._reactor)
            except LateError:
                pass  # What is not there by now is away.
        connection = self.ready(address)
        if connection is None:
            raise StoreUnavailable(f"Redis is away: {address[0]}:{address[1]}")
        return connection

    def _changed(self, slots: set[int]) -> None:
        """Connect to whom the map names, and to nobody else."""
        now = self._reactor.seconds()
        self._guests = {address: until for address, until in self._guests.items() if until > now}
        masters = set(self.slots.masters)
        for address in masters - self._masters.keys():
            self._add(address)
        for address in self._masters.keys() - masters - self._guests.keys():
            self._remove(address)
        if self.follower is not None:
            self.follower.changed(slots)
        self._weigh("")

    def _add(self, address: Address) -> None:
        self._young[address] = []
        master = self._masters[address] = Master(
            self._reactor,
            self._endpoint(*address),
            self._account,
            random=self._random,
            settle=lambda connection, server: self._settle(address, connection, server),
            up=lambda: self._came(address),
            down=lambda reason: self._went(address, reason),
            moved=self._topic_moved,
            odd=self._odd,
            cluster=True,
        )
        master.start()

    def _remove(self, address: Address) -> None:
        master = self._masters.pop(address)
        self._grown(address)
        if self.follower is not None:
            self.follower.left(master.topics)
        leaving = Deferred.fromCoroutine(master.stop())
        if not leaving.called:
            self._leaving.add(leaving)
            leaving.addBoth(self._gone, leaving)

    def _gone(self, result: object, leaving: Deferred[None]) -> object:
        self._leaving.discard(leaving)
        return result

    def _topic_moved(self, topic: str, receiver: Receiver) -> None:
        if self.follower is not None:
            self.follower.moved(topic, receiver)

    def _came(self, address: Address) -> None:
        self._grown(address)
        self._weigh("")

    def _went(self, address: Address, reason: str) -> None:
        self._grown(address)
        self.atlas.soon()
        self._weigh(f"{address[0]}:{address[1]}: {reason}")

    def _grown(self, address: Address) -> None:
        for arrived in self._young.pop(address, []):
            if not arrived.called:
                arrived.callback(None)
