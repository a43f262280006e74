"""
Who is in which channel, in this process.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from gateway.core.publications import ClientInfo
from gateway.ports.realtime import Occupancy

__all__ = ["MemoryPresence"]


class _Room:
    __slots__ = ("entries", "users")

    def __init__(self) -> None:
        self.entries: dict[str, tuple[ClientInfo, float]] = {}
        self.users: dict[str, int] = {}

    def drop(self, client: str) -> ClientInfo | None:
        """Remove a connection; None if it was not there."""
        entry = self.entries.pop(client, None)
        if entry is None:
            return None
        user = entry[0].user
        left = self.users[user] - 1
        if left:
            self.users[user] = left
        else:
            del self.users[user]
        return entry[0]


class MemoryPresence:
    """
    The ``ports.realtime.PresenceStore`` of a process.

    Times are compared with those handed in, never with a clock; entries cost one heap item each
    time they are renewed, which ``expired`` takes away again.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._due: list[tuple[float, str, str]] = []

    async def enter(self, channel: str, info: ClientInfo, until: float) -> bool:
        """
        Enter or renew.
        """
        room = self._rooms.setdefault(channel, _Room())
        first = info.user not in room.users
        if info.client not in room.entries:
            room.users[info.user] = room.users.get(info.user, 0) + 1
        room.entries[info.client] = (info, until)
        heapq.heappush(self._due, (until, channel, info.client))
        return first

    async def leave(self, channel: str, info: ClientInfo) -> bool:
        """
        Remove a connection.
        """
        room = self._rooms.get(channel)
        if room is None or room.drop(info.client) is None:
            return False
        if not room.entries:
            del self._rooms[channel]
        return info.user not in room.users

    async def members(self, channel: str, now: float) -> Mapping[str, ClientInfo]:
        """
        List who is there.
        """
        room = self._rooms.get(channel)
        if room is None:
            return {}
        return {client: info for client, (info, until) in room.entries.items() if until > now}

    async def occupancy(self, channel: str, now: float) -> Occupancy:
        """
        Count who is there; an entry counts until it is taken out by ``expired``.
        """
        room = self._rooms.get(channel)
        return Occupancy(len(room.entries), len(room.users)) if room is not None else Occupancy(0, 0)

    async def expired(self, now: float, limit: int = 1000) -> Sequence[tuple[str, ClientInfo]]:
        """
        Take out entries whose time has passed.
        """
        gone: list[tuple[str, ClientInfo]] = []
        while self._due and self._due[0][0] <= now and len(gone) < limit:
            until, channel, client = heapq.heappop(self._due)
            room = self._rooms.get(channel)
            entry = room.entries.get(client) if room is not None else None
            if room is None or entry is None or entry[1] != until:
                continue  # It left or was renewed since.
            room.drop(client)
            if not room.entries:
                del self._rooms[channel]
            gone.append((channel, entry[0]))
        return gone
