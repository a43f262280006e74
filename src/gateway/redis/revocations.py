"""
Revocations that every instance knows: kept in Redis until they end, and in each instance's memory, where they are asked.

A revocation is stored and told to all in one step. Who did not hear it, because its link was cut just then, reads
what is new within half a second. When Redis lost what it knew, the instances give it back what they know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from gateway.core.identity import Identity, Revocation
from gateway.ports.identity import KnownRevocations
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["RedisRevocations"]

LOOK_S: Final = 0.5
"""How often what is new is asked for: whoever hears nothing knows it after that."""

PAGE: Final = 1000
BATCH: Final = 200


class _Heard(Struct, array_like=True):
    """What is told: *before* and *top* are the numbers of the last entry before and after."""

    name: str
    before: int
    top: int
    entries: list[str]


_decode: Final = msgspec.msgpack.Decoder(_Heard).decode


class RedisRevocations:
    """
    The ``ports.identity.Revocations`` of many instances.

    Args:
        own: What this instance alone revokes.
        shared: What all do, as far as it is known here.
        wall: Seconds since the epoch.
        fresh: Makes a name nobody else makes.
        failed: Told of faults, with the name of what failed.

    Attributes:
        complete: Everything that the store holds was read, once at least.
    """

    def __init__(
        self,
        redis: Store,
        clock: IReactorTime,
        own: KnownRevocations,
        shared: KnownRevocations,
        *,
        wall: Callable[[], float],
        fresh: Callable[[], str],
        failed: Callable[[str, Failure], None],
    ) -> None:
        self.complete = False
        self._redis = redis
        self._clock = clock
        self._own = own
        self._shared = shared
        self._wall = wall
        self._fresh = fresh
        self._failed = failed
        entries = redis.keys.one("revoked")
        self._keys = [entries, f"{entries}:order", f"{entries}:ends", f"{entries}:head"]
        self._topic = entries
        self._name = ""
        self._top = 0
        self._chain = ""
        self._compare = True
        self._hears = False
        self._following: Deferred[None] | None = None
        self._again = False
        self._timer: IDelayedCall | None = None

    # What instances ask and order.

    def add(self, revocation: Revocation) -> None:
        """
        Revoke here alone.
        """
        self._own.add(revocation)

    async def revoke(self, revocation: Revocation) -> bool:
        """
        Revoke everywhere.
        """
        self._shared.add(revocation)
        stored = False
        try:
            await self._send([revocation])
            stored = True
        except StoreUnavailable:
            pass
        finally:
            # Also if nobody waits any more: what is known here and not there is found by comparing.
            self._compare = self._compare or not stored
        return stored

    def is_revoked(self, identity: Identity) -> bool:
        """
        Whether *identity* was revoked, here or everywhere.
        """
        return self._shared.is_revoked(identity) or self._own.is_revoked(identity)

    def watch(self, told: Callable[[Revocation], None]) -> None:
        """
        Tell *told* of each as soon as it holds.
        """
        self._shared.watch(told)
        self._own.watch(told)

    # Knowing what the others ordered.

    async def start(self) -> None:
        """
        Read what is revoked, and follow it from now on. While Redis is away nothing is known (see ``complete``).
        """
        self._redis.watch(self)
        self._look()
        if self._following is not None:
            await self._following

    async def stop(self) -> None:
        """
        Follow no more.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._again = False
        if self._following is not None:
            self._following.cancel()
        if self._hears:
            self._hears = False
            await self._redis.unsubscribe(self._topic)

    def lost(self) -> None:
        """
        What is known here goes on to hold.
        """

    def back(self) -> None:
        """
        Look what was missed.
        """
        self._soon()

    def gap(self, topics: Sequence[str]) -> None:
        """
        Look what was missed.
        """
        self._soon()

    def message(self, topic: str, payload: bytes) -> None:
        """
        Take what somebody revoked.
        """
        try:
            heard = _decode(payload)
            entries = heard.entries
            for entry, issued_before, until in zip(entries[::3], entries[1::3], entries[2::3], strict=True):
                self._shared.add(_revocation(entry, issued_before, until))
        except Exception:  # The link must go on; what could not be read is read again.
            self._failed("revocations", Failure())
            self._soon()
            return
        if heard.name == self._name and heard.before == self._top:
            self._top = heard.top
        elif heard.name != self._name or heard.top > self._top:
            self._soon()

    def _look(self) -> None:
        self._timer = self._clock.callLater(LOOK_S, self._look)
        self._soon()

    def _soon(self) -> None:
        """Ask what is new, now or when the answer to the last time is here."""
        if self._timer is None:
            return
        if self._following is not None:
            self._again = True
        else:
            following = self._following = Deferred.fromCoroutine(self._follow())
            following.addErrback(self._lagging)
            following.addCallback(self._followed)

    def _lagging(self, failure: Failure) -> None:
        if not failure.check(StoreUnavailable, CancelledError):
            self._failed("revocations", failure)

    def _followed(self, _: object) -> None:
        self._following = None
        if self._again:
            self._again = False
            self._soon()

    async def _follow(self) -> None:
        if not self._hears:
            await self._redis.subscribe(self._topic, self)
            self._hears = True
        chain = self._redis.chain
        if not self._compare and chain == self._chain and await self._read_on():
            return
        self._compare = False
        try:
            await self._compare_all()
        except BaseException:
            self._compare = True
            raise
        self._chain = chain
        self.complete = True

    async def _read_on(self) -> bool:
        """Read what is new; False if the store has less than it had."""
        while True:
            before = self._top
            name, top, number, entries = await self._read(before)
            if name != self._name or top < before:
                return False
            for revocation in entries:
                self._shared.add(revocation)
            self._top = max(self._top, number)
            if number >= top:
                return True

    async def _compare_all(self) -> None:
        """Read everything, and give back what is not there."""
        there: dict[tuple[str, str], Revocation] = {}
        number = 0
        while True:
            name, top, number, entries = await self._read(number)
            for revocation in entries:
                self._shared.add(revocation)
                there[(revocation.token_id, revocation.subject)] = revocation
            if number >= top:
                break
        self._name, self._top = name, top
        now = self._wall()
        lacks = [
            revocation
            for revocation in self._shared
            if revocation.until > now and there.get((revocation.token_id, revocation.subject)) != revocation
        ]
        for begin in range(0, len(lacks), BATCH):
            await self._send(lacks[begin : begin + BATCH])

    async def _read(self, number: int) -> tuple[str, int, int, list[Revocation]]:
        entries, order, _, head = self._keys
        reply: list[Any] = await self._redis.run(load("revoked_since"), [entries, order, head], [number, PAGE])
        found = [_revocation(entry.decode(), *value.decode().split(" ")) for entry, value in _pairs(reply[3:])]
        return reply[0].decode(), reply[1], reply[2], found

    async def _send(self, revocations: Sequence[Revocation]) -> None:
        args = [self._fresh()]
        for revocation in revocations:
            entry = f"t:{revocation.token_id}" if revocation.token_id else f"s:{revocation.subject}"
            args += [entry, repr(float(revocation.issued_before)), repr(float(revocation.until))]
        await self._redis.run(load("revoke"), [*self._keys, self._topic], args)


def _pairs(flat: Sequence[bytes]) -> zip[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _revocation(entry: str, issued_before: str, until: str) -> Revocation:
    name = entry[2:]
    if entry.startswith("t:"):
        return Revocation(float(until), token_id=name)
    return Revocation(float(until), subject=name, issued_before=float(issued_before))
