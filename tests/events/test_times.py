"""
When things happened, though the store was late to hear of it.
"""

from __future__ import annotations

from typing import Any

import pytest_twisted
from tests.contract.test_sessions import record
from tests.redis.fixtures import redis, redis_server
from twisted.internet import reactor as installed

from gateway.core.partitions import PARTITIONS, partition_of
from gateway.ports.sessions import Event, Opened
from gateway.redis.outbox import RedisOutbox
from gateway.redis.sessions import RedisSessions

__all__ = ["redis", "redis_server"]

reactor: Any = installed


@pytest_twisted.ensureDeferred
async def test_a_store_that_hangs_moves_no_beginning_and_no_end(redis: Any) -> None:
    """
    What a server that hung takes up later is written with the time at which it was sent.
    """
    sessions = RedisSessions(redis, seconds=reactor.seconds)
    await sessions.lapsing(range(PARTITIONS))
    started = reactor.seconds()
    opened = await sessions.open(record(1), event=Event("s", b""))
    assert isinstance(opened, Opened)
    clock_s = opened.record.started_at - started
    await redis.call("CLIENT", "PAUSE", "600", "ALL")
    asked = reactor.seconds()
    late = await sessions.open(record(2, device="other"), event=Event("t", b""))
    assert isinstance(late, Opened)
    assert reactor.seconds() - asked > 0.4
    assert abs(late.record.started_at - clock_s - asked) < 0.2
    await redis.call("CLIENT", "PAUSE", "600", "ALL")
    asked = reactor.seconds()
    assert await sessions.close(opened.record.id, "c1", event=Event("e", b""))
    assert reactor.seconds() - asked > 0.4
    told = await RedisOutbox(redis, "events").take("i", [partition_of(opened.record.id)], 9)
    end = next(event for event in told if event.id == "e")
    assert abs(end.at - clock_s - asked) < 0.2
