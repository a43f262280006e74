"""
Nodes that share the memory of one house, and hear each other and of revocations through a real Redis.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from tests.contract.revokers import in_redis
from tests.realtime.house import House
from tests.redis.fixtures import link
from twisted.python.failure import Failure

from gateway.memory.bus import MemoryBus
from gateway.node.api_keys import Key
from gateway.node.operations import Operations
from gateway.node.realtime import RealtimeNode
from gateway.ports.cluster import ClusterBus

__all__ = ["City"]

EVERYTHING = Key("all", ("*",))


class City(House):
    """
    A house whose nodes are far from each other. Its own first node is none of them.
    """

    def __init__(self, url: str, text: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.links: list[Any] = []
        self.failed: list[tuple[str, Failure]] = []
        self.shared: list[Any] = []
        self.apart: list[RealtimeNode] = []
        self._next: Any = None
        super().__init__(text)

    def wall(self) -> float:
        """The real time: Redis has it, too."""
        return time.time()

    def make_bus(self) -> ClusterBus:
        """The bus of the node that is being made."""
        if self._next is None:
            return super().make_bus()
        bus, self._next = self._next, None
        made: MemoryBus = bus
        return made

    async def peers(self) -> list[str]:
        """Whom a registry would name."""
        return [node.instance for node in self.apart]

    def _fail(self, name: str, failure: Failure) -> None:
        self.failed.append((name, failure))

    async def settle(self) -> RealtimeNode:
        """One more node, that the others hear and that knows what is revoked."""
        from twisted.internet import reactor  # pytest-twisted has installed one.

        from gateway.redis.bus import RedisBus

        here: Any = reactor
        redis = await link(self.url, self.prefix)
        self.links.append(redis)
        self._next = RedisBus(redis, here, self.peers, self._fail)
        self.revocations = in_redis(redis, self._fail)
        self.shared.append(self.revocations)
        await self.revocations.start()
        node = self.add()
        await node.bus.join(node.instance)
        self.apart.append(node)
        return node

    async def do(self, at: RealtimeNode, name: str, **parameters: Any) -> dict[str, Any]:
        """Order something of one node."""
        return await Operations(at).do(name, json.dumps(parameters).encode(), EVERYTHING)

    async def close(self) -> None:
        """End all."""
        for node, redis, revocations in zip(self.apart, self.links, self.shared, strict=True):
            await node.stop()
            await revocations.stop()
            await redis.stop()
        faults = "\n".join(f"{name}: {failure.getTraceback()}" for name, failure in self.failed)
        assert not faults, faults
