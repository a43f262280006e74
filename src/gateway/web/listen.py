"""
From a listener's section to listening ports.

An endpoint string says where; what such a string can neither reload, nor choose by server
name, nor distrust is a setting beside it: certificates and the PROXY protocol. Layers, from
the socket: PROXY header, TLS, channel.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from zope.interface import implementer

from gateway.config.endpoints import read_endpoint
from gateway.config.sections import Listener
from gateway.net.held import HeldPort
from gateway.net.transports import DirectReactor, accept_waiting
from gateway.ports.http import Peer
from gateway.web.factory import ChannelFactory, peer_of
from gateway.web.proxied import ProxiedFactory
from gateway.web.tls import CertificateFault, Contexts, ServerTls, TlsFactory

__all__ = ["ListenFailed", "Listening", "check_certificates", "hold", "listen", "with_backlog"]

BACKLOG = 4096
"""With Twisted's 50, two thousand clients that come back at once take half a minute to be let in."""

_KINDS = ("tcp", "tcp6", "unix", "systemd")


class ListenFailed(Exception):
    """
    A listener cannot be opened; the text names its endpoint and the reason.
    """


def with_backlog(endpoint: str) -> str:
    """
    Add the large backlog to an endpoint string that states none.

    Raises:
        ListenFailed: for a kind of endpoint that cannot be a listener here.
    """
    kind = endpoint.partition(":")[0]
    if kind not in _KINDS:
        hint = "; TLS is a setting of the listener" if kind in ("ssl", "tls") else ""
        raise ListenFailed(f"{endpoint}: an endpoint begins with one of {', '.join(_KINDS)}{hint}")
    if kind == "systemd" or re.search(r"(?<!\\):backlog=", endpoint):
        return endpoint
    return f"{endpoint}:backlog={BACKLOG}"


@implementer(IProtocolFactory)
class _Door:
    """
    Makes channels that know through which listener they came.
    """

    def __init__(self, site: ChannelFactory, listener: str, *, tls: bool) -> None:
        self._site = site
        self._listener = listener
        self._tls = tls

    def doStart(self) -> None:
        self._site.doStart()

    def doStop(self) -> None:
        self._site.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        peer: Peer = peer_of(addr)
        peer.listener = self._listener
        peer.tls = self._tls
        return self._site.admit(peer)


