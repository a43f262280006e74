"""
What an instance wants the store to have of its sessions' places, and what the store is known to have.

Pure bookkeeping. Whatever happens is noted here first and written then, one step at a time for each
place: the last word counts, in the store too, however long the store was away.
"""

from __future__ import annotations

import heapq
from enum import Enum
from typing import Final

from twisted.internet.defer import Deferred

__all__ = ["MOST_GONE", "Place", "Roster", "Wish"]

MOST_GONE: Final = 100_000
"""Places that were left or are to be held and are not written yet; beyond it they are found by comparing."""


class Wish(Enum):
    """What is wanted of a place."""

    IN = "in"
    HELD = "held"
    OUT = "out"


class Place:
    """
    A session's place in a channel.

    Attributes:
        info: Who stands there, packed.
        told: ``a`` if comings and goings are told, else ``-``.
        wish: What is wanted.
        until: When it goes, if it does not at once; seconds of the instance's clock.
        life: In which life of the data it was written last; 0 if never.
        after: When it may be told as new; seconds of the instance's clock.
        busy: Somebody writes it now.
        waiters: Called when it is written, or cannot be now.
    """

    __slots__ = (
        "after",
        "busy",
        "channel",
        "client",
        "info",
        "life",
        "number",
        "session",
        "told",
        "until",
        "waiters",
        "wish",
    )

    def __init__(self, channel: str, session: str) -> None:
        self.channel = channel
        self.session = session
        self.client = ""
        self.info = b""
        self.told = "-"
        self.wish = Wish.OUT
        self.until = 0.0
        self.life = 0
        self.after = 0.0
        self.busy = False
        self.waiters: list[Deferred[bool]] = []
        self.number = 0


class Roster:
    """
    The places of an instance: those where its clients stand, and those that it holds or gives up.

    Attributes:
        life: Which life of the data this is; grows when it may have gone back.
        unwritten: What the store does not have as it should.
        stale: What it should have and may have lost.
        overflowed: Places were forgotten that the store may still have as this instance's.
    """

    def __init__(self, most_gone: int = MOST_GONE) -> None:
        self.life = 1
        self.unwritten: dict[Place, None] = {}
        self.stale: list[Place] = []
        self.overflowed = False
        self._most_gone = most_gone
        self._gone = 0
        self._channels: dict[str, dict[str, Place]] = {}
        self._resting: dict[tuple[str, str], Place] = {}
        self._rests: list[tuple[float, int, Place]] = []

    def has(self, channel: str, session: str) -> bool:
        """Whether a place is taken, or not written yet."""
        return session in self._channels.get(channel, ())

    def concerns(self, channel: str) -> bool:
        """Whether any place in *channel* is taken, or not written yet."""
        return channel in self._channels

    def enter(self, channel: str, session: str, client: str, info: bytes, *, told: str) -> Place:
        """
        Want a place taken, by whoever has the session now.
        """
        resting = self._resting.pop((channel, session), None)
        place = self._put(resting or Place(channel, session))
        place.client, place.info, place.told = client, info, told
        self._want(place, Wish.IN)
        return place

    def go(self, channel: str, session: str, client: str, until: float | None = None) -> Place | None:
        """
        Want a place given up, or held *until* a time of the instance's clock; None if it is not *client*'s.
        """
        place = self._channels.get(channel, {}).get(session)
        if place is None or place.client != client:
            return None
        if place.wish is Wish.IN and self._gone >= self._most_gone:
            self.overflowed = True
            self._forget(place)
            return None
        place.until = until or 0.0
        self._want(place, Wish.OUT if until is None else Wish.HELD)
        return place

    def lost(self, place: Place) -> bool:
        """Whether a place was written once and may be lost: written again it is nothing new."""
        return place.life not in (0, self.life)

    def wrote(self, place: Place, number: int, life: int) -> bool:
        """
        Note that the store has a place as it was wanted when its count was *number*; whether that is still so.
        """
        place.life = life
        if place not in self.unwritten:
            return True
        if place.number != number or life != self.life:
            return False
        self._forget(place, place.wish is not Wish.IN)
        if place.wish is Wish.HELD:
            # It is nobody's any more, but known while it is held: should the store lose it, nobody else writes it again.
            self._resting[(place.channel, place.session)] = place
            heapq.heappush(self._rests, (place.until, id(place), place))
        return True

    def pass_time(self, now: float) -> None:
        """
        Forget places that were held long enough: whoever looks after what is held has ended them.
        """
        while self._rests and self._rests[0][0] <= now:
            _, _, place = heapq.heappop(self._rests)
            if self._resting.get((place.channel, place.session)) is place:
                del self._resting[(place.channel, place.session)]

    def went_back(self, settled_at: float) -> None:
        """
        Begin another life of the data: the store may have lost everything.

        Args:
            settled_at: When every instance will have written what it has; seconds of the instance's clock.
        """
        self.life += 1
        resting, self._resting, self._rests = self._resting, {}, []
        for place in resting.values():
            self._want(self._put(place), Wish.HELD)
        for place in self.unwritten:
            if place.wish is Wish.IN:
                # New ones are told of, and who is new is only known by then.
                place.after = 0.0 if place.life else settled_at
            else:
                # It may be gone without a word: held until then, its end is told.
                place.until = max(place.until, settled_at)
        taken = (place for places in self._channels.values() for place in places.values())
        self.stale = [place for place in taken if place not in self.unwritten]

    def later(self, place: Place) -> None:
        """
        Have the others that are not written tried before *place*.
        """
        if place in self.unwritten:
            del self.unwritten[place]
            self.unwritten[place] = None

    def again(self, most: int) -> bool:
        """
        Want the next stale places written; whether there are more.
        """
        for place in self.stale[-most:]:
            if place.life != self.life and self.has(place.channel, place.session):
                self._want(place, place.wish)
        del self.stale[-most:]
        return bool(self.stale)

    def _put(self, place: Place) -> Place:
        return self._channels.setdefault(place.channel, {}).setdefault(place.session, place)

    def _want(self, place: Place, wish: Wish) -> None:
        self._gone += (wish is not Wish.IN) - (place in self.unwritten and place.wish is not Wish.IN)
        place.wish = wish
        place.number += 1
        self.unwritten[place] = None

    def _forget(self, place: Place, wholly: bool = True) -> None:
        if place in self.unwritten:
            del self.unwritten[place]
            self._gone -= place.wish is not Wish.IN
        places = self._channels.get(place.channel, {})
        if wholly and places.get(place.session) is place:
            del places[place.session]
            if not places:
                del self._channels[place.channel]
