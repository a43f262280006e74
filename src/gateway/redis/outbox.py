"""
Events that wait to be told, in Redis: a stream in each partition, written by the scripts of sessions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from gateway.core.partitions import PARTITIONS
from gateway.ports.sessions import TAKEN_S, Backlog, OutboxEvent
from gateway.redis.client import Store
from gateway.redis.connection import together
from gateway.redis.scripts import load

__all__ = ["RedisOutbox"]


class RedisOutbox:
    """
    A ``ports.sessions.EventOutbox`` in Redis.

    Args:
        kind: Which one: what happened to sessions, or what lost connections are owed.
    """

    def __init__(self, redis: Store, kind: Literal["events", "owed"]) -> None:
        self._redis = redis
        self._kind = kind

    def _stream(self, partition: int) -> str:
        return self._redis.keys.partition(self._kind, partition)

    def _taker(self, partition: int) -> str:
        return self._redis.keys.partition(f"{self._kind}_taker", partition)

    async def take(
        self, by: str, partitions: Collection[int], limit: int, *, for_s: float = TAKEN_S
    ) -> Sequence[OutboxEvent]:
        """
        Return the oldest events of *partitions*.
        """
        script, hold_ms = load("outbox_take"), round(for_s * 1000)
        replies = await together(
            self._redis.run(script, [self._stream(number), self._taker(number)], [by, limit, hold_ms])
            for number in partitions
        )
        return [
            OutboxEvent(
                f"{number}:{ref.decode()}",
                id_.decode(),
                session.decode(),
                int(at) / 1000,
                int(started_at) / 1000,
                int(resumes),
                data,
            )
            for number, reply in zip(partitions, replies, strict=True)
            for ref, (_, id_, _, session, _, at, _, started_at, _, resumes, _, data) in reply
        ]

    async def release(self, by: str, partitions: Collection[int]) -> None:
        """
        Let *partitions* go.
        """
        script = load("outbox_release")
        await together(self._redis.run(script, [self._taker(number)], [by]) for number in partitions)

    async def done(self, refs: Sequence[str]) -> None:
        """
        Forget events.
        """
        parts: dict[int, list[str]] = {}
        for ref in refs:
            partition, _, entry = ref.partition(":")
            parts.setdefault(int(partition), []).append(entry)
        await together(self._redis.call("XDEL", self._stream(number), *entries) for number, entries in parts.items())

    async def backlog(self, partitions: Collection[int] = range(PARTITIONS)) -> Backlog:
        """
        Count what waits, and what did not fit.
        """
        script, names = load("outbox_backlog"), self._redis.keys
        replies = await together(
            self._redis.run(script, [self._stream(number), names.partition("overflow", number)], [self._kind])
            for number in partitions
        )
        oldest = [int(at) for _, at, _ in replies if at]
        return Backlog(
            sum(waiting for waiting, _, _ in replies),
            sum(lost for _, _, lost in replies),
            min(oldest) / 1000 if oldest else 0.0,
        )
