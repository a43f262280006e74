"""
The connections to one target: kept while unused, bounded, swept.

One sweep looks at every request under way and every idle connection; there is no timer per
request. It runs only while there is something to look at.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from gateway.config.sections import Upstream
from gateway.core.message import CHUNKED
from gateway.net.transports import DirectReactor, has_news, switch_protocol
from gateway.ports.upstream import Fault, ResponseReceiver
from gateway.upstream.call import Call
from gateway.upstream.connection import Connection, TlsConnection
from gateway.upstream.response import PlainHeads
from gateway.upstream.target import Target, endpoint_of
from gateway.upstream.tls import client_options, tls_factory

__all__ = ["Pool"]

SWEEP_S = 0.05
_WITHOUT_BODY = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class _Connections(Factory):
    noisy = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._make = TlsConnection if pool.target.tls else Connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._make(self._pool)


class Pool:
    """
    One target's connections (``ports.upstream.HttpUpstream``).

    Attributes:
        target: Where they lead.
        max_head_bytes: Of a response, interim heads included.
        plain_heads: Reads those that need no parser.
        active: Requests under way, connecting ones included.
        opened: Connections made so far.
        reused: Requests that found a kept one.
        open: Connections that exist now, idle ones included.
    """

    def __init__(self, reactor: Any, target: Target, section: Upstream) -> None:
        """
        Raises:
            OSError, ValueError: a certificate file cannot be used.
        """
        self.target = target
        self.max_head_bytes = section.max_response_head_bytes
        self.plain_heads = PlainHeads(section.max_response_head_bytes)
        self.active: dict[Call, None] = {}
        self.opened = 0
        self.reused = 0
        self.open = 0
        self._section = section
        self._reactor = reactor
        self._connecting = 0
        self._idle: list[Connection] = []
        self._factory: Any = _Connections(self)
        if target.tls:
            self._factory = tls_factory(client_options(section.tls, target.host), self._factory, reactor)
        self._endpoint = endpoint_of(DirectReactor(reactor), target, section.connect_timeout_s)
        self._timer: IDelayedCall | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """
        How many connections wait to be used.
        """
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """
        How many connections serve a request.
        """
        return self.open - len(self._idle)

    def request(
        self, method: bytes, head: bytes, length: int, data: bytes, ended: bool, receiver: ResponseReceiver
    ) -> Call:
        """
        Send a request.
        """
        left = 0
        if length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if ended:
                data += b"0\r\n\r\n"
        elif length or method not in _WITHOUT_BODY:
            framing = b"Content-Length: %d\r\n\r\n" % length
            left = length - len(data)
            if left < 0 or (ended and left):
                raise ValueError(f"a body of {length} bytes is announced and {len(data)} are given")
        else:
            framing = b"\r\n"
        payload = b"%b%b%b" % (head, framing, data)
        call = Call(self, receiver, method, length, left)
        call.finished = ended
        connection = self._kept(method)
        if connection is not None:
            self.reused += 1
            self.active[call] = None
            connection.begin(call, payload)
        else:
            if self._closed or self.open + self._connecting >= self._section.max_connections:
                raise Fault("overflow", self.target.name)
            self.active[call] = None
            self._connect(call, payload)
        if self._timer is None:
            self._timer = self._reactor.callLater(SWEEP_S, self._tick)
        return call

    def _kept(self, method: bytes) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            # A request that may not be sent twice should not be spent on a connection that is dead already.
            if method in _SAFE or not has_news(connection.transport):
                return connection
            connection.cut()
        return None

    def _connect(self, call: Call, payload: bytes) -> None:
        self._connecting += 1
        call.connect_by = self._reactor.seconds() + self._section.connect_timeout_s
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        call.give_up = connecting.cancel

        def connected(protocol: Any) -> None:
            connection: Connection = protocol.wrappedProtocol if self.target.tls else protocol
            if not self.target.tls:
                # The endpoint's wrapper has done its work; each read would pass through it.
                switch_protocol(connection.transport, connection)
            self._connecting -= 1
            self.opened += 1
            self.open += 1
            if call.over:
                connection.cut()
            else:
                call.give_up = connection.cut
                connection.begin(call, payload)

        def failed(failure: Failure) -> None:
            self._connecting -= 1
            call.give_up = None
            if not failure.check(CancelledError):
                # Told later: some endpoints fail at once, and the receiver must not hear of it before ``request`` returned.
                detail = f"{failure.type.__name__}: {failure.value}" if failure.type else str(failure.value)
                self._reactor.callLater(0, call.fail, "connect", detail)

        connecting.addCallbacks(connected, failed)

    def put(self, connection: Connection) -> None:
        """
        Keep *connection* for the next request.
        """
        if self._closed or len(self._idle) >= self._section.idle_connections:
            connection.cut()
            return
        connection.idle_since = self._reactor.seconds()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """
        *connection* is gone or about to be.
        """
        if connection.forgotten:
            return
        connection.forgotten = True
        self.open -= 1
        if connection in self._idle:
            self._idle.remove(connection)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.sweep()
        finally:
            # Also after a receiver that raised: the others still have deadlines.
            if self._timer is None and (self.active or self._idle):
                self._timer = self._reactor.callLater(SWEEP_S, self._tick)

    def sweep(self) -> None:
        """
        End what has taken too long: requests, bodies that bring nothing, connections nobody uses.
        """
        now = self._reactor.seconds()
        for call in list(self.active):
            if not call.answered:
                if call.deadline and now >= call.deadline:
                    call.fail("timeout", "no response head")
                elif call.connection is None and now >= call.connect_by:
                    call.fail("connect", "timed out")
            elif call.moved or call.paused or not call.idle_since:
                call.moved = False
                call.idle_since = now
            elif call.idle_body_s and now - call.idle_since >= call.idle_body_s:
                call.fail("timeout", "no more of the body")
        oldest = now - self._section.idle_timeout_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle[0].cut()

    def close(self) -> None:
        """
        Close idle connections now and the others when their request ends; take no more.
        """
        self._closed = True
        for connection in list(self._idle):
            connection.cut()
        self._rest()

    def abort(self) -> None:
        """
        Cut everything; requests under way fail.
        """
        self.close()
        for call in list(self.active):
            call.fail("reset", "the gateway is stopping")
        self._rest()

    def _rest(self) -> None:
        if not self.active and self._timer is not None:
            self._timer.cancel()
            self._timer = None
