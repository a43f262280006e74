"""
Channels of a single process: streams, idempotency, versions, and who is told.

Several nodes in one process may share a ``MemoryChannels`` (tests do, to be two instances);
each has a ``MemoryBroker`` of its own on it. Everything a publication does happens in one
synchronous step, which is what makes it atomic.
"""

from __future__ import annotations

import fnmatch
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gateway.core.publications import ClientInfo, History, Position, Publication, Published, PublishOptions
from gateway.ports.realtime import BrokerListener

__all__ = ["MemoryBroker", "MemoryChannels"]

IDEMPOTENCY_S = 300.0
MAX_IDEMPOTENCY_KEYS = 100_000
META_TTL_S = 30 * 24 * 3600.0
"""A stream's epoch and offset outlive its publications this long, so that recovery can say no for a reason."""


class _Stream:
    __slots__ = ("epoch", "expires_at", "forgotten_at", "offset", "publications", "version", "version_epoch")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.offset = 0
        self.publications: deque[Publication] = deque()
        self.expires_at = now
        self.forgotten_at = now + META_TTL_S
        self.version = 0
        self.version_epoch = ""


class MemoryChannels:
    """
    The channels themselves, shared by the brokers of a process.

    Args:
        seconds: A monotonic clock, for lifetimes.
        wall: Seconds since the epoch, for publication times.
        remember_s: How long an idempotency key holds.
    """

    def __init__(
        self, seconds: Callable[[], float], wall: Callable[[], float], *, remember_s: float = IDEMPOTENCY_S
    ) -> None:
        self._remember_s = remember_s
        self.seconds = seconds
        self.wall = wall
        self.brokers: list[MemoryBroker] = []
        self._streams: dict[str, _Stream] = {}
        self._keys: dict[tuple[str, str], tuple[float, Position]] = {}

    def stream(self, channel: str, held: Position | None = None) -> _Stream:
        """
        Return the stream of *channel* as it is now, made if it was not there or has not come as far as *held*.
        """
        now = self.seconds()
        stream = self._streams.get(channel)
        back = stream is not None and held is not None and stream.epoch == held.epoch and stream.offset < held.offset
        if stream is None or now >= stream.forgotten_at or back:
            stream = self._streams[channel] = _Stream(secrets.token_hex(4), now)
        elif stream.publications and now >= stream.expires_at:
            stream.publications.clear()
        return stream

    def seen(self, channel: str, key: str) -> Position | None:
        """
        Return the position of the publication that had *key* not long ago.
        """
        found = self._keys.get((channel, key))
        return found[1] if found is not None and self.seconds() < found[0] else None

    def remember(self, channel: str, key: str, position: Position) -> None:
        """
        Remember *key*; beyond the bound the oldest is forgotten first.
        """
        now = self.seconds()
        keys = self._keys
        while keys and (len(keys) >= MAX_IDEMPOTENCY_KEYS or next(iter(keys.values()))[0] <= now):
            del keys[next(iter(keys))]
        keys[(channel, key)] = (now + self._remember_s, position)

    def announce(self, channel: str, info: ClientInfo, *, joined: bool) -> None:
        """
        Tell every broker that hears *channel* who came or went.
        """
        for broker in self.brokers:
            listener = broker._listener
            if listener is not None and channel in broker._heard:
                (listener.joined if joined else listener.left)(channel, info)

    def sweep(self) -> None:
        """
        Let go of streams whose time has passed; called now and then by the owner.
        """
        now = self.seconds()
        for channel in [name for name, stream in self._streams.items() if now >= stream.forgotten_at]:
            del self._streams[channel]
        for stream in self._streams.values():
            if stream.publications and now >= stream.expires_at:
                stream.publications.clear()


class MemoryBroker:
    """
    One node's view of the channels (``ports.realtime.Broker``).
    """

    def __init__(self, channels: MemoryChannels) -> None:
        self._channels = channels
        self._listener: BrokerListener | None = None
        self._heard: set[str] = set()
        channels.brokers.append(self)

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
        Append and tell every broker that hears *channel*.
        """
        channels = self._channels
        key = options.idempotency_key
        if key and (position := channels.seen(channel, key)) is not None:
            return Published(position, "idempotency")
        position = Position()
        if options.history_size or options.version:
            stream = channels.stream(channel)
            if options.version:
                if options.version_epoch == stream.version_epoch and options.version <= stream.version:
                    return Published(Position(stream.offset, stream.epoch), "version")
                stream.version = options.version
                stream.version_epoch = options.version_epoch
            if options.history_size:
                stream.offset += 1
            position = Position(stream.offset, stream.epoch)
        publication = Publication(
            data,
            position.offset if options.history_size else 0,
            info,
            tags,
            int(channels.wall() * 1000) if options.timed else 0,
            options.version,
            trace,
        )
        if options.history_size:
            now = channels.seconds()
            stream.publications.append(publication)
            while len(stream.publications) > options.history_size:
                stream.publications.popleft()
            stream.expires_at = now + options.history_ttl_s
            stream.forgotten_at = max(stream.forgotten_at, now + META_TTL_S)
        if key:
            channels.remember(channel, key, position)
        for broker in channels.brokers:
            if channel in broker._heard and broker._listener is not None:
                broker._listener.published(channel, publication, position.epoch)
        return Published(position)

    async def subscribe(self, channel: str) -> None:
        """
        Hear *channel*.
        """
        self._heard.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """
        Hear *channel* no more.
        """
        self._heard.discard(channel)

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
        Read a stream.
        """
        stream = self._channels.stream(channel, held)
        stream.forgotten_at = max(stream.forgotten_at, self._channels.seconds() + keep_s)
        top = Position(stream.offset, stream.epoch)
        if limit == 0:
            return History((), top)
        publications: Sequence[Publication] = list(stream.publications)
        if reverse:
            publications = publications[::-1]
        if since is not None:
            if reverse:
                publications = [publication for publication in publications if publication.offset < since.offset]
            else:
                publications = [publication for publication in publications if publication.offset > since.offset]
        if limit > 0:
            publications = publications[:limit]
        return History(tuple(publications), top)

    async def tops(self, channels: Sequence[str]) -> Mapping[str, Position]:
        """
        Read where streams stand.
        """
        streams = ((channel, self._channels.stream(channel)) for channel in channels)
        return {channel: Position(stream.offset, stream.epoch) for channel, stream in streams}

    async def remove_history(self, channel: str) -> None:
        """
        Forget a stream's publications.
        """
        self._channels.stream(channel).publications.clear()

    async def channels(self, pattern: str = "") -> Mapping[str, int]:
        """
        List channels that somebody hears, with the number of nodes that do.
        """
        counts: dict[str, int] = {}
        for broker in self._channels.brokers:
            for channel in broker._heard:
                if not pattern or fnmatch.fnmatchcase(channel, pattern):
                    counts[channel] = counts.get(channel, 0) + 1
        return counts
