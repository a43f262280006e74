"""
The seams of real time: stores of channels and presence, and who hears of changes.

Every store has two implementations, in memory and in Redis, and one set of contract tests for
both. Methods are coroutines because one of the two has to ask over a network; none blocks.
Times handed in are seconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.publications import ClientInfo, History, Position, Publication, Published, PublishOptions

__all__ = [
    "Broker",
    "BrokerListener",
    "IdempotencyStore",
    "Occupancy",
    "PresenceStore",
    "StillRunning",
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

        With ``options.replicas`` it returns once so many have it or the time is up; however many that
        are, it was published. In memory there are none.

        Raises:
            StoreUnavailable: nothing is known about whether it was published.
        """

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
        held: Position | None = None,
    ) -> History:
        """
        Read a stream: everything after *since* (before it, in reverse), at most *limit*; 0 reads the top only.

        A stream that does not exist is created empty with an epoch (and kept *keep_s* seconds if
        that is longer than it would be), so that a position is always one to recover from.

        Args:
            held: A position that the broker itself has told of, never one that a client claims: a stream of this epoch that
                has not come so far went back in time, and begins a new epoch.
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
    Who is in a channel: one entry for each session, which belongs to the instance that has its connection.

    An entry lasts as long as its instance: nothing is renewed. One that is *held* is nobody's, and goes when
    its time has passed; if its session enters again before that, on any instance, nobody notices. A user
    comes with the first entry and goes with the last. Where entries are *announced* all who hear the channel
    are told of both, at most once, in the step that made it so.

    Open when the store is away: who enters, leaves or is to be held is kept here, and written when it is
    back (``restore``). Questions are closed (``StoreUnavailable``).
    """

    @property
    def unwritten(self) -> int:
        """How many entries the store does not have yet as they should be."""

    def own(self, instance: str) -> None:
        """What enters from now on is *instance*'s; before anything else."""

    async def enter(self, channel: str, session: str, info: ClientInfo, *, announced: bool) -> bool:
        """
        Enter a session, or say who it is now; True if it was held and goes on.

        Whoever waits for it and gives up leaves all the same: it may be in by then.
        """

    async def hold(self, channel: str, session: str, client: str, hold_s: float) -> None:
        """Let the entry stay for *hold_s* seconds, then go, if it is still that of the connection *client*."""

    async def leave(self, channel: str, session: str, client: str) -> None:
        """Remove the entry, if it is still that of the connection *client*."""

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Who is there, by connection id; those that are held, too."""

    async def occupancy(self, channel: str) -> Occupancy:
        """How many are there, without listing them."""

    async def expired(self, limit: int = 1000) -> Sequence[tuple[str, ClientInfo]]:
        """Remove and return entries that were held long enough; each is returned to one caller at most."""

    async def restore(self) -> None:
        """Write what the store does not have and should; called now and then by the owner."""

    async def reap(self, instance: str, hold_s: Callable[[str], float]) -> int:
        """
        Hold everything that belongs to a dead *instance*, as long as is said of each channel.

        Made of steps that may be made again, also by others at the same time.

        Returns:
            How many entries this call held.
        """

    async def owners(self) -> Collection[str]:
        """Name the instances that may have entries."""


class StillRunning(Exception):
    """
    The first one with a key has not ended yet.
    """


class IdempotencyStore(Protocol):
    """
    Results of operations that must not happen twice. Closed when the store is away (``StoreUnavailable``).
    """

    async def begin(self, key: str, mine: str, claim_s: float) -> bytes | None:
        """
        Claim *key* for at most *claim_s* seconds, as *mine*: a name that nobody else has.

        Returns:
            None if it is yours; else the result of whoever had it before.

        Raises:
            StillRunning: somebody else has claimed it and not finished.
        """

    async def finish(self, key: str, mine: str, result: bytes, keep_s: float) -> bool:
        """
        Store the result for those who come in the next *keep_s* seconds.

        False if the claim had lapsed and somebody else has the key: then theirs counts.
        """

    async def release(self, key: str, mine: str) -> None:
        """Give up one's own claim without a result: the next one may try."""
