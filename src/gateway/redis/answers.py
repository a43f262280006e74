"""
Asking several who know the same, and not waiting for the slowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

__all__ = ["answers_of"]

GRACE_S: Final = 0.25
"""How long the others may take once one has answered."""

T = TypeVar("T")


async def answers_of(asked: Sequence[Deferred[T | None]], clock: IReactorTime) -> list[T]:
    """
    Return what those say who answer soon after the first; None is no answer. A failure is raised.
    """
    told: list[T] = []
    left = len(asked)
    done: Deferred[None] = Deferred()
    timer: IDelayedCall | None = None

    def take(answer: T | None) -> None:
        nonlocal left, timer
        left -= 1
        if answer is not None:
            told.append(answer)
        if not left:
            _end(done)
        elif told and timer is None:
            timer = clock.callLater(GRACE_S, _end, done)

    def fail(failure: Failure) -> None:
        if not done.called:
            done.errback(failure)

    for each in asked:
        each.addCallback(take).addErrback(fail)
    if asked:
        try:
            await done
        finally:
            if timer is not None and timer.active():
                timer.cancel()
    return list(told)


def _end(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)
