"""
Sessions: one authenticated presence of one device, over as many connections as its network makes of it.

A connection that is lost leaves its session open for a while, and its places in channels kept: if
the device is back in time, nobody notices. What is not taken up again is ended, once. While the store
is away sessions begin and end here and are written afterwards; a device that comes back meanwhile
begins a new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.core.partitions import ID_BITS, partition_for, session_id
from gateway.node.background import Background
from gateway.node.session_accord import Accord, Held
from gateway.node.session_journal import Journal, Step
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import Event, Opened, SessionRecord, SessionStore

__all__ = ["SessionEvents", "SessionWitness", "Sessions"]

ATTEMPTS: Final = 3
"""How often a session is opened while others of its device come and go."""

MOST_ASKED: Final = 4
"""Open sessions of a device whose holders are asked; a device with more at once is not one that was lost."""

_LOOK_S: Final = 0.02


class SessionWitness(Protocol):
    """
    Who is told when sessions begin and end; each fact once on the node that it happens on.
    """

    def started(self, record: SessionRecord) -> None:
        """A session began. Not told when one goes on."""

    def ended(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        """A session is over. *ended_at* are epoch seconds; *cause* is of ``core.verdicts.cause_of``, or ``instance_lost``."""


class SessionEvents(Protocol):
    """
    Who writes what is put into the outbox with a step; None for nothing.

    Ids are made of the session's and the connection's: whoever makes the same step makes the same event.
    """

    def started(self, record: SessionRecord) -> Event | None:
        """Of a session that begins."""

    def resumed(self, record: SessionRecord) -> Event | None:
        """Of one that goes on; its id stands beside the event, in the record is that of a new one."""

    def ended(self, record: SessionRecord, cause: str) -> Event | None:
        """Of one that is over; what its connections did stands in ``past``."""


class Sessions:
    """
    The sessions whose connections this node has or had.

    Args:
        instance: This node's name.
        bits: So many random bits, as a number.
        most: Steps that wait while the store is away; those beyond are lost.
        lost: Called with the kind and why, for each of those.
        note: What must be known of a connection if this instance dies, by its public id.
        holds: Which connections of open sessions other instances still have, by public id.
        taken: Called with a session that another instance has now, though its connection is here.

    Attributes:
        ready: Others know this instance: what it writes is tidied if it dies. Until then nothing is written.
        partitions: Those that are this instance's to sweep.
        window_s: How long a lost session may be resumed.
        held: Those whose connection is here.
    """

    def __init__(
        self,
        store: SessionStore,
        clock: IReactorTime,
        wall: Callable[[], float],
        background: Background,
        *,
        instance: str,
        bits: Callable[[int], int],
        window_s: float,
        most: int,
        lost: Callable[[str, str], None],
        note: Callable[[str], bytes],
        holds: Callable[[Sequence[SessionRecord]], Awaitable[Collection[str]]],
        taken: Callable[[SessionRecord], None],
        events: SessionEvents | None = None,
        witnesses: tuple[SessionWitness, ...] = (),
    ) -> None:
        self._store = store
        self._clock = clock
        self._wall = wall
        self._background = background
        self.instance = instance
        self._bits = bits
        self.window_s = window_s
        self.ready = False
        self.partitions: Collection[int] = ()
        self.journal = Journal(store, clock.seconds, most=most, lost=lost)
        self.held = Held()
        started = events.started if events is not None else _nothing
        self._accord = Accord(store, self.held, note=note, started=started, taken=taken)
        self._note = note
        self._holds = holds
        self._events = events
        self._witnesses = witnesses
        self._under_way = 0

    # From one connection to the next.

    async def open(self, client: str, user: str, device: str, facts: Mapping[str, Any]) -> tuple[SessionRecord, bool]:
        """
        Open a session, or go on with the one that this device lost.

        Never fails for the store: while that is away the session is new, and written later. If nobody waits for
        it any more when it is open, it is given up.

        Args:
            client: The public id of the connection.

        Returns:
            The record, and whether it is one that goes on.
        """
        now = self._wall()
        id_ = session_id(self._bits(ID_BITS), partition_for(user, device))
        mine = SessionRecord(id_, user, device, self.instance, client, now, now, facts, self._note(client))
        waiter: Deferred[Opened] = Deferred()
        self._background.spawn("session.open", self._open_for(waiter, mine))
        opened = await waiter
        return opened.record, opened.goes_on

    async def _open_for(self, waiter: Deferred[Opened], mine: SessionRecord) -> None:
        try:
            opened = await self._open(mine)
        except Exception:
            if not waiter.called:
                waiter.errback(Failure())
                return
            raise
        self.held.put(opened.record)
        if not opened.goes_on:
            for witness in self._witnesses:
                witness.started(opened.record)
        if waiter.called:  # Cancelled: the connection is gone.
            await self.give_up(opened.record, goes_on=opened.goes_on)
        else:
            waiter.callback(opened)

    async def _open(self, mine: SessionRecord) -> Opened:
        events = self._events
        started = events.started(mine) if events is not None else None
        resumed = events.resumed(mine) if events is not None else None
        began = self._clock.seconds()
        if self.ready:
            try:
                return await self._contest(mine, started, resumed)
            except StoreUnavailable:
                pass  # Whether it is open there is not known; writing it again makes it one.
        self.journal.put(Step("open", mine, began, started))
        return Opened(mine, goes_on=False)

    async def _contest(self, mine: SessionRecord, started: Event | None, resumed: Event | None) -> Opened:
        beside: set[str] = set()
        over: SessionRecord | None = None
        for attempt in range(1, ATTEMPTS + 1):
            found = await self._write(
                self._store.open(
                    mine, beside=beside, over=over, resume=attempt < ATTEMPTS, event=started, resumed=resumed
                )
            )
            if isinstance(found, Opened):
                return found
            newest = found.rivals[:MOST_ASKED]
            try:
                held = await self._holds(newest)
            except CancelledError:
                raise
            except Exception:  # Nobody could be asked: then their leases decide, not we.
                held = {rival.client for rival in newest}
            gone = [rival for rival in newest if rival.client not in held]
            # Of several whose holders are gone one goes on; the others are ended with their instance.
            over = gone[0] if gone else None
            beside |= {rival.id for rival in found.rivals if rival is not over}
        raise AssertionError("the last attempt looks at nobody else")

    async def suspend(self, record: SessionRecord) -> None:
        """
        A connection was lost: keep its session for a while.
        """
        self.held.drop(record)
        if self.ready:
            self._accord.lost(record, self._clock.seconds(), self.window_s)
        step = Step("suspend", record, self._clock.seconds(), cause="lost", window_s=self.window_s)
        if self._writes():
            try:
                await self._write(
                    self._store.suspend(record.id, record.client, self.window_s, cause="lost", past=record.past)
                )
                return
            except StoreUnavailable:
                pass
        self.journal.put(step)

    async def end(self, record: SessionRecord, cause: str) -> None:
        """
        A connection was closed on purpose: its session is over.
        """
        self.held.drop(record)
        event = self._events.ended(record, cause) if self._events is not None else None
        step = Step("close", record, self._clock.seconds(), event)
        if self._writes():
            try:
                if not await self._write(self._store.close(record.id, record.client, event=event)):
                    return
            except StoreUnavailable:
                self.journal.put(step)
        else:
            self.journal.put(step)
        self._told(record, cause, self._wall())

    async def give_up(self, record: SessionRecord, *, goes_on: bool) -> None:
        """
        The connection ended before its client was let in: what it went on with may be resumed again.
        """
        if goes_on and self.window_s > 0:
            await self.suspend(record)
        else:
            await self.end(record, "closed")

    async def finish(self) -> None:
        """
        End what was lost here and not taken up again: nobody will, because the store ends with this process.
        """
        now = self._clock.seconds()
        for record, at in self._accord.lately(now):
            event = self._events.ended(record, "lost") if self._events is not None else None
            if await self._store.close(record.id, record.client, ago_s=now - at, event=event):
                self._told(record, "lost", self._wall() - (now - at))

    # Beside the connections.

    async def sweep(self) -> None:
        """
        Write what waited for the store, and end what nobody took up again.

        Raises:
            StoreUnavailable: the store is away; the next sweep goes on.
        """
        if not self.ready:
            return
        await self.journal.write(self.instance)
        while await self._lapse():
            pass
        if self.journal.gaps:
            self.journal.gaps = False
            await self.announce_anew()
        if self._writes():
            await self._accord.audit(self.instance, self.window_s)

    async def _lapse(self) -> bool:
        """End what was not resumed in time; whether there may be more."""
        due = await self._store.lapsing(self.partitions)
        events = self._events
        ends = [(record, events.ended(record, record.cause) if events is not None else None) for record in due]
        ended = await self._store.lapse(ends) if ends else ()
        for record in ended:
            self._told(record, record.cause, record.seen_at)
        return bool(ended)

    def begin_anew(self, instance: str) -> None:
        """
        Go on as *instance*: the others have ended the one before. Nothing is written until they know this one.
        """
        self.ready = False
        self.instance = instance
        self._accord.begin_anew()

    async def announce_anew(self) -> None:
        """
        Write every session that is held here, where the store does not have it: it may have lost what it had.

        Raises:
            StoreUnavailable: not all were written.
        """
        await self._accord.announce(self.instance, self._clock.seconds)

    async def settled(self, within_s: float) -> bool:
        """
        Wait until every step is written; False if some are not after *within_s*.
        """
        deadline = self._clock.seconds() + within_s
        while (self._under_way or self.journal) and self._clock.seconds() < deadline:
            await deferLater(self._clock, _LOOK_S)
        return not (self._under_way or self.journal)

    def _writes(self) -> bool:
        """Whether a step is written at once: not while others wait, which happened before."""
        return self.ready and not self.journal

    async def _write(self, step: Awaitable[Any]) -> Any:
        self._under_way += 1
        try:
            return await step
        finally:
            self._under_way -= 1

    def _told(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        for witness in self._witnesses:
            witness.ended(record, cause, ended_at)


def _nothing(_record: SessionRecord) -> None:
    return None
