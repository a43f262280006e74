"""
Asks each target now and then whether it is well, and tells its cluster.

It does not know how one asks: a probe is handed in, for HTTP as for gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gateway.config.sections import Health
from gateway.upstream.cluster import Cluster, Member

__all__ = ["HealthChecks"]

T = TypeVar("T")

JITTER = 0.2
QUICK_S = 1.0
"""After a check that disagrees with the verdict the next one comes this soon."""


class HealthChecks(Generic[T]):
    """
    The checks of one cluster; a target counts as usable until they have said otherwise.

    Args:
        probe: Asks a target within its own deadline; True if it is well. What it raises counts as not well.
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        cluster: Cluster[T],
        section: Health,
        probe: Callable[[T], Coroutine[Any, Any, bool]],
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._section = section
        self._probe = probe
        self._clock = clock
        self._random = random
        self._running: list[Deferred[None]] = []

    def start(self) -> None:
        """
        Begin; the first checks are spread over the first second.
        """
        self._running = [Deferred.fromCoroutine(self._watch(member)) for member in self._cluster.members]

    async def stop(self) -> None:
        """
        End every check and wait for it.
        """
        running, self._running = self._running, []
        for task in running:
            task.addErrback(lambda failure: failure.trap(CancelledError) and None)
            task.cancel()
        await gatherResults(running, consumeErrors=True)

    async def _watch(self, member: Member[T]) -> None:
        section, clock = self._section, self._clock
        disagreeing = 0
        wait = min(QUICK_S, section.interval_s) * self._random()
        while True:
            await deferLater(clock, wait)
            well = await self._ask(member.value)
            now = clock.seconds()
            # A failing check disputes only its own verdict; a passing one also those of failed requests.
            agrees = member.healthy and not member.is_ejected(now) if well else not member.healthy
            if agrees:
                disagreeing = 0
                wait = section.interval_s * (1 - JITTER / 2 + JITTER * self._random())
                continue
            disagreeing += 1
            if disagreeing >= (section.healthy_after if well else section.unhealthy_after):
                disagreeing = 0
                self._cluster.checked(member, now, healthy=well)
            wait = min(QUICK_S, section.interval_s)

    async def _ask(self, target: T) -> bool:
        try:
            return await self._probe(target)
        except CancelledError:
            raise
        except Exception:  # A target that breaks the probe itself is not well; the checks must go on.
            return False
