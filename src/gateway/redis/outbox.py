"""
Events that wait to be told, in Redis: a stream in each partition, written by the scripts of sessions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

from twisted.internet.defer import Deferred

from gateway.core.partitions import PARTITIONS
from gateway.ports.sessions import Backlog, OutboxEvent
from gateway.redis.client import Store
from gateway.redis.connection import all_of
from gateway.redis.scripts import load

__all__ = ["MOST_EVENTS", "TAKER_S", "RedisOutbox"]

MOST_EVENTS: Final = 1_000_000
"""Beyond it, a 64th in each partition, what happens is not told, and counted."""

TAKER_S: Final = 15.0
"""How long a partition stays with whoever took from it last."""


class RedisOutbox:
    """
    A ``ports.sessions.EventOutbox`` in Redis.

    Args:
        kind: Which one: what happened to sessions, or what lost connections are owed.
    """

    def __init__(self, redis: Store, kind: Literal["events", "owed"], *, taker_s: float = TAKER_S) -> None:
        self._redis = redis
        self._kind = kind
        self._taker_ms = round(taker_s * 1000)

    def _stream(self, partition: int) -> str:
        return self._redis.keys.partition(self._kind, partition)

    async def take(self, by: str, partitions: Collection[int], limit: int) -> Sequence[OutboxEvent]:
        """
        Return the oldest events of *partitions*.
        """
        script = load("outbox_take")
        names = self._redis.keys
        replies = await all_of(
            [
                Deferred.fromCoroutine(
                    self._redis.run(
                        script,
                        [self._stream(number), names.partition(f"{self._kind}_taker", number)],
                        [by, limit, self._taker_ms],
                    )
                )
                for number in partitions
            ]
        )
        return [
            OutboxEvent(f"{number}:{ref.decode()}", id_.decode(), session.decode(), int(at) / 1000, data)
            for number, reply in zip(partitions, replies, strict=True)
            for ref, (_, id_, _, session, _, at, _, data) in reply
        ]

    async def done(self, refs: Sequence[str]) -> None:
        """
        Forget events.
        """
        parts: dict[int, list[str]] = {}
        for ref in refs:
            partition, _, entry = ref.partition(":")
            parts.setdefault(int(partition), []).append(entry)
        await all_of(
            [
                Deferred.fromCoroutine(self._redis.call("XDEL", self._stream(number), *entries))
                for number, entries in parts.items()
            ]
        )

    async def backlog(self) -> Backlog:
        """
        Count what waits, and what did not fit.
        """
        names = self._redis.keys
        call = self._redis.call
        waiting = [Deferred.fromCoroutine(call("XLEN", self._stream(number))) for number in range(PARTITIONS)]
        lost = [
            Deferred.fromCoroutine(call("HGET", names.partition("overflow", number), self._kind))
            for number in range(PARTITIONS)
        ]
        counts = await all_of(waiting + lost)
        return Backlog(sum(counts[:PARTITIONS]), sum(int(each or 0) for each in counts[PARTITIONS:]))
