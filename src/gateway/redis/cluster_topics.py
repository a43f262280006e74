"""
Topics of a cluster: each is heard at the master of its slot, and follows it when the slot moves.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import all_of
from gateway.redis.errors import RedisRefused
from gateway.redis.master import Master
from gateway.redis.shards import Shards
from gateway.redis.slots import Address, redirected, slot_of
from gateway.redis.topics import Receiver, Topics

__all__ = ["ClusterTopics"]

MOST_STEPS: Final = 8
ARRIVAL_S: Final = 2.0
"""How long a subscription waits for a master that is being connected to."""

LOOK_S: Final = 0.02
AGAIN_S: Final = 0.1
"""Between attempts to find topics their new place."""


class ClusterTopics:
    """
    What is heard in a cluster.

    Args:
        shards: Who has which slot.
    """

    def __init__(self, reactor: Any, shards: Shards) -> None:
        self._reactor = reactor
        self._shards = shards
        shards.follower = self
        self._slots: dict[int, set[str]] = {}
        self._homeless: dict[str, Receiver] = {}
        self._housing: Deferred[None] | None = None
        self._stopped = False

    @property
    def settled(self) -> bool:
        """Every topic is with the master of its slot, as far as it is known."""
        return not self._homeless

    async def stop(self) -> None:
        """
        Look for no more places.
        """
        self._stopped = True
        if self._housing is not None:
            self._housing.cancel()

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """
        Hear *topic*.
        """
        self._homeless.pop(topic, None)
        slot = slot_of(topic)
        self._slots.setdefault(slot, set()).add(topic)
        try:
            await self._subscribe(topic, slot, receiver)
        except BaseException:
            self._forget(topic)
            raise

    async def _subscribe(self, topic: str, slot: int, receiver: Receiver) -> None:
        for _ in range(MOST_STEPS):
            address = self._shards.slots.owner(slot)
            master = await self._arrived(address)
            try:
                await master.topics.subscribe(topic, receiver)
                return
            except RedisRefused as refused:
                if refused.code != "MOVED" or address is None:
                    raise
                if not self._shards.atlas.moved(slot, redirected(str(refused), address[0])[1]):
                    await deferLater(self._reactor, AGAIN_S)
        raise StoreUnavailable(f"Redis sends slot {slot} from one to the other")

    async def _arrived(self, address: Address | None) -> Master:
        """Wait for a master that is being connected to for the first time."""
        for _ in range(int(ARRIVAL_S / LOOK_S)):
            master = self._shards.at(address)
            if master is None or master.tried:
                break
            await deferLater(self._reactor, LOOK_S)
        if master is None:
            raise StoreUnavailable("Redis is away")
        return master

    async def unsubscribe(self, topic: str) -> None:
        """
        Hear it no more.
        """
        self._homeless.pop(topic, None)
        self._forget(topic)
        for _, master in self._shards.masters():
            await master.topics.unsubscribe(topic)

    def _forget(self, topic: str) -> None:
        slot = slot_of(topic)
        topics = self._slots.get(slot)
        if topics is not None:
            topics.discard(topic)
            if not topics:
                del self._slots[slot]

    # Slots that move.

    def moved(self, topic: str, receiver: Receiver) -> None:
        """
        A server ended a subscription, or refused to renew it: the slot is elsewhere.
        """
        self._homeless[topic] = receiver
        self._shards.atlas.soon()
        self._house()

    def changed(self, slots: set[int]) -> None:
        """
        Slots are another's now: their topics go with them, whether the one who had them knows it or not.
        """
        for slot in slots & self._slots.keys():
            owner = self._shards.slots.owner(slot)
            for address, master in self._shards.masters():
                if address != owner:
                    self._homeless |= master.topics.release(self._slots[slot])
        self._house()

    def left(self, topics: Topics) -> None:
        """
        A master is left: what was heard there is heard elsewhere.
        """
        self._homeless |= topics.release()
        self._house()

    def _house(self) -> None:
        if self._housing is None and self._homeless and not self._stopped:
            self._housing = Deferred.fromCoroutine(self._find_places())
            self._housing.addBoth(self._housed)

    def _housed(self, result: Any) -> Any:
        self._housing = None
        if isinstance(result, Failure) and result.check(CancelledError):
            return None
        return result

    async def _find_places(self) -> None:
        while self._homeless:
            await deferLater(self._reactor, 0)  # Slots move many topics at once.
            by_master: dict[Address, list[str]] = {}
            for topic in self._homeless:
                address = self._shards.slots.owner(slot_of(topic))
                if address is not None:
                    by_master.setdefault(address, []).append(topic)
            await all_of([Deferred.fromCoroutine(self._lodge(*each)) for each in by_master.items()])
            if self._homeless:
                self._shards.atlas.soon()
                await deferLater(self._reactor, AGAIN_S)

    async def _lodge(self, address: Address, topics: list[str]) -> None:
        master = self._shards.at(address)
        if master is None:
            return
        try:
            await master.topics.adopt([(topic, self._homeless.pop(topic)) for topic in topics])
        except StoreUnavailable:
            return  # They are heard with that master's next connection.
