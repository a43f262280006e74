"""
How many replicas have what was written: a connection of its own that waits, and does nothing else.

``WAIT`` speaks of the writes of its own connection alone; one that wrote nothing is told at once that
all replicas have it. So a mark is written here first: it comes after everything that was acknowledged
elsewhere, and whoever has the mark has that too. Many share a round. The fewest replicas that anybody
wants are waited for first and never for long, so that who wants more than there are holds up nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection, all_of
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.link import Link

__all__ = ["Waits"]

ROUND_S: Final = 0.25
"""The longest that one round takes; replicas answer within it, wherever they are."""

LEAST_S: Final = 0.001
"""Redis takes 0 for: for ever."""

MARK_MS: Final = 1000

MOST_WAITING: Final = 100_000


class _Waiter:
    """
    Somebody who wants to know.

    Attributes:
        marked: The connection on which a mark was written after what it asks about.
    """

    __slots__ = ("answer", "deadline", "key", "marked", "replicas", "timer")

    def __init__(self, key: str, replicas: int, deadline: float) -> None:
        self.key = key
        self.replicas = replicas
        self.deadline = deadline
        self.marked: Connection | None = None
        self.answer: Deferred[int] = Deferred()
        self.timer: IDelayedCall | None = None


class Waits:
    """
    Those who wait for the replicas of one server. It connects when first somebody does.

    Args:
        endpoint: Leads to the server that is master now.
        make: Makes a connection.
        prepare: Done with each before it is used; raises unless it is the server whose replicas count.
        same: Whether the server that was prepared last is still the one that is written to.
        random: Evenly from 0 to 1.
        round_s: The longest a round may be, if that is less: a server that is silent longer is taken for lost.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        make: Callable[[Callable[[Connection, str], None]], Connection],
        *,
        prepare: Callable[[Connection], Awaitable[None]],
        same: Callable[[], bool],
        random: Callable[[], float],
        round_s: float = ROUND_S,
    ) -> None:
        self._round_s = min(round_s, ROUND_S)
        self._clock: IReactorTime = reactor
        self._same = same
        self._waiting: dict[_Waiter, None] = {}
        self._rounds: Deferred[None] | None = None
        self._started = False
        self._link = Link(
            reactor,
            endpoint,
            make,
            prepare=prepare,
            up=lambda _: self._go(),
            down=lambda _: None,
            random=random,
        )

    async def wait(self, key: str, replicas: int, within_s: float) -> int:
        """
        Wait until *replicas* replicas have what was written before, at most *within_s*.

        Args:
            key: Where a mark may be written, in a slot of this server.

        Returns:
            How many have it for certain, be it fewer or more; 0 also if nobody can say.
        """
        if len(self._waiting) >= MOST_WAITING:
            return 0
        waiter = _Waiter(key, replicas, self._clock.seconds() + within_s)
        # A round answers with what is known when the time is up; this is for when there is no answer at all.
        waiter.timer = self._clock.callLater(within_s + 2 * ROUND_S, self._answer, waiter, 0)
        self._waiting[waiter] = None
        if not self._started:
            self._started = True
            self._link.start()
        self._go()
        try:
            return await waiter.answer
        finally:
            self._forget(waiter)

    async def stop(self) -> None:
        """
        Close the connection; who waits is answered that nothing is known.
        """
        for waiter in list(self._waiting):
            self._answer(waiter, 0)
        if self._started:
            self._started = False
            await self._link.stop()

    def _go(self) -> None:
        connection = self._link.connection
        if self._rounds is None and self._waiting and connection is not None:
            self._rounds = Deferred.fromCoroutine(self._serve(connection))
            self._rounds.addBoth(self._served)

    def _served(self, result: object) -> object:
        self._rounds = None
        if not isinstance(result, Failure):
            self._go()  # Somebody may have come as the last one was answered.
        return result

    async def _serve(self, connection: Connection) -> None:
        while self._waiting:
            batch = list(self._waiting)
            try:
                count = await self._round(connection, batch)
            except (RedisRefused, RedisFault):
                for waiter in batch:
                    self._answer(waiter, 0)
                continue
            except StoreUnavailable:
                return  # Who waits is marked anew on the next one.
            now = self._clock.seconds() + LEAST_S
            for waiter in batch:
                if count >= waiter.replicas or now >= waiter.deadline:
                    self._answer(waiter, count)

    async def _round(self, connection: Connection, batch: list[_Waiter]) -> int:
        asked = []
        if not all(waiter.marked is connection for waiter in batch):
            asked.append(connection.send(("SET", batch[0].key, "", "PX", MARK_MS)))
        for waiter in batch:
            waiter.marked = connection
        left_s = min(waiter.deadline for waiter in batch) - self._clock.seconds()
        within_s = max(LEAST_S, min(self._round_s, left_s))
        wanted = min(waiter.replicas for waiter in batch)
        asked.append(connection.send(("WAIT", wanted, max(1, round(within_s * 1000)))))
        count: int = (await all_of(asked))[-1]
        if not self._same():
            self._link.drop("what is written goes to another server")
            raise StoreUnavailable("the replicas of another server do not count")
        return count

    def _answer(self, waiter: _Waiter, count: int) -> None:
        self._forget(waiter)
        if not waiter.answer.called:
            waiter.answer.callback(count)

    def _forget(self, waiter: _Waiter) -> None:
        self._waiting.pop(waiter, None)
        if waiter.timer is not None and waiter.timer.active():
            waiter.timer.cancel()
