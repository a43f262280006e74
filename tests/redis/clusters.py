"""
A Redis Cluster: masters, and replicas where they are wanted, as processes of our own on loopback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hiredis
from tests.redis.server import RedisServer
from tests.web.certificates import Made
from tests.web.harness import pause

from demo.ports import free_port
from gateway.redis.slots import SLOTS

__all__ = ["Cluster"]

TIMEOUT_MS = 1000
"""After it a node that does not answer is failed over."""


class Cluster:
    """
    Nodes that know each other.

    Args:
        masters: With as many slots each.
        replicas: Which masters get one.
        timeout_ms: After it a node that does not answer is failed over.
        options: More of each node's command line.
        tls: All speak TLS alone, with this certificate.
    """

    def __init__(
        self,
        folder: Path,
        masters: int = 3,
        replicas: Sequence[int] = (),
        *,
        timeout_ms: int = TIMEOUT_MS,
        options: Sequence[str] = (),
        tls: Made | None = None,
    ) -> None:
        self.folder = folder
        self.tls = tls
        self._options = [*options, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms)]
        self._options += ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]
        self.masters = [self._node(f"master{number}") for number in range(masters)]
        self.replicas = [self._node(f"replica{number}") for number in range(len(replicas))]
        self._replicate = replicas

    def _node(self, name: str) -> RedisServer:
        return RedisServer(self.folder / name, [*self._options, "--cluster-port", str(free_port())], tls=self.tls)

    @property
    def nodes(self) -> list[RedisServer]:
        """All of them."""
        return [*self.masters, *self.replicas]

    @property
    def replicated(self) -> list[RedisServer]:
        """Masters that had a replica in the beginning, in the order of ``replicas``."""
        return [self.masters[number] for number in self._replicate]

    @property
    def url(self) -> str:
        """Where it is, for ``[store]``."""
        return f"{'rediss' if self.tls else 'redis'}+cluster://" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.masters
        )

    def start(self) -> Cluster:
        """
        Start all, and wait until every node is ready and every replica has its master.
        """
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        size = -(-SLOTS // len(self.masters))
        for number, node in enumerate(self.masters):
            self.ask(node, "CLUSTER", "ADDSLOTSRANGE", number * size, min((number + 1) * size, SLOTS) - 1)
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.meet(node)
        if self.replicas:
            self.until(lambda: all(self._knows_all(node) for node in self.nodes))
        for node, number in zip(self.replicas, self._replicate, strict=True):
            self.ask(node, "CLUSTER", "REPLICATE", self.id(self.masters[number]))
        self.until(lambda: all(b"cluster_state:ok" in self.ask(node, "CLUSTER", "INFO") for node in self.nodes))
        self.until(lambda: all(b"link_status:up" in self.ask(node, "INFO", "replication") for node in self.replicas))
        return self

    def _knows_all(self, node: RedisServer) -> bool:
        lines = self.ask(node, "CLUSTER", "NODES").splitlines()
        return len(lines) == len(self.nodes) and not any(b"handshake" in line for line in lines)

    def meet(self, node: RedisServer) -> None:
        """Have *node* join."""
        bus = self.masters[0].options[self.masters[0].options.index("--cluster-port") + 1]
        self.ask(node, "CLUSTER", "MEET", "127.0.0.1", self.masters[0].port, bus)

    def add(self) -> RedisServer:
        """Start one more master, without slots, and wait until all know it."""
        node = self._node(f"master{len(self.masters)}").start()
        self.meet(node)
        self.masters.append(node)
        self.until(lambda: all(self._knows_all(node) for node in self.nodes))
        self.until(lambda: b"cluster_state:ok" in self.ask(node, "CLUSTER", "INFO"))
        return node

    @staticmethod
    def ask(node: RedisServer, *command: str | bytes | int) -> Any:
        """Ask a node; an error is raised."""
        reader = hiredis.Reader()
        reader.feed(node.ask(*command))
        answer = reader.gets()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def id(self, node: RedisServer) -> str:
        """What the cluster calls it."""
        name: bytes = self.ask(node, "CLUSTER", "MYID")
        return name.decode()

    def owner(self, slot: int) -> RedisServer:
        """Who has *slot*, as the first node that runs knows it."""
        node = next(each for each in self.nodes if each.process is not None)
        for first, last, (_, port, *_), *_ in self.ask(node, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    async def move(self, slot: int, to: RedisServer, pause_s: float = 0.02) -> None:
        """
        Move a slot with its keys, as ``redis-cli --cluster reshard`` does, with pauses between the steps.
        """
        await self.open(slot, to, pause_s)
        await self.close(slot, to, pause_s)

    async def open(self, slot: int, to: RedisServer, pause_s: float = 0.0) -> None:
        """Begin to move a slot: new keys are *to*'s, those that are there are not moved yet."""
        source = self.owner(slot)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        await pause(pause_s)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(to))
        await pause(pause_s)

    async def close(self, slot: int, to: RedisServer, pause_s: float = 0.0) -> None:
        """Move the keys, and make it *to*'s."""
        source = self.owner(slot)
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            self.ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            await pause(pause_s)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "NODE", self.id(to))
        await pause(pause_s)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "NODE", self.id(to))

    async def fail_over(self, to: RedisServer) -> None:
        """
        Make a replica the master, by order; one that comes too early is lost, and said again.
        """
        for turn in range(200):
            if self.is_master(to):
                return
            if turn % 20 == 0:
                self.ask(to, "CLUSTER", "FAILOVER")
            await pause(0.05)
        raise AssertionError("it was not obeyed")

    @staticmethod
    def is_master(node: RedisServer) -> bool:
        """Whether it takes itself for one."""
        return b"role:master" in node.ask("INFO", "replication")

    @staticmethod
    def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait, with the reactor, until something is true."""
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.05)

    def stop(self) -> None:
        """
        End all.
        """
        for node in self.nodes:
            node.stop()
