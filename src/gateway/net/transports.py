"""
TCP and UNIX transports that send directly while nothing is queued, for plain connections.

A stock transport queues what it is given, asks the reactor for writability, and sends in the
next turn: two ``epoll_ctl`` and a turn around one ``send``. These try ``send`` first and queue
only what the kernel would not take; from there on everything is stock: order, buffering,
producers, closing. They are reached through ``DirectReactor``, which provides what endpoints
ask of a reactor.

The stock classes offer ``Port.transport`` for this; the rest are private names, listed in
``_RELIED_ON`` and looked at before the first use. Where one is missing the stock transports
serve, slower and otherwise equal.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Any, cast

from twisted.internet import abstract, main, tcp, unix
from twisted.internet.interfaces import IConnector, IListeningPort, IProtocol, IReactorFDSet, ITransport
from zope.interface import directlyProvides, providedBy

__all__ = [
    "DirectReactor",
    "accept_waiting",
    "direct_send",
    "has_news",
    "is_reset",
    "pending_bytes",
    "set_write_limit",
    "switch_protocol",
    "unsupported",
]

READ_BYTES = 64 * 1024
MOST_ACCEPTED = 16
_CLOSED = 7  # TCP_CLOSE, linux/include/net/tcp_states.h

_RELIED_ON: tuple[tuple[type, tuple[str, ...]], ...] = (
    (abstract.FileDescriptor, ("dataBuffer", "offset", "_isSendBufferFull", "_writeDisconnected", "connected")),
    (tcp.Connection, ("TLS", "doRead", "write", "writeSequence")),
    (tcp.Port, ("transport", "_fromListeningDescriptor", "startListening", "createInternetSocket", "doRead")),
    (tcp.Connector, ("_makeTransport",)),
    (unix.Port, ("transport", "_fromListeningDescriptor", "startListening", "doRead")),
    (unix.Connector, ("_makeTransport",)),
)


def unsupported() -> str:
    """
    Name what this Twisted lacks for direct transports; empty if nothing.
    """
    for owner, names in _RELIED_ON:
        for name in names:
            if not hasattr(owner, name):
                return f"{owner.__module__}.{owner.__qualname__}.{name}"
    probe = abstract.FileDescriptor(cast(Any, object()))
    for name in ("_tempDataBuffer", "_tempDataLen"):
        if not hasattr(probe, name):
            return f"{abstract.FileDescriptor.__qualname__}.{name}"
    return ""


class _Direct:
    """
    What the four transports below have in common.
    """

    write_limit = 64 * 1024
    """Queued bytes above which a producer is paused."""

    def write(self: Any, data: bytes) -> None:
        """
        Send *data* now as far as the kernel takes it, and queue the rest.
        """
        if (
            self._tempDataBuffer
            or self.dataBuffer
            or not self.connected
            or self._writeDisconnected
            or self.TLS
            or not data
        ):
            super().write(data)  # type: ignore[misc]  # the stock transport this class is mixed into
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The error comes again in the reactor's next turn, where it closes the connection in order.
            super().write(data)  # type: ignore[misc]
            return
        if sent != len(data):
            super().write(data[sent:])  # type: ignore[misc]

    def writeSequence(self, iovec: Any) -> None:
        """
        Send the joined pieces.
        """
        self.write(b"".join(iovec))

    def doRead(self: Any) -> Any:
        """
        Hand the protocol what has arrived, at most ``READ_BYTES``.
        """
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def _isSendBufferFull(self: Any) -> bool:
        return bool(len(self.dataBuffer) - self.offset + self._tempDataLen > self.write_limit)


class _DirectServer(_Direct, tcp.Server):
    pass


class _DirectClient(_Direct, tcp.Client):
    pass


class _DirectUnixServer(_Direct, unix.Server):
    pass


class _DirectUnixClient(_Direct, unix.Client):
    pass


class _Few:
    """
    A port that takes few connections in one turn: a herd waits in the kernel's queue, and others are served meanwhile.
    """

    numberAccepts: int

    def doRead(self) -> None:
        super().doRead()  # type: ignore[misc]  # the port this class is mixed into
        self.numberAccepts = min(self.numberAccepts, MOST_ACCEPTED)


class _DirectPort(_Few, tcp.Port):
    transport = _DirectServer


class _Shared:
    """
    A port that other processes of the same user may open too; the kernel spreads connections over all that listen.
    """

    def createInternetSocket(self: Any) -> socket.socket:
        made: socket.socket = super().createInternetSocket()  # type: ignore[misc]  # the port this class is mixed into
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made


class _SharedPort(_Shared, tcp.Port):
    pass


class _SharedDirectPort(_Shared, _DirectPort):
    pass


class _DirectUnixPort(_Few, unix.Port):
    transport = _DirectUnixServer


class _DirectConnector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:
        return cast(Any, _DirectClient)(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-any-return]


class _DirectUnixConnector(unix.Connector):
    def _makeTransport(self) -> Any:
        return cast(Any, _DirectUnixClient)(self.address, self, self.reactor, self.checkPID)


class DirectReactor:
    """
    A reactor whose TCP and UNIX connections send directly; everything else is *reactor*'s.

    Hand it to endpoints where the reactor would go: ``serverFromString(DirectReactor(reactor), "tcp:4000")``.
    On a reactor without ``IReactorFDSet``, or a Twisted that lacks a name relied on, its methods
    are the reactor's own.

    Args:
        shared: Whether other processes may listen on the same TCP ports (SO_REUSEPORT).

    Attributes:
        direct: Whether connections send directly.
    """

    def __init__(self, reactor: Any, *, shared: bool = False) -> None:
        self._reactor = reactor
        self._shared = shared
        self.direct = IReactorFDSet.providedBy(reactor) and not unsupported()
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """
        Listen as ``IReactorTCP.listenTCP`` does.
        """
        if self._shared:
            kind = _SharedDirectPort if self.direct else _SharedPort
            return _listening(kind(port, factory, backlog, interface, self._reactor))
        if not self.direct:
            return cast(IListeningPort, self._reactor.listenTCP(port, factory, backlog, interface))
        return _listening(_DirectPort(port, factory, backlog, interface, self._reactor))

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        """
        Listen as ``IReactorUNIX.listenUNIX`` does.
        """
        if not self.direct:
            return cast(IListeningPort, self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))
        return _listening(_DirectUnixPort(address, factory, backlog, mode, self._reactor, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """
        Listen on an open socket as ``IReactorSocket.adoptStreamPort`` does.
        """
        if not self.direct:
            return cast(IListeningPort, self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory))
        if addressFamily == socket.AF_UNIX:
            adopt = cast(Any, _DirectUnixPort)._fromListeningDescriptor
            return _listening(adopt(self._reactor, fileDescriptor, factory))
        adopt = cast(Any, _DirectPort)._fromListeningDescriptor
        return _listening(adopt(self._reactor, fileDescriptor, addressFamily, factory))

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> IConnector:
        """
        Connect as ``IReactorTCP.connectTCP`` does.
        """
        if not self.direct:
            return cast(IConnector, self._reactor.connectTCP(host, port, factory, timeout, bindAddress))
        connector = _DirectConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return cast(IConnector, connector)

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0) -> IConnector:
        """
        Connect as ``IReactorUNIX.connectUNIX`` does.
        """
        if not self.direct:
            return cast(IConnector, self._reactor.connectUNIX(address, factory, timeout, checkPID))
        connector = cast(Any, _DirectUnixConnector)(address, factory, timeout, self._reactor, checkPID)
        connector.connect()
        return cast(IConnector, connector)


def accept_waiting(port: IListeningPort, most: int) -> None:
    """
    Accept at most *most* connections that the kernel has made already: those are reset when the port is closed.
    """
    if isinstance(port, tcp.Port | unix.Port):
        port.numberAccepts = most
        port.doRead()


def _listening(port: tcp.Port) -> IListeningPort:
    port.startListening()
    port.numberAccepts = MOST_ACCEPTED
    return cast(IListeningPort, port)


def _socket_transport(transport: Any) -> Any:
    """The transport that owns the socket, below any TLS; None if there is none."""
    while not isinstance(transport, abstract.FileDescriptor):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport


def set_write_limit(transport: Any, limit: int) -> None:
    """
    Have producers of *transport* paused above *limit* queued bytes; stock transports keep their 64 KiB.
    """
    bottom = _socket_transport(transport)
    if isinstance(bottom, _Direct):
        bottom.write_limit = limit


def direct_send(transport: Any) -> Any:
    """
    Return the ``send`` of *transport*'s socket, for bytes that need nothing between; None over TLS or a stock transport.

    To be used only while nothing is queued on the transport: what is written there would come later.
    """
    return transport.socket.send if isinstance(transport, _Direct) and not transport.TLS else None  # type: ignore[attr-defined]


def pending_bytes(transport: Any) -> int | None:
    """
    Count what was written to *transport* and not yet taken by the kernel; None if it cannot be told.

    Over TLS these are encrypted bytes.
    """
    bottom = _socket_transport(transport)
    try:
        return len(bottom.dataBuffer) - bottom.offset + bottom._tempDataLen  # type: ignore[no-any-return]
    except AttributeError:
        return None


def is_reset(transport: Any) -> bool:
    """
    Whether the peer of a TCP connection has reset it, even while nobody reads or writes it.

    A paused transport is not watched by the reactor; this asks the kernel instead (one
    ``getsockopt``). False for other kinds of sockets.
    """
    bottom = _socket_transport(transport)
    try:
        info = bottom.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (AttributeError, OSError):
        return False
    return bool(struct.unpack("B", info)[0] == _CLOSED)


def has_news(transport: Any) -> bool:
    """
    Whether bytes, the end or a reset of *transport*'s socket wait to be read.

    The reactor tells in its next turn; this asks the kernel now (one ``poll``), for a
    connection on which nothing is expected. False if it cannot be told.
    """
    bottom = _socket_transport(transport)
    try:
        poll = select.poll()
        poll.register(bottom.socket, select.POLLIN)
        return bool(poll.poll(0))
    except (AttributeError, TypeError, ValueError, OSError):
        return False


def switch_protocol(transport: ITransport, protocol: IProtocol) -> None:
    """
    Have *transport* deliver to *protocol* from now on. Neither is told.
    """
    transport.protocol = protocol  # type: ignore[attr-defined]  # tcp.Connection has it; startTLS sets it likewise
