"""
One HTTP/2 connection that makes unary calls of gRPC, many at once (RFC 9113, and gRPC's PROTOCOL-HTTP2.md).

What is sent within a reactor turn leaves in one write. A stream's window is larger than the largest reply, so that
only the connection's is ever topped up. It is used after the server's ``SETTINGS`` came and until its ``GOAWAY``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from gateway.ports.calls import CallFailed
from gateway.upstream import http2 as h
from gateway.upstream.call_failures import RESOURCE_EXHAUSTED, UNAVAILABLE
from gateway.upstream.grpc_target import MAX_MESSAGE_BYTES
from gateway.upstream.http2_wire import MAX_WINDOW, Wire
from gateway.upstream.lean_answers import (
    CANCEL,
    PREFIX,
    broken,
    ended_by_reset,
    message_of,
    refusal_of,
)
from gateway.upstream.lean_call import LeanCall

__all__ = ["LeanConnection"]

LAST_STREAM: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65535
_SETTINGS: Final = h.frame(
    h.SETTINGS,
    0,
    0,
    h.setting(1, 0)  # HEADER_TABLE_SIZE
    + h.setting(2, 0)  # ENABLE_PUSH
    + h.setting(4, MAX_MESSAGE_BYTES + 2 * h.MAX_FRAME)  # INITIAL_WINDOW_SIZE
    + h.setting(6, h.MAX_BLOCK),  # MAX_HEADER_LIST_SIZE
)
_MAX_CONCURRENT_STREAMS: Final = 3
_INITIAL_WINDOW_SIZE: Final = 4
_WINDOW: Final = h.frame(h.WINDOW_UPDATE, 0, 0, (MAX_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big"))


_DONE: Final = Failure(ConnectionDone())


class LeanConnection(Wire):
    """
    A connection to one target.

    Attributes:
        over: It is closed, or about to be.

    Args:
        ready: Called when calls can be begun.
        leaving: Called when no more can be begun, with the calls that the server did not look at, and the reason if it is
            lost; again with further calls, if the server did not come to them either.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        tls: bool,
        ready: Callable[[LeanConnection], None],
        leaving: Callable[[LeanConnection, list[LeanCall], str], None],
    ) -> None:
        super().__init__(reactor, tls=tls)
        self._ready = ready
        self._leaving = leaving
        self._calls: dict[int, LeanCall] = {}
        self._waiting: deque[LeanCall] = deque()
        self._next = 1
        self._most = MAX_WINDOW
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._blocked: dict[LeanCall, None] = {}
        self._begun = False
        self._left = False
        self.over = False

    # What is sent.

    def connectionMade(self) -> None:
        """Greet; calls wait for the server's greeting."""
        super().connectionMade()
        self.write(h.PREFACE + _SETTINGS + _WINDOW)

    def begin(self, call: LeanCall) -> None:
        """
        Make a call, as soon as the server takes one more.
        """
        call.connection = self
        if len(self._calls) >= self._most or self._waiting:
            self._waiting.append(call)
        else:
            self._send(call)

    def _send(self, call: LeanCall) -> None:
        stream = call.stream = self._next
        self._next = stream + 2
        self._calls[stream] = call
        data, fields = call.data, call.fields
        size = len(data)
        number = stream.to_bytes(4, "big")
        if size <= self._window and size <= self._stream_window and size <= h.MAX_FRAME >= len(fields):
            self._window -= size
            self.write(
                b"%b\x01\x04%b%b%b\x00\x01%b%b"
                % (len(fields).to_bytes(3, "big"), number, fields, size.to_bytes(3, "big"), number, data)
            )
        else:
            self.write(_block(stream, fields))
            call.window = self._stream_window
            call.unsent = memoryview(data)
            self._push(call)
        if self._next > LAST_STREAM:
            self._retire("out of stream numbers")

    def _push(self, call: LeanCall) -> None:
        """Send of a request what the windows allow."""
        data, at = call.unsent, 0
        out = []
        while at < len(data):
            size = min(len(data) - at, h.MAX_FRAME, call.window, self._window)
            if size <= 0:
                break
            last = at + size == len(data)
            out.append(h.frame(h.DATA, h.END_STREAM if last else 0, call.stream, data[at : at + size]))
            at += size
            call.window -= size
            self._window -= size
        call.unsent = data[at:]
        if call.unsent:
            self._blocked[call] = None
        else:
            self._blocked.pop(call, None)
        if out:
            self.write(b"".join(out))

    def _unblock(self) -> None:
        for call in list(self._blocked):
            if self._window <= 0:
                return
            self._push(call)

    def leave(self, call: LeanCall) -> None:
        """
        Nobody waits for *call* any more: tell the server.
        """
        if self._calls.get(call.stream) is call:
            self._reset(call, CANCEL)
            self._go_on()
        elif not call.stream:
            self._waiting = deque(each for each in self._waiting if each is not call)

    def _reset(self, call: LeanCall, code: int) -> None:
        del self._calls[call.stream]
        self._blocked.pop(call, None)
        self.write(h.frame(h.RST_STREAM, 0, call.stream, code.to_bytes(4, "big")))

    def _go_on(self) -> None:
        while self._waiting and len(self._calls) < self._most and not self._left:
            self._send(self._waiting.popleft())
        if self._left and not self._calls:
            self.close()

    # What comes.

    def take_data(self, flags: int, stream: int, payload: bytes) -> None:
        """Keep a part of a reply."""
        call = self._calls.get(stream)
        if call is None:
            return
        if call.head is None:
            self._ended_wrong(call, flags, broken("a message before its head"))
            return
        call.size += len(payload)
        if call.size > MAX_MESSAGE_BYTES + PREFIX:
            text = f"Received message larger than max ({MAX_MESSAGE_BYTES})"
            failed = CallFailed(RESOURCE_EXHAUSTED, text, local=True, kind="too_large_reply")
            self._ended_wrong(call, flags, failed)
            return
        if payload:
            call.body.append(payload)
        if flags & h.END_STREAM:
            self._ended_wrong(call, flags, broken("no status", 2))

    def take_fields(self, flags: int, stream: int, fields: tuple[h.Field, ...]) -> None:
        """Take the head of a reply, or what ends it."""
        call = self._calls.get(stream)
        if call is None:
            return
        if call.head is None:
            if fields and fields[0][0] == b":status" and fields[0][1][:1] == b"1":
                return  # An interim answer.
            refused = refusal_of(fields)
            if refused is not None:
                self._ended_wrong(call, flags, refused)
                return
            if not flags & h.END_STREAM:
                call.head = fields
                return
        elif not flags & h.END_STREAM:
            self._ended_wrong(call, flags, broken("a head after the head"))
            return
        del self._calls[stream]
        if call.unsent:
            # Answered before it had all of the request: it does not want the rest.
            self._blocked.pop(call, None)
            self.write(h.frame(h.RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
        try:
            data = message_of(fields, call.body)
        except CallFailed as failed:
            call.fail(failed)
        else:
            call.reply(data, fields)
        if self._waiting or self._left:
            self._go_on()

    def _ended_wrong(self, call: LeanCall, flags: int, failed: CallFailed) -> None:
        """End a call that the server may go on with."""
        if flags & h.END_STREAM and not call.unsent:
            del self._calls[call.stream]
        else:
            self._reset(call, CANCEL)
        call.fail(failed)
        self._go_on()

    def take_reset(self, stream: int, code: int) -> None:
        """Fail a call that the server does not go on with."""
        call = self._calls.pop(stream, None)
        if call is not None:
            self._blocked.pop(call, None)
            call.fail(ended_by_reset(code))
            self._go_on()

    def take_settings(self, settings: dict[int, int]) -> None:
        """Keep to what the server allows, from now on or again."""
        self._most = settings.get(_MAX_CONCURRENT_STREAMS, self._most)
        window = settings.get(_INITIAL_WINDOW_SIZE, self._stream_window)
        if window > MAX_WINDOW:
            raise h.ProtocolError("a window that is too large")
        for call in self._blocked:
            # Streams that are open are moved by the difference (6.9.2).
            call.window += window - self._stream_window
        self._stream_window = window
        if not self._begun:
            self._begun = True
            self._ready(self)
        self._unblock()
        self._go_on()

    def take_window(self, stream: int, size: int) -> None:
        """Send what waited for this."""
        if not stream:
            self._window += size
            if self._window > MAX_WINDOW:
                raise h.ProtocolError("a window that is too large")
            self._unblock()
            return
        call = self._calls.get(stream)
        if call is not None and call.unsent:
            call.window += size
            self._push(call)

    def take_goodbye(self, last: int) -> None:
        """Let what the server does not look at go elsewhere."""
        self._retire("", [self._calls.pop(stream) for stream in [each for each in self._calls if each > last]])

    # The end.

    def _retire(self, reason: str, unseen: Iterable[LeanCall] = ()) -> None:
        """Begin no more; who was not looked at goes elsewhere."""
        again = [*unseen, *self._waiting]
        self._waiting.clear()
        for call in again:
            self._blocked.pop(call, None)
            call.again()
        if again or not self._left:
            self._left = True
            self._leaving(self, again, reason)
        if not self._calls:
            self.close()

    def close(self) -> None:
        """
        End it in order: there are no calls.
        """
        if not self.over:
            self.over = self._left = True
            self.goodbye(0)
            self.flush_now()
            self.transport.loseConnection()  # type: ignore[union-attr]

    def give_up(self, reason: str) -> None:
        """
        Cut it now: what is under way fails.
        """
        self._lost(reason)
        self.flush_now()
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, why: Failure = _DONE) -> None:
        """Fail what is under way."""
        self.forget()
        self._lost(str(why.value) or "lost")

    def _lost(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        calls, self._calls = self._calls, {}
        self._blocked.clear()
        # Told first: who tries again does so on another connection.
        self._retire(reason)
        for call in calls.values():
            # Whether the backend did it is not known.
            call.fail(CallFailed(UNAVAILABLE, f"Connection lost: {reason}", local=True, kind="lost"))


def _block(stream: int, fields: bytes) -> bytes:
    """Return a header block as frames."""
    parts = [fields[at : at + h.MAX_FRAME] for at in range(0, len(fields), h.MAX_FRAME)]
    last = len(parts) - 1
    return b"".join(
        h.frame(h.CONTINUATION if number else h.HEADERS, h.END_HEADERS if number == last else 0, stream, part)
        for number, part in enumerate(parts)
    )
