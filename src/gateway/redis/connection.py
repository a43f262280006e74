"""
One connection to one Redis server: commands of a reactor turn leave in one write, answers come in order.

On txredisapi's protocol (authentication, hiredis), with two things of ours: joining what is sent, and
a deadline for every answer. A server that is silent too long is taken for lost, whatever the network
says. RESP2, in bytes: nothing is decoded and no text becomes a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple

import hiredis
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from txredisapi import HiredisProtocol

from gateway.net.tls_faults import tls_fault
from gateway.ports.realtime import StoreUnavailable
from gateway.redis.errors import RedisRefused, error_of

__all__ = ["Connection", "Part", "all_of", "together"]

Part = str | bytes | int

LAST_LOOK_S: Final = 0.05
"""What is overdue is given up if nothing comes for this long after that was noticed."""

_PUSHED: Final = frozenset((b"smessage", b"message"))
_PING: Final = b"*1\r\n$4\r\nPING\r\n"


class _Refusal(Exception):
    """An error reply, in place of hiredis's own class."""


class _Waiting(NamedTuple):
    """
    A command that waits for its answer.

    Attributes:
        until: When it is given up.
        leaves: The topic whose subscription it ends; then the answer is that of the ``PING`` behind it.
    """

    answer: Deferred[Any]
    until: float
    size: int
    leaves: bytes | None


class Connection(HiredisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """
    A connection.

    Args:
        timeout_s: A server that owes an answer this long is taken for lost.
        most_bytes: Of commands that wait for their answers; beyond it commands are refused.
        message: Called with topic and payload of what subscriptions bring.
        ended: Called with a topic whose subscription the server ended by itself (its slot moved).
        lost: Called once when the connection is gone, with the reason.
        took: Called with the seconds that the first answer of those that came together took.

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
        took: Callable[[float], None] | None = None,
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
        self._took = took
        self._reader = hiredis.Reader(replyError=_Refusal)
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._out: list[bytes] = []
        self._flushing: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None
        self._overdue = False
        self._reason = ""
        self.commands = 0

    def connectionMade(self) -> None:
        """Nothing is said before ``greet``: txredisapi would keep to itself that it failed."""

    async def greet(self) -> None:
        """
        Say who we are and which database is meant.

        Raises:
            RedisRefused: not to us. StoreUnavailable: it was lost meanwhile.
        """
        if self.password is not None:
            await self.auth(self.password, self.username)
        if self.dbid is not None:
            await self.select(self.dbid)

    @property
    def open(self) -> bool:
        """It was not given up, nor lost."""
        return bool(self.connected) and not self._reason

    # What is sent.

    def execute_command(self, *parts: Part, **_: Any) -> Deferred[Any]:
        """
        Send a command with this turn's others; txredisapi's own commands come through here, too.

        The Deferred fails with ``StoreUnavailable`` when the connection is lost before the answer came, with
        ``RedisRefused`` or ``RedisFault`` for an error reply.
        """
        return self.send(parts)

    def send(self, parts: Sequence[Part]) -> Deferred[Any]:
        """
        Send a command.
        """
        return self._send(encode(parts), None)

    def leave(self, topic: bytes) -> Deferred[Any]:
        """
        End a subscription.

        The server may end it at the same time by itself, and then answers that the slot is elsewhere: how much it says is
        not known. What it says before it answers the ``PING`` that goes with this is about this.
        """
        return self._send(encode(("SUNSUBSCRIBE", topic)) + _PING, topic)

    def _send(self, encoded: bytes, leaves: bytes | None) -> Deferred[Any]:
        if not self.open:
            return fail(StoreUnavailable("Redis is away"))
        if self._bytes + len(encoded) > self._most_bytes:
            return fail(StoreUnavailable("too much waits for Redis"))
        self._bytes += len(encoded)
        self.commands += 1
        answer: Deferred[Any] = Deferred(_leave)
        self._waiting.append(_Waiting(answer, self._clock.seconds() + self._timeout_s, len(encoded), leaves))
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
        wait_s = self._timeout_s / 4
        if self._clock.seconds() >= self._waiting[0].until:
            if self._overdue:
                self.give_up(f"no answer within {self._timeout_s:g} s")
                return
            # Perhaps it was this process that stood still, and the answers are there: nobody has looked since.
            self._overdue = True
            wait_s = min(wait_s, LAST_LOOK_S)
        self._watching = self._clock.callLater(wait_s, self._watch)

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
        self._overdue = False
        if self._took is not None and self._waiting:
            self._took(self._clock.seconds() - self._waiting[0].until + self._timeout_s)
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self.replyReceived(reply)
        except hiredis.ProtocolError as error:
            self.give_up(f"not Redis: {error}")

    def replyReceived(self, reply: Any) -> None:
        """Hand one reply to whom it is for."""
        waiting = self._waiting
        if self._message is not None and type(reply) is list:
            # Only a connection for topics is pushed to: elsewhere a list is an answer, whatever stands in it.
            if reply[0] in _PUSHED:
                self._message(reply[1], reply[2])
                return
            if reply[0] == b"sunsubscribe":
                if not (waiting and waiting[0].leaves == reply[1]) and self._ended is not None:
                    self._ended(reply[1])
                return
        if not waiting:
            # Servers that cannot take us say so unasked: "-ERR max number of clients reached".
            self.give_up(str(reply) if isinstance(reply, Exception) else "an answer that nobody asked for")
            return
        refused = type(reply) is _Refusal
        if refused and waiting[0].leaves is not None:
            return  # There is no such subscription any more.
        answer, _, size, _ = waiting.popleft()
        self._bytes -= size
        if refused:
            error = error_of(str(reply))
            if isinstance(error, RedisRefused) and error.code == "READONLY":
                self.give_up("the server became a replica")
            if not answer.called:
                answer.errback(Failure(error))
        elif not answer.called:
            answer.callback(reply)

    def connectionLost(self, why: Any) -> None:
        """Tell everybody who waits."""
        error = getattr(why, "value", why)
        reason = self._reason or (tls_fault(error) if isinstance(error, (SSL.Error, VerificationError)) else str(error))
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
        for each in waiting:
            if not each.answer.called:
                each.answer.errback(Failure(StoreUnavailable(f"Redis is away: {self._reason}")))


def _leave(_: Deferred[Any]) -> None:
    """Cancelled: its answer still comes, and is left where it is."""


def encode(parts: Sequence[Part]) -> bytes:
    """
    Write a command as Redis reads it (RESP, arrays of bulk strings).
    """
    written: bytes = hiredis.pack_command(tuple(parts))  # type: ignore[arg-type]  # its stub knows tuples of one
    return written


async def all_of(answers: Sequence[Deferred[Any]]) -> list[Any]:
    """
    Wait for every answer, then return them in order, or raise the first error among them.
    """
    results = await DeferredList(answers, consumeErrors=True)
    for succeeded, result in results:
        if not succeeded:
            raise result.value
    return [result for _, result in results]


async def together(steps: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """
    Begin *steps* at once, so that their commands leave in one write; then as ``all_of``.
    """
    return await all_of([Deferred.fromCoroutine(step) for step in steps])
