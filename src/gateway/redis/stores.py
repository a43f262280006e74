"""
The whole set of stores on Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.python.failure import Failure

from gateway.ports.sessions import MOST_EVENTS
from gateway.ports.stores import Stores
from gateway.redis.broker import RedisBroker
from gateway.redis.bus import RedisBus
from gateway.redis.client import Store
from gateway.redis.idempotency import RedisIdempotency
from gateway.redis.instances import RedisInstances
from gateway.redis.outbox import RedisOutbox
from gateway.redis.presence import RedisPresence
from gateway.redis.sessions import RedisSessions

__all__ = ["redis_stores"]


def redis_stores(
    redis: Store,
    clock: Any,
    *,
    wall: Callable[[], float],
    fresh: Callable[[], str],
    failed: Callable[[str, Failure], None],
    odd: Callable[[str], None],
    lease_s: float,
    most_events: int = MOST_EVENTS,
) -> Stores:
    """
    Make one of each.

    Args:
        wall: Seconds since the epoch.
        lease_s: How long an instance may be silent.
        most_events: Events that may wait, of each kind.
        fresh: Makes a name nobody else makes.
        failed: Told of faults of what runs by itself, with its name.
        odd: Told of messages that cannot be read.
    """
    instances = RedisInstances(redis)

    async def living() -> Iterable[str]:
        return [peer.instance for peer in await instances.peers() if peer.living]

    return Stores(
        broker=RedisBroker(redis, wall, fresh, odd),
        presence=RedisPresence(redis, clock, lease_s=lease_s, failed=failed),
        sessions=RedisSessions(redis, most=most_events, seconds=clock.seconds),
        idempotency=RedisIdempotency(redis),
        bus=RedisBus(redis, clock, living, failed),
        instances=instances,
        events=RedisOutbox(redis, "events"),
        owed=RedisOutbox(redis, "owed"),
    )
