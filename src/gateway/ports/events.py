"""
The seam of whoever is told of sessions: a backend, or a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.trace import TraceContext

__all__ = ["EventSink", "NotTaken", "Refusal", "ToldEvent"]


@dataclass(frozen=True, slots=True)
class ToldEvent:
    """
    An event as it is told.

    Attributes:
        id: The same however often it is told.
        kind: ``SESSION_STARTED``, ``SESSION_RESUMED``, ``SESSION_ENDED``.
        body: All of it as a JSON object on one line (``protos/event/v1``).
    """

    id: str
    kind: str
    session: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An event that was not taken, while others of its batch were.

    Attributes:
        again: It may be taken later.
    """

    id: str
    reason: str
    again: bool


class NotTaken(Exception):
    """
    Nothing of a batch is known to be taken.

    Attributes:
        reason: For the log.
        refused: Whoever is told answered, and does not want it as it is; otherwise it could not be reached, or failed.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused


class EventSink(Protocol):
    """
    Whoever is told.
    """

    async def tell(self, events: Sequence[ToldEvent], key: str, trace: TraceContext) -> Sequence[Refusal]:
        """
        Tell a batch, within a deadline of its own; all but those returned are taken, and kept.

        Args:
            key: The same for the same events, however often they are told.
            trace: The place that this is below; passed on.

        Raises:
            NotTaken: perhaps it was taken all the same.
        """
