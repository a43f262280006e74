"""
One client's connection, apart from what is spoken on it: kept within bounds, and ended in order.

    OPEN --linger--> LINGERING --client closed, or time--> CLOSING --> GONE
    OPEN --close--> CLOSING --> GONE
    OPEN --given away--> TAKEN --> GONE

What is queued for the client is bounded by pausing who writes; what the client sends ahead, by
not reading it. Deadlines are absolute: nothing a client sends moves one. Each is a number in
``deadline`` that the factory looks at four times a second, so no request makes a timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, ITransport
from twisted.python.failure import Failure

from gateway.net.transports import pending_bytes, set_write_limit
from gateway.ports.http import Peer
from gateway.web.tls import client_certificate

if TYPE_CHECKING:
    from gateway.web.factory import ChannelFactory

__all__ = ["CLOSING", "GONE", "LINGERING", "NEVER", "OPEN", "TAKEN", "Connection"]

OPEN, LINGERING, CLOSING, TAKEN, GONE = range(5)
"""Every state before ``LINGERING`` is open; ``web.channel`` tells more of them apart, below 0."""

NEVER = float("inf")
LINGER_BYTES = 1024 * 1024
LINGER_S = 2.0
"""How long, and for how many bytes, a refused client is listened to, so that it can read its answer:
closing a socket with unread input resets the connection, and the answer is lost with it."""


class Connection:
    """
    What the channel stands on.

    Attributes:
        site: The factory: handler, limits, clock.
        peer: Who is on the other side.
        blocked: More is queued for the client than may be; whoever writes is paused.
        deadline: When the factory is to call ``overdue``.
    """

    __slots__ = (
        "_dropped",
        "_eof",
        "_held",
        "_producing",
        "_progress",
        "_state",
        "_successor",
        "blocked",
        "deadline",
        "factory",
        "peer",
        "site",
        "transport",
    )

    def __init__(self, site: ChannelFactory, peer: Peer) -> None:
        self.site = site
        self.factory = site
        self.peer = peer
        self.transport: Any = None
        self.blocked = False
        # From here, not from the first byte: it covers a TLS handshake and who never says anything.
        self.deadline = site.now + site.head_timeout_s
        self._state = OPEN
        self._eof = False
        self._held = False
        self._producing = False
        self._dropped = 0
        self._progress: Any = None
        self._successor: IProtocol | None = None

    # What the transport calls.

    def makeConnection(self, transport: ITransport) -> None:
        """
        Begin with *transport*.
        """
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """
        Prepare the transport: small answers leave at once, and what is queued is bounded.
        """
        transport = self.transport
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        set_write_limit(transport, self.site.write_buffer_bytes)
        self._producing = True
        transport.registerProducer(self, True)
        self.site.pacing.came(self)

    def handshakeCompleted(self) -> None:
        """
        The TLS layer knows whom it speaks with.
        """
        certificate = client_certificate(self.transport)
        if certificate is not None:
            self.peer.certificate = certificate
            self.peer.certificate_subject = certificate.subject

    def dataReceived(self, data: bytes) -> None:
        """
        Take what has arrived after the end of what is spoken here.
        """
        if self._state == TAKEN:
            if self._successor is not None:
                self._successor.dataReceived(data)
        elif self._state == LINGERING:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self._hold()

    def readConnectionLost(self) -> None:
        """
        The client will send nothing more.
        """
        self._eof = True
        self._held = False
        self.site.held.discard(self)
        if self._state == TAKEN:
            successor = IHalfCloseableProtocol(self._successor, None)
            if successor is not None:
                successor.readConnectionLost()
            else:
                self.transport.loseConnection()
        elif self._state == LINGERING:
            self._close()

    def writeConnectionLost(self) -> None:
        """
        Our sending side is shut, as was asked.
        """

    def connectionLost(self, reason: Failure) -> None:
        """
        The connection is gone.
        """
        self._state = GONE
        self.deadline = NEVER
        self.site.lost(self)
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.connectionLost(reason)

    def pauseProducing(self) -> None:
        """
        The client takes less than it is sent.
        """
        self.blocked = True
        self.site.watch(self)

    def resumeProducing(self) -> None:
        """
        The client has taken what was queued.
        """
        self.blocked = False
        self.site.unwatch(self)

    def stopProducing(self) -> None:
        """
        The transport is going; ``connectionLost`` follows.
        """

    # Bounds.

    def _hold(self) -> None:
        """Read nothing until released."""
        if not self._held and not self._eof:
            self._held = True
            self.site.held.add(self)
            self.transport.pauseProducing()

    def _release(self) -> None:
        """Read again."""
        if self._held:
            self._held = False
            self.site.held.discard(self)
            self.transport.resumeProducing()

    @property
    def waits(self) -> bool:
        """It is open and not read for now."""
        return self._held and self._state < CLOSING

    def wait(self) -> None:
        """Read nothing before its turn; nobody need look whether it was reset meanwhile."""
        if not self._eof:
            self._held = True
            self.transport.pauseProducing()

    def go(self) -> None:
        """It is its turn."""
        self._release()

    def _forget_producer(self) -> None:
        # With a producer registered, a transport neither closes nor half-closes.
        if self.blocked:
            self.blocked = False
            self.site.unwatch(self)
        if self._producing:
            self._producing = False
            self.transport.unregisterProducer()

    # Endings.

    def overdue(self, now: float) -> None:
        """
        The deadline has passed; the factory says so.
        """
        if self.transport is None:
            # It never came to be a connection.
            self.site.lost(self)
        elif self._state == CLOSING:
            pending = pending_bytes(self.transport)
            if pending and pending != self._progress:
                self._progress = pending
                self.deadline = now + self.site.write_timeout_s
            else:
                self._abort()
        else:
            self._close()

    def _linger(self) -> None:
        """Send nothing more, but let the client read what it was sent."""
        self._forget_producer()
        if self._eof:
            self._close()
            return
        self._state = LINGERING
        self.deadline = self.site.now + LINGER_S
        self._release()
        if not self.peer.tls:
            # Over TLS this would end the socket's sending side under the records still to be made.
            self.transport.loseWriteConnection()

    def _close(self) -> None:
        """Close once everything was sent."""
        if self._state in (CLOSING, GONE):
            return
        self._state = CLOSING
        self._forget_producer()
        self._progress = pending_bytes(self.transport)
        self.deadline = self.site.now + (self.site.write_timeout_s if self._progress else LINGER_S)
        self.transport.loseConnection()

    def _abort(self) -> None:
        """Cut, so that nothing cut short can be taken for whole."""
        self._state = CLOSING
        self.deadline = NEVER
        self._forget_producer()
        self.transport.abortConnection()

    def _give_away(self, successor: IProtocol) -> None:
        """Let *successor* have what arrives."""
        self._state = TAKEN
        self._successor = successor
        self.deadline = NEVER
        self._forget_producer()
        self._release()
