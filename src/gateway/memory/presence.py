"""
Who is in which channel, in this process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence

from gateway.core.publications import ClientInfo
from gateway.memory.broker import MemoryChannels
from gateway.ports.realtime import Occupancy

__all__ = ["Attendance", "MemoryPresence"]


class _Entry:
    __slots__ = ("announced", "info", "owner", "until")

    def __init__(self, info: ClientInfo, owner: str, announced: bool) -> None:
        self.info = info
        self.owner = owner
        self.announced = announced
        self.until = 0.0


class _Hall:
    __slots__ = ("entries", "users")

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.users: dict[str, int] = {}


class Attendance:
    """
    The entries themselves, shared by the instances of a process.

    Args:
        channels: Where joins and leaves are told.
        wall: Seconds since the epoch: the store's clock.
    """

    def __init__(self, channels: MemoryChannels, wall: Callable[[], float]) -> None:
        self.wall = wall
        self.halls: dict[str, _Hall] = {}
        self._channels = channels
        self._due: list[tuple[float, str, str]] = []

    def enter(self, channel: str, session: str, info: ClientInfo, owner: str, *, announced: bool) -> bool:
        """
        Enter; True if it was held.
        """
        hall = self.halls.setdefault(channel, _Hall())
        before = hall.entries.get(session)
        hall.entries[session] = _Entry(info, owner, announced)
        if before is not None:
            return not before.owner
        hall.users[info.user] = hall.users.get(info.user, 0) + 1
        if hall.users[info.user] == 1 and announced:
            self._channels.announce(channel, info, joined=True)
        return False

    def hold(self, channel: str, session: str, until: float) -> None:
        """
        Make an entry nobody's.
        """
        entry = self.halls[channel].entries[session]
        entry.owner = ""
        entry.until = until
        heapq.heappush(self._due, (until, channel, session))

    def drop(self, channel: str, session: str) -> ClientInfo:
        """
        Take an entry out.
        """
        hall = self.halls[channel]
        entry = hall.entries.pop(session)
        user = entry.info.user
        hall.users[user] -= 1
        if not hall.users[user]:
            del hall.users[user]
            if entry.announced:
                self._channels.announce(channel, entry.info, joined=False)
        if not hall.entries:
            del self.halls[channel]
        return entry.info

    def of(self, channel: str, session: str, client: str) -> _Entry | None:
        """
        The entry, if it is still that of *client*.
        """
        hall = self.halls.get(channel)
        entry = hall.entries.get(session) if hall is not None else None
        return entry if entry is not None and entry.info.client == client else None

    def expired(self, limit: int) -> list[tuple[str, ClientInfo]]:
        """
        Take out what was held long enough.
        """
        now = self.wall()
        gone: list[tuple[str, ClientInfo]] = []
        while self._due and self._due[0][0] <= now and len(gone) < limit:
            until, channel, session = heapq.heappop(self._due)
            hall = self.halls.get(channel)
            entry = hall.entries.get(session) if hall is not None else None
            if entry is not None and not entry.owner and entry.until == until:
                gone.append((channel, self.drop(channel, session)))
        return gone


class MemoryPresence:
    """
    One instance's ``ports.realtime.PresenceStore`` on an attendance.
    """

    def __init__(self, attendance: Attendance) -> None:
        self._attendance = attendance
        self._instance = ""

    @property
    def unwritten(self) -> int:
        """Memory is never away."""
        return 0

    def own(self, instance: str) -> None:
        """
        Name whose entries are made here.
        """
        self._instance = instance

    async def enter(self, channel: str, session: str, info: ClientInfo, *, announced: bool) -> bool:
        """
        Enter a session.
        """
        assert self._instance, "named before"
        return self._attendance.enter(channel, session, info, self._instance, announced=announced)

    async def hold(self, channel: str, session: str, client: str, hold_s: float) -> None:
        """
        Let an entry stay for a while.
        """
        if self._attendance.of(channel, session, client) is None:
            return
        if hold_s > 0:
            self._attendance.hold(channel, session, self._attendance.wall() + hold_s)
        else:
            self._attendance.drop(channel, session)

    async def leave(self, channel: str, session: str, client: str) -> None:
        """
        Remove an entry.
        """
        if self._attendance.of(channel, session, client) is not None:
            self._attendance.drop(channel, session)

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """
        List who is there.
        """
        hall = self._attendance.halls.get(channel)
        return {entry.info.client: entry.info for entry in hall.entries.values()} if hall is not None else {}

    async def occupancy(self, channel: str) -> Occupancy:
        """
        Count who is there.
        """
        hall = self._attendance.halls.get(channel)
        return Occupancy(len(hall.entries), len(hall.users)) if hall is not None else Occupancy(0, 0)

    async def expired(self, limit: int = 1000) -> Sequence[tuple[str, ClientInfo]]:
        """
        Take out what was held long enough.
        """
        return self._attendance.expired(limit)

    async def restore(self) -> None:
        """
        Memory loses nothing.
        """

    async def reap(self, instance: str, hold_s: Callable[[str], float]) -> int:
        """
        Hold what a dead instance has.
        """
        attendance = self._attendance
        held = 0
        for channel, hall in attendance.halls.items():
            for session, entry in hall.entries.items():
                if entry.owner == instance:
                    attendance.hold(channel, session, attendance.wall() + hold_s(channel))
                    held += 1
        return held

    async def owners(self) -> Collection[str]:
        """
        Name who has entries.
        """
        halls = self._attendance.halls.values()
        return {entry.owner for hall in halls for entry in hall.entries.values() if entry.owner}
