"""
An instance's lease, and what becomes of those who let theirs lapse.

Each instance beats; one that is silent for the length of a lease is dead to the others, and one of them
claims it: its sessions are suspended, as if every connection had been lost with the last beat, and what
else it had is tidied. Tidying is made of steps that may be made again, so that another survivor goes on
if the claimer dies. An instance that was only paused and finds itself claimed begins anew, under
another name and with no client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from gateway.core.partitions import partitions_of_rank
from gateway.node.background import Background
from gateway.node.sessions import Sessions
from gateway.ports.instances import InstanceRegistry, Peer, Standing
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import SessionStore

__all__ = ["GRACE_S", "Keeper", "Lost"]

GRACE_S: Final = 5.0
"""A session of a dead instance may be resumed at least this long after its lease ended, if it may be resumed at all."""

TICK_S: Final = 0.25
"""How late a claim may be, and how far off its time a beat."""

ORPHANS_LEASES: Final = 4
"""After so many leases somebody looks for what is held by an instance that nobody knows."""

STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Lost:
    """
    An instance that died.

    Attributes:
        instance: Its name.
        seen_at: Its last beat; epoch seconds of the store's clock.
        lapsed_at: When its lease ended.
        lapsed: The same in seconds of this instance's clock.
    """

    instance: str
    seen_at: float
    lapsed_at: float
    lapsed: float


class Keeper:
    """
    Keeps a lease, and tidies up after those who did not.

    Args:
        new_name: Makes a name that no instance had.
        holders: Names the instances that hold something.
        written: Whether the store has, of what is not a session, what it should have.
        tidy: Done for each instance claimed, after its sessions are suspended; may be done again, also by others.
        anew: Called with the new name when this instance finds itself claimed: every client is closed.
        event: Called with the name and fields of what operators should know.

    Attributes:
        instance: This one's name.
        living: Instances that live, by name, as of the last beat; this one among them.
        claimed: How many dead instances this one has tidied up after.
    """

    def __init__(
        self,
        registry: InstanceRegistry,
        store: SessionStore,
        sessions: Sessions,
        clock: IReactorTime,
        background: Background,
        *,
        beat_s: float,
        lease_s: float,
        new_name: Callable[[], str],
        tidy: Sequence[Callable[[Lost], Awaitable[Any]]],
        holders: Callable[[], Awaitable[Collection[str]]],
        written: Callable[[], bool],
        anew: Callable[[str], Awaitable[Any]],
        event: Callable[..., Any],
    ) -> None:
        self._registry = registry
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._background = background
        self._beat_s = beat_s
        self._lease_s = lease_s
        self._new_name = new_name
        self._tidy = tidy
        self._holders = holders
        self._written = written
        self._anew = anew
        self._event = event
        self.instance = sessions.instance
        self.living: Sequence[str] = ()
        self.claimed = 0
        self._tick_s = min(TICK_S, beat_s / 4)
        self._beating = False
        self._announces = False
        self._beat_at = self._look_at = 0.0
        self._orphans_at = clock.seconds() + ORPHANS_LEASES * lease_s
        self._claims: dict[str, Deferred[Any]] = {}
        self._stopped = False

    def start(self) -> None:
        """
        Beat at once, and go on.
        """
        self._background.every("lease.tick", self._tick_s, self._tick)
        self._tick()

    def _tick(self) -> None:
        now = self._clock.seconds()
        if not self._beating and not self._stopped and (now >= self._beat_at or now >= self._look_at):
            self._background.spawn("lease.beat", self._turn(now >= self._beat_at))

    async def _turn(self, beats: bool) -> None:
        """Beat if it is time, and look after the others. While the store is away this is tried with every tick."""
        self._beating = True
        # By the tick and not by the answer: beats would come later and later, and look like pauses.
        now = self._clock.seconds()
        beat_at, look_at = self._beat_at, self._look_at
        self._look_at = now + self._beat_s
        if beats:
            self._beat_at = now + self._beat_s - self._tick_s / 2
        try:
            if beats and not await self._beat():
                self._beat_at = beat_at
                return
            await self._look()
        except StoreUnavailable:
            self._beat_at, self._look_at = beat_at, look_at
        finally:
            self._beating = False

    async def _beat(self) -> bool:
        standing = await self._registry.beat(self.instance, self._lease_s)
        if standing is Standing.CLAIMED:
            await self._begin_anew()
            return False
        if standing is Standing.UNKNOWN:
            await self._registry.announce(self.instance, self._lease_s)
            self._event("instance.announced", instance=self.instance, sessions=len(self._sessions.held))
            self._announces = True
        if self._announces:
            await self._sessions.announce_anew()
            self._announces = False
        self._sessions.ready = True
        for dead in list(self._claims):
            if not await self._registry.claim(dead, self.instance, self._lease_s):
                self._give_up(dead)
        return True

    async def _begin_anew(self) -> None:
        before, self.instance = self.instance, self._new_name()
        self._event(
            "instance.claimed_by_others", before=before, instance=self.instance, clients=len(self._sessions.held)
        )
        self._sessions.begin_anew(self.instance)
        for dead in list(self._claims):
            self._give_up(dead)
        await self._anew(self.instance)

    async def _look(self) -> None:
        peers = await self._registry.peers()
        now = self._clock.seconds()
        self.living = [peer.instance for peer in peers if peer.living]
        if self.instance in self.living:
            self._sessions.partitions = partitions_of_rank(self.living.index(self.instance), len(self.living))
        others = [peer for peer in peers if peer.instance != self.instance]
        self._look_at = now + min((_next(peer) for peer in others), default=self._lease_s)
        for peer in others:
            if not peer.living and (peer.claim_left_s <= 0 or peer.claimed_by == self.instance):
                self._claim(peer)
        if now >= self._orphans_at:
            self._orphans_at = now + ORPHANS_LEASES * self._lease_s
            if self.living[:1] == [self.instance]:
                for orphan in set(await self._holders()) - {peer.instance for peer in peers}:
                    # Beyond all leases: it died before it was known, or wrote after it was ended.
                    self._event("instance.adopted", instance=orphan)
                    await self._registry.adopt(orphan, self._lease_s)

    # The dead.

    def _claim(self, peer: Peer) -> None:
        if peer.instance not in self._claims:
            tidied = Deferred.fromCoroutine(self._tidy_up(peer))
            if not tidied.called:
                self._claims[peer.instance] = tidied
            self._background.spawn("lease.tidy", _awaited(tidied))

    def _give_up(self, dead: str) -> None:
        tidied = self._claims.pop(dead, None)
        if tidied is not None:
            tidied.cancel()

    async def _tidy_up(self, peer: Peer) -> None:
        dead, store = peer.instance, self._store
        lapsed = self._clock.seconds() + peer.left_s
        try:
            if not await self._registry.claim(dead, self.instance, self._lease_s):
                return
            self._event("instance.lost", instance=dead, seen_at=peer.seen_at, by=self.instance)
            window_s = self._sessions.window_s
            until = max(peer.seen_at + window_s, peer.lapses_at + min(window_s, GRACE_S))
            lost = 0
            while moved := await store.lose(dead, peer.seen_at, until):
                lost += moved
            for step in self._tidy:
                await step(Lost(dead, peer.seen_at, peer.lapses_at, lapsed))
            if await self._registry.finish(dead, self.instance):
                self.claimed += 1
                self._event("instance.tidied", instance=dead, sessions=lost)
        except StoreUnavailable:
            return  # The claim is still ours, or lapses: somebody goes on.
        finally:
            self._claims.pop(dead, None)

    # The end.

    async def leave(self) -> None:
        """
        Stop beating. If everything is written, nobody has to tidy up; otherwise the lease lapses and somebody does.
        """
        self._stopped = True
        for dead in list(self._claims):
            self._give_up(dead)
        settled = await self._sessions.settled(STOP_S)
        if settled and self._written() and self._sessions.ready and not self._sessions.held:
            try:
                await self._registry.leave(self.instance)
            except StoreUnavailable:
                return


def _next(peer: Peer) -> float:
    """When something may have to be done about *peer*, in seconds from now."""
    left_s = peer.claim_left_s if peer.claimed_by else peer.left_s
    return left_s if left_s > 0 else TICK_S


async def _awaited(task: Deferred[Any]) -> None:
    try:
        await task
    except CancelledError:
        return
