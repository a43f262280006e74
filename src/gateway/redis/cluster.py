"""
Redis Cluster behind the face of ``client.Store``: each command goes to the master of its slot.

A shard that is away fails the calls that need it, and no others. A redirected command is sent again where it
belongs, in the order in which commands of a slot were sent. There is one lineage for all: a shard that may have
lost something begins a new chain everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import CHAIN, Chain, Outages, Watcher
from gateway.redis.cluster_topics import ClusterTopics
from gateway.redis.connection import Connection, Part, all_of
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.keys import Keys
from gateway.redis.lineage import Lineage, Server
from gateway.redis.master import Account
from gateway.redis.scripts import Script
from gateway.redis.shards import Shards
from gateway.redis.slots import Address, redirected, slot_of
from gateway.redis.topics import Receiver

__all__ = ["RedisCluster"]

MOST_STEPS: Final = 16
"""Redirections and waits of one command."""

SUDDEN_STEPS: Final = 3
"""Redirections that are followed without a pause."""

FIRST_PAUSE_S: Final = 0.01
MOST_PAUSE_S: Final = 0.25
"""Before a command is tried again whose keys are on two servers just now, or of which two say that the other has it."""


class RedisCluster:
    """
    Many masters (``Store``).

    Args:
        seeds: Some nodes; they name the others.
        endpoint: Makes the endpoint of a node.
        random: Evenly from 0 to 1.
        fresh: Makes a name nobody else makes.
        event: Called with the name and fields of what operators should know.
    """

    single = False

    def __init__(
        self,
        reactor: Any,
        seeds: Sequence[Address],
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        account: Account,
        keys: Keys,
        *,
        random: Callable[[], float],
        fresh: Callable[[], str],
        event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.keys = keys
        self._reactor = reactor
        self._timeout_s = account.timeout_s
        self._random = random
        self._outages = Outages(event)
        self._up = False
        self._stopped = False
        self._lineage = Lineage(keys.one("lineage"), fresh, reactor.seconds)
        self._lineage_slot = slot_of(self._lineage.key)
        self._held: dict[int, list[Deferred[None]]] = {}
        self._shards = Shards(
            reactor,
            seeds,
            endpoint,
            account,
            random=random,
            settle=self._settle,
            weigh=self._weigh,
            odd=self._outages.odd,
        )
        self._topics = ClusterTopics(reactor, self._shards)

    def start(self) -> None:
        """
        Begin to connect; what is asked before it is done fails.
        """
        self._shards.start()

    async def stop(self) -> None:
        """
        Close the connections.
        """
        self._stopped = True
        self._outages.stop()
        await self._topics.stop()
        await self._shards.stop()

    @property
    def available(self) -> bool:
        """Every shard answers; one that is new is waited for by those who need it."""
        return self._up

    @property
    def hearing(self) -> bool:
        """Topics of every shard are heard, each where it belongs."""
        return self._shards.all_heard and self._topics.settled

    @property
    def losses(self) -> int:
        """How often a shard was lost while all were there."""
        return self._outages.losses

    @property
    def chain(self) -> str:
        """Which life of the data this is, of all shards together."""
        return self._lineage.chain

    def watch(self, watcher: Watcher) -> None:
        """
        Tell *watcher* when a first shard is lost, and when all are there again.
        """
        self._outages.watch(watcher)

    # Asking.

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        """
        Run a script.
        """
        slot = slot_of(keys[0])
        try:
            return await self._run(slot, script, keys, args)
        except RedisRefused as refused:
            if refused.code != "STALE":
                raise
            self._lineage.heard(str(refused))
            await self._shards.of(slot).look()
            if self._lineage.behind:
                raise
            return await self._run(slot, script, keys, args)

    async def _run(self, slot: int, script: Script, keys: Sequence[str], args: Sequence[Part | Chain]) -> Any:
        parts = [self.chain if arg is CHAIN else arg for arg in args]
        try:
            return await self._send(slot, ("EVALSHA", script.sha, len(keys), *keys, *parts))
        except RedisFault as fault:
            if not str(fault).startswith("NOSCRIPT"):
                raise
            return await self._send(slot, ("EVAL", script.text, len(keys), *keys, *parts))

    async def call(self, *command: Part, key: str | None = None) -> Any:
        """
        Send a command; one without a key to any master.
        """
        if key is not None or len(command) > 1:
            return await self._send(slot_of(key if key is not None else _text(command[1])), command)
        for _, connection in self._shards.connected():
            return await connection.send(command)
        raise StoreUnavailable("Redis is away")

    async def everywhere(self, *command: Part) -> list[Any]:
        """
        Send a command to every master that has slots.
        """
        if not self._shards.all_up:
            raise StoreUnavailable("Redis is away: a part of it")
        masters = self._shards.slots.masters
        return await all_of([each.send(command) for address, each in self._shards.connected() if address in masters])

    async def replicas(self, key: str, wanted: int, within_s: float, chain: str) -> int:
        """
        Wait for the replicas of one master.
        """
        master = self._shards.at(self._shards.slots.owner(slot_of(key)))
        known = await master.waits.wait(key, wanted, within_s) if master is not None else 0
        return known if self.chain == chain else 0

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

    # Where commands go.

    async def _send(self, slot: int, parts: Sequence[Part], own: tuple[Address, Connection] | None = None) -> Any:
        """
        Send a command to whoever has *slot*.

        Args:
            own: A connection that is not ready for others, and may be used for this.
        """
        held = self._held.get(slot)
        if held is not None:
            turn: Deferred[None] = Deferred()
            held.append(turn)
            await turn
        until = self._reactor.seconds() + self._timeout_s
        pause_s = FIRST_PAUSE_S
        asking: Address | None = None
        for step in range(MOST_STEPS):
            address = asking or self._shards.slots.owner(slot)
            if address is None:
                raise StoreUnavailable(f"Redis is away: nobody has slot {slot}")
            if own is not None and own[0] == address:
                connection = own[1]
            else:
                connection = self._shards.ready(address) or await self._shards.arrival(address)
            try:
                if asking is not None:
                    connection.send(("ASKING",)).addErrback(lambda failure: failure.trap(StoreUnavailable, RedisFault))
                return await connection.send(parts)
            except RedisRefused as refused:
                asking = None
                if refused.code == "MOVED":
                    self._follow(slot, redirected(str(refused), address[0])[1], connection)
                elif refused.code == "ASK":
                    asking = redirected(str(refused), address[0])[1]
                    self._shards.expect(asking)
                elif refused.code != "TRYAGAIN":
                    if refused.code == "CLUSTERDOWN":
                        self._shards.atlas.soon()
                    raise
                if refused.code == "TRYAGAIN" or step > SUDDEN_STEPS:
                    if self._reactor.seconds() + pause_s > until:
                        raise
                    await deferLater(self._reactor, pause_s * (0.5 + self._random()))
                    pause_s = min(2 * pause_s, MOST_PAUSE_S)
        raise StoreUnavailable(f"Redis sends slot {slot} from one to the other")

    def _follow(self, slot: int, address: Address, connection: Connection) -> None:
        """
        Send what is of *slot* to *address*, but for now only what was sent to *connection* before: the rest comes after it.
        """
        self._shards.expect(address)
        if not self._shards.atlas.moved(slot, address) or slot in self._held:
            return
        held = self._held[slot] = []

        def release(_: object) -> None:
            if self._held.get(slot) is held:
                del self._held[slot]
            for turn in held:
                turn.callback(None)

        connection.send(("PING",)).addBoth(release)

    # What is there.

    def _weigh(self, reason: str) -> None:
        """Tell whether all is there, if that is new."""
        if self._stopped:
            return
        if self._shards.all_up:
            if not self._up:
                self._up = True
                self._outages.up(self.chain)
        elif self._shards.away() if self._up else reason:
            self._up = False
            self._outages.down(reason or self._shards.away())

    async def _settle(self, address: Address, connection: Connection, server: Server) -> None:
        before = self._lineage.chain
        await self._lineage.settle(lambda parts: self._send(self._lineage_slot, parts, (address, connection)), server)
        self._outages.settled(before, self._lineage.chain)


def _text(part: Part) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
