"""
What a publication and its deliveries cost a node with its channels in Redis, against in memory.

    python -m bench.store_cost

CPU of this process alone: those who read are another one, so is Redis, and so is who publishes where the node
only hears. Rounds take turns, so that what else the machine does meets all of them: the least of each is told, and
the median of the ratios within a round. It takes half a minute.
"""

from __future__ import annotations

import argparse
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import structlog
from tests.realtime.house import House, Wire
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react

from gateway.core.publications import PublishOptions
from gateway.memory.broker import MemoryBroker

KEPT = """
[channels.kept]
subscribe = "authenticated"
history = { size = 100, ttl = "5m" }
coalesce = "0s"

[channels.passing]
subscribe = "authenticated"
coalesce = "0s"
"""
DATA = b'{"seat":3,"move":"e2e4","left_ms":[183402,177120],"by":"42"}'
AT_ONCE = 16
"""Publications that are under way at the same time."""

READERS = """
import selectors, socket
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(server.getsockname()[1], flush=True)
selector, buffer = selectors.DefaultSelector(), bytearray(1 << 20)
selector.register(server, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is server:
            selector.register(server.accept()[0], selectors.EVENT_READ)
            continue
        try:
            if key.fileobj.recv_into(buffer):
                continue
        except OSError:
            pass
        selector.unregister(key.fileobj)
        key.fileobj.close()
"""


class Sent(Wire):
    """
    A client with a socket.
    """

    def __init__(self, to: socket.socket, counted: list[int]) -> None:
        super().__init__()
        self._to = to
        self._counted = counted

    def _send(self, framed: bytes) -> int:
        self._counted[0] += 1
        return self._to.send(framed)


class Bench:
    """
    A node, those who listen to it, and how much it does for them.
    """

    def __init__(self) -> None:
        self.sent = [0]
        self.sockets: list[socket.socket] = []
        self.house = House(KEPT)
        self.node = self.house.node

    def use(self, broker: Any) -> None:
        """Publish and hear through *broker* from now on."""
        self.node.broker = self.node.hub._broker = self.node.hub.mending._broker = broker
        broker.listen(self.node.hub)

    async def come(self, port: int, listeners: int, channel: str) -> None:
        """Subscribe that many."""
        for number in range(listeners):
            to = socket.create_connection(("127.0.0.1", port))
            self.sockets.append(to)
            to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            person = self.house.come()
            wire = Sent(to, self.sent)
            person.wire = wire
            wire.side = person.side
            person.side.transport = wire
            person.ask(connect={"token": f"u{number}"})
            person.ask(subscribe={"channel": channel})
        room = self.node.hub.rooms[channel]
        while room.size < listeners:
            await deferLater(_reactor(), 0.005)

    def leave(self) -> None:
        """Let them all go."""
        for person in self.house.people:
            person.leave()
        for to in self.sockets:
            to.close()
        self.house.people.clear()
        self.node.hub.rooms.clear()
        self.node.hub._empty.clear()


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


async def spent(bench: Bench, number: int, listeners: int, act: Callable[[], Awaitable[object]]) -> float:
    """CPU microseconds of each of *number* publications that *act* makes, until all are delivered."""
    bench.sent[0] = 0
    began = time.process_time()
    await act()
    while bench.sent[0] < number * listeners:
        await deferLater(_reactor(), 0.001)
    return (time.process_time() - began) / number * 1e6


async def publish(bench: Bench, channel: str, number: int) -> None:
    """Publish, several at a time."""
    match = bench.node.rules.channels.match(channel)
    assert match is not None

    async def some() -> None:
        for _ in range(number // AT_ONCE):
            await bench.node.publish(match, DATA)

    await gatherResults([ensureDeferred(some()) for _ in range(AT_ONCE)])


async def elsewhere(url: str, prefix: str, channel: str, number: int) -> None:
    """Publish from a process of its own."""
    from gateway.redis.broker import RedisBroker

    redis = await link(url, prefix)
    broker = RedisBroker(redis, time.time, lambda: secrets.token_hex(4), print)
    options = PublishOptions(100, 300.0) if channel == "kept" else PublishOptions()
    for _ in range(number // AT_ONCE):
        await gatherResults([ensureDeferred(broker.publish(channel, DATA, options)) for _ in range(AT_ONCE)])
    await redis.stop()


async def measure(server: RedisServer, port: int, rounds: int, listeners: int, channel: str) -> list[float]:
    """Memory, Redis, and Redis where another publishes: the least of each, and the two ratios."""
    from gateway.redis.broker import RedisBroker

    number = max(AT_ONCE, 10_000 // (listeners + 10) // AT_ONCE * AT_ONCE)
    figures: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        bench = Bench()
        bench.use(MemoryBroker(bench.house.channels))
        await bench.come(port, listeners, channel)
        figures[0].append(await spent(bench, number, listeners, lambda: publish(bench, channel, number)))  # noqa: B023
        bench.leave()

        prefix = "b" + secrets.token_hex(4)
        redis = await link(server.url, prefix)
        bench = Bench()
        bench.use(RedisBroker(redis, time.time, lambda: secrets.token_hex(4), print))
        await bench.come(port, listeners, channel)
        figures[1].append(await spent(bench, number, listeners, lambda: publish(bench, channel, number)))  # noqa: B023

        command = [sys.executable, "-m", "bench.store_cost", "--publish", server.url, prefix, channel, str(number)]

        async def other() -> None:
            process = subprocess.Popen(command)  # noqa: ASYNC220, B023
            while process.poll() is None:
                await deferLater(_reactor(), 0.02)

        idle = time.process_time()
        await deferLater(_reactor(), 0.5)
        waiting = (time.process_time() - idle) / 0.5
        began = time.monotonic()
        heard = await spent(bench, number, listeners, other)
        # What the loop costs while the other process starts is not the publications'.
        figures[2].append(heard - waiting * (time.monotonic() - began) / number * 1e6)
        bench.leave()
        await redis.stop()
    ratios = [median(mine / memory for mine, memory in zip(each, figures[0], strict=True)) for each in figures[1:]]
    return [*(min(each) for each in figures), *ratios]


async def main(_: Any, options: argparse.Namespace) -> None:
    """Measure, and tell."""
    if options.publish:
        url, prefix, channel, number = options.publish
        await elsewhere(url, prefix, channel, int(number))
        return
    readers = subprocess.Popen([sys.executable, "-c", READERS], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert readers.stdout is not None
    port = int(readers.stdout.readline())
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder)).start()
        try:
            print(
                f"{'channel':8} {'listeners':>9} | {'memory':>9} {'Redis':>9} {'heard':>9} us CPU a publication |  Redis  heard / memory"
            )
            for channel in ("kept", "passing"):
                for listeners in (1, 10, 100, 1000):
                    memory, redis, heard, *ratios = await measure(server, port, options.rounds, listeners, channel)
                    print(
                        f"{channel:8} {listeners:9} | {memory:9.1f} {redis:9.1f} {heard:9.1f}"
                        f"{'':21} | {ratios[0]:6.2f} {ratios[1]:6.2f}",
                        flush=True,
                    )
        finally:
            server.stop()
            readers.kill()
            readers.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--publish", nargs=4, help=argparse.SUPPRESS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    chosen = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, chosen)), ())
