"""
The seam of rate limits: how often something may be done, counted for all instances together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

__all__ = ["Charge", "LocalLimiter", "Quota", "RateLimiter", "Told", "Verdict", "Verdicts"]


class Quota(NamedTuple):
    """
    How much of something there may be (``core.gcra``).

    Attributes:
        name: What it is told apart by from other quotas of the same key.
        number: So many...
        per_s: ...in so many seconds.
        burst: So many at once; 0 is *number*.
        when_away: While the store is away each instance counts by itself (``local``), everything passes (``open``),
            or nothing does (``closed``).
    """

    name: str
    number: int
    per_s: float
    burst: int = 0
    when_away: Literal["local", "open", "closed"] = "local"


class Charge(NamedTuple):
    """
    What is to be spent.

    Attributes:
        key: Whose: an address, a user.
        cost: Whole units; 0 spends nothing and asks how it stands.
    """

    quota: Quota
    key: str
    cost: int = 1


class Verdict(NamedTuple):
    """
    What became of a charge.

    Attributes:
        allowed: It was spent.
        remaining: Units that could be spent now.
        retry_after_s: When it would be allowed; 0 if it was, infinity if it costs more than the burst.
        full_after_s: When as much as ever can be spent, if nothing is until then.
        away: The store was not asked, or did not answer in time.
    """

    allowed: bool
    remaining: int
    retry_after_s: float
    full_after_s: float
    away: bool = False


Verdicts = Sequence[Verdict]
Told = Callable[[Verdicts], object]


class RateLimiter(Protocol):
    """
    Spends exactly: of all that ask, on whichever instance, no more than the quota pass.
    """

    def spend(self, charges: Sequence[Charge], told: Told) -> Verdicts | None:
        """
        Spend each of *charges*, in one step to the store.

        Each is atomic and stands for itself: one that is refused costs nothing, the others are spent. Never
        fails: while the store is away the verdict is what the quota's ``when_away`` says.

        Returns:
            The verdicts where nobody must be asked; else None, and *told* is called with them, once, in a later turn.
            It is called for each request: a Deferred would cost more than all the rest.
        """

    async def forget(self, charges: Sequence[Charge]) -> None:
        """
        Let each key spend all again.

        Raises:
            StoreUnavailable: it is not known whether they may.
        """


class LocalLimiter(Protocol):
    """
    Counts in this process alone, so nobody waits (a ``RateLimiter``, too).

    Attributes:
        forgotten: Keys given up so far because there were too many.
    """

    forgotten: int

    def __len__(self) -> int:
        """How many keys are kept."""

    def spend(self, charges: Sequence[Charge], told: Told) -> Verdicts:
        """Spend each, now; *told* is not called."""

    def one(self, charge: Charge) -> Verdict:
        """Spend one, now."""

    def behind(self, charge: Charge, full_after_s: float) -> None:
        """Take from elsewhere how much of a key is spent; what is known here counts if it is more."""

    async def forget(self, charges: Sequence[Charge]) -> None:
        """Let each key spend all again."""
