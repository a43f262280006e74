"""
The topics heard on one server: subscribed once, again after every loss, and whoever listens is told of the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection, all_of

__all__ = ["Receiver", "Topics"]

BATCH: Final = 500
"""Topics subscribed again in one command."""


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
        moved: Called with a topic and its receiver when the server ended the subscription: its slot is elsewhere.
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
        self._heard[name] = (topic, receiver)
        try:
            await connection.send((b"SSUBSCRIBE", name), name)
        except BaseException:
            if self._heard.get(name) == (topic, receiver):
                del self._heard[name]
            raise

    async def unsubscribe(self, topic: str) -> None:
        """
        Hear *topic* no more.
        """
        name = topic.encode()
        if self._heard.pop(name, None) is None or self._connection is None:
            return
        try:
            await self._connection.send((b"SUNSUBSCRIBE", name), name)
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
        Subscribe everything anew on *connection*, in batches, and tell of the gap.
        """
        names = list(self._heard)
        answers: list[Deferred[object]] = []
        for begin in range(0, len(names), BATCH):
            # One command for each: a slot's topics alone may stand together, and each has an answer of its own.
            answers += [connection.send((b"SSUBSCRIBE", name), name) for name in names[begin : begin + BATCH]]
        await all_of(answers)
        self._connection = connection
        receivers: dict[Receiver, list[str]] = {}
        for name in names:
            heard = self._heard.get(name)
            if heard is None:
                # Nobody wanted it any more while we asked.
                connection.send((b"SUNSUBSCRIBE", name), name).addErrback(lambda _: None)
            else:
                receivers.setdefault(heard[1], []).append(heard[0])
        for receiver, topics in receivers.items():
            receiver.gap(topics)

    def lost(self) -> None:
        """
        The connection is gone; what was heard is subscribed again with the next one.
        """
        self._connection = None
