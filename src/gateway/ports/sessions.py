"""
Sessions as every instance sees them, and what is to be told of them.

A session belongs to the connection that it has, or had last: its public client id is what proves
that it is still one's own. Whoever writes with another client's id changes nothing, so an instance
that was thought dead cannot end what has gone on elsewhere. Times of records are epoch seconds of
the store's clock; what goes in are durations. What a step tells (``Event``) is put into the outbox
in the same step: there is neither without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.core.partitions import PARTITIONS

__all__ = [
    "MOST_EVENTS",
    "MOST_OF_DEVICE",
    "TAKEN_S",
    "Audit",
    "Backlog",
    "Contested",
    "Event",
    "EventOutbox",
    "Opened",
    "OutboxEvent",
    "SessionRecord",
    "SessionStore",
]


MOST_EVENTS: Final = 200_000
"""Events that wait in an outbox if nothing else is said, a 64th in each partition; what happens beyond is not told, and counted."""

TAKEN_S: Final = 15.0
"""How long a partition stays with whoever took from it last, if nothing else is said."""

MOST_OF_DEVICE: Final = 64
"""The newest sessions of a device; older ones are not gone on with. Whoever opens thousands under one token pays for these."""


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something to be told of a session.

    Attributes:
        id: Stable: the same fact has the same id, however often and by whomever it is told.
        data: What is told; stores do not look into it.
    """

    id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """
    An event that waits to be told.

    Attributes:
        ref: The outbox's own name for it, for ``done``.
        id: The event's.
        session: Which session it is about.
        at: When it happened; epoch seconds of the store's clock.
        started_at: When the session began, by the same clock.
        resumes: How often it had gone on by then.
    """

    ref: str
    id: str
    session: str
    at: float
    started_at: float
    resumes: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """
    What stands in an outbox.

    Attributes:
        lost: Events that did not fit, ever.
        oldest_at: When the oldest of those that wait happened, in epoch seconds of the store's clock; 0 if none waits.
    """

    waiting: int
    lost: int
    oldest_at: float = 0.0


