"""
One connection to one Redis server: commands of a reactor turn leave in one write, answers come in order.

On txredisapi's protocol (connecting, authentication, hiredis), with two things of ours: joining what
is sent, and a deadline for every answer. A server that is silent too long is taken for lost, whatever
the network says. RESP2, in bytes: nothing is decoded and no text becomes a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from txredisapi import HiredisProtocol

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.errors import error_of

__all__ = ["Connection", "Part", "all_of"]

Part = str | bytes | int

_PUSHED: Final = frozenset((b"smessage", b"message"))
_TOPICS: Final = frozenset((b"ssubscribe", b"sunsubscribe"))


class _Refusal(Exception):
    """An error reply, in place of hiredis's own class."""


class Connection(HiredisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """
    A connection.

    Args:
        timeout_s: A server that owes an answer this long is taken for lost.
        most_bytes: Of commands that wait for their answers; beyond it commands are refused.
        message: Called with topic and payload of what subscriptions bring.
        ended: Called with a topic whose subscription the server ended by itself (its slot moved).
        lost: Called once when the connection is gone, with the reason.

    Attributes:
        commands: How many were sent.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        username: str | None,
        password: str | None,
        database: int,
        timeout_s: float,
        most_bytes: int,
        message: Callable[[bytes, bytes], None] | None = None,
        ended: Callable[[bytes], None] | None = None,
        lost: Callable[[Connection, str], None],
    ) -> None:
        super().__init__(
            charset=None, password=password, dbid=database or None, convertNumbers=False, username=username
        )
        self._clock = clock
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._message = message
        self._ended = ended
        self._lost = lost
        self._reader = hiredis.Reader(replyError=_Refusal)
        self._waiting: deque[tuple[Deferred[Any], float, int, bytes | None]] = deque()
        self._bytes = 0
        self._out: list[bytes] = []
        self._flushing: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None
        self._reason = ""
        self.commands = 0

    # What is sent.

    def execute_command(self, *parts: Part, **_: Any) -> Deferred[Any]:
        """
        Send a command with this turn's others; txredisapi's own commands come through here, too.

        The Deferred fails with ``StoreUnavailable`` when the connection is lost before the answer came, with
        ``RedisRefused`` or ``RedisFault`` for an error reply.
        """
        return self.send(parts)

    def send(self, parts: Sequence[Part], topic: bytes | None = None, wait_s: float = 0.0) -> Deferred[Any]:
        """
        Send a command.

        Args:
            topic: Of a subscription: its answer is told from what the server ends by itself.
            wait_s: How much longer than others this command may take.
        """
        if not self.connected or self._reason:
            return fail(StoreUnavailable("Redis is away"))
        encoded = encode(parts)
        if self._bytes + len(encoded) > self._most_bytes:
            return fail(StoreUnavailable("too much waits for Redis"))
        self._bytes += len(encoded)
        self.commands += 1
        answer: Deferred[Any] = Deferred(_leave)
        now = self._clock.seconds()
        self._waiting.append((answer, now + self._timeout_s + wait_s, len(encoded), topic))
        self._out.append(encoded)
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)
        if self._watching is None:
            self._watching = self._clock.callLater(self._timeout_s / 4, self._watch)
        return answer

    def _flush(self) -> None:
        self._flushing = None
        out, self._out = self._out, []
        self.transport.write(b"".join(out))

    def _watch(self) -> None:
        self._watching = None
        if not self._waiting:
            return
        if self._clock.seconds() >= self._waiting[0][1]:
            self.give_up(f"no answer within {self._timeout_s:g} s")
        else:
            self._watching = self._clock.callLater(self._timeout_s / 4, self._watch)

    def give_up(self, reason: str) -> None:
        """
        Cut the connection now: what waits for an answer fails.
        """
        if not self._reason:
            self._reason = reason
            # Not answers alone: a server that hangs takes no bytes either, and must not hold up the end.
            self.transport.abortConnection()
            self._fail_all()

    # What comes.

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Take what came."""
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self.replyReceived(reply)
        except hiredis.ProtocolError as error:
            self.give_up(f"not Redis: {error}")

    def replyReceived(self, reply: Any) -> None:
        """Hand one reply to whom it is for."""
        if self._message is not None and type(reply) is list:
            # Only a connection for topics is pushed to: elsewhere a list is an answer, whatever stands in it.
            kind = reply[0]
            if kind in _PUSHED:
                self._message(reply[1], reply[2])
                return
            if kind in _TOPICS and not (self._waiting and self._waiting[0][3] == reply[1]):
                if kind == b"sunsubscribe" and self._ended is not None and reply[1] is not None:
                    self._ended(reply[1])
                return
        if not self._waiting:
            # Servers that cannot take us say so unasked: "-ERR max number of clients reached".
            self._reason = str(reply) if isinstance(reply, Exception) else "an answer that nobody asked for"
            self.transport.abortConnection()
            return
        answer, _, size, _ = self._waiting.popleft()
        self._bytes -= size
        if answer.called:
            return
        if type(reply) is _Refusal:
            answer.errback(Failure(error_of(str(reply))))
        else:
            answer.callback(reply)

    def connectionLost(self, why: Any) -> None:
        """Tell everybody who waits."""
        reason = self._reason or str(getattr(why, "value", why))
        self._reason = reason
        super().connectionLost(why)
        for call in (self._flushing, self._watching):
            if call is not None:
                call.cancel()
        self._flushing = self._watching = None
        self._fail_all()
        self._lost(self, reason)

    def _fail_all(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._bytes = 0
        for answer, _, _, _ in waiting:
            if not answer.called:
                answer.errback(Failure(StoreUnavailable(f"Redis is away: {self._reason}")))


def _leave(_: Deferred[Any]) -> None:
    """Cancelled: its answer still comes, and is left where it is."""


def encode(parts: Sequence[Part]) -> bytes:
    """
    Write a command as Redis reads it (RESP, arrays of bulk strings).
    """
    written = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode() if isinstance(part, str) else b"%d" % part
        written.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(written)


async def all_of(answers: Sequence[Deferred[Any]]) -> list[Any]:
    """
    Wait for every answer, then return them in order, or raise the first error among them.
    """
    results = await DeferredList(answers, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            raise result.value
    return [result for _, result in results]
