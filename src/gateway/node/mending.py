"""
What a room missed is read from history and delivered, so that none of its clients notices.

Messages between instances come at most once: a link breaks, one is lost. A hole shows by the next
offset, by the link's own word, or when a quiet room is compared with the store. Then whatever comes
is kept, what is missing is read, and both go out in order. Where history cannot bridge it (it was
trimmed, or the epoch is another) every subscription of the room begins anew and is told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gateway.core.publications import Position, Publication
from gateway.core.streams import is_recovered, merge
from gateway.core.wheel import Wheel
from gateway.node.room import MENDING, UNKNOWN, Mended, Room, pieces
from gateway.ports.realtime import Broker, StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.hub import Hub

__all__ = ["Mending"]

BATCH: Final = 200
"""Rooms whose positions are asked for at once."""

AGAIN_S: Final = 0.5
"""How long to wait before a store that is away is asked again."""

SLOT_S: Final = 1.0

T = TypeVar("T")


class Mending:
    """
    The holes of one node's rooms.

    Args:
        spawn: Runs a coroutine that nobody waits for, under a name.
        random: Evenly from 0 to 1.

    Attributes:
        check_s: How often a quiet room is compared with the store; 0: never.
        holes: How many were filled.
    """

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        clock: IReactorTime,
        spawn: Callable[[str, Any], Any],
        random: Callable[[], float],
        check_s: float,
    ) -> None:
        self._hub = hub
        self._broker = broker
        self._clock = clock
        self._spawn = spawn
        self._random = random
        self._due: Wheel[Room] = Wheel(SLOT_S)
        self.check_s = check_s
        self.holes = 0

    # Holes.

    def out_of_line(self, room: Room, publication: Publication, epoch: str) -> None:
        """
        Take a publication that is not the next one: kept while a hole is filled, left out if it was delivered before.
        """
        if room.mended is not None:
            room.mended.keep(publication, epoch)
        elif epoch != room.epoch or publication.offset > room.offset:
            # Kept before anything is asked: the answer may come at once.
            self._hole(room).keep(publication, epoch)
            self._spawn("hub.mend", self._mend([room]))

    def begin(self, rooms: Sequence[Room]) -> None:
        """
        Fill the holes of *rooms*; nothing is delivered there before.
        """
        holed = []
        for room in rooms:
            if room.size or room.joining:
                self._hole(room)
                holed.append(room)
            else:
                room.offset = UNKNOWN  # Nobody has a position to go on from.
        for first in range(0, len(holed), BATCH):
            self._spawn("hub.mend", self._mend(holed[first : first + BATCH]))

    @staticmethod
    def _hole(room: Room) -> Mended:
        mended = room.mended = Mended(Position(room.offset, room.epoch))
        room.offset = MENDING
        return mended

    async def _mend(self, rooms: Sequence[Room]) -> None:
        mends = {room: room.mended for room in rooms}
        tops = await self._asked(rooms, lambda: self._broker.tops([room.name for room in rooms]))
        for room, mended in mends.items():
            if mended is None or room.mended is not mended or tops is None:
                continue
            if tops[room.name] == mended.position == mended.seen and not mended.again:
                self._done(room, (), mended.position)
            else:
                self._spawn("hub.mend", self._read(room, mended))

    async def _read(self, room: Room, mended: Mended) -> None:
        while room.mended is mended:
            since, mended.again = mended.position, False
            # What came is ahead of what everybody has, unless the epoch is another.
            held = mended.seen if mended.seen.epoch == since.epoch else since
            ask = partial(self._broker.history, room.name, since=since, held=held)
            history = await self._asked([room], ask)
            if history is None or room.mended is not mended:
                return
            top = history.position
            if not is_recovered(since, top, history.publications):
                self._give_up(room, mended, top)
                return
            if not await self._hand_out(room, mended, history.publications, top):
                return
            merged = merge((), top, mended.take(top.epoch))
            if merged is not None and not mended.again:
                self._done(room, *merged)
                return
            # More was missed meanwhile, and is read from here.

    async def _hand_out(self, room: Room, mended: Mended, publications: Sequence[Publication], top: Position) -> bool:
        """Deliver what was read, a piece in each turn: sockets take it meanwhile. False if nobody wants it any more."""
        for number, piece in enumerate(pieces(publications)):
            if number:
                await deferLater(self._clock, 0)
                if room.mended is not mended:
                    return False
            mended.position = Position(piece[-1].offset, top.epoch)
            self._hub.mended(room, piece, mended.position)
            room.offset = MENDING
        mended.position = top
        return True

    def _done(self, room: Room, publications: Sequence[Publication], position: Position) -> None:
        room.mended = None
        self.holes += 1
        self._hub.mended(room, publications, position)

    def _give_up(self, room: Room, mended: Mended, top: Position) -> None:
        kept = merge((), top, mended.take(top.epoch))
        room.mended = None
        self._hub.lost(room, kept[1] if kept is not None else top)

    async def _asked(self, rooms: Iterable[Room], ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask the store until it answers; None when nobody is left who would want to know."""
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await deferLater(self._clock, AGAIN_S)
            except CancelledError:
                raise
            except Exception:  # What is missing cannot be known, and a room that waits for it would wait for ever.
                for room in rooms:
                    if room.mended is not None:
                        room.mended = None
                        self._hub.lost(room, Position(UNKNOWN))
                raise
            if not any(room.size or room.joining for room in rooms):
                for room in rooms:
                    room.mended, room.offset = None, UNKNOWN
                return None

    # Quiet rooms.

    def watch(self, room: Room) -> None:
        """
        Compare *room* with the store now and then.
        """
        if self.check_s:
            self._due.set(room, self._clock.seconds() + self.check_s * (0.5 + self._random() / 2))

    def unwatch(self, room: Room) -> None:
        """
        Compare it no more.
        """
        self._due.drop(room)

    def check(self) -> None:
        """
        Compare with the store whatever is due and was quiet since it was last looked at; called by the owner.
        """
        quiet = []
        for room in self._due.turn(self._clock.seconds()):
            if room.offset == room.checked and room.offset >= 0 and room.size:
                quiet.append(room)
            room.checked = room.offset
            self.watch(room)
        for first in range(0, len(quiet), BATCH):
            self._spawn("hub.check", self._compare(quiet[first : first + BATCH]))

    async def _compare(self, rooms: Sequence[Room]) -> None:
        try:
            tops = await self._broker.tops([room.name for room in rooms])
        except StoreUnavailable:
            return  # The next time, then.
        # Those into which something came meanwhile are not quiet, and the answer is older than that. What is being mended
        # stands nowhere: to begin again there would be to forget where it stood.
        self.begin(
            [
                room
                for room in rooms
                if room.offset == room.checked >= 0 and tops[room.name] != Position(room.offset, room.epoch)
            ]
        )