class EventOutbox(Protocol):
    """
    Events that wait to be told: at least once each, in order for each session. Closed when the store is away.
    """

    async def take(
        self, by: str, partitions: Collection[int], limit: int, *, for_s: float = TAKEN_S
    ) -> Sequence[OutboxEvent]:
        """
        Return the oldest events of *partitions*, at most *limit* of each; the same again until they are ``done``.

        A partition from which another instance took, less than its *for_s* ago, gives nothing: events of one
        session are in one hand at a time, which is what keeps their order.
        """

    async def release(self, by: str, partitions: Collection[int]) -> None:
        """Let *partitions* go, as far as they are *by*'s: others need not wait until its time is over."""

    async def done(self, refs: Sequence[str]) -> None:
        """Forget events that were told."""

    async def backlog(self, partitions: Collection[int] = range(PARTITIONS)) -> Backlog:
        """Count what waits in *partitions*."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """
    A session as it is stored.

    Attributes:
        id: Ours, stable over connections of the same session; its partition stands in it (``core.partitions``).
        user: The subject; empty for an anonymous session, which is never resumed.
        device: What makes it one device: ``sid``, ``data.device``, or the connection id.
        instance: Which instance holds its connection, or held it last.
        client: The public id of that connection.
        started_at: Epoch seconds.
        seen_at: The last time it was known alive; of an open session its instance knows better.
        facts: Client type and everything else that analytics wants: those of its first connection, and
            what its newest adds.
        note: What must be known about the connection to finish its affairs if its instance dies; opaque.
        cause: Why it is suspended; empty while it is open.
        resumes: How often it has gone on.
        past: What its connections did up to the last that was lost; opaque, and on one line.
    """

    id: str
    user: str
    device: str
    instance: str
    client: str
    started_at: float
    seen_at: float
    facts: Mapping[str, Any]
    note: bytes = b""
    cause: str = ""
    resumes: int = 0
    past: bytes = b""


@dataclass(frozen=True, slots=True)
class Opened:
    """
    A session was opened.

    Attributes:
        goes_on: It is an earlier one of the same device, under its own id and start.
    """

    record: SessionRecord
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Contested:
    """
    Nothing was opened: other sessions of the same device are open, and whoever holds them may be dead.
    """

    rivals: Sequence[SessionRecord]


@dataclass(frozen=True, slots=True)
class Audit:
    """
    How an instance's own view of a partition differs from the store's.

    Attributes:
        missing: Sessions that it holds and the store does not have.
        taken: Sessions that it holds and that belong to another connection, or are suspended.
        strange: By session, the client of those that the store has as its own and it does not hold.
    """

    missing: Sequence[str]
    taken: Sequence[str]
    strange: Mapping[str, str]


class SessionStore(Protocol):
    """
    Sessions that are open or may be resumed, whichever instance holds them.

    Closed when the store is away: every method raises ``StoreUnavailable``, and nobody knows whether
    the step was made. Each may be tried again: made twice it is made once. ``node.sessions`` goes on
    without the store and writes afterwards.
    """

    async def open(
        self,
        record: SessionRecord,
        *,
        ago_s: float = 0.0,
        beside: Collection[str] = (),
        over: SessionRecord | None = None,
        resume: bool = True,
        event: Event | None = None,
        resumed: Event | None = None,
    ) -> Opened | Contested:
        """
        Open a session, or go on with one that the same (user, device) lost and may still resume.

        Of several that ask at once one goes on with it. A session that is there under this id is returned as it is.

        Args:
            record: Its ``started_at``, ``seen_at``, ``cause``, ``resumes`` and ``past`` are not looked at.
            ago_s: It began so many seconds ago, while the store was away.
            beside: Open sessions of the device that are known to be held; those of the same instance always are.
            over: An open session whose holder is gone: taken over if it still has that client, and its
                note put into the outbox of what is owed.
            resume: Whether earlier sessions of the device are looked at: not if the client was told its session
                while the store was away. Without it nothing is ``Contested``.
            event: Told if the session is new.
            resumed: Told if an earlier one goes on.
        """

    async def suspend(
        self,
        session: str,
        client: str,
        window_s: float,
        *,
        cause: str,
        ago_s: float = 0.0,
        past: bytes = b"",
        event: Event | None = None,
    ) -> bool:
        """
        Let an open session be taken over within *window_s* of the loss *ago_s* seconds ago; False if it is not *client*'s.

        Args:
            past: What its connections did so far.
        """

    async def close(self, session: str, client: str, *, ago_s: float = 0.0, event: Event | None = None) -> bool:
        """End a session, open or suspended; True to exactly one caller, False if it is not *client*'s."""

    async def get(self, session: str) -> SessionRecord | None:
        """Read a session."""

    async def note(self, notes: Mapping[str, tuple[str, bytes]]) -> None:
        """Write notes of open sessions: by session, the client and its note. Those of other clients stay."""

    async def lapsing(self, partitions: Collection[int], limit: int = 50) -> Sequence[SessionRecord]:
        """List suspended sessions whose time has passed, at most *limit* of each of *partitions*. They stay."""

    async def lapse(self, ends: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[SessionRecord]:
        """
        End suspended sessions whose time has passed, each with its event (at its ``seen_at``).

        Returns:
            Those that this call ended: each is returned to exactly one caller.
        """

    async def lose(self, instance: str, seen_at: float, until: float, *, limit: int = 200) -> int:
        """
        Suspend sessions that a dead instance held, until *until*, with cause ``instance_lost`` and *seen_at*.

        Their notes, where there are any, are put into the outbox of what is owed. At most *limit* in each
        partition; 0 is returned when none is left. Times are the store's, as ``InstanceRegistry`` gave them.
        """

    async def restore(self, records: Sequence[tuple[SessionRecord, Event | None]]) -> Sequence[str]:
        """
        Write sessions that are open here, after the store lost what it had; those it still has stay as they are.

        Returns:
            Those that could not be written, because another connection has them now.
        """

    async def audit(self, partition: int, instance: str, held: Mapping[str, str]) -> Audit:
        """Compare what *instance* holds in *partition* (by session, the client) with the store."""

    async def holders(self) -> Collection[str]:
        """Name the instances that hold sessions."""
