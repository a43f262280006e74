"""
The seams of real time: stores of channels and presence, and who hears of changes.

Every store has two implementations, in memory and in Redis, and one set of contract tests for
both. Methods are coroutines because one of the two has to ask over a network; none blocks.
Times handed in are seconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.publications import ClientInfo, History, Position, Publication, Published, PublishOptions

__all__ = [
    "Broker",
    "BrokerListener",
    "IdempotencyStore",
    "Occupancy",
    "PresenceStore",
    "StoreUnavailable",
]


class StoreUnavailable(Exception):
    """
    A store cannot be asked now; the caller answers with a temporary error or goes on as its policy says.
    """


class BrokerListener(Protocol):
    """
    Who is told what comes through channels: the hub. Called on the reactor thread, never blocks.
    """

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        """A publication of a channel that this node subscribed; in order per channel."""

    def joined(self, channel: str, info: ClientInfo) -> None:
        """Somebody came, on any node."""

    def left(self, channel: str, info: ClientInfo) -> None:
        """Somebody went, on any node."""

    def interrupted(self, channels: Sequence[str]) -> None:
        """
        The link was lost and is back: publications of *channels* may have been missed. Each
        subscriber must be made whole from history or told that it was not.
        """


class Broker(Protocol):
    """
    Channels: publishing, streams, and which of them this node hears.
    """

    def listen(self, listener: BrokerListener) -> None:
        """Name who is told; once, before anything else."""

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
        Append to the stream, advance the offset and publish, as one step per channel.

        Raises:
            StoreUnavailable: nothing is known about whether it was published.
        """

    async def announce(self, channel: str, info: ClientInfo, *, joined: bool) -> None:
        """Tell every node that hears *channel* that somebody joined or left. At most once."""

    async def subscribe(self, channel: str) -> None:
        """Hear *channel* from now on; publications made after this returns reach the listener."""

    async def unsubscribe(self, channel: str) -> None:
        """Hear *channel* no more."""

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
        Read a stream: everything after *since* (before it, in reverse), at most *limit*; 0 reads the top only.

        A stream that does not exist is created empty with an epoch (and kept *keep_s* seconds if
        that is longer than it would be), so that a position is always one to recover from.
        """

    async def tops(self, channels: Sequence[str]) -> Mapping[str, Position]:
        """Read where the streams of *channels* stand, in one round trip; as ``history`` with a limit of 0."""

    async def remove_history(self, channel: str) -> None:
        """Forget a stream's publications; its offset goes on, so nobody recovers what is gone."""

    async def channels(self, pattern: str = "") -> Mapping[str, int]:
        """List channels that somebody hears, on any node, with the number of their subscribers; *pattern* is a glob."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many connections and how many different users."""

    clients: int
    users: int


class PresenceStore(Protocol):
    """
    Who is in a channel. An entry that is not renewed is gone after its time.
    """

    async def enter(self, channel: str, info: ClientInfo, until: float) -> bool:
        """Enter or renew a connection; True if it was the user's first in the channel."""

    async def leave(self, channel: str, info: ClientInfo) -> bool:
        """Remove a connection; True if it was there and was the user's last in the channel."""

    async def members(self, channel: str, now: float) -> Mapping[str, ClientInfo]:
        """Who is there, by connection id."""

    async def occupancy(self, channel: str, now: float) -> Occupancy:
        """How many are there, without listing them."""

    async def expired(self, now: float, limit: int = 1000) -> Sequence[tuple[str, ClientInfo]]:
        """Remove and return entries whose time has passed; each is returned to exactly one caller."""


class IdempotencyStore(Protocol):
    """
    Results of operations that must not happen twice.
    """

    async def begin(self, key: str, until: float) -> bytes | None:
        """
        Claim *key*: None means it is yours; bytes are the result of whoever had it before.

        Raises:
            StoreUnavailable: also while the first one still runs.
        """

    async def finish(self, key: str, result: bytes, until: float) -> None:
        """Store the result for those who come after."""

    async def release(self, key: str) -> None:
        """Give *key* up without a result: the next one may try."""
