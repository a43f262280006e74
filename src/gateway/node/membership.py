"""
One instance among the others: its sessions, its lease, and what it finishes for those who died.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import deferLater

from gateway.config.store_section import Store
from gateway.core.verdicts import CloseReason
from gateway.node.leases import Keeper, Lost
from gateway.node.leftovers import Leftovers
from gateway.node.sessions import SessionEvents, Sessions, SessionWitness
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import SessionRecord
from gateway.ports.stores import Stores

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["Membership"]

NOTES_S: Final = 0.5
"""How soon a change of subscriptions stands in the notes of sessions."""

SWEEP_S: Final = 1.0
_USUAL: Final = frozenset(("instance.announced", "instance.tidied"))
AGAIN_S: Final = 0.5


class Membership:
    """
    What makes an instance one of several.

    Attributes:
        tidies: Done for each dead instance that this one claims; may be done again, also by others.
        renamed: Called with the new name when the others had ended this instance: everything that is announced
            under a name is announced anew.
    """

    def __init__(
        self,
        node: RealtimeNode,
        stores: Stores,
        section: Store,
        *,
        instance: str,
        events: SessionEvents | None,
        witnesses: tuple[SessionWitness, ...],
    ) -> None:
        self._node = node
        self._stores = stores
        self.tidies: list[Callable[[Lost], Awaitable[Any]]] = [node.presence.tidy]
        self.renamed: list[Callable[[str], Awaitable[Any]]] = [node.presence.renamed]
        self.leftovers = Leftovers(node, stores.sessions, stores.owed)
        self.sessions = Sessions(
            stores.sessions,
            node.clock,
            node.wall,
            node.background,
            instance=instance,
            bits=node.bits,
            window_s=node.section.resume_window_s,
            most=section.journal,
            lost=self._step_lost,
            note=self.leftovers.note_of,
            holds=node.cluster.holds,
            taken=self._taken,
            events=events,
            witnesses=witnesses,
        )
        self.keeper = Keeper(
            stores.instances,
            stores.sessions,
            self.sessions,
            node.clock,
            node.background,
            beat_s=section.beat_s,
            lease_s=section.lease_s,
            new_name=lambda: f"{node.bits(64):016x}",
            tidy=self.tidies,
            holders=self._holders,
            written=lambda: not node.presence.unwritten,
            anew=self._begin_anew,
            event=self._event,
        )
        self._sweeping = False

    def start(self) -> None:
        """
        Be known to the others, and sweep.
        """
        background = self._node.background
        self.keeper.start()
        self._node.spawn("cluster.join", self._join(self.keeper.instance))
        background.every("sessions.notes", NOTES_S, lambda: background.spawn("sessions.notes", self._write_notes()))
        background.every("sessions.sweep", SWEEP_S, lambda: background.spawn("sessions.sweep", self._sweep()))

    async def _holders(self) -> Collection[str]:
        return {*await self._stores.sessions.holders(), *await self._stores.presence.owners()}

    async def _write_notes(self) -> None:
        try:
            await self.leftovers.write()
        except StoreUnavailable:
            return  # With the next.

    async def _sweep(self) -> None:
        if self._sweeping:
            return
        self._sweeping = True
        try:
            await self.sessions.sweep()
            await self.leftovers.tell()
        except StoreUnavailable:
            return  # The next sweep goes on.
        finally:
            self._sweeping = False

    async def _begin_anew(self, instance: str) -> None:
        """The others ended this instance: nobody here is connected any more, to anything that still counts."""
        node = self._node
        for client in [*node.opening, *node.clients.values()]:
            client.close(CloseReason.FORCE_RECONNECT.closing)
        for renamed in self.renamed:
            await renamed(instance)
        node.spawn("cluster.join", self._join(instance))

    async def _join(self, instance: str) -> None:
        while self.keeper.instance == instance:
            try:
                await self._node.bus.join(instance)
            except StoreUnavailable:
                await deferLater(self._node.clock, AGAIN_S)
            else:
                return

    def _taken(self, record: SessionRecord) -> None:
        """A session goes on elsewhere: whoever is still connected with it here comes again and begins anew."""
        client = self._node.clients.get(record.client)
        self._event("session.taken", session=record.id, client=record.client)
        if client is not None:
            client.close(CloseReason.FORCE_RECONNECT.closing)

    def _step_lost(self, kind: str, why: str) -> None:
        self._node.metrics.session_steps_lost.inc(kind, why)

    def _event(self, name: str, **fields: Any) -> None:
        log = self._node.log
        (log.info if name in _USUAL else log.warning)(name, **fields)
