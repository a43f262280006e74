"""
Unary calls to one target over connections of our own (``unary.Unary``): one at a time, made when it is needed.

A call that comes while the connection is being made waits for it. When that fails all that wait fail, and for a moment
(0.1 s, doubled up to 2 s) every call does at once, so that a target that is away costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from gateway.core.backoff import backoff
from gateway.core.wheel import Wheel
from gateway.net.transports import DirectReactor, switch_protocol
from gateway.ports.calls import CallFailed
from gateway.telemetry.metrics import package_version
from gateway.upstream import http2 as h
from gateway.upstream.call_failures import CANCELLED, RESOURCE_EXHAUSTED, UNAVAILABLE
from gateway.upstream.grpc_target import MAX_MESSAGE_BYTES
from gateway.upstream.lean_answers import overdue, request_fields
from gateway.upstream.lean_call import LeanCall
from gateway.upstream.lean_connection import LeanConnection
from gateway.upstream.target import Target, endpoint_of
from gateway.upstream.tls import tls_factory
from gateway.upstream.unary import UnaryReply

__all__ = ["LeanUnary"]

TICK_S: Final = 0.02
"""How late a deadline may be."""

FIRST_WAIT_S: Final = 0.1
MOST_WAIT_S: Final = 2.0
KEEPALIVE_S: Final = 30.0
"""A server that is silent this long, while calls wait for it, is asked whether it is there."""

SILENT_S: Final = 10.0
"""How long it may take to answer that."""

_MOST_METHODS: Final = 1024
_AGENT: Final = f"twistd-gateway/{package_version()}".encode("ascii")


class _Connections(Factory):
    noisy = False

    def __init__(self, make: Callable[[], LeanConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> LeanConnection:
        return self._make()


class LeanUnary:
    """
    Calls to one target.

    Args:
        options: Makes TLS connections; None if the target speaks plain HTTP/2.
        authority: What calls say that they are for, if it is not the target's own.
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        reactor: Any,
        target: Target,
        options: Any,
        *,
        authority: bytes = b"",
        connect_timeout_s: float,
        random: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._tls = options is not None
        self._connect_timeout_s = connect_timeout_s
        self._random = random
        self._endpoint: IStreamClientEndpoint = endpoint_of(DirectReactor(reactor), target, connect_timeout_s)
        self._factory: Any = _Connections(self._protocol)
        if options is not None:
            self._factory = tls_factory(options, self._factory, reactor)
        self._authority = authority or target.authority
        self._heads: dict[str, bytes] = {}
        self._current: LeanConnection | None = None
        self._all: dict[LeanConnection, None] = {}
        self._waiting: dict[LeanCall, None] = {}
        self._making = False
        self._connecting: Deferred[Any] | None = None
        self._greet_by = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._reason = ""
        self._due: Wheel[LeanCall] = Wheel(TICK_S)
        self._ticking: IDelayedCall | None = None
        self._stopped = False

    async def stop(self) -> None:
        """
        Cut the connections; calls under way fail.
        """
        self._stopped = True
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._all):
            connection.give_up("stopped")
        self._fail_waiting("stopped")
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    # Calls.

    def call(
        self, method: str, data: bytes, metadata: list[tuple[str, str | bytes]], timeout_s: float
    ) -> Deferred[UnaryReply]:
        """
        Make a call.
        """
        size = len(data)
        fields = [self._head(method), h.field(b"grpc-timeout", _timeout(timeout_s))]
        fields += [h.field(name, value) for name, value in request_fields(metadata)]
        until = self._reactor.seconds() + timeout_s
        message = b"\x00%b%b" % (size.to_bytes(4, "big"), data)
        call = LeanCall(b"".join(fields), message, until, self._reactor.seconds, self._due.drop)
        if self._stopped:
            call.fail(CallFailed(CANCELLED, "the channel is closed", local=True, kind="cancelled"))
        elif size > MAX_MESSAGE_BYTES:
            text = f"Sent message larger than max ({size} vs. {MAX_MESSAGE_BYTES})"
            call.fail(CallFailed(RESOURCE_EXHAUSTED, text, local=True, kind="too_large_message"))
        else:
            self._due.set(call, until)
            if self._ticking is None:
                self._ticking = self._reactor.callLater(TICK_S, self._tick)
            self._begin(call)
        return call.answer

    def _head(self, method: str) -> bytes:
        found = self._heads.get(method)
        if found is None:
            scheme = b"\x87" if self._tls else b"\x86"
            # :method POST and :scheme are numbers of the static table (RFC 7541, appendix A).
            found = b"\x83%b%b" % (
                scheme,
                b"".join(
                    h.field(name, value)
                    for name, value in (
                        (b":path", method.encode("ascii")),
                        (b":authority", self._authority),
                        (b"te", b"trailers"),
                        (b"content-type", b"application/grpc"),
                        (b"user-agent", _AGENT),
                    )
                ),
            )
            if len(self._heads) >= _MOST_METHODS:
                self._heads.clear()
            self._heads[method] = found
        return found

    def _begin(self, call: LeanCall) -> None:
        if self._current is not None:
            self._current.begin(call)
        elif self._making:
            self._waiting[call] = None
        elif self._reactor.seconds() < self._not_before:
            call.fail(_unreachable(self._reason))
        else:
            self._waiting[call] = None
            self._connect()

    # Connections.

    def _protocol(self) -> LeanConnection:
        return LeanConnection(self._reactor, tls=self._tls, ready=self._ready, leaving=self._leaving)

    def _connect(self) -> None:
        self._making = True
        self._greet_by = self._reactor.seconds() + self._connect_timeout_s
        self._connecting = self._endpoint.connect(self._factory)
        self._connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> None:
        self._connecting = None
        connection: LeanConnection = protocol.wrappedProtocol if self._tls else protocol
        if not self._tls:
            # The endpoint's wrapper has done its work; each read would pass through it.
            assert connection.transport is not None, "it is connected"
            switch_protocol(connection.transport, connection)
        self._all[connection] = None
        if self._stopped:
            connection.give_up("stopped")

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._unreachable(f"{failure.type.__name__}: {failure.value}" if failure.type else str(failure.value))

    def _ready(self, connection: LeanConnection) -> None:
        self._making = False
        self._current = connection
        self._failures = 0
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            if not call.answer.called:
                connection.begin(call)

    def _leaving(self, connection: LeanConnection, again: list[LeanCall], reason: str) -> None:
        if not connection.greeted:
            self._unreachable(reason)
        elif connection is self._current:
            self._current = None
        for call in again:
            if call.answer.called:
                continue
            if call.resent or self._stopped:
                call.fail(_unreachable(reason or "sent away twice"))
            else:
                call.resent = True
                self._begin(call)

    def _unreachable(self, reason: str) -> None:
        self._making = False
        self._failures += 1
        self._reason = reason
        wait = backoff(self._failures, FIRST_WAIT_S, MOST_WAIT_S, self._random)
        self._not_before = self._reactor.seconds() + wait
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.fail(_unreachable(reason))

    # Time.

    def _tick(self) -> None:
        self._ticking = None
        now = self._reactor.seconds()
        for call in self._due.turn(now):
            self._waiting.pop(call, None)
            call.give_up(overdue())
        for connection in list(self._all):
            self._watch(connection, now)
        if len(self._due) and not self._stopped:
            self._ticking = self._reactor.callLater(TICK_S, self._tick)

    def _watch(self, connection: LeanConnection, now: float) -> None:
        if connection.over:
            del self._all[connection]
        elif not connection.greeted:
            if now >= self._greet_by:
                connection.give_up("no greeting in time")
        elif connection.asked_at is not None:
            if now - connection.asked_at >= SILENT_S:
                connection.give_up("keepalive watchdog timeout")
        elif now - connection.heard_at >= KEEPALIVE_S:
            connection.ask()


def _unreachable(reason: str) -> CallFailed:
    return CallFailed(UNAVAILABLE, f"failed to connect: {reason}", local=True, kind="connect")


def _timeout(seconds: float) -> bytes:
    """At most eight digits, and a unit (PROTOCOL-HTTP2.md)."""
    micros = int(seconds * 1e6)
    return b"%du" % micros if micros < 100_000_000 else b"%dm" % min(micros // 1000, 99_999_999)
