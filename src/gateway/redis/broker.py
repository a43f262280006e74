"""
Channels on Redis: one script publishes, one reads, and a topic of each channel brings what is new.

A topic is subscribed while somebody here listens, and no longer. Closed when Redis is away: everything
raises ``StoreUnavailable``, but for the end of a subscription.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from gateway.core.publications import ClientInfo, History, Position, Publication, Published, PublishOptions
from gateway.ports.realtime import BrokerListener
from gateway.redis.client import CHAIN, Store
from gateway.redis.connection import all_of
from gateway.redis.messages import info_of, packed, packed_info, unpacked
from gateway.redis.scripts import load

__all__ = ["RedisBroker"]

IDEMPOTENCY_S: Final = 300.0
META_TTL_S: Final = 30 * 24 * 3600
"""A stream's epoch and offset outlive its publications this long, so that recovery can say no for a reason."""

EMPTY_TTL_S: Final = 3600
"""The same for a stream that nothing was published into: anybody may ask for one."""

PAGE: Final = 250
"""Entries read at once: Redis serves one after the other, and a long answer holds up all who wait."""


class RedisBroker:
    """
    One node's view of the channels (``ports.realtime.Broker``).

    Args:
        wall: Seconds since the epoch, for what clients are told of when.
        fresh: Makes a name nobody else makes.
        odd: Told of messages that cannot be read.
        remember_s: How long an idempotency key holds.
    """

    def __init__(
        self,
        redis: Store,
        wall: Callable[[], float],
        fresh: Callable[[], str],
        odd: Callable[[str], None],
        *,
        remember_s: float = IDEMPOTENCY_S,
    ) -> None:
        self._redis = redis
        self._wall = wall
        self._fresh = fresh
        self._odd = odd
        self._remember_s = remember_s
        self._listener: BrokerListener | None = None
        self._channels: dict[str, str] = {}
        self._publish = load("publish")
        self._history = load("history")

    def listen(self, listener: BrokerListener) -> None:
        """
        Name who is told.
        """
        self._listener = listener

    async def publish(
        self,
        channel: str,
        data: bytes,
        options: PublishOptions,
        *,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        trace: str = "",
    ) -> Published:
        """
        Append and tell every instance that hears *channel*.
        """
        keys, key = self._redis.keys, options.idempotency_key
        time_ms = int(self._wall() * 1000) if options.timed else 0
        offset, epoch, suppressed = await self._redis.run(
            self._publish,
            [
                keys.channel("m", channel),
                keys.channel("s", channel),
                self._topic(channel),
                keys.channel("k", channel) + key,
            ],
            [
                packed(data, info, tags, time_ms, options.version, trace),
                options.history_size,
                max(1, int(options.history_ttl_s * 1000)),
                META_TTL_S,
                CHAIN,
                self._fresh(),
                options.version,
                max(1, int(self._remember_s * 1000)) if key else 0,
                options.version_epoch,
            ],
        )
        return Published(Position(offset, epoch.decode()), suppressed.decode())

    async def announce(self, channel: str, info: ClientInfo, *, joined: bool) -> None:
        """
        Tell every instance that hears *channel*.
        """
        await self._redis.call("SPUBLISH", self._topic(channel), (b"j" if joined else b"l") + packed_info(info))

    async def subscribe(self, channel: str) -> None:
        """
        Hear *channel*.
        """
        topic = self._topic(channel)
        self._channels[topic] = channel
        await self._redis.subscribe(topic, self)

    async def unsubscribe(self, channel: str) -> None:
        """
        Hear *channel* no more.
        """
        topic = self._topic(channel)
        self._channels.pop(topic, None)
        await self._redis.unsubscribe(topic)

    async def history(
        self,
        channel: str,
        *,
        since: Position | None = None,
        limit: int = -1,
        reverse: bool = False,
        keep_s: float = 0.0,
    ) -> History:
        """
        Read a stream, page by page.
        """
        begin = since.offset if since is not None else -1
        found: list[Publication] = []
        position: Position | None = None
        while True:
            most = PAGE if limit < 0 else min(PAGE, limit - len(found))
            epoch, top, entries = await self._read(channel, begin, most, reverse=reverse, keep_s=keep_s)
            if position is None:
                position = Position(top, epoch)
            elif position.epoch != epoch:
                # It began anew between two pages: what was read is of a stream that is no more.
                return await self.history(channel, since=since, limit=limit, reverse=reverse, keep_s=keep_s)
            found += [entry for entry in entries if entry.offset <= position.offset]
            done = len(entries) < most or not entries or (not reverse and entries[-1].offset >= position.offset)
            if done or len(found) == limit:
                return History(tuple(found), position)
            begin = entries[-1].offset

    async def _read(
        self, channel: str, begin: int, most: int, *, reverse: bool, keep_s: float
    ) -> tuple[str, int, list[Publication]]:
        keys = self._redis.keys
        epoch, top, entries = await self._redis.run(
            self._history,
            [keys.channel("m", channel), keys.channel("s", channel)],
            [CHAIN, self._fresh(), begin, most, int(reverse), max(EMPTY_TTL_S, int(keep_s))],
        )
        return epoch.decode(), top, [unpacked(fields[1], int(id_.partition(b"-")[0])) for id_, fields in entries]

    async def tops(self, channels: Sequence[str]) -> Mapping[str, Position]:
        """
        Read where streams stand, all in one round trip.
        """
        asked = [Deferred.fromCoroutine(self._read(channel, -1, 0, reverse=False, keep_s=0.0)) for channel in channels]
        return {
            channel: Position(top, epoch)
            for channel, (epoch, top, _) in zip(channels, await all_of(asked), strict=True)
        }

    async def remove_history(self, channel: str) -> None:
        """
        Forget a stream's publications.
        """
        await self._redis.call("DEL", self._redis.keys.channel("s", channel))

    async def channels(self, pattern: str = "") -> Mapping[str, int]:
        """
        List channels that are heard, with how many instances hear each.
        """
        base = self._redis.keys.channel("t", "x").partition("{")[0]
        heard: dict[str, int] = {}
        for topics in await self._redis.everywhere("PUBSUB", "SHARDCHANNELS", base + "*"):
            counts = await all_of([Deferred.fromCoroutine(self._heard(topic)) for topic in topics])
            for topic, count in zip(topics, counts, strict=True):
                tag, _, rest = topic.decode()[len(base) + 1 :].partition("}")
                heard[rest or tag] = heard.get(rest or tag, 0) + count
        return {
            name: count
            for name, count in heard.items()
            if count and (not pattern or fnmatch.fnmatchcase(name, pattern))
        }

    async def _heard(self, topic: bytes) -> int:
        count: int = (await self._redis.call("PUBSUB", "SHARDNUMSUB", topic, key=topic.decode()))[1]
        return count

    def _topic(self, channel: str) -> str:
        topic = self._redis.keys.channel("t", channel)
        return topic if self._redis.keys.tag(channel) == channel else topic + channel

    # What comes (``redis.topics.Receiver``).

    def message(self, topic: str, payload: bytes) -> None:
        """
        Hand a message to the listener.
        """
        channel, listener = self._channels.get(topic), self._listener
        if channel is None or listener is None:
            return
        kind = payload[:1]
        try:
            if kind == b"p":
                place = payload.index(b":")
                end = payload.index(b":", place + 1)
                publication = unpacked(payload[end + 1 :], int(payload[1:place]))
                epoch = payload[place + 1 : end].decode()
            elif kind in (b"j", b"l"):
                info = info_of(payload[1:])
            else:
                raise ValueError("a message of a kind that this release does not know")  # noqa: TRY301
        except ValueError as error:
            self._odd(f"{channel}: {error}")
            return
        if kind == b"p":
            listener.published(channel, publication, epoch)
        elif kind == b"j":
            listener.joined(channel, info)
        else:
            listener.left(channel, info)

    def gap(self, topics: Sequence[str]) -> None:
        """
        Tell the listener what may have been missed.
        """
        channels = [self._channels[topic] for topic in topics if topic in self._channels]
        if channels and self._listener is not None:
            self._listener.interrupted(channels)
