"""
The leases of instances, in Redis: one hash, by the server's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.ports.instances import Peer, Standing
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["RedisInstances"]

REMEMBERED_S: Final = 7 * 24 * 3600.0
"""How long an instance that was ended is told so if it comes back."""


class RedisInstances:
    """
    The ``ports.instances.InstanceRegistry`` in Redis.

    A store whose data may have gone back answers an instance with ``UNKNOWN``: what it wrote last may be gone.
    """

    def __init__(self, redis: Store) -> None:
        self._redis = redis
        self._instances = redis.keys.one("instances")
        # Of another kind, but with the same tag.
        self._ended = redis.keys.channel("ended", "instances")
        self._chains: dict[str, str] = {}

    async def announce(self, instance: str, lease_s: float) -> None:
        """
        Make an instance known.
        """
        chain = self._redis.chain
        await self._redis.run(load("instance_announce"), [self._instances], [instance, _ms(lease_s), 0])
        self._chains[instance] = chain

    async def beat(self, instance: str, lease_s: float) -> Standing:
        """
        Renew a lease.
        """
        chain = self._redis.chain
        told: bytes = await self._redis.run(
            load("instance_beat"), [self._instances, self._ended], [instance, _ms(lease_s)]
        )
        standing = Standing(told.decode())
        return Standing.UNKNOWN if standing is Standing.OK and self._chains.get(instance) != chain else standing

    async def peers(self) -> Sequence[Peer]:
        """
        List the instances.
        """
        now, *found = await self._redis.run(load("instance_peers"), [self._instances], [])
        pairs = zip(found[::2], found[1::2], strict=True)
        return sorted(
            (_peer(name.decode(), value.decode(), int(now)) for name, value in pairs), key=lambda peer: peer.instance
        )

    async def claim(self, dead: str, by: str, lease_s: float) -> bool:
        """
        Claim a lapsed instance.
        """
        return bool(await self._redis.run(load("instance_claim"), [self._instances], [dead, by, _ms(lease_s)]))

    async def finish(self, dead: str, by: str) -> bool:
        """
        Forget a claimed instance.
        """
        return await self._finish(dead, by)

    async def leave(self, instance: str) -> None:
        """
        Forget an instance that stops.
        """
        await self._finish(instance, "-")
        self._chains.pop(instance, None)

    async def _finish(self, instance: str, by: str) -> bool:
        keys = [self._instances, self._ended]
        return bool(await self._redis.run(load("instance_finish"), keys, [instance, by, _ms(REMEMBERED_S)]))

    async def adopt(self, instance: str, lease_s: float) -> None:
        """
        Make an instance known that nobody knows.
        """
        await self._redis.run(load("instance_announce"), [self._instances], [instance, _ms(lease_s), 1])


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _peer(instance: str, value: str, now: int) -> Peer:
    seen, _, lease, claimer, until = value.split(" ")
    lapses = int(seen) + int(lease)
    claimed = claimer != "-"
    return Peer(
        instance,
        int(seen) / 1000,
        lapses / 1000,
        (lapses - now) / 1000,
        claimer if claimed else "",
        (int(until) - now) / 1000 if claimed else 0.0,
    )