class Listening:
    """
    Listeners that are open.

    Attributes:
        ports: In the order of their sections.
    """

    def __init__(self) -> None:
        self.ports: list[IListeningPort] = []
        self._opened: dict[str, tuple[Listener, ProxiedFactory, ServerTls | None]] = {}

    async def open(self, reactor: Any, listener: Listener, site: ChannelFactory) -> None:
        """
        Open one more listener.

        Raises:
            ListenFailed: when it cannot be.
        """
        endpoint = with_backlog(listener.endpoint)
        tls = ServerTls(_contexts(listener)) if listener.certificate else None
        factory: IProtocolFactory = _Door(site, listener.endpoint, tls=tls is not None)
        if tls is not None:
            factory = TlsFactory(tls, False, factory, clock=site.clock)
        proxied = ProxiedFactory(factory, listener.proxy_protocol_from, site)
        try:
            port = await serverFromString(reactor, endpoint).listen(proxied)
        except CannotListenError as exc:
            raise ListenFailed(f"{listener.endpoint}: {exc.socketError}") from exc
        except (ValueError, TypeError, OSError, LookupError) as exc:
            raise ListenFailed(f"{listener.endpoint}: {exc}") from exc
        if listener.endpoint.startswith("systemd:"):
            # The service manager chose the queue; a second listen(2) only lengthens it.
            port.socket.listen(BACKLOG)
        self.ports.append(port)
        self._opened[listener.endpoint] = (listener, proxied, tls)

    def prepare(self, listeners: Sequence[Listener]) -> tuple[Callable[[], None], list[str]]:
        """
        Read the certificates of *listeners* anew, changing nothing yet.

        Returns:
            What makes the change, and the endpoints that only a restart can change: opened or
            closed ones, and those that turn TLS on or off.

        Raises:
            CertificateFault: when a file cannot be used.
        """
        changes: list[tuple[str, Listener, Contexts | None]] = []
        restart = [endpoint for endpoint in self._opened if endpoint not in {each.endpoint for each in listeners}]
        for listener in listeners:
            opened = self._opened.get(listener.endpoint)
            if opened is None or (opened[2] is None) != (not listener.certificate):
                restart.append(listener.endpoint)
                continue
            changes.append((listener.endpoint, listener, Contexts(listener) if listener.certificate else None))

        def change() -> None:
            for endpoint, listener, contexts in changes:
                _, proxied, tls = self._opened[endpoint]
                proxied.networks = listener.proxy_protocol_from
                if tls is not None and contexts is not None:
                    tls.replace(contexts)
                self._opened[endpoint] = (listener, proxied, tls)

        return change, restart

    def reload(self) -> None:
        """
        Read the same certificates again; connections that are open keep theirs.

        Raises:
            CertificateFault: when a file cannot be used; then nothing has changed.
        """
        change, _ = self.prepare([listener for listener, _, _ in self._opened.values()])
        change()

    def abandon(self) -> None:
        """
        Give up ports of a start that fails, without waiting for their end.

        A daemon's parent hears of a failure only while the service starts: there is no later turn.
        """
        ports, self.ports = self.ports, []
        for port in ports:
            port.stopListening()

    async def stop(self) -> None:
        """
        Accept no more connections than have come; those that are open are not touched.
        """
        ports, self.ports = self.ports, []
        for port in ports:
            accept_waiting(port, BACKLOG)
            await maybeDeferred(port.stopListening)


def _contexts(listener: Listener) -> Contexts:
    try:
        return Contexts(listener)
    except CertificateFault as exc:
        raise ListenFailed(f"{listener.endpoint}: {exc}") from exc


def check_certificates(listeners: Sequence[Listener]) -> None:
    """
    Read the certificates of *listeners*, as opening them would.

    Raises:
        ListenFailed: with the first that cannot be used.
    """
    for listener in listeners:
        if listener.certificate:
            _contexts(listener)


def hold(listeners: Sequence[Listener]) -> list[HeldPort]:
    """
    Keep the ports of *listeners* for processes that will share them; see ``net.held``.

    Certificates are looked at, as opening would. To be called before any of those processes listens.

    Raises:
        ListenFailed: with the first that cannot be had, or whose certificate cannot be used; then none is held.
    """
    check_certificates(listeners)
    held: list[HeldPort] = []
    try:
        for listener in listeners:
            endpoint = read_endpoint(listener.endpoint)
            try:
                held.append(HeldPort(endpoint.port, endpoint.interface, ipv6=endpoint.kind == "tcp6"))
            except OSError as exc:
                reason = str(exc)
                if exc.errno == errno.EADDRINUSE:
                    reason = "address in use by another process; workers share it only among themselves"
                raise ListenFailed(f"{listener.endpoint}: {reason}") from exc
    except ListenFailed:
        for port in held:
            port.close()
        raise
    return held


async def listen(
    reactor: Any, listeners: Sequence[Listener], site: ChannelFactory, *, shared: bool = False
) -> Listening:
    """
    Open all of *listeners* for *site*, or none.

    Args:
        shared: Whether other processes listen on the same TCP ports.

    Raises:
        ListenFailed: with the first that cannot be opened.
    """
    direct = reactor if isinstance(reactor, DirectReactor) else DirectReactor(reactor, shared=shared)
    listening = Listening()
    try:
        for listener in listeners:
            await listening.open(direct, listener, site)
    except ListenFailed:
        listening.abandon()
        raise
    return listening
