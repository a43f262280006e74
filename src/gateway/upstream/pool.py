"""
The connections to one target: kept while unused, bounded, swept.

One sweep looks at every request under way and every idle connection; there is no timer per
request. It runs only while there is something to look at.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gateway.config.sections import Upstream
from gateway.core.message import CHUNKED
from gateway.net.transports import DirectReactor, is_reset
from gateway.ports.upstream import Fault, ResponseReceiver
from gateway.upstream.call import Call
from gateway.upstream.connection import Connection
from gateway.upstream.target import Target
from gateway.upstream.tls import client_options

__all__ = ["Pool"]

SWEEP_S = 0.05
_WITHOUT_BODY = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class _Connections(Factory):
    noisy = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return Connection(self._pool)


class Pool:
    """
    One target's connections (``ports.http.HttpUpstream``).

    Attributes:
        target: Where they lead.
        active: Requests under way, connecting ones included.
        opened: Connections made so far.
        reused: Requests that found a kept one.
        open: Connections that exist now, idle ones included.
    """

    def __init__(self, reactor: Any, target: Target, section: Upstream) -> None:
        self.target = target
        self.max_head_bytes = section.max_response_head_bytes
        self.active: dict[Call, None] = {}
        self.opened = 0
        self.reused = 0
        self.open = 0
        self._section = section
        self._seconds = reactor.seconds
        self._connecting = 0
        self._idle: list[Connection] = []
        self._factory = _Connections(self)
        self._endpoint = _endpoint(DirectReactor(reactor), target, section)
        self._sweep = LoopingCall(self.sweep)
        self._sweep.clock = reactor
        self._closed = False

    @property
    def idle(self) -> int:
        """
        How many connections wait to be used.
        """
        return len(self._idle)

    def request(
        self, method: bytes, head: bytes, length: int, data: bytes, ended: bool, receiver: ResponseReceiver
    ) -> Call:
        """
        Send a request.
        """
        if length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if ended:
                data += b"0\r\n\r\n"
        elif length or method not in _WITHOUT_BODY:
            framing = b"Content-Length: %d\r\n\r\n" % length
        else:
            framing = b"\r\n"
        payload = b"%b%b%b" % (head, framing, data)
        call = Call(self, receiver, method, length)
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
        if not self._sweep.running:
            self._sweep.start(SWEEP_S, now=False)
        return call

    def _kept(self, method: bytes) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            # A request that may not be sent twice should not be spent on a connection that is dead already.
            if method in _SAFE or not is_reset(connection.transport):
                return connection
            connection.cut()
        return None

    def _connect(self, call: Call, payload: bytes) -> None:
        self._connecting += 1
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        call.cancel_connect = connecting.cancel

        def connected(connection: Connection) -> None:
            self._connecting -= 1
            self.opened += 1
            self.open += 1
            call.cancel_connect = None
            if call.over:
                connection.cut()
            else:
                connection.begin(call, payload)

        def failed(failure: Failure) -> None:
            self._connecting -= 1
            call.cancel_connect = None
            if not isinstance(failure.value, CancelledError):
                call.fail("connect", f"{type(failure.value).__name__}: {failure.value}")

        connecting.addCallback(connected)
        connecting.addErrback(failed)

    def put(self, connection: Connection) -> None:
        """
        Keep *connection* for the next request.
        """
        if self._closed or len(self._idle) >= self._section.idle_connections:
            connection.cut()
            return
        connection.idle_since = self._seconds()
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

    def sweep(self) -> None:
        """
        End what has taken too long: requests, bodies that bring nothing, connections nobody uses.
        """
        now = self._seconds()
        for call in list(self.active):
            if not call.answered:
                if call.deadline and now >= call.deadline:
                    call.fail("timeout", "no response head")
            elif call.moved or call.paused or not call.idle_since:
                call.moved = False
                call.idle_since = now
            elif call.idle_body_s and now - call.idle_since >= call.idle_body_s:
                call.fail("timeout", "no more of the body")
        oldest = now - self._section.idle_timeout_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle[0].cut()
        if not self.active and not self._idle and self._sweep.running:
            self._sweep.stop()

    def close(self) -> None:
        """
        Close idle connections now and the others when their request ends; take no more.
        """
        self._closed = True
        for connection in list(self._idle):
            connection.cut()
        if not self.active and self._sweep.running:
            self._sweep.stop()

    def abort(self) -> None:
        """
        Cut everything; requests under way fail.
        """
        self.close()
        for call in list(self.active):
            call.fail("reset", "the gateway is stopping")
        if self._sweep.running:
            self._sweep.stop()


def _endpoint(reactor: Any, target: Target, section: Upstream) -> IStreamClientEndpoint:
    timeout = section.connect_timeout_s
    endpoint: IStreamClientEndpoint
    if target.path:
        endpoint = UNIXClientEndpoint(reactor, target.path, timeout=timeout)
    elif target.host.replace(".", "").isdigit():
        endpoint = TCP4ClientEndpoint(reactor, target.host, target.port, timeout=timeout)
    elif ":" in target.host:
        endpoint = TCP6ClientEndpoint(reactor, target.host, target.port, timeout=timeout)
    else:
        endpoint = HostnameEndpoint(reactor, target.host, target.port, timeout=timeout)
    if target.tls:
        options = client_options(section.tls, target.host)
        endpoint = wrapClientTLS(options, endpoint)
    return endpoint
