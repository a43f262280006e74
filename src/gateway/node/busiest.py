"""
Which channels, users and addresses are the busiest on an instance.

Rates come from counters that are kept anyway, read twice: whoever asks again within a while is told what happened
since, and only the first to ask waits for a second reading.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import deferLater

from gateway.node import support_acts as a
from gateway.node.pieces import in_pieces

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode
    from gateway.node.room import Room

__all__ = ["Busiest"]

LEAST_S: Final = 0.5
"""Between two readings."""

STAYS_S: Final = 15.0
"""How long a reading stays to be compared with."""

MOST: Final = 100


class _Reading:
    __slots__ = ("addresses", "at", "channels", "users")

    def __init__(self, at: float) -> None:
        self.at = at
        self.channels: dict[str, int] = {}
        self.users: dict[str, int] = {}
        self.addresses: dict[str, int] = {}


class Busiest:
    """
    Of one instance.
    """

    def __init__(self, node: RealtimeNode) -> None:
        self._node = node
        self._before: _Reading | None = None

    async def top(self, act: a.Top) -> dict[str, Any]:
        """
        List the busiest.

        Returns:
            ``channels`` by publications a second times those who listen, ``users`` by frames from them a second
            (where those are counted) and connections, ``addresses`` by connections; ``within_s`` is how long was looked.
        """
        node, count = self._node, min(act.count, MOST)
        before = self._before
        if before is None or node.seconds() - before.at > STAYS_S:
            before = await self._read()
        wait_s = before.at + LEAST_S - node.seconds()
        if wait_s > 0:
            await deferLater(node.clock, wait_s)
        self._before = reading = await self._read()
        within_s = max(reading.at - before.at, LEAST_S)

        def rate(name: str, now: dict[str, int], then: dict[str, int]) -> float:
            return max(0, now[name] - then.get(name, now[name])) / within_s

        rooms, users = node.hub.rooms, node.users
        channels = await self._best(
            count,
            reading.channels,
            lambda name: (
                (per_s := rate(name, reading.channels, before.channels)) * (size := _size(rooms.get(name))),
                size,
                per_s,
                name,
            ),
        )
        busy = await self._best(
            count, reading.users, lambda name: (rate(name, reading.users, before.users), len(users.get(name, ())), name)
        )
        addresses = await self._best(count, reading.addresses, lambda name: (reading.addresses[name], name))
        return {
            "within_s": round(within_s, 2),
            "channels": [
                {"channel": name, "rate": round(per_s, 2), "subscriptions": size, "deliveries": round(all_, 1)}
                for all_, size, per_s, name in channels
            ],
            "users": [{"user": name, "frames": round(per_s, 2), "connections": number} for per_s, number, name in busy],
            "addresses": [{"address": name, "connections": number} for number, name in addresses],
        }

    async def _best(self, count: int, names: dict[str, int], place: Callable[[str], tuple[Any, ...]]) -> list[Any]:
        best: list[tuple[Any, ...]] = []
        async for piece in in_pieces(self._node.clock, list(names)):
            best = heapq.nlargest(count, [*best, *map(place, piece)])
        return best

    async def _read(self) -> _Reading:
        node = self._node
        reading = _Reading(node.seconds())
        channels, users, addresses = reading.channels, reading.users, reading.addresses
        async for rooms in in_pieces(node.clock, list(node.hub.rooms.values())):
            for room in rooms:
                channels[room.name] = max((group.frames for group in room.groups.values()), default=0)
        async for clients in in_pieces(node.clock, list(node.clients.values())):
            for client in clients:
                address = client.opening.address
                addresses[address] = addresses.get(address, 0) + 1
                if client.user:
                    frames = client.use.frames_in if client.use is not None else 0
                    users[client.user] = users.get(client.user, 0) + frames
        return reading


def _size(room: Room | None) -> int:
    return room.size if room is not None else 0
