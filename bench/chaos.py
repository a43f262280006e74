"""
Three instances on one Redis that is killed, cut off and started again while numbered publications go through it.

Each publication is sent until it is acknowledged, with an idempotency key; followers on all instances write down
what they get. What was acknowledged must have come to every follower, in order and once, or the follower
must have been told that it was not made whole.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.following import Follower
from bench.http_client import Http
from bench.world import KEY, World, until

__all__ = ["Chaos", "Plan", "measure"]

KEPT = "kept:{number}"
PASSING = "passing:1"

CHANNELS = """
[channels."kept:{number}"]
subscribe = "authenticated"
history   = { size = 20000, ttl = "10m" }

[channels."passing:{number}"]
subscribe = "authenticated"
"""


@dataclass
class Chaos:
    """
    What was seen.

    Attributes:
        acknowledged: Publications into channels with history.
        faults: Of them, how many a follower missed, had twice or out of order without being told.
        reused: Positions that were given to two different publications.
        unrecovered: Times that a follower was told that it was not made whole.
        lost: Acknowledged publications that are in no follower's record.
        silent: Gaps on the channel without history that its followers were not told of.
        disconnected: Connections that ended while Redis was away or cut, other than those of killed instances.
    """

    acknowledged: int = 0
    refused: int = 0
    faults: int = 0
    reused: int = 0
    unrecovered: int = 0
    lost: int = 0
    silent: int = 0
    disconnected: int = 0
    kills: int = 0
    cuts: int = 0
    instances_killed: int = 0
    seconds: float = 0.0
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """
    How much of what happens.

    Attributes:
        publications: Into channels with history, all together.
        fsync: ``always`` or ``everysec``.
    """

    publications: int = 100_000
    redis_kills: int = 5
    pubsub_cuts: int = 100
    instance_kills: int = 1
    fsync: str = "always"
    channels: int = 8
    followers: int = 12
    seed: int = 1


class _Publisher:
    """
    Sends numbered publications into one channel, each until it is acknowledged.
    """

    def __init__(self, channel: str, ports: list[int], seen: Chaos, rng: random.Random) -> None:
        self.channel = channel
        self._ports = ports
        self._seen = seen
        self._rng = rng
        self.positions: dict[tuple[str, int], int] = {}

    async def run(self, numbers: range, pace_s: float) -> None:
        http = Http()
        which = self._rng.randrange(len(self._ports))
        try:
            for number in numbers:
                body = {"channel": self.channel, "data": number, "idempotency_key": f"{self.channel}-{number}"}
                while True:
                    try:
                        result = await http.post(
                            self._ports[which % len(self._ports)], "/api/publish", body, {"X-API-Key": KEY}, 5.0
                        )
                    except (TimeoutError, OSError, EOFError, ValueError):
                        result = {}
                    if "result" in result:
                        break
                    self._seen.refused += 1
                    which += 1
                    await asyncio.sleep(0.05)
                told = result["result"]
                self._seen.acknowledged += 1
                place = (told["epoch"], told["offset"])
                if place in self.positions:
                    self._seen.reused += 1
                self.positions[place] = number
                if pace_s:
                    await asyncio.sleep(pace_s)
        finally:
            http.close()


async def _run(plan: Plan, world: World) -> Chaos:
    seen = Chaos()
    redis, bearer = world.redis, world.bearer()
    rng = random.Random(plan.seed)
    urls, ports = world.urls, world.admins
    loop = asyncio.get_running_loop()
    began = loop.time()
    channels = [KEPT.format(number=number) for number in range(plan.channels)]
    followers = [
        Follower(urls, bearer, [*channels, PASSING], random.Random(rng.random())) for _ in range(plan.followers)
    ]
    following = [asyncio.create_task(follower.run()) for follower in followers]
    await until(lambda: all(len(follower.live) == len(channels) + 1 for follower in followers), 30)
    publishers = [_Publisher(channel, ports, seen, random.Random(rng.random())) for channel in channels]
    each = plan.publications // plan.channels
    work = asyncio.gather(*(publisher.run(range(each), 0.0) for publisher in publishers))
    passing = asyncio.create_task(_Publisher(PASSING, ports, Chaos(), rng).run(range(10**9), 0.005))

    events = ["kill"] * plan.redis_kills + ["cut"] * plan.pubsub_cuts + ["instance"] * plan.instance_kills
    rng.shuffle(events)
    for number, event in enumerate(events, 1):
        due = plan.publications * number // (len(events) + 1)
        await until(partial(_far, seen, due, work), 3600)
        if event == "kill":
            redis.kill()
            await asyncio.sleep(rng.uniform(0.2, 1.5))
            redis.start()
            seen.kills += 1
        elif event == "cut":
            try:
                await redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
                seen.cuts += 1
            except OSError:
                continue
        else:
            await world.replace(rng.randrange(len(urls)))
            seen.instances_killed += 1
    await work
    passing.cancel()
    await asyncio.gather(passing, return_exceptions=True)
    tops = {
        publisher.channel: max(publisher.positions.items(), key=lambda item: item[1])[0] for publisher in publishers
    }
    await until(lambda: all(_has(follower, tops) for follower in followers), 60, fail=False)
    for follower in followers:
        await follower.stop()
    await asyncio.gather(*following, return_exceptions=True)
    seen.seconds = loop.time() - began
    _judge(seen, followers, publishers)
    return seen


def _far(seen: Chaos, due: int, work: asyncio.Future[Any]) -> bool:
    return seen.acknowledged >= due or work.done()


def _has(follower: Follower, tops: dict[str, tuple[str, int]]) -> bool:
    return all(
        follower.lives[channel] and follower.lives[channel][-1].epoch == epoch and follower.at(channel) >= offset
        for channel, (epoch, offset) in tops.items()
    )


def _holes(life: Any) -> list[tuple[int, int]]:
    """The first places where the next offset is not the next."""
    offsets = [life.start, *(offset for offset, _ in life.offsets)]
    return [(one, other) for one, other in pairwise(offsets) if other != one + 1][:3]


def _judge(seen: Chaos, followers: list[Follower], publishers: list[_Publisher]) -> None:
    for publisher in publishers:
        got: dict[tuple[str, int], Any] = dict(publisher.positions)
        heard: set[int] = set()
        for follower in followers:
            lives = follower.lives[publisher.channel]
            seen.unrecovered += max(0, len(lives) - 1)
            top = publisher.positions
            for life in lives:
                wrong = life.faults()
                if wrong:
                    seen.details.append(f"{publisher.channel} {life.epoch}@{life.start}: {wrong} {_holes(life)}")
                seen.faults += wrong
                for offset, data in life.offsets:
                    heard.add(data)
                    if got.setdefault((life.epoch, offset), data) != data:
                        seen.reused += 1
            if lives and top:
                last = (
                    max(offset for epoch, offset in top if epoch == lives[-1].epoch)
                    if any(epoch == lives[-1].epoch for epoch, _ in top)
                    else 0
                )
                reached = lives[-1].offsets[-1][0] if lives[-1].offsets else lives[-1].start
                seen.faults += max(0, last - reached)
        seen.lost += len(set(publisher.positions.values()) - heard)
    for follower in followers:
        for life in follower.lives[PASSING]:
            numbers = [data for _, data in life.offsets]
            seen.silent += sum(max(0, after - before - 1) for before, after in pairwise(numbers))


def measure(plan: Plan | None = None, keep: Path | None = None) -> Chaos:
    """
    Let it happen once, on instances and a Redis of its own.
    """
    plan = plan or Plan()

    async def all_of_it(folder: Path) -> Chaos:
        options = ["--appendonly", "yes", "--appendfsync", plan.fsync]
        async with World.running(folder, CHANNELS, number=3, redis_options=options) as world:
            return await _run(plan, world)

    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = keep or Path(place)
        return asyncio.run(all_of_it(folder))


if __name__ == "__main__":
    import sys

    print(measure(Plan(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
