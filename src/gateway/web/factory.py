"""
All connections of an instance's clients: how many there may be, and when one is overdue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.config.sections import Limits
from gateway.core.address import group
from gateway.core.browser_rules import BrowserRules
from gateway.net.transports import is_reset, pending_bytes
from gateway.ports.http import HttpHandler, Peer
from gateway.telemetry.metrics import Metrics
from gateway.web.channel import Channel
from gateway.web.connection import Connection
from gateway.web.head import HeadReader
from gateway.web.pacing import Pacing
from gateway.web.reply import Preamble, refusal

__all__ = ["ChannelFactory", "peer_of"]

log = Logger()

SWEEP_S = 0.25
"""How exact deadlines are."""
MOST_TURNED_AWAY = 64
"""Refused connections that are told why at any one time; more are closed without a word."""


class Guest(Shape):
    """A connection that only has to end in time."""

    deadline: float
    transport: Any


@implementer(IProtocolFactory)
class ChannelFactory:
    """
    Makes a channel for each connection of every listener.

    Args:
        handler: Who decides about requests.
        limits: Sizes and times; may be replaced by ``configure``.
        clock: Monotonic time.
        server: The ``Server`` header's value; empty: none is sent.
        browsers: What browsers are told beside refusals of what is no request yet; None: nothing.
        capacity: Most connections where ``limits.connections`` is 0; 0: no bound.
        wall: Seconds since the epoch, for ``Date``.

    Attributes:
        guests: Connections that are no channel: those before their PROXY header, those turned away.
        now: The clock at the last sweep; deadlines are counted from it.
        pacing: When new connections are first read.
        draining: Every answer announces the end of its connection.
        opened: Connections taken so far.
        refused: Connections turned away so far.
    """

    def __init__(
        self,
        handler: HttpHandler,
        limits: Limits,
        clock: IReactorTime,
        *,
        server: str = "gateway",
        capacity: int = 0,
        wall: Callable[[], float] = time.time,
        browsers: BrowserRules | None = None,
    ) -> None:
        self.handler = handler
        self.clock = clock
        self.capacity = capacity
        self.draining = False
        self.opened = 0
        self.refused = 0
        self.now = clock.seconds()
        self.preamble = Preamble(server)
        self.held: set[Connection] = set()
        self.pacing = Pacing(clock)
        self._wall = wall
        self._open: set[Connection] = set()
        self._addresses: dict[str, int] = {}
        self._stalled: dict[Connection, tuple[int | None, float]] = {}
        self.guests: set[Guest] = set()
        self._waiting: set[Deferred[None]] = set()
        self.configure(limits, browsers)
        self.preamble.tick(wall())
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = clock

    def configure(self, limits: Limits, browsers: BrowserRules | None = None) -> None:
        """
        Take other limits and rules for browsers; requests under way keep theirs where they were already looked at.
        """
        self.limits = limits
        self._browsers = browsers
        self.head_timeout_s = limits.head_timeout_s
        self.idle_timeout_s = limits.idle_timeout_s
        self.body_grace_s = limits.body_grace_s
        self.min_body_rate_bytes = limits.min_body_rate_bytes
        self.write_timeout_s = limits.write_timeout_s
        self.write_buffer_bytes = limits.write_buffer_bytes
        self.max_body_bytes = limits.max_body_bytes
        self.reader = HeadReader(
            max_target=limits.max_target_bytes, max_head=limits.max_head_bytes, max_headers=limits.max_headers
        )

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def preamble_for(self, peer: Peer) -> bytes:
        """
        Make the first lines of a refusal: its request's head was not read, so it has no origin.
        """
        browsers = self._browsers
        return self.preamble.block if browsers is None else self.preamble.block + browsers.own(None, secure=peer.tls)

    # IProtocolFactory.

    def doStart(self) -> None:
        """
        Begin to look at deadlines; called by each port.
        """
        self.start()

    def doStop(self) -> None:
        """
        A port has closed; connections live on.
        """

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """
        Make a channel for a plain connection from *addr*, unless there are too many.
        """
        return self.admit(peer_of(addr))

    def admit(self, peer: Peer) -> IProtocol | None:
        """
        Make a channel for *peer*, or what tells it that there are too many; None to say nothing.
        """
        limits = self.limits
        most = limits.connections or self.capacity
        each = limits.connections_per_address
        host = group(peer.host)
        here = self._addresses.get(host, 0)
        if (most and len(self._open) >= most) or (each and here >= each and host != "unix"):
            self.refused += 1
            if peer.tls or len(self.guests) >= MOST_TURNED_AWAY:
                # A handshake costs more than all the rest.
                return None
            return _TurnedAway(self, peer)
        self._addresses[host] = here + 1
        channel = Channel(self, peer)
        self._open.add(channel)
        self.opened += 1
        return channel

    def lost(self, channel: Connection) -> None:
        """
        Forget a connection that is gone.
        """
        if channel not in self._open:
            return
        self._open.discard(channel)
        self._stalled.pop(channel, None)
        self.held.discard(channel)
        host = group(channel.peer.host)
        left = self._addresses.get(host, 1) - 1
        if left:
            self._addresses[host] = left
        else:
            self._addresses.pop(host, None)
        if not self._open:
            waiting, self._waiting = self._waiting, set()
            for empty in waiting:
                empty.callback(None)

    # Deadlines.

    def start(self) -> None:
        """
        Look at deadlines from now on.
        """
        if not self._sweeping.running:
            self._sweeping.start(SWEEP_S, now=True)

    def observe(self, metrics: Metrics) -> None:
        """
        Show how many connections there are.
        """
        metrics.connections.from_source(lambda: [(("clients",), float(self.connections))])
        metrics.connections_total.from_source(lambda: [(("clients",), float(self.opened))])
        metrics.connections_refused.from_source(lambda: [(("connections",), float(self.refused))])

    def watch(self, channel: Connection) -> None:
        """
        Cut *channel* if its client takes nothing for the write time-out.
        """
        self._stalled[channel] = (pending_bytes(channel.transport), self.now)

    def unwatch(self, channel: Connection) -> None:
        """
        *channel* has sent what it had.
        """
        self._stalled.pop(channel, None)

    def sweep(self) -> None:
        """
        Look at every deadline once.
        """
        self.now = now = self.clock.seconds()
        self.preamble.tick(self._wall())
        for channel in [channel for channel in self._open if channel.deadline <= now]:
            try:
                channel.overdue(now)
            except Exception:  # A sweep that ends would take every other connection's deadlines with it.
                log.failure("deadline")
                channel.deadline = now + SWEEP_S
                channel.transport.abortConnection()
        for channel, (before, since) in list(self._stalled.items()):
            pending = pending_bytes(channel.transport)
            if pending != before:
                self._stalled[channel] = (pending, now)
            elif now - since >= self.write_timeout_s:
                self._stalled.pop(channel)
                channel.transport.abortConnection()
        for channel in [channel for channel in self.held if is_reset(channel.transport)]:
            self.held.discard(channel)
            channel.transport.abortConnection()
        for guest in [guest for guest in self.guests if guest.deadline <= now]:
            guest.transport.abortConnection()

    # Endings.

    def drain(self) -> None:
        """
        Announce the end with every answer; connections that bring no request within a second are closed.
        """
        self.draining = True
        for channel in self._open:
            if isinstance(channel, Channel):
                channel.retire()

    def emptied(self) -> Deferred[None]:
        """
        Return what fires when no connection is open any more; cancel it to stop waiting.
        """
        empty: Deferred[None] = Deferred(self._waiting.discard)
        if self._open:
            self._waiting.add(empty)
        else:
            empty.callback(None)
        return empty

    def stop(self) -> None:
        """
        Cut every connection and look at no deadline any more.
        """
        self.draining = True
        for channel in list(self._open):
            channel.transport.abortConnection()
        for guest in list(self.guests):
            guest.transport.abortConnection()
        if self._sweeping.running:
            self._sweeping.stop()


class _TurnedAway(Protocol):
    """
    A connection too many: told so, then closed. What it sends is not looked at.
    """

    transport: Any

    def __init__(self, site: ChannelFactory, peer: Peer) -> None:
        self._site = site
        self._peer = peer
        self.deadline = site.now + 2.0

    def connectionMade(self) -> None:
        site = self._site
        site.guests.add(self)
        code = "too_many_connections"
        body = site.handler.refused(self._peer, 503, code, b"")
        self.transport.write(refusal(503, code, site.preamble_for(self._peer), body))
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._site.guests.discard(self)


def peer_of(addr: Any) -> Peer:
    """
    Describe who connects from *addr*; an IPv4 address written as IPv6 is one.
    """
    host = getattr(addr, "host", None)
    if host is None:
        return Peer("unix", 0)
    return Peer(_plain(host), addr.port, socket_host=_plain(getattr(addr, "socket_host", host)))


def _plain(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") and "." in host else host
