"""
Several steps at once.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

__all__ = ["together"]

T = TypeVar("T")


async def together(steps: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """
    Take *steps* at once and wait for all; return what they gave in order, or raise the first error among them.
    """
    results = await DeferredList([Deferred.fromCoroutine(step) for step in steps], consumeErrors=True)
    found: list[T] = []
    for _, result in results:
        if isinstance(result, Failure):
            result.raiseException()
        found.append(result)
    return found
