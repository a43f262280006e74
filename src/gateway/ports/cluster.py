"""
The seam between instances: what one orders the others, asks them, and is answered.

Bodies are bytes that only the two ends read. Everything is called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = ["ALL", "MOST_ANSWER", "MOST_BODY", "Answers", "ClusterBus", "Finds", "MessageTooLarge", "Obeys"]

ALL: Final = ""
"""Every instance but the one that speaks: what is to be done there too, it does itself."""

MOST_BODY: Final = 1024 * 1024
"""Bytes of an order or a question."""

MOST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer; whoever would need more is silent, and says so in its log."""


class MessageTooLarge(ValueError):
    """
    An order or a question has more than ``MOST_BODY`` bytes, and was not sent.
    """


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What came back.

    Attributes:
        answers: By instance.
        silent: Instances that should have answered and did not in time: gone, unreachable, or unable. When
            nobody can be reached, those that were known last.
    """

    answers: Mapping[str, bytes] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


Obeys = Callable[[str, bytes], None]
"""Does what an order says: called with who orders it and the body. Must not block."""

Finds = Callable[[str, bytes], Awaitable[bytes]]
"""Finds the answer to a question: called with who asks and the body; begins at once, in the order of the questions."""


class ClusterBus(Protocol):
    """
    Orders and questions between instances.

    Each message arrives at most once, and those of one instance at another in the order in which they were
    sent, orders and questions to it and to all together. What was sent while the link was away is lost: who must
    know is told by ``watch``.

    Attributes:
        instance: The name under which this one is heard; empty before ``join``.
    """

    instance: str

    async def join(self, instance: str) -> None:
        """
        Be heard as *instance*; a name had before is given up.

        Raises:
            StoreUnavailable: nobody hears us yet; try again.
        """

    async def leave(self) -> None:
        """Hear and answer nothing more; questions that wait here end with who answered so far."""

    def obey(self, name: str, do: Obeys) -> None:
        """Do orders of this *name* with *do*; before ``join``. One that raises is reported."""

    def answer(self, name: str, find: Finds) -> None:
        """
        Answer questions of this *name* with what *find* returns; before ``join``.

        One that fails is reported, and one that takes longer than its asker waits is cancelled.
        """

    def watch(self, missed: Callable[[], None]) -> None:
        """Have *missed* called whenever messages to this instance may have been lost."""

    async def tell(self, to: str, name: str, body: bytes) -> bool:
        """
        Order something of the instance *to*, or of ``ALL``.

        Returns:
            Whether somebody was there to hear it.

        Raises:
            MessageTooLarge: it was not sent.
            StoreUnavailable: nobody knows whether it was.
        """

    async def ask(self, to: str, name: str, body: bytes, deadline_s: float) -> Answers:
        """
        Ask the instance *to*, or ``ALL``, and wait for everybody who should answer.

        Takes no longer than *deadline_s* seconds; sooner when all have answered, or when those who did
        not are known to hear nobody. Never fails for what others do or do not.

        Raises:
            MessageTooLarge: it was not sent.
        """
