"""
Sessions: one authenticated presence of one device, over as many connections as its network makes of it.

A connection that is lost leaves its session open for a while, and its places in channels kept: if
the device is back in time, nobody notices. What is not taken up again is ended, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.partitions import PARTITIONS, partition_for, session_id
from gateway.core.publications import ClientInfo
from gateway.ports.sessions import Contested, SessionRecord, SessionStore

__all__ = ["Place", "SessionWitness", "Sessions"]


class SessionWitness(Protocol):
    """
    Who is told when sessions begin and end; each fact once on the node that it happens on.
    """

    def started(self, record: SessionRecord) -> None:
        """A session began. Not told when one goes on."""

    def ended(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        """A session is over. *ended_at* are epoch seconds; *cause* a close reason or ``lost``."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a client stood when its connection was lost.
    """

    channel: str
    info: ClientInfo
    announced: bool


class Sessions:
    """
    The sessions whose connections this node has or had.

    Args:
        instance: This node's name.
        release: Takes a place away (``Presence.leave``).
    """

    def __init__(
        self,
        store: SessionStore,
        wall: Callable[[], float],
        *,
        instance: str,
        window_s: float,
        release: Callable[[Place], Awaitable[None]],
        witnesses: tuple[SessionWitness, ...] = (),
    ) -> None:
        self._store = store
        self._wall = wall
        self._instance = instance
        self.window_s = window_s
        self._release = release
        self._witnesses = witnesses
        self._kept: dict[str, tuple[float, dict[str, Place]]] = {}

    async def open(
        self, bits: int, client: str, user: str, device: str, facts: Mapping[str, Any]
    ) -> tuple[SessionRecord, bool]:
        """
        Open a session, or go on with the one that this device lost.

        Args:
            bits: ``core.partitions.ID_BITS`` random bits, for its id.
            client: The public id of the connection.

        Returns:
            The record, and whether it is one that goes on.

        Raises:
            StoreUnavailable: nothing was opened.
        """
        now = self._wall()
        id_ = session_id(bits, partition_for(user, device))
        mine = SessionRecord(id_, user, device, self._instance, client, now, now, facts)
        opened = await self._store.open(mine, contest=False)
        assert not isinstance(opened, Contested), "not asked for"
        if not opened.goes_on:
            for witness in self._witnesses:
                witness.started(opened.record)
        return opened.record, opened.goes_on

    async def suspend(self, record: SessionRecord, places: list[Place]) -> None:
        """
        A connection was lost: keep its session and *places* for a while.
        """
        now = self._wall()
        if places:
            self._kept[record.id] = (now + self.window_s, {place.channel: place for place in places})
        await self._store.suspend(record.id, record.client, self.window_s, cause="lost")

    async def end(self, record: SessionRecord, cause: str) -> None:
        """
        A connection was closed on purpose: its session is over.
        """
        now = self._wall()
        if await self._store.close(record.id, record.client):
            self._told(record, cause, now)

    def take_place(self, session: str, channel: str) -> Place | None:
        """
        Take over the place that *session* kept in *channel*; the caller gives it up once the new one stands.
        """
        kept = self._kept.get(session)
        return kept[1].pop(channel, None) if kept is not None else None

    async def sweep(self) -> None:
        """
        End what nobody took up again, and give up places that were kept long enough.
        """
        now = self._wall()
        due = await self._store.lapsing(range(PARTITIONS))
        for record in await self._store.lapse([(record, None) for record in due]):
            self._told(record, record.cause, record.seen_at)
        for session, (until, places) in list(self._kept.items()):
            if until <= now:
                del self._kept[session]
                for place in places.values():
                    await self._release(place)

    def _told(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        for witness in self._witnesses:
            witness.ended(record, cause, ended_at)
