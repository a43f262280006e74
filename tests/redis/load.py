"""
Publications that are counted: what was acknowledged, what was heard, and which positions were given out.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from tests.redis.fixtures import link
from tests.web.harness import pause
from twisted.internet.defer import Deferred

from gateway.core.publications import ClientInfo, Publication, PublishOptions
from gateway.ports.realtime import StoreUnavailable

__all__ = ["Load"]

KEEP = PublishOptions(10_000, 60)


class Load:
    """
    One instance that publishes numbers into channels without a pause, and one that hears them.

    Attributes:
        acknowledged: Number to position, of those that were.
        heard: Positions and numbers, by channel.
        gaps: Channels of which it was told that something may be missing, each time.
        refused: How often it was told that nothing is known, by channel.
    """

    def __init__(self, channels: int) -> None:
        self.channels = [f"c{number}" for number in range(channels)]
        self.acknowledged: dict[int, tuple[str, str, int]] = {}
        self.heard: dict[str, list[tuple[str, int, int]]] = {channel: [] for channel in self.channels}
        self.gaps: list[str] = []
        self.refused = dict.fromkeys(self.channels, 0)
        self.links: list[Any] = []
        self._count = 0
        self._running = True
        self._publishing: list[Deferred[None]] = []

    async def start(self, url: str, prefix: str = "", **settings: Any) -> Load:
        """
        Connect, listen, and begin to publish.
        """
        from gateway.redis.broker import RedisBroker

        prefix = prefix or "t" + secrets.token_hex(4)
        self.links = [await link(url, prefix, **settings) for _ in range(2)]
        publisher, listener = (
            RedisBroker(each, lambda: 1.8e9, lambda: secrets.token_hex(4), lambda text: None) for each in self.links
        )
        listener.listen(self)
        for channel in self.channels:
            await listener.subscribe(channel)
        self._publishing = [Deferred.fromCoroutine(self._publish(publisher, channel)) for channel in self.channels]
        return self

    async def _publish(self, broker: Any, channel: str) -> None:
        while self._running:
            self._count += 1
            number = self._count
            try:
                published = await broker.publish(channel, b"%d" % number, KEEP)
            except StoreUnavailable:
                self.refused[channel] += 1
                await pause(0.02)
                continue
            position = published.position
            self.acknowledged[number] = (channel, position.epoch, position.offset)
            await pause(0.002)

    async def more(self, number: int = 50, within_s: float = 20.0) -> None:
        """
        Wait until each channel has had *number* more acknowledgements, and they were heard.
        """
        begin = self._count
        for _ in range(int(within_s / 0.05)):
            await pause(0.05)
            fresh = [channel for count, (channel, _, _) in self.acknowledged.items() if count > begin]
            heard = [sum(each > begin for _, _, each in self.heard[channel]) for channel in self.channels]
            if all(fresh.count(channel) >= number for channel in self.channels) and min(heard) >= number:
                return
        raise AssertionError(f"it does not go on: {self.refused} refused, {len(self.acknowledged)} acknowledged")

    async def stop(self) -> None:
        """
        Publish no more, and let what is under way arrive.
        """
        self._running = False
        for each in self._publishing:
            await each
        await pause(0.2)
        for each in self.links:
            await each.stop()

    def check(self) -> None:
        """
        No position names two publications, each channel is heard in order, and what was acknowledged and not heard was announced.
        """
        named: dict[tuple[str, str, int], int] = {}
        for number, place in self.acknowledged.items():
            assert named.setdefault(place, number) == number, f"{place} names two"
        for channel, heard in self.heard.items():
            epochs: list[str] = []
            for epoch, offset, number in heard:
                assert named.setdefault((channel, epoch, offset), number) == number, f"{(epoch, offset)} names two"
                if not epochs or epochs[-1] != epoch:
                    assert epoch not in epochs, "an epoch came back"
                    epochs.append(epoch)
            for epoch in epochs:
                offsets = [offset for each, offset, _ in heard if each == epoch]
                assert offsets == sorted(set(offsets))
            missed = [
                number
                for number, (of, epoch, _) in self.acknowledged.items()
                if of == channel and number not in {each for _, _, each in heard}
            ]
            assert not missed or channel in self.gaps, f"{missed} were not heard, and nobody said so"

    def epochs(self, channel: str) -> int:
        """How many epochs a channel had."""
        return len({epoch for of, epoch, _ in self.acknowledged.values() if of == channel})

    # What comes (``ports.realtime.BrokerListener``).

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        self.heard[channel].append((epoch, publication.offset, int(publication.data)))

    def joined(self, channel: str, info: ClientInfo) -> None: ...

    def left(self, channel: str, info: ClientInfo) -> None: ...

    def interrupted(self, channels: Sequence[str]) -> None:
        self.gaps.extend(channels)
