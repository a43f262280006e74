"""
Which instances live, and who tidies up after those that do not.

All times are the store's: an instance's clock decides nothing about leases. An instance is dead when
its lease has lapsed *and* others could have seen it beat: after an outage of the store nobody is
claimed before everybody had the time of a lease to come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = ["InstanceRegistry", "Peer", "Standing"]


class Standing(Enum):
    """What an instance is to the others."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It is new, or the store lost what it knew: everything has to be announced anew."""

    CLAIMED = "claimed"
    """The others took it for dead and ended it: it must begin anew, under another name."""


@dataclass(frozen=True, slots=True)
class Peer:
    """
    An instance that lives, or whose affairs are not in order yet.

    Attributes:
        seen_at: Its last beat; epoch seconds of the store's clock.
        lapses_at: When its lease ends, or ended.
        left_s: Seconds until then; not above zero once it has lapsed.
        claimed_by: Who tidies up after it; empty while nobody does.
        claim_left_s: Seconds until that claim lapses.
    """

    instance: str
    seen_at: float
    lapses_at: float
    left_s: float
    claimed_by: str = ""
    claim_left_s: float = 0.0

    @property
    def living(self) -> bool:
        """Whether it counts among those that share the work."""
        return self.left_s > 0 and not self.claimed_by


class InstanceRegistry(Protocol):
    """
    The leases of instances. Every step is atomic; closed when the store is away (``StoreUnavailable``).
    """

    async def announce(self, instance: str, lease_s: float) -> None:
        """Make an instance known; it lives until its lease lapses."""

    async def beat(self, instance: str, lease_s: float) -> Standing:
        """Renew a lease. One that lapsed and was claimed by nobody is good again."""

    async def peers(self) -> Sequence[Peer]:
        """List every instance that was announced and neither left nor is finished, by name."""

    async def claim(self, dead: str, by: str, lease_s: float) -> bool:
        """
        Claim a lapsed instance, or go on with its claim, for *lease_s* seconds.

        True to one at a time: of those whose own lease holds and who have beaten, without a longer pause,
        for as long as the dead one's lease. A claim that lapsed may be taken by another.
        """

    async def finish(self, dead: str, by: str) -> bool:
        """All that a claimed instance had is in order: forget it, except that it is told ``CLAIMED`` if it comes back."""

    async def leave(self, instance: str) -> None:
        """An instance stops, and has put its affairs in order itself."""

    async def adopt(self, instance: str, lease_s: float) -> None:
        """Make an instance known that holds something though nobody knows it; it is claimed if it does not beat."""
