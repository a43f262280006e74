"""
Events of sessions in a stream that others read.

Its key is ``PREFIX:1:{stream:NAME}``; an entry has ``id``, ``kind``, ``session`` and ``event``, all of it as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.trace import TraceContext
from gateway.ports.events import NotTaken, Refusal, ToldEvent
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.client import Store
from gateway.redis.scripts import load

__all__ = ["EventStream"]


class EventStream:
    """
    A ``ports.events.EventSink``.

    Args:
        length: About how many entries are kept; the oldest go first.
    """

    def __init__(self, redis: Store, name: str, length: int) -> None:
        self._redis = redis
        self._key = redis.keys.one("stream", name)
        self._length = length

    async def tell(self, events: Sequence[ToldEvent], key: str, trace: TraceContext) -> Sequence[Refusal]:
        """
        Append them, all in one step.
        """
        parts = [part for event in events for part in (event.id, event.kind, event.session, event.body)]
        try:
            await self._redis.run(load("event_stream"), [self._key], [self._length, *parts])
        except StoreUnavailable as error:
            raise NotTaken(str(error) or "the store is away") from error
        return ()
