"""
Revocations under contract: two instances that share them, in this process or through a real Redis.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import KINDS, link, url_of
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.memory.revocations import MemoryRevocations
from gateway.ports.identity import Revocations

__all__ = ["Revokers", "in_redis", "revokers"]


@dataclass
class Revokers:
    """
    Two instances, and the time that they live in.
    """

    one: Revocations
    two: Revocations
    wall: Callable[[], float]

    async def until(self, true: Callable[[], bool], within_s: float = 10.0) -> None:
        """Wait for something to become true."""
        from twisted.internet import reactor

        here: Any = reactor
        for _ in range(int(within_s / 0.01)):
            if true():
                return
            await deferLater(here, 0.01)
        raise AssertionError("not in time")


def in_redis(redis: Any, failed: Callable[[str, Failure], None], wall: Callable[[], float] = time.time) -> Any:
    """An instance's revocations in Redis; they are not started."""
    from twisted.internet import reactor

    from gateway.redis.revocations import RedisRevocations

    here: Any = reactor
    return RedisRevocations(
        redis,
        here,
        MemoryRevocations(wall),
        MemoryRevocations(wall),
        wall=wall,
        fresh=lambda: secrets.token_hex(4),
        failed=failed,
    )


def _raise(name: str, failure: Failure) -> None:
    raise AssertionError(f"{name}: {failure.getTraceback()}")


@pytest_twisted.async_yield_fixture(params=KINDS)
async def revokers(request: pytest.FixtureRequest) -> AsyncIterator[Revokers]:
    if request.param == "memory":
        both = MemoryRevocations(time.time)
        yield Revokers(both, both, time.time)
        return
    url, prefix = url_of(request), "t" + secrets.token_hex(4)
    links = [await link(url, prefix) for _ in range(2)]
    one, two = (in_redis(redis, _raise) for redis in links)
    await one.start()
    await two.start()
    yield Revokers(one, two, time.time)
    for redis, revocations in zip(links, (one, two), strict=True):
        await revocations.stop()
        await redis.stop()
