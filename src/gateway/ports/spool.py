"""
What a process without a shared store writes down, so that the next one knows what it left.

A store in memory says what changed; a spool writes it in a file, a little later. What a step of a store
changes within one turn of the reactor is written together or not at all. A spool that cannot write says
so and gives up meanwhile: nobody waits for it, and it begins with everything anew when it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.ports.sessions import OutboxEvent, SessionRecord

__all__ = ["Contents", "Spool", "Spooled", "number_of"]


@dataclass(frozen=True, slots=True)
class Contents:
    """
    Everything that is, or was, in a spool.

    Attributes:
        sessions: Open ones, and those that may be resumed; the older ones first.
        until: Until when the latter may be, by their ids; epoch seconds.
        events: Those of a session in their order.
        alive_at: When their process was last known alive; epoch seconds.
    """

    sessions: Sequence[SessionRecord] = ()
    until: Mapping[str, float] = field(default_factory=dict)
    events: Sequence[OutboxEvent] = ()
    alive_at: float = 0.0


class Spool(Protocol):
    """
    Told by stores what changed. Nothing here blocks or fails.
    """

    @property
    def written(self) -> float:
        """``number_of`` the newest event that is safe: it and all before it may be given away. Infinite without a file."""

    def put(self, record: SessionRecord, until: float | None) -> None:
        """A session is like this now; its note is not kept."""

    def drop(self, session: str) -> None:
        """A session is over."""

    def append(self, event: OutboxEvent) -> None:
        """An event waits."""

    def done(self, refs: Sequence[str]) -> None:
        """Events were told."""

    async def settled(self) -> None:
        """Wait until what was said so far is safe, or is known not to be soon."""


class Spooled(Protocol):
    """
    What a spool writes down: the stores, as a whole.
    """

    def contents(self) -> Contents:
        """Everything as it is now; ``alive_at`` is nobody's."""

    def take_back(self, left: Contents) -> None:
        """What an earlier process left: its open sessions are lost ones now, its events wait again."""


def number_of(ref: str) -> int:
    """
    Read the number in which the reference of a spooled event ends: it grows with each event of a process.
    """
    return int(ref.rpartition(":")[2])
