"""
Channels on Redis: one script publishes, one reads, and a topic of each channel brings what is new.

A topic is subscribed while somebody here listens, and no longer. Closed when Redis is away: everything
raises ``StoreUnavailable``, but for the end of a subscription.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from gateway.core.publications import ClientInfo, History, Position, Publication, Published, PublishOptions
from gateway.ports.realtime import BrokerListener
from gateway.redis.client import CHAIN, Store
from gateway.redis.connection import all_of
from gateway.redis.messages import info_of, packed, unpacked
from gateway.redis.scripts import load

__all__ = ["RedisBroker"]

IDEMPOTENCY_S: Final = 300.0
META_TTL_S: Final = 30 * 24 * 3600
"""A stream's epoch and offset outlive its publications this long, so that recovery can say no for a reason."""

EMPTY_TTL_S: Final = 3600
"""The same for a stream that nothing was published into: anybody may ask for one."""

PAGE: Final = 250
PAGE_BYTES: Final = 1024 * 1024
"""Read at once, but one entry: Redis serves one after the other, and a long answer holds up all who wait."""

MOST_ID: Final = 2**64 - 1
"""Of a stream's entry; clients may ask for what is behind any number."""

MOST_NAMES: Final = 500
"""Topics that one command asks about."""


class _Page(NamedTuple):
    position: Position
    publications: list[Publication]
    more: bool
    last: int


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
                self._redis.keys.topic(channel),
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
        position = Position(offset, epoch.decode())
        if not options.replicas:
            return Published(position, suppressed.decode())
        mark = keys.channel("w", channel)
        known = await self._redis.replicas(mark, options.replicas, options.wait_s, self._redis.chain)
        return Published(position, suppressed.decode(), known)

    async def subscribe(self, channel: str) -> None:
        """
        Hear *channel*.
        """
        topic = self._redis.keys.topic(channel)
        self._channels[topic] = channel
        await self._redis.subscribe(topic, self)

    async def unsubscribe(self, channel: str) -> None:
        """
        Hear *channel* no more.
        """
        topic = self._redis.keys.topic(channel)
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
        held: Position | None = None,
    ) -> History:
        """
        Read a stream, page by page.
        """
        first = _first(since, reverse=reverse)
        found: list[Publication] = []
        position: Position | None = None
        while True:
            most = PAGE if limit < 0 else min(PAGE, limit - len(found))
            page = await self._read(channel, first, most if first else 0, reverse=reverse, keep_s=keep_s, held=held)
            if position is None:
                position = page.position
            elif position.epoch != page.position.epoch:
                # It began anew between two pages: what was read is of a stream that is no more.
                return await self.history(channel, since=since, limit=limit, reverse=reverse, keep_s=keep_s, held=held)
            found += [entry for entry in page.publications if entry.offset <= position.offset]
            if not (page.more and page.last) or len(found) == limit or (not reverse and page.last >= position.offset):
                return History(tuple(found), position)
            first = _first(Position(page.last), reverse=reverse)

    async def _read(
        self, channel: str, first: str, most: int, *, reverse: bool, keep_s: float, held: Position | None = None
    ) -> _Page:
        keys = self._redis.keys
        epoch, top, entries, more = await self._redis.run(
            self._history,
            [keys.channel("m", channel), keys.channel("s", channel)],
            [
                *(CHAIN, self._fresh(), first, most, int(reverse), max(EMPTY_TTL_S, int(keep_s)), PAGE_BYTES),
                *((held.epoch, held.offset) if held is not None else ("", 0)),
            ],
        )
        publications, last = [], 0
        for id_, fields in entries:
            last = int(id_.partition(b"-")[0])
            try:
                publications.append(unpacked(fields[1], last))
            except ValueError as error:
                # Of a newer release, say. Who needs it finds a hole where it was, and is told.
                self._odd(f"{channel}: {error}")
        return _Page(Position(top, epoch.decode()), publications, bool(more), last)

    async def tops(self, channels: Sequence[str]) -> Mapping[str, Position]:
        """
        Read where streams stand, all in one round trip.
        """
        asked = [Deferred.fromCoroutine(self._read(channel, "-", 0, reverse=False, keep_s=0.0)) for channel in channels]
        return {channel: page.position for channel, page in zip(channels, await all_of(asked), strict=True)}

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
        listed = await self._redis.everywhere("PUBSUB", "SHARDCHANNELS", base + "*")
        names = {topic: _channel(topic[len(base) :].decode()) for topics in listed for topic in topics}
        wanted = [topic for topic, name in names.items() if not pattern or fnmatch.fnmatchcase(name, pattern)]
        heard: dict[str, int] = {}
        for begin in range(0, len(wanted), MOST_NAMES):
            # Each server knows who hears a topic of it, and of no other.
            for told in await self._redis.everywhere("PUBSUB", "SHARDNUMSUB", *wanted[begin : begin + MOST_NAMES]):
                for topic, count in zip(told[::2], told[1::2], strict=True):
                    if count:
                        heard[names[topic]] = heard.get(names[topic], 0) + count
        return heard

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
                place, epoch, blob = payload.split(b":", 2)
                publication, name = unpacked(blob, int(place[1:])), epoch.decode()
            elif kind in (b"j", b"l"):
                info = info_of(payload[1:])
            else:
                raise ValueError("a message of a kind that this release does not know")  # noqa: TRY301
        except ValueError as error:
            self._odd(f"{channel}: {error}")
            return
        if kind == b"p":
            listener.published(channel, publication, name)
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


def _first(since: Position | None, *, reverse: bool) -> str:
    """Name the entry at which reading begins; empty if there can be none."""
    if since is None:
        return "+" if reverse else "-"
    # Behind the last offset there is nothing to find, wherever one begins.
    offset = min(since.offset - 1 if reverse else max(0, since.offset) + 1, MOST_ID)
    return f"{offset}" if offset > 0 else ""


def _channel(topic: str) -> str:
    """Read the channel out of a topic's end, ``{TAG}`` or, where the tag is a digest, ``{TAG}CHANNEL``."""
    tag, _, rest = topic[1:].partition("}")
    return rest or tag
