"""
The instances of this process: one as a rule, several where nodes share their stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.ports.instances import Peer, Standing

__all__ = ["MemoryInstances"]


@dataclass(slots=True)
class _Lease:
    seen_at: float
    since: float
    lease_s: float
    claimed_by: str = ""
    claim_until: float = 0.0

    def holds(self, now: float) -> bool:
        """Whether it is alive and claimed by nobody."""
        return not self.claimed_by and now < self.seen_at + self.lease_s


class MemoryInstances:
    """
    The ``ports.instances.InstanceRegistry`` of a process; several nodes in it may share one.

    Args:
        wall: Seconds since the epoch: the store's clock.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._leases: dict[str, _Lease] = {}
        self._ended: set[str] = set()

    async def announce(self, instance: str, lease_s: float) -> None:
        """
        Make an instance known.
        """
        now = self._wall()
        self._leases[instance] = _Lease(now, now, lease_s)

    async def beat(self, instance: str, lease_s: float) -> Standing:
        """
        Renew a lease.
        """
        if instance in self._ended:
            return Standing.CLAIMED
        lease = self._leases.get(instance)
        if lease is None:
            return Standing.UNKNOWN
        if lease.claimed_by:
            return Standing.CLAIMED
        now = self._wall()
        if 2 * (now - lease.seen_at) > lease.lease_s:
            lease.since = now  # It was not watching all the time: others may have beaten and not been heard.
        lease.seen_at = now
        lease.lease_s = lease_s
        return Standing.OK

    async def peers(self) -> Sequence[Peer]:
        """
        List the instances.
        """
        now = self._wall()
        return [
            Peer(
                instance,
                lease.seen_at,
                lease.seen_at + lease.lease_s,
                lease.seen_at + lease.lease_s - now,
                lease.claimed_by,
                lease.claim_until - now if lease.claimed_by else 0.0,
            )
            for instance, lease in sorted(self._leases.items())
        ]

    async def claim(self, dead: str, by: str, lease_s: float) -> bool:
        """
        Claim a lapsed instance.
        """
        now = self._wall()
        lease, mine = self._leases.get(dead), self._leases.get(by)
        if lease is None or mine is None or not mine.holds(now):
            return False
        if lease.claimed_by != by:
            if lease.holds(now) or (lease.claimed_by and now < lease.claim_until):
                return False
            if now - mine.since < lease.lease_s:
                return False
        lease.claimed_by = by
        lease.claim_until = now + lease_s
        return True

    async def finish(self, dead: str, by: str) -> bool:
        """
        Forget a claimed instance.
        """
        lease = self._leases.get(dead)
        if lease is None or lease.claimed_by != by:
            return False
        del self._leases[dead]
        self._ended.add(dead)
        return True

    async def leave(self, instance: str) -> None:
        """
        Forget an instance that stops.
        """
        lease = self._leases.get(instance)
        if lease is not None and not lease.claimed_by:
            del self._leases[instance]

    async def adopt(self, instance: str, lease_s: float) -> None:
        """
        Make an instance known that nobody knows.
        """
        if instance not in self._leases:
            await self.announce(instance, lease_s)
