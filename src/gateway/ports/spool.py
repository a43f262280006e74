"""
What a process without a shared store writes down, so that the next one knows what it left.

A store in memory says what changed; a spool writes it in a file, a little later. What a step of a store
changes within one turn of the reactor is written together or not at all. A spool that cannot write says
so and gives up meanwhile: nobody waits for it, and it begins with everything anew when it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.ports.sessions import OutboxEvent, SessionRecord

__all__ = ["Contents", "Session", "Spool", "Spooled"]

Session = tuple[SessionRecord, float | None]
"""A session, and until when it may be resumed, in epoch seconds; None while it is open."""


@dataclass(frozen=True, slots=True)
class Contents:
    """
    Everything that is, or was, in a spool.

    Attributes:
        sessions: In the order of their beginnings.
        events: In their order.
        alive_at: When their process was last known alive; epoch seconds.
    """

    sessions: Sequence[Session] = ()
    events: Sequence[tuple[int, OutboxEvent]] = ()
    alive_at: float = 0.0


class Spool(Protocol):
    """
    Told by stores what changed. Nothing here blocks or fails.
    """

    @property
    def written(self) -> float:
        """The number of the newest event that is safe: it and all before it may be given away. Infinite without a file."""

    def put(self, record: SessionRecord, until: float | None) -> None:
        """A session is like this now; its note is not kept."""

    def drop(self, session: str) -> None:
        """A session is over."""

    def append(self, number: int, event: OutboxEvent) -> None:
        """An event waits; numbers grow."""

    def done(self, numbers: Sequence[int]) -> None:
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
