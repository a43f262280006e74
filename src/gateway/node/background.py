"""
What runs beside the requests, each with a name and an owner who ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from gateway.node.together import rest

__all__ = ["Background"]

LOOK_S = 0.05


class Background:
    """
    The tasks of one instance. A task that fails is reported by name; none is forgotten.

    Args:
        clock: Drives repeated tasks.
        report: Called with the task's name and its failure.
    """

    def __init__(self, clock: IReactorTime, report: Callable[[str, Failure], None]) -> None:
        self._clock = clock
        self._report = report
        self._running: dict[Deferred[Any], str] = {}
        self._loops: list[LoopingCall] = []

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """
        Run *coroutine* now; the Deferred returned never fails.
        """
        # What waits for nothing, as on memory stores, is done without being written down.
        try:
            waited = coroutine.send(None)
        except StopIteration:
            return succeed(None)
        except Exception:
            failure = Failure()
            if not failure.check(CancelledError):
                self._report(name, failure)
            return succeed(None)
        task = Deferred.fromCoroutine(rest(coroutine, waited))
        self._running[task] = name

        def done(result: Any) -> None:
            self._running.pop(task, None)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._report(name, result)

        return task.addBoth(done)

    def every(self, name: str, interval_s: float, call: Callable[[], Any]) -> None:
        """
        Call *call* each *interval_s* seconds; one that fails is reported and goes on.
        """

        def guarded() -> Any:
            try:
                return call()
            except Exception:  # One failing sweep must not end the sweeping.
                self._report(name, Failure())
                return None

        loop = LoopingCall(guarded)
        loop.clock = self._clock
        self._loops.append(loop)
        loop.start(interval_s, now=False).addErrback(lambda failure: self._report(name, failure))

    def names(self) -> list[str]:
        """
        List what runs now.
        """
        return sorted(self._running.values())

    async def settled(self, rooms: Collection[str], within_s: float) -> list[str]:
        """
        Wait for the tasks that run now and whose names begin with a word of *rooms*, at most *within_s*.

        Returns:
            The names of those that still run; they go on.
        """
        until = self._clock.seconds() + within_s
        waiting = [task for task, name in self._running.items() if name.partition(".")[0] in rooms]
        while waiting := [task for task in waiting if task in self._running]:
            if self._clock.seconds() >= until:
                break
            await deferLater(self._clock, LOOK_S)
        return sorted(self._running[task] for task in waiting)

    async def stop(self) -> None:
        """
        End every task and wait for it.
        """
        for loop in self._loops:
            if loop.running:
                loop.stop()
        self._loops.clear()
        waiting = list(self._running)
        for task in waiting:
            task.cancel()
        await gatherResults(waiting, consumeErrors=True)
