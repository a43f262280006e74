"""
The topics heard on one server: subscribed once, again after every loss, and whoever listens is told of the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import DeferredList

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection
from gateway.redis.errors import RedisRefused

__all__ = ["Receiver", "Topics"]

BATCH: Final = 500
"""Topics subscribed again in one write; the next follow when these are answered."""


class Receiver(Protocol):
    """
    Who hears topics. Called on the reactor thread; must neither block nor raise.
    """

    def message(self, topic: str, payload: bytes) -> None:
        """Take a message; those of a topic come in the order they were published."""

    def gap(self, topics: Sequence[str]) -> None:
        """Know that *topics* are heard again after a loss: messages may be missing."""


class Topics:
    """
    What one connection for topics carries. Sharded pub/sub (Redis 7), also where nothing is sharded.

    Args:
        moved: Called with a topic and its receiver when it is heard here no more, because its slot is elsewhere.
    """

    def __init__(self, moved: Callable[[str, Receiver], None]) -> None:
        self._moved = moved
        self._heard: dict[bytes, tuple[str, Receiver]] = {}
        self._connection: Connection | None = None

    def __len__(self) -> int:
        return len(self._heard)

    async def subscribe(self, topic: str, receiver: Receiver) -> None:
        """
        Hear *topic*; what is published after this returns comes.

        Raises:
            StoreUnavailable: it is not heard.
        """
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("Redis is away")
        name = topic.encode()
        mine = self._heard[name] = (topic, receiver)
        try:
            await connection.send((b"SSUBSCRIBE", name))
        except BaseException:
            if self._heard.get(name) is mine:
                del self._heard[name]
                _leave(connection, name)
            raise

    async def unsubscribe(self, topic: str) -> None:
        """
        Hear *topic* no more.
        """
        name = topic.encode()
        if self._heard.pop(name, None) is None or self._connection is None:
            return
        try:
            await self._connection.leave(name)
        except StoreUnavailable:
            return  # The connection is gone, and with it the subscription.

    def message(self, name: bytes, payload: bytes) -> None:
        """
        Hand on what came.
        """
        heard = self._heard.get(name)
        if heard is not None:
            heard[1].message(heard[0], payload)

    def ended(self, name: bytes) -> None:
        """
        The server ended a subscription by itself.
        """
        heard = self._heard.pop(name, None)
        if heard is not None:
            self._moved(*heard)

    async def again(self, connection: Connection) -> None:
        """
        Subscribe everything anew on *connection*, and tell of the gap.

        Raises:
            StoreUnavailable: not everything is heard.
        """
        self._connection = connection
        for name, refused in await self._hear(connection, list(self._heard)):
            if refused.code != "MOVED":
                raise refused
            self.ended(name)

    async def adopt(self, topics: Iterable[tuple[str, Receiver]]) -> None:
        """
        Hear *topics* that were heard elsewhere: now, or with the next connection. Their receivers are told of the gap.

        What is refused has moved on.
        """
        new = {topic.encode(): (topic, receiver) for topic, receiver in topics}
        self._heard |= new
        if self._connection is not None:
            for name, _ in await self._hear(self._connection, list(new)):
                self.ended(name)

    def release(self, topics: Iterable[str] | None = None) -> dict[str, Receiver]:
        """
        Hear *topics* no more, or nothing at all, and return those that were heard.
        """
        names = list(self._heard) if topics is None else [topic.encode() for topic in topics]
        names = [name for name in names if name in self._heard]
        if self._connection is not None:
            for name in names:
                _leave(self._connection, name)
        return dict(self._heard.pop(name) for name in names)

    async def _hear(self, connection: Connection, names: Sequence[bytes]) -> list[tuple[bytes, RedisRefused]]:
        """Subscribe, and return what was refused."""
        refused: list[tuple[bytes, RedisRefused]] = []
        for begin in range(0, len(names), BATCH):
            batch = [name for name in names[begin : begin + BATCH] if name in self._heard]
            # One command for each: only topics of one slot may stand together, and each has an answer of its own.
            answers = await DeferredList([connection.send((b"SSUBSCRIBE", name)) for name in batch], consumeErrors=True)
            receivers: dict[Receiver, list[str]] = {}
            for name, (succeeded, result) in zip(batch, answers, strict=True):
                heard = self._heard.get(name)
                if succeeded and heard is not None:
                    receivers.setdefault(heard[1], []).append(heard[0])
                elif succeeded:
                    _leave(connection, name)  # Nobody wanted it any more while we asked.
                elif isinstance(result.value, RedisRefused):
                    refused.append((name, result.value))
                else:
                    raise result.value
            for receiver, topics in receivers.items():
                receiver.gap(topics)
        return refused

    def lost(self) -> None:
        """
        The connection is gone; what was heard is subscribed again with the next one.
        """
        self._connection = None


def _leave(connection: Connection, name: bytes) -> None:
    connection.leave(name).addErrback(lambda failure: failure.trap(StoreUnavailable))
