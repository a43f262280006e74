"""
Fan-out: from one publication to every client of this node that listens.

A publication is encoded and framed once per form (dialect, framing, compression), and the same
bytes go straight to each socket where nothing is queued. Per delivery that is one ``send`` and
one comparison; whatever else there is to decide (who may, who is slow, what was missed) is decided
before, by moving a subscription from one set to another.

Order and gaps are looked at once per channel, not per subscriber: all hear the same sequence. A gap is
filled from history before anything newer is delivered, see ``node.mending``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.core.channels import ChannelMatch
from gateway.core.publications import ClientInfo, Position, Publication
from gateway.core.verdicts import UnsubscribeReason
from gateway.node.mending import Mending
from gateway.node.realtime_spans import tell_deliveries
from gateway.node.room import MOST_TOGETHER, UNKNOWN, Group, Room, pieces
from gateway.node.rulebook import ChannelRule
from gateway.node.subscription import Subscription
from gateway.node.taps import Taps
from gateway.ports.realtime import Broker, StoreUnavailable
from gateway.telemetry.spans import Spans

__all__ = ["Group", "Hub", "Room"]

LINGER_S = 5.0
"""How long a channel that nobody hears any more is still heard, in case somebody comes back."""

MANY = 100
"""Subscribers whom it takes a while to tell."""


class Hub:
    """
    The channels of this node (``ports.realtime.BrokerListener``).

    Args:
        insufficient: Called with a subscription whose sequence was broken: it must begin anew.
        came: Called with a room, a user's connection, and whether it came or went.
        counted: Called after each fan-out with the channels' pattern, deliveries, bytes, and seconds since it came.
        spawn: Runs a coroutine that nobody waits for, under a name; *random*: evenly from 0 to 1.
        check_s: How often the position of a quiet channel is compared with the store's; 0: never.
    """

    def __init__(
        self,
        broker: Broker,
        clock: IReactorTime,
        *,
        insufficient: Callable[[Subscription, UnsubscribeReason], None],
        came: Callable[[Room, ClientInfo, bool], None],
        counted: Callable[[str, int, int, float], None],
        spawn: Callable[[str, Any], Any],
        random: Callable[[], float],
        check_s: float,
        spans: Spans,
    ) -> None:
        self.rooms: dict[str, Room] = {}
        self.taps = Taps(clock.seconds)
        self._broker = broker
        self._clock = clock
        self._seconds = clock.seconds
        self._insufficient = insufficient
        self._came = came
        self._counted = counted
        self._spans = spans
        self._empty: dict[Room, None] = {}
        self.mending = Mending(self, broker, clock, spawn, random, check_s)
        broker.listen(self)

    # Who listens.

    async def enter(self, match: ChannelMatch[ChannelRule], subscription: Subscription) -> Room:
        """
        Begin to keep publications of a channel for *subscription*, hearing it from the broker if nobody did.

        Raises:
            StoreUnavailable: the broker cannot be asked; the subscription is not in the room.
        """
        room = self.rooms.get(match.name)
        if room is None:
            room = self.rooms[match.name] = Room(match)
        room.joining[subscription] = None
        self._empty.pop(room, None)
        try:
            while not room.heard:
                await (self._hear(room) if room.hoping is None else room.hope())
        except BaseException:
            room.joining.pop(subscription, None)
            self._vacant(room)
            raise
        return room

    async def _hear(self, room: Room) -> None:
        """
        Hear a room, for all who come meanwhile. A lock that each of them had for a moment would resume one within the other.
        """
        room.hoping, failure = [], None
        try:
            async with room.lock:
                await self._broker.subscribe(room.name)
                room.heard = True
                if room.rule.history is not None:
                    self.mending.watch(room)
        except StoreUnavailable as error:
            failure = Failure(error)
            raise
        finally:
            # If whoever asked has gone away, the next of them asks.
            hoping, room.hoping = room.hoping, None
            for each in hoping:
                if not each.called:
                    each.callback(failure)

    def known(self, room: Room, top: Position) -> None:
        """
        Take the top of the stream as history told it, if nothing has come since.
        """
        if room.offset >= 0 and room.epoch != top.epoch:
            self._broken(room, joining=False)
            room.offset = UNKNOWN
        if room.offset == UNKNOWN:
            room.offset, room.epoch = top.offset, top.epoch

    def live(self, room: Room, subscription: Subscription) -> None:
        """
        Deliver to *subscription* from now on. What waits to be sent together goes out first: it has that already.
        """
        room.joining.pop(subscription, None)
        room.size += 1
        if subscription.offset > room.offset and room.rule.history is not None:
            # It read more than has come here; what is still to come up to there is not for it.
            room.late[subscription] = subscription.offset
        else:
            self._seat(room, subscription)

    def _seat(self, room: Room, subscription: Subscription) -> None:
        if room.pending:
            self.flush(room)
        transport = subscription.client.transport
        group = room.groups.get(transport.form)
        if group is None:
            group = room.groups[transport.form] = Group()
        subscription.mark = (group.frames, group.bytes)
        self._place(group, subscription)

    def leave(self, room: Room, subscription: Subscription) -> None:
        """
        Deliver no more to *subscription*.
        """
        room.joining.pop(subscription, None)
        if room.late.pop(subscription, None) is not None:
            room.size -= 1
        form = subscription.client.transport.form
        group = room.groups.get(form)
        if group is not None:
            if group.direct.pop(subscription, None) is not None:
                room.size -= 1
                _count(group, subscription)
            elif subscription in group.queued:
                del group.queued[subscription]
                room.size -= 1
                _count(group, subscription)
            if not group:
                del room.groups[form]
        self._vacant(room)

    def replace(self, room: Room, subscription: Subscription) -> None:
        """
        Look again whether *subscription* can be sent to directly.
        """
        group = room.groups.get(subscription.client.transport.form)
        if group is not None and (subscription in group.direct or subscription in group.queued):
            group.direct.pop(subscription, None)
            group.queued.pop(subscription, None)
            self._place(group, subscription)

    def _place(self, group: Group, subscription: Subscription) -> None:
        client = subscription.client
        transport = client.transport
        if transport.direct is None or transport.blocked or client.outbox:
            group.queued[subscription] = None
        else:
            group.direct[subscription] = transport.direct

    def _vacant(self, room: Room) -> None:
        if not room.size and not room.joining:
            room.quiet_since = self._seconds()
            self._empty[room] = None

    async def sweep(self) -> None:
        """
        Hear no more what nobody listened to for a while; called now and then by the owner.
        """
        now = self._seconds()
        for room in list(self._empty):
            if now - room.quiet_since < LINGER_S:
                continue
            async with room.lock:
                if room not in self._empty:
                    continue  # Somebody came while we waited.
                del self._empty[room]
                room.heard = False
                room.offset = UNKNOWN
                room.mended = None
                self.mending.unwatch(room)
                await self._broker.unsubscribe(room.name)
                if not room.size and not room.joining and self.rooms.get(room.name) is room:
                    del self.rooms[room.name]

    # What comes.

    def published(self, channel: str, publication: Publication, epoch: str) -> None:
        """
        Deliver a publication to everybody here.
        """
        room = self.rooms.get(channel)
        if room is None:
            return
        if self.taps.on is not None:
            self.taps.published(channel, publication)
        offset = publication.offset
        if offset:
            if (offset != room.offset + 1 or epoch != room.epoch) and room.offset != UNKNOWN:
                for subscription in room.joining:
                    subscription.keep(publication)
                self.mending.out_of_line(room, publication, epoch)
                return
            room.offset = offset
            room.epoch = epoch
        for subscription in room.joining:
            subscription.keep(publication)
        if room.groups:
            self._spread(room, publication)
        if room.late:
            self._catch_up(room)

    def _spread(self, room: Room, publication: Publication) -> None:
        hold_s = room.rule.coalesce_s
        now = self._seconds()
        if hold_s:
            if room.pending or room.told or now - room.last_at < hold_s:
                room.since = room.since if room.pending else now
                room.pending.append(publication)
                room.pending_bytes += len(publication.data)
                if room.pending_bytes > MOST_TOGETHER:
                    self.flush(room)
                elif room.timer is None:
                    # Several in one turn: we are behind. Joined, they cost one send to each.
                    room.timer = self._clock.callLater(0 if room.told else hold_s, self._due, room)
                return
            room.last_at = now
            room.told = room.size >= MANY
            if room.told:
                self._clock.callLater(0, setattr, room, "told", False)
        self._send(room, (publication,), now)

    def _catch_up(self, room: Room) -> None:
        """Seat those who have no more than the room has now."""
        for subscription, offset in list(room.late.items()):
            if offset <= room.offset:
                del room.late[subscription]
                self._seat(room, subscription)

    def mended(self, room: Room, publications: Sequence[Publication], position: Position) -> None:
        """
        Deliver what was missed, to those who are late only what they do not have; the room stands at *position*.
        """
        if room.pending:
            self.flush(room)
        for piece in pieces(publications):
            # After the first, those who did not take it are in ``queued``, where a limit holds.
            if room.groups:
                self._send(room, piece, self._seconds())
        room.offset, room.epoch = position.offset, position.epoch
        for subscription, offset in list(room.late.items()):
            client = subscription.client
            for publication in publications:
                if publication.offset > offset:
                    client.send(client.transport.form.dialect.publication(room.name, publication))
                    if subscription in room.late:
                        room.late[subscription] = publication.offset
        self._catch_up(room)

    def lost(self, room: Room, position: Position) -> None:
        """
        What was missed cannot be had: every subscription begins anew.
        """
        self._broken(room)
        room.offset, room.epoch = position.offset, position.epoch

    def _due(self, room: Room) -> None:
        room.timer = None
        self.flush(room)

    def flush(self, room: Room) -> None:
        """
        Send what waits to be sent together.
        """
        if room.timer is not None:
            room.timer.cancel()
            room.timer = None
        pending, room.pending = room.pending, []
        room.pending_bytes = 0
        room.last_at = self._seconds()
        if pending:
            self._send(room, pending, room.since)

    def _send(self, room: Room, publications: Sequence[Publication], since: float) -> None:
        began = self._seconds() if self._spans.on else 0.0
        size = 0
        for form, group in list(room.groups.items()):
            encode = form.dialect.publication
            if len(publications) == 1:
                frame = form.frame(encode(room.name, publications[0]))
            else:
                frame = b"".join([form.frame(encode(room.name, publication)) for publication in publications])
            size += len(frame) * (len(group.direct) + len(group.queued))
            group.send(frame, publications)
        ended = self._seconds()
        self._counted(room.rule.pattern, room.size * len(publications), size, ended - since)
        if self._spans.on:
            tell_deliveries(self._spans, room, publications, began, ended)

    def joined(self, channel: str, info: ClientInfo) -> None:
        """
        Somebody came, on any node.
        """
        room = self.rooms.get(channel)
        if room is not None:
            self._came(room, info, True)

    def left(self, channel: str, info: ClientInfo) -> None:
        """
        Somebody went, on any node.
        """
        room = self.rooms.get(channel)
        if room is not None:
            self._came(room, info, False)

    def interrupted(self, channels: Sequence[str]) -> None:
        """
        Have what may have missed something mended; where nothing is kept of a channel, its subscriptions begin anew.
        """
        holed = []
        for channel in channels:
            room = self.rooms.get(channel)
            if room is None:
                continue
            if room.rule.history is None:
                self._broken(room)
            elif room.mended is not None:
                room.mended.again = True
            elif room.offset != UNKNOWN:
                holed.append(room)
        self.mending.begin(holed)

    def _broken(self, room: Room, *, joining: bool = True) -> None:
        """End every subscription whose sequence has a hole; those that are being made find it out themselves."""
        if room.pending:
            self.flush(room)
        for subscription in room.joining if joining else ():
            subscription.broken = True
        for subscription in list(room):
            self._insufficient(subscription, UnsubscribeReason.INSUFFICIENT_STATE)

    # What there is.

    def describe(self) -> dict[str, Any]:
        """
        Count, for operators.
        """
        return {
            "channels": len(self.rooms),
            "subscriptions": sum(room.size for room in self.rooms.values()),
            "being_made": sum(len(room.joining) for room in self.rooms.values()),
        }

    def stop(self) -> None:
        """
        Send what waits, and set no more timers.
        """
        for room in self.rooms.values():
            if room.pending or room.timer is not None:
                self.flush(room)


def _count(group: Group, subscription: Subscription) -> None:
    """Add to its client's use what *subscription* was given since it was seated."""
    frames, size = subscription.mark
    subscription.client.use.gave(group.frames - frames, group.bytes - size)
