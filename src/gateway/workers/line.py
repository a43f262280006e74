"""
What runs between a parent and one of its workers: questions, answers and orders, both ways.

A pair of sockets that the parent makes and the worker inherits, so there is no name that others could connect
to and nothing to tidy up. It ends with the process at either end, however that dies: a worker whose parent is
gone sees the end of the line. (``PR_SET_PDEATHSIG`` would tell that too, but of the death of the thread that started
the worker, by a signal that interrupts instead of being read in order, and on Linux alone.)
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

__all__ = ["Begin", "Gone", "Line", "Said", "Silent", "attach", "receive_begin", "tell_now"]

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of one message: the metrics of a worker with every series that it may have are a few MiB."""

BEGIN_S: Final = 30.0

_length: Final = struct.Struct("!I")


class Silent(Exception):
    """
    No answer came in time.
    """


class Gone(Silent):
    """
    No answer can come any more: the other process has ended, or is about to.
    """


class Said(Exception):
    """
    The other process could not answer; its words are the text.
    """


class Begin(msgspec.Struct, array_like=True):
    """
    What a worker is told before anything else.

    Attributes:
        number: Which worker it is, from 1.
        path: Where the configuration stands.
        text: The configuration in force, which need not be what stands there now.
        reactor: twistd's name of the reactor asked for; empty for ours.
        log_path: Where its lines go; None is standard output.
        pretty: Whether they are made for reading.
        minting: The private key of minted tokens, the same for all workers.
        descriptors: What gRPC backends have told of themselves, by upstream: they may be away when a worker starts.
        pinned: What only a restart of all changes, as it was when all began; see ``workers.pinned``.
    """

    number: int
    path: str
    text: str
    reactor: str
    log_path: str | None
    pretty: bool
    minting: bytes
    descriptors: dict[str, list[bytes]]
    pinned: bytes


class _Frame(msgspec.Struct, array_like=True):
    kind: Literal["ask", "answer", "said", "tell"]
    id: int
    name: str = ""
    body: Any = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Frame).decode

Answers = Callable[[str, Any], Coroutine[Any, Any, Any]]
"""Finds the answer to a question, by its name and body."""


class Line(Int32StringReceiver):
    """
    One end.

    Args:
        clock: For deadlines.
        answers: Asked what the other end asks.
        told: Called with the name and body of each order.
        lost: Called once when the line has ended; nothing comes after it.
        crashed: Told of failures of ours while answering.

    Attributes:
        ended: Nothing comes, or can be said, any more.
    """

    MAX_LENGTH = MOST_BYTES

    def __init__(
        self,
        clock: Any,
        answers: Answers,
        told: Callable[[str, Any], None],
        lost: Callable[[], None],
        crashed: Callable[[str, Failure], None],
    ) -> None:
        self._clock = clock
        self._answers = answers
        self._told = told
        self._lost = lost
        self._crashed = crashed
        self._asked: dict[int, tuple[Deferred[Any], IDelayedCall]] = {}
        self._last = 0
        self.ended = False

    def begin(self, what: Begin) -> None:
        """
        Say what the worker waits for first.
        """
        self._send(what)

    def _send(self, what: Begin | _Frame) -> None:
        self.sendString(_encode(what))  # type: ignore[no-untyped-call]  # Twisted's

    def tell(self, name: str, body: Any = None) -> None:
        """
        Order something, if there still is somebody to hear it.
        """
        if not self.ended:
            self._send(_Frame("tell", 0, name, body))

    def ask(self, name: str, body: Any = None, *, deadline_s: float) -> Deferred[Any]:
        """
        Ask something.

        Fails with ``Gone`` or ``Silent``, or with ``Said`` if the other end could not answer.
        """
        asked: Deferred[Any] = Deferred()
        if self.ended:
            asked.errback(Gone(f"{name}: the process has ended"))
            return asked
        self._last += 1
        late = self._clock.callLater(deadline_s, self._late, self._last, name, deadline_s)
        self._asked[self._last] = (asked, late)
        self._send(_Frame("ask", self._last, name, body))
        return asked

    def _late(self, number: int, name: str, deadline_s: float) -> None:
        asked, _ = self._asked.pop(number)
        asked.errback(Silent(f"{name}: no answer within {deadline_s:g} s"))

    def stringReceived(self, string: bytes) -> None:
        """Take one message."""
        frame = _decode(string)
        if frame.kind == "tell":
            self._told(frame.name, frame.body)
        elif frame.kind == "ask":
            answering = Deferred.fromCoroutine(self._answers(frame.name, frame.body))
            answering.addCallbacks(self._answer, self._cannot, callbackArgs=(frame,), errbackArgs=(frame,))
        else:
            # An answer that comes after its deadline is nobody's.
            asked, late = self._asked.pop(frame.id, (None, None))
            if asked is not None and late is not None:
                late.cancel()
                if frame.kind == "answer":
                    asked.callback(frame.body)
                else:
                    asked.errback(Said(frame.body))

    def _answer(self, body: Any, frame: _Frame) -> None:
        if not self.ended:
            self._send(_Frame("answer", frame.id, frame.name, body))

    def _cannot(self, failure: Failure, frame: _Frame) -> None:
        self._crashed(frame.name, failure)
        if not self.ended:
            self._send(_Frame("said", frame.id, frame.name, str(failure.value)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is gone."""
        self.ended = True
        asked, self._asked = self._asked, {}
        for waiting, late in asked.values():
            late.cancel()
            waiting.errback(Gone("the process has ended"))
        self._lost()

    def hang_up(self) -> None:
        """
        End the line.
        """
        if not self.ended:
            self.transport.loseConnection()  # type: ignore[union-attr]  # connected until ended


class _Once(Factory):
    noisy = False

    def __init__(self, line: Line) -> None:
        self._line = line

    def buildProtocol(self, addr: Any) -> Line:
        return self._line


def tell_now(end: socket.socket, name: str, body: Any = None) -> None:
    """
    Order something before returning, for a process that is about to end; to be used while nothing else is under way.
    """
    frame = _encode(_Frame("tell", 0, name, body))
    try:
        end.send(_length.pack(len(frame)) + frame)
    except OSError:
        pass


def attach(reactor: Any, end: socket.socket, line: Line) -> None:
    """
    Have *line* speak through *end*, which the reactor takes over.
    """
    end.setblocking(False)
    # The reactor has a descriptor of its own for it.
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Once(line))
    end.close()


def receive_begin(end: socket.socket) -> Begin:
    """
    Wait for the first message, before there is a reactor.

    Raises:
        OSError: it does not come.
    """
    end.settimeout(BEGIN_S)
    (length,) = _length.unpack(_exactly(end, _length.size))
    begin = msgspec.msgpack.decode(_exactly(end, length), type=Begin)
    end.settimeout(None)
    return begin


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(size - len(data))
        if not more:
            raise OSError(errno.EPIPE, "the parent has ended")
        data += more
    return data
