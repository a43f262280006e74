"""
Instances on a real Redis, as far as sessions and leases go: they hold connections, beat, sweep, die and hang.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.realtime.neighbours import Telling
from tests.redis.fixtures import link
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.core.partitions import PARTITIONS
from gateway.node.background import Background
from gateway.node.leases import Keeper, Lost
from gateway.node.sessions import Sessions
from gateway.ports.sessions import OutboxEvent, SessionRecord

__all__ = ["BEAT_S", "LEASE_S", "WINDOW_S", "Instance", "Town", "until"]

BEAT_S = 0.2
LEASE_S = 0.8
WINDOW_S = 0.6


async def until(look: Callable[[], Any], within_s: float = 20.0) -> None:
    """
    Wait until *look* says so.
    """
    from twisted.internet import reactor

    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if isinstance(seen, Awaitable):
            seen = await seen
        if seen:
            return
        assert time.monotonic() < deadline, "not in time"
        await deferLater(reactor, 0.05)


class Instance:
    """
    One process's worth of sessions.

    Attributes:
        connections: Records by client, of those that are connected here.
        taken: Sessions that went on elsewhere.
        lost: Steps that were not written.
        events: What operators were told.
    """

    def __init__(self, town: Town, redis: Any, name: str) -> None:
        from twisted.internet import reactor

        from gateway.redis.instances import RedisInstances
        from gateway.redis.outbox import RedisOutbox
        from gateway.redis.sessions import RedisSessions

        self.town = town
        self.redis = redis
        self.name = name
        self.connections: dict[str, SessionRecord] = {}
        self.taken: list[SessionRecord] = []
        self.lost: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.failures: list[str] = []
        self.tidies: list[Callable[[Lost], Awaitable[Any]]] = []
        self.alive = True
        self.store = RedisSessions(redis)
        self.registry = RedisInstances(redis)
        self.outbox = RedisOutbox(redis, "events")
        self.owed = RedisOutbox(redis, "owed")
        self.background = Background(reactor, self._failed)
        self.sessions = Sessions(
            self.store,
            reactor,
            time.time,
            self.background,
            instance=name,
            bits=secrets.randbits,
            window_s=WINDOW_S,
            most=100_000,
            lost=lambda kind, why: self.lost.append((kind, why)),
            note=lambda client: client.encode(),
            holds=town.holds,
            taken=self.taken.append,
            events=Telling(),
        )
        self.keeper = Keeper(
            self.registry,
            self.store,
            self.sessions,
            reactor,
            self.background,
            beat_s=BEAT_S,
            lease_s=LEASE_S,
            new_name=lambda: secrets.token_hex(8),
            tidy=self.tidies,
            holders=self.store.holders,
            written=lambda: True,
            anew=self._anew,
            event=lambda event, **fields: self.events.append(event),
        )

    def start(self) -> None:
        """Beat and sweep."""
        self.alive = True
        self.keeper.start()
        self.background.every("sweep", 0.1, lambda: self.background.spawn("sweep", self._sweep()))

    async def _sweep(self) -> None:
        from gateway.ports.realtime import StoreUnavailable

        try:
            await self.sessions.sweep()
        except StoreUnavailable:
            return

    async def pause(self) -> None:
        """Let it hang; ``start`` lets it go on."""
        self.alive = False
        await self.background.stop()

    async def kill(self) -> None:
        """End it as a crash would."""
        await self.pause()
        await self.redis.stop()

    def _failed(self, name: str, failure: Failure) -> None:
        self.failures.append(f"{name}: {failure.getTraceback()}")

    async def _anew(self, _name: str) -> None:
        for record in list(self.connections.values()):
            await self.lose(record)

    # What clients do.

    async def connect(self, user: str, device: str = "d") -> SessionRecord:
        """Let a client in."""
        client = secrets.token_hex(16)
        record, _ = await self.sessions.open(client, user, device, {"client": client})
        self.connections[client] = record
        return record

    async def lose(self, record: SessionRecord) -> None:
        """Lose a connection without a word."""
        del self.connections[record.client]
        await self.sessions.suspend(record)

    async def end(self, record: SessionRecord) -> None:
        """Close one in order."""
        del self.connections[record.client]
        await self.sessions.end(record, "closed")


class Town:
    """
    Several instances on one Redis.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.instances: list[Instance] = []

    async def add(self, **settings: Any) -> Instance:
        """Start one more, and wait until it is known."""
        redis = await link(self.url, self.prefix, **settings)
        instance = Instance(self, redis, f"i{len(self.instances) + 1}")
        self.instances.append(instance)
        instance.start()
        await until(lambda: instance.sessions.ready)
        return instance

    async def holds(self, records: Sequence[SessionRecord]) -> set[str]:
        """Ask instances, as others do: the dead are silent."""
        return {
            record.client
            for record in records
            for instance in self.instances
            if instance.alive and instance.keeper.instance == record.instance and record.client in instance.connections
        }

    @property
    def reader(self) -> Instance:
        """One whose Redis can be asked."""
        return next(instance for instance in self.instances if instance.redis.available)

    async def stop(self) -> None:
        """End all of them."""
        for instance in self.instances:
            await instance.background.stop()
            await instance.redis.stop()
        assert [failure for instance in self.instances for failure in instance.failures] == []

    async def told(self) -> list[OutboxEvent]:
        """Everything in the outbox."""
        return list(await self.reader.outbox.take("test", range(PARTITIONS), 100_000))

    async def owed(self) -> list[OutboxEvent]:
        """Everything that lost connections are owed."""
        return list(await self.reader.owed.take("test", range(PARTITIONS), 100_000))

    async def ends(self) -> dict[str, list[bytes]]:
        """By session, the causes of its ends."""
        ends: dict[str, list[bytes]] = {}
        for event in await self.told():
            if event.id.endswith("-ended"):
                ends.setdefault(event.session, []).append(event.data)
        return ends

    async def left(self) -> set[str]:
        """Kinds of the keys that are there, but for those of outboxes and of the store itself."""
        redis = self.reader.redis
        keys = {key.decode().split(":")[2] for key in await redis.call("KEYS", f"{self.prefix}:*", key="")}
        return keys - {"events", "owed", "events_taker", "owed_taker", "ended", "{lineage}", "{instances}"}
