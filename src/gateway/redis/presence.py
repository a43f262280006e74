"""
Who is in which channel, on whichever instance: in Redis.

A channel has a hash of entries and one of users, in its slot, so that every step is one script that also
tells who came and went. Where an instance has entries stands in one index, and what is held in
another, each written before the entries: whoever tidies up finds all of them, and may find some that are
not there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.core.publications import ClientInfo
from gateway.ports.realtime import Occupancy, StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.connection import Part, all_of, together
from gateway.redis.messages import info_of, packed_info
from gateway.redis.roster import Place, Roster, Wish
from gateway.redis.scripts import load

__all__ = ["RedisPresence"]

BATCH: Final = 50
"""Entries written anew in one turn: some milliseconds of work."""

IN_VAIN: Final = 20
"""Batches of which nothing was taken, until the next attempt: Redis refuses, or a part of it is away."""

CHANNELS: Final = 200
"""Of a dead instance, looked at in one turn."""

PAGE: Final = 250
"""Entries of a channel that one script looks at."""

TAKEN_MS: Final = 5000
"""How long what one instance ends is not looked at by others."""

SETTLE_S: Final = 3.0
"""
After data was lost every instance writes what it has. What is to be told waits for that: who is a user's
first connection, or the last, is not known before.
"""


class RedisPresence:
    """
    One instance's ``ports.realtime.PresenceStore`` in Redis.

    Args:
        lease_s: Nobody is taken for dead who was silent for less.
        failed: Told of faults of our own, with the name of what failed.
    """

    def __init__(
        self,
        redis: Store,
        clock: IReactorTime,
        *,
        lease_s: float,
        failed: Callable[[str, Failure], None],
        settle_s: float = SETTLE_S,
    ) -> None:
        self._redis = redis
        self._seconds = clock.seconds
        self._fresh_s = lease_s / 2
        self._failed = failed
        self._settle_s = settle_s
        self._instance = ""
        self._roster = Roster()
        self._index = redis.keys.one("presence")
        self._held = redis.keys.channel("held", "presence")
        self._listed: dict[str, float] = {}
        self._chain = ""
        self._settled_at = 0.0
        self._compare = False
        redis.watch(self)

    @property
    def unwritten(self) -> int:
        """How many places Redis does not have as it should."""
        return len(self._roster.unwritten) + len(self._roster.stale)

    def own(self, instance: str) -> None:
        """
        Name whose entries are made here.
        """
        self._instance = instance
        self._listed.clear()

    def lost(self) -> None:
        """
        Whoever is not heard may be taken for dead: nothing counts as listed any more.
        """
        self._listed = dict.fromkeys(self._listed, float("-inf"))

    def back(self) -> None:
        """
        What could not be written is, with the next ``restore``.
        """
        self._notice()

    def _notice(self) -> None:
        """See whether the data may have gone back since anybody looked."""
        chain = self._redis.chain
        if chain == self._chain:
            return
        if self._chain:
            self._settled_at = self._seconds() + self._settle_s
            self._roster.went_back(self._settled_at)
            self._listed.clear()
            self._compare = True
        self._chain = chain

    # What the clients of this instance do.

    async def enter(self, channel: str, session: str, info: ClientInfo, *, announced: bool) -> bool:
        """
        Enter a session.
        """
        assert self._instance, "named before"
        self._notice()
        told = "a" if announced else "-"
        place = self._roster.enter(channel, session, info.client, packed_info(info), told=told)
        place.after = 0.0 if place.life else self._settled_at
        return await self._write(place)

    async def hold(self, channel: str, session: str, client: str, hold_s: float) -> None:
        """
        Let an entry stay for a while.
        """
        until = self._seconds() + hold_s if hold_s > 0 else None
        await self._go(channel, session, client, until)

    async def leave(self, channel: str, session: str, client: str) -> None:
        """
        Remove an entry.
        """
        await self._go(channel, session, client, None)

    async def _go(self, channel: str, session: str, client: str, until: float | None) -> None:
        self._notice()
        if until is None and self._seconds() < self._settled_at:
            until = self._settled_at
        place = self._roster.go(channel, session, client, until)
        if place is not None:
            place.after = 0.0
            await self._write(place)

    def _write(self, place: Place) -> Deferred[bool]:
        """Fires when *place* is written, or cannot be now; with whether it was held."""
        waiter: Deferred[bool] = Deferred()
        place.waiters.append(waiter)
        if not place.busy:
            place.busy = True
            Deferred.fromCoroutine(self._write_all(place)).addErrback(self._fault)
        return waiter

    async def _write_all(self, place: Place) -> None:
        """Write what is wanted of *place*, until nothing else is wanted meanwhile."""
        returned = 0
        try:
            while True:
                number, life = place.number, self._roster.life
                returned = await self._step(place)
                if returned < 0 or self._roster.wrote(place, number, life):
                    break
            await self._unlist(place.channel)
        except StoreUnavailable:
            pass  # It is tried again.
        finally:
            place.busy = False
            waiters, place.waiters = place.waiters, []
            for waiter in waiters:
                waiter.callback(returned > 0)

    async def _step(self, place: Place) -> int:
        """Write what is wanted now; 1 if it was held, -1 if it has to wait."""
        channel, session = place.channel, place.session
        left_s, lost = place.until - self._seconds(), self._roster.lost(place)
        if place.wish is Wish.IN:
            await self._list(channel)
            if not lost:
                entry = (session, self._instance, place.told, place.info, int(self._seconds() < place.after))
                entered: int = await self._run("presence_enter", channel, *entry)
                return entered
            await self._run("presence_restore", channel, session, "o", self._instance, place.told, place.info)
        elif not lost and (place.wish is Wish.OUT or left_s <= 0):
            await self._run("presence_leave", channel, session, place.client)
        else:
            until = await self._until(left_s, channel, [session])
            if lost:
                await self._run("presence_restore", channel, session, "h", until, place.told, place.info)
            else:
                await self._run("presence_hold", channel, until, "c", session, place.client)
        return 0

    async def _run(self, name: str, channel: str, *args: Part) -> Any:
        keys = self._redis.keys
        names = [keys.channel("p", channel), keys.channel("u", channel), keys.topic(channel)]
        return await self._redis.run(load(name), names, args)

    async def _until(self, hold_s: float, channel: str, sessions: Sequence[str]) -> int:
        """Note what is to be held, before it is; return until when, by the server's clock."""
        members = [f"{channel}\t{session}" for session in sessions]
        hold_ms = max(0, round(hold_s * 1000))
        until: int = await self._redis.run(load("presence_until"), [self._held], [hold_ms, *members])
        return until

    async def _list(self, channel: str) -> None:
        """
        Have *channel* in the index, before anything of this instance is in it.

        Said again after half a lease: whoever stood still for so long may have been tidied up after, without knowing.
        """
        now = self._seconds()
        if now - self._listed.get(channel, float("-inf")) < self._fresh_s:
            return
        self._listed[channel] = now
        try:
            await self._redis.call("ZADD", self._index, 0, f"{self._instance}\t{channel}")
        except BaseException:
            self._listed[channel] = float("-inf")
            raise

    async def _unlist(self, channel: str) -> None:
        """Take *channel* from the index if nothing of this instance is in it any more."""
        if channel in self._listed and not self._roster.concerns(channel):
            del self._listed[channel]
            try:
                await self._redis.call("ZREM", self._index, f"{self._instance}\t{channel}")
            except StoreUnavailable:
                self._compare = True
                raise

    # What is asked.

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """
        List who is there.
        """
        entries = await self._redis.call("HGETALL", self._redis.keys.channel("p", channel))
        infos = [info_of(entry.split(b" ", 3)[3]) for entry in entries[1::2]]
        return {info.client: info for info in infos}

    async def occupancy(self, channel: str) -> Occupancy:
        """
        Count who is there.
        """
        counted = [
            Deferred.fromCoroutine(self._redis.call("HLEN", self._redis.keys.channel(kind, channel)))
            for kind in ("p", "u")
        ]
        return Occupancy(*await all_of(counted))

    async def owners(self) -> Collection[str]:
        """
        Name who may have entries.
        """
        # The index has members of the same form as that of sessions.
        return {name.decode() for name in await self._redis.run(load("session_holders"), [self._index], [])}

    # Beside the clients.

    async def expired(self, limit: int = 1000) -> Sequence[tuple[str, ClientInfo]]:
        """
        End what was held long enough.
        """
        now, taken, *due = await self._redis.run(load("presence_due"), [self._held], [limit, TAKEN_MS])
        channels: dict[str, list[str]] = {}
        for member in due:
            channel, _, session = member.decode().partition("\t")
            channels.setdefault(channel, []).append(session)
        asked = [
            (channel, sessions[begin : begin + PAGE])
            for channel, sessions in channels.items()
            for begin in range(0, len(sessions), PAGE)
        ]
        ended = await together(self._expire(channel, now, some) for channel, some in asked)
        gone: list[tuple[str, ClientInfo]] = []
        done: list[Part] = []
        for (channel, some), told in zip(asked, ended, strict=True):
            for session, became in zip(some, told, strict=False):
                later = became if isinstance(became, int) else 0
                done += (f"{channel}\t{session}", later)
                if became and not later:
                    gone.append((channel, info_of(became)))
        if done:
            await self._redis.run(load("presence_done"), [self._held], [taken, *done])
        return gone

    async def _expire(self, channel: str, now: int, sessions: Sequence[str]) -> Sequence[bytes | int]:
        try:
            became: Sequence[bytes | int] = await self._run("presence_expire", channel, now, *sessions)
        except StoreUnavailable:
            return ()  # They are looked at again, by somebody.
        return became

    async def reap(self, instance: str, hold_s: Callable[[str], float]) -> int:
        """
        Hold what a dead instance has.
        """
        return await self._take(instance, hold_s, lambda _channel, _session: False)

    async def _take(self, instance: str, hold_s: Callable[[str], float], spared: Callable[[str, str], bool]) -> int:
        """Hold what stands as *instance*'s and is not *spared*, and take it from the index."""
        held, begin = 0, f"[{instance}\t"
        while True:
            listed = await self._redis.call("ZRANGEBYLEX", self._index, begin, f"({instance}\n", "LIMIT", 0, CHANNELS)
            if not listed:
                return held
            begin = f"({listed[-1].decode()}"
            channels = [member.decode().partition("\t")[2] for member in listed]
            held += sum(
                await together(self._take_from(channel, instance, hold_s(channel), spared) for channel in channels)
            )

    async def _take_from(self, channel: str, instance: str, hold_s: float, spared: Callable[[str, str], bool]) -> int:
        cursor, held = b"0", 0
        while True:
            cursor, *found = await self._run("presence_of", channel, instance, cursor, PAGE)
            sessions = [each for each in (name.decode() for name in found) if not spared(channel, each)]
            if sessions:
                until = await self._until(hold_s, channel, sessions)
                pairs = [part for session in sessions for part in (session, instance)]
                held += await self._run("presence_hold", channel, until, "i", *pairs)
            if cursor == b"0":
                break
        if instance == self._instance and self._roster.concerns(channel):
            return held
        if instance == self._instance:
            self._listed.pop(channel, None)
        await self._redis.call("ZREM", self._index, f"{instance}\t{channel}")
        return held

    async def restore(self) -> None:
        """
        Write what is not written, batch after batch; everything, if the data may have gone back.
        """
        now, roster = self._seconds(), self._roster
        if not self._redis.available or not self._instance:
            return
        self._notice()
        roster.pass_time(now)
        more, in_vain = True, 0
        while more:
            more = roster.again(BATCH)
            waiting = [place for place in roster.unwritten if not place.busy and place.after <= now]
            for begin in range(0, len(waiting), BATCH):
                batch = waiting[begin : begin + BATCH]
                await all_of([self._write(place) for place in batch])
                if all(place in roster.unwritten for place in batch):
                    for place in batch:
                        roster.later(place)
                    in_vain += 1
                    if in_vain == IN_VAIN:
                        return
        if self._compare or roster.overflowed:
            # What stands as ours and is not: given up while nobody could be told, or written before we went back.
            await self._take(self._instance, lambda _: self._settle_s, roster.has)
            self._compare = roster.overflowed = False

    def _fault(self, failure: Failure) -> None:
        self._failed("presence", failure)
