"""
Who is in which channel, and telling those who want to know, without a storm.

Users come with their first connection and go with their last. What happens within one tick is told
together; somebody who goes and comes within it never went. Above a number of users only numbers
are told: a thousand people that arrive at once are one message to each, not a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred, gatherResults

from gateway.core.publications import ClientInfo
from gateway.node.rulebook import encoded
from gateway.ports.realtime import Occupancy, PresenceStore, StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.leases import Lost
    from gateway.node.room import Room
    from gateway.node.subscription import Subscription

__all__ = ["Place", "Presence"]

GRACE_S: Final = 5.0
"""Places of a dead instance are held at least this long after its lease ended, if they are held at all."""


ROOMS: Final = 200
"""Channels whose comings are told at once: each is counted first."""


class Place(NamedTuple):
    """
    Where a session's connection stands.
    """

    channel: str
    session: str
    client: str


class Presence:
    """
    The presence of this node's clients.

    Args:
        instance: This node's name.
        seconds: A monotonic clock.
        hold_s: How long a place in a channel is held for a connection that was lost, by the channel.
        count: Called with what became of such places: ``held``, then ``returned`` or ``expired``, and how many.
    """

    def __init__(
        self,
        store: PresenceStore,
        *,
        instance: str,
        seconds: Callable[[], float],
        hold_s: Callable[[str], float],
        count: Callable[[str, int], None],
    ) -> None:
        self._store = store
        self._instance = instance
        self._seconds = seconds
        self._hold_s = hold_s
        self._count = count
        self._former: list[str] = []
        self._changed: dict[Room, None] = {}
        self._sweeping = False
        store.own(instance)

    @property
    def unwritten(self) -> int:
        """How many places the store does not have yet as they should be."""
        return self._store.unwritten

    async def enter(self, subscription: Subscription) -> None:
        """
        Enter a client; told if it is its user's first there. While the store is away it is in once that is back.
        """
        info, session, match = subscription.info, subscription.client.session, subscription.match
        assert info is not None, "set before"
        assert session is not None, "opened before"
        # From here on there is something to leave, whatever comes of it.
        subscription.place = Place(match.name, session.id, info.client)
        returns = await self._store.enter(match.name, session.id, info, announced=match.rule.join_leave)
        subscription.returns = returns
        if returns:
            self._count("returned", 1)

    async def leave(self, place: Place) -> None:
        """
        Give a place up; told if it is its user's last there.
        """
        await self._store.leave(*place)

    async def hold(self, place: Place) -> None:
        """
        Keep the place of a connection that was lost: if its session is back in time, it never left.
        """
        hold_s = self._hold_s(place.channel)
        await self._store.hold(*place, hold_s)
        if hold_s > 0:
            self._count("held", 1)

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """
        Who is there, by connection.
        """
        return await self._store.members(channel)

    async def occupancy(self, channel: str) -> Occupancy:
        """
        How many are there.
        """
        return await self._store.occupancy(channel)

    # Beside the clients.

    async def sweep(self) -> None:
        """
        Write what the store lacks, and end what was held long enough.
        """
        if self._sweeping:
            return
        self._sweeping = True
        try:
            # Each for itself: parts of a store may be away.
            for step in (self._store.restore, self._reap_former, self._end_due):
                with suppress(StoreUnavailable):
                    await step()
        finally:
            self._sweeping = False

    async def _reap_former(self) -> None:
        while self._former:
            await self._store.reap(self._former[0], self._hold_s)
            del self._former[0]

    async def _end_due(self) -> None:
        while ended := await self._store.expired():
            self._count("expired", len(ended))

    async def tidy(self, lost: Lost) -> None:
        """
        Hold the places of a dead instance, as if its connections had been lost with its last beat.
        """
        silent_s, passed_s = lost.lapsed_at - lost.seen_at, self._seconds() - lost.lapsed

        def left_s(channel: str) -> float:
            hold_s = self._hold_s(channel)
            return max(0.0, max(hold_s - silent_s, min(hold_s, GRACE_S)) - passed_s)

        self._count("held", await self._store.reap(lost.instance, left_s))
        await self._end_due()

    async def renamed(self, instance: str) -> None:
        """
        The others took this instance for dead: what it wrote before it knew is held, too.
        """
        self._former.append(self._instance)
        self._instance = instance
        self._store.own(instance)

    # Telling.

    def came(self, room: Room, info: ClientInfo, joined: bool) -> None:
        """
        Note that a user came or went; told at the next tick.
        """
        before = room.comings.get(info.user)
        if before is not None and before[0] is not joined:
            del room.comings[info.user]  # Both within one tick: nothing happened.
        else:
            room.comings[info.user] = (joined, info)
        self._changed[room] = None

    async def tick(self) -> None:
        """
        Tell what happened since the last tick.
        """
        changed, self._changed = list(self._changed), {}
        for begin in range(0, len(changed), ROOMS):
            await gatherResults(
                [Deferred.fromCoroutine(self._tell_room(room)) for room in changed[begin : begin + ROOMS]]
            )

    async def _tell_room(self, room: Room) -> None:
        if not room.size:
            room.comings.clear()
        if not room.comings:
            return
        try:
            occupancy = await self.occupancy(room.name)
        except StoreUnavailable:
            self._changed[room] = None  # With a later tick.
            return
        comings, room.comings = room.comings, {}
        if occupancy.users > room.rule.join_leave_most:
            self._tell_numbers(room, occupancy)
        else:
            self._tell(room, comings)

    def _tell(self, room: Room, comings: Mapping[str, tuple[bool, ClientInfo]]) -> None:
        for form, group in list(room.groups.items()):
            dialect = form.dialect
            message = dialect.batch(
                [(dialect.join if joined else dialect.leave)(room.name, info) for joined, info in comings.values()]
            )
            for subscription in list(group):
                if subscription.join_leave:
                    subscription.client.send(message)

    def _tell_numbers(self, room: Room, occupancy: Occupancy) -> None:
        data = encoded({"presence": {"channel": room.name, "clients": occupancy.clients, "users": occupancy.users}})
        for form, group in list(room.groups.items()):
            message = form.dialect.message(data)
            for subscription in list(group):
                if subscription.join_leave:
                    subscription.client.send(message)
