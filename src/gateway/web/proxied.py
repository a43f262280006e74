"""
The PROXY protocol, versions 1 and 2: who a load balancer says is on the other side
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).

A header is taken only from peers that were named, and from those it is mandatory: whoever may
leave it out could be spoken for by anybody. What is not exactly a header ends the connection
without a word, because there is nobody yet to speak to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.net.transports import switch_protocol

if TYPE_CHECKING:
    from gateway.web.factory import ChannelFactory

__all__ = ["BadHeader", "ProxiedAddress", "ProxiedFactory", "read_header"]

Network = IPv4Network | IPv6Network

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1 = 107
MAX_V2 = 16 + 2048
"""Addresses take 36 bytes; the rest is for TLVs, which are skipped."""

_V1: Final = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?")


class BadHeader(Exception):
    """What came is no PROXY protocol header."""


@implementer(IAddress)
class ProxiedAddress:
    """
    A client as its load balancer named it.

    Attributes:
        host: The client's address.
        port: The client's port.
        socket_host: The load balancer's address.
    """

    __slots__ = ("host", "port", "socket_host")

    def __init__(self, host: str, port: int, socket_host: str) -> None:
        self.host = host
        self.port = port
        self.socket_host = socket_host


def read_header(data: bytes) -> tuple[tuple[str, int] | None, bytes] | None:
    """
    Read the header *data* begins with.

    Returns:
        None while it is incomplete; else the client's address and port, or None where the
        header names nobody (``UNKNOWN``, ``LOCAL``, a UNIX socket), and what comes after it.

    Raises:
        BadHeader: as soon as it cannot become one.
    """
    if data[:1] == b"P":
        return _read_v1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    raise BadHeader("no signature")


def _read_v1(data: bytes) -> tuple[tuple[str, int] | None, bytes] | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1 or not b"PROXY ".startswith(data[:6]):
            raise BadHeader("no line")
        return None
    line, rest = data[:end], data[end + 2 :]
    match = _V1.fullmatch(line)
    if match is None:
        if _UNKNOWN.fullmatch(line):
            return None, rest
        raise BadHeader("no version 1 line")
    family, source, destination, *ports = (part.decode("ascii") for part in match.groups())
    try:
        addresses = [ip_address(source), ip_address(destination)]
    except ValueError as exc:
        raise BadHeader("no address") from exc
    if any(address.version != int(family) for address in addresses):
        raise BadHeader("an address of another family")
    if any(int(port) > 65535 or (port[0] == "0" and port != "0") for port in ports):
        raise BadHeader("no port")
    return (str(addresses[0]), int(ports[0])), rest


def _read_v2(data: bytes) -> tuple[tuple[str, int] | None, bytes] | None:
    if len(data) < 16:
        return None
    version_command, family, size = data[12], data[13], int.from_bytes(data[14:16], "big") + 16
    if version_command not in (0x20, 0x21) or size > MAX_V2 or family >> 4 > 3 or family & 15 > 2:
        raise BadHeader("no version 2 header")
    if len(data) < size:
        return None
    rest = data[size:]
    if version_command == 0x20:
        return None, rest
    if family == 0x11 and size >= 28:
        return (str(IPv4Address(data[16:20])), int.from_bytes(data[24:26], "big")), rest
    if family == 0x21 and size >= 52:
        return (str(IPv6Address(data[16:32])), int.from_bytes(data[48:50], "big")), rest
    if family in (0x11, 0x21):
        raise BadHeader("addresses are missing")
    if family in (0x00, 0x31):
        return None, rest
    raise BadHeader("no stream")


@implementer(IProtocolFactory)
class ProxiedFactory:
    """
    Reads a header from named peers, and hands over to *inner*.

    Args:
        inner: Makes the protocols; it is given a ``ProxiedAddress`` where there is one.
        networks: Whose headers are taken; may be replaced.
        site: Keeps the deadline.
    """

    def __init__(self, inner: IProtocolFactory, networks: Sequence[Network], site: ChannelFactory) -> None:
        self.inner = inner
        self.networks = tuple(networks)
        self.site = site

    def doStart(self) -> None:
        """
        Start the inner factory.
        """
        self.inner.doStart()

    def doStop(self) -> None:
        """
        Stop the inner factory.
        """
        self.inner.doStop()

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        """
        Expect a header from a named peer; from others let *inner* see what they send.
        """
        host = getattr(addr, "host", None)
        if host is not None and self.networks:
            address = ip_address(host.partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            if any(address in network for network in self.networks):
                return _Header(self, addr)
        return self.inner.buildProtocol(addr)


class _Header(Protocol):
    """
    A connection until its header is complete.
    """

    transport: Any

    def __init__(self, factory: ProxiedFactory, addr: Any) -> None:
        self._factory = factory
        self._addr = addr
        self._data = b""
        site = factory.site
        self.deadline = site.now + site.head_timeout_s

    def connectionMade(self) -> None:
        self._factory.site.guests.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            found = read_header(self._data)
        except BadHeader:
            self.transport.abortConnection()
            return
        if found is None:
            return
        self._factory.site.guests.discard(self)
        named, rest = found
        addr = self._addr
        if named is not None:
            addr = ProxiedAddress(*named, socket_host=addr.host)
        inner = self._factory.inner.buildProtocol(addr)
        if inner is None:
            self.transport.abortConnection()
            return
        switch_protocol(self.transport, inner)
        inner.makeConnection(self.transport)
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.site.guests.discard(self)
