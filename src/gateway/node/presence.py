"""
Who is in which channel, and telling those who want to know, without a storm.

Users come with their first connection and go with their last. What happens within one tick is told
together; somebody who goes and comes within it never went. Above a number of users only numbers
are told: a thousand people that arrive at once are one message to each, not a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.core.publications import ClientInfo
from gateway.node.rulebook import encoded
from gateway.ports.realtime import Broker, Occupancy, PresenceStore

if TYPE_CHECKING:
    from gateway.node.room import Room
    from gateway.node.subscription import Subscription

__all__ = ["Presence"]


class Presence:
    """
    The presence of this node's clients.

    Args:
        wall: Seconds since the epoch.
        ttl_s: An entry that is not renewed is gone after this long.
    """

    def __init__(self, store: PresenceStore, broker: Broker, wall: Callable[[], float], ttl_s: float) -> None:
        self._store = store
        self._broker = broker
        self._wall = wall
        self.ttl_s = ttl_s
        self._changed: dict[Room, None] = {}

    async def enter(self, subscription: Subscription) -> None:
        """
        Enter a client; announced if it is its user's first connection there.

        Raises:
            StoreUnavailable: nobody knows whether it is in.
        """
        info = subscription.info
        assert info is not None, "set before"
        channel = subscription.match.name
        first = await self._store.enter(channel, info, self._wall() + self.ttl_s)
        subscription.present = True
        if first and subscription.match.rule.join_leave:
            await self._broker.announce(channel, info, joined=True)

    async def renew(self, subscription: Subscription) -> None:
        """
        Say that a client is still there.
        """
        assert subscription.info is not None, "set before"
        await self._store.enter(subscription.match.name, subscription.info, self._wall() + self.ttl_s)

    async def leave(self, channel: str, info: ClientInfo, *, announced: bool) -> None:
        """
        Remove a client; *announced* if it was its user's last connection there.
        """
        last = await self._store.leave(channel, info)
        if last and announced:
            await self._broker.announce(channel, info, joined=False)

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """
        Who is there, by connection.
        """
        return await self._store.members(channel, self._wall())

    async def occupancy(self, channel: str) -> Occupancy:
        """
        How many are there.
        """
        return await self._store.occupancy(channel, self._wall())

    async def sweep(self, announced: Callable[[str], bool]) -> None:
        """
        Remove those whose time has passed without anybody renewing them.

        Args:
            announced: Whether comings and goings of a channel are told.
        """
        for channel, info in await self._store.expired(self._wall()):
            if announced(channel):
                await self._broker.announce(channel, info, joined=False)

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
        changed, self._changed = self._changed, {}
        for room in changed:
            comings, room.comings = room.comings, {}
            if not comings or not room.size:
                continue
            occupancy = await self.occupancy(room.name)
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
