"""
Several steps at once, and the rest of one that has begun.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable
from types import coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

__all__ = ["rest", "together"]

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


@coroutine
def rest(begun: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """
    Run what is left of a coroutine that waits for *waited*.
    """
    try:
        while True:
            try:
                value = yield waited
            except Exception as error:
                waited = begun.throw(error)
            else:
                waited = begun.send(value)
    except StopIteration as ended:
        result: T = ended.value
        return result
