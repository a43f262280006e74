"""
Who the client is, by one rule: the same address feeds limits, log, spans and backends.

A peer that is not trusted is the client, and what it says about others is dropped. Behind a
trusted peer the ``X-Forwarded-For`` lines are read from the right: trusted proxies are skipped,
the first other address is the client, and an element that is no address ends the walk, because
whatever stands left of it was written by nobody known.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from gateway.core.message import RequestHead, values_of

__all__ = ["UNIX", "AddressRule", "Client", "Network", "group", "plain_address"]

Network = IPv4Network | IPv6Network

UNIX: Final = "unix"
"""The host of a peer on a unix socket: a process of this machine, trusted exactly if 127.0.0.1 is."""

_CACHE_SIZE = 4096
_HOPS = 32  # Most elements of X-Forwarded-For looked at; an honest chain is shorter.
_LOOPBACK: Final = "127.0.0.1"
_SAID_ONCE: Final = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
_SAID_BY_PROXY: Final = (b"x-forwarded-for", *_SAID_ONCE)

# A reg-name, IPv4 address or bracketed IPv6 address, with a port: what Host may be.
_authority = re.compile(rb"(?:[A-Za-z0-9._~\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?").fullmatch
_port = re.compile(rb"[0-9]{1,5}").fullmatch


class Client:
    """
    The client of a request. Shared and cached: never changed.

    Attributes:
        host: Its address as text, IPv4-mapped IPv6 as IPv4, or ``"unix"``.
        scheme: ``"http"`` or ``"https"``, as the client used it.
        forwarded: The block that tells backends: ``X-Forwarded-For``, ``-Proto``, ``-Host``, ``-Port``.
        trusted: The peer is a trusted proxy: its request id and trace context may be believed.
    """

    __slots__ = ("forwarded", "host", "scheme", "trusted")

    def __init__(self, host: str, scheme: str, forwarded: bytes, *, trusted: bool) -> None:
        self.host = host
        self.scheme = scheme
        self.forwarded = forwarded
        self.trusted = trusted


class AddressRule:
    """
    Finds the client.

    Args:
        trusted: Peers that are believed.
        standard: Also tell backends by ``Forwarded`` (RFC 7239).
    """

    __slots__ = ("_cache", "_hosts", "_standard", "_trusted")

    def __init__(self, trusted: tuple[Network, ...], *, standard: bool = False) -> None:
        self._trusted = trusted
        self._standard = standard
        self._hosts: dict[str, bool] = {}
        self._cache: dict[tuple[object, ...], Client] = {}

    def trusts(self, host: str) -> bool:
        """
        Whether *host*, an address as text or ``"unix"``, is a trusted proxy.
        """
        known = self._hosts.get(host)
        if known is None:
            known = self._looked_up(_LOOPBACK if host == UNIX else host)
            if len(self._hosts) >= _CACHE_SIZE:
                self._hosts.clear()
            self._hosts[host] = known
        return known

    def client(self, peer_host: str, tls: bool, head: RequestHead) -> Client:
        """
        Find the client of *head*, which came from *peer_host*, encrypted or not.
        """
        fields = head.fields
        authority = fields.get(b"host", b"")
        key: tuple[object, ...]
        if self._trusted and self.trusts(peer_host):
            if len(fields) != len(head.headers):  # A name is repeated: the fields are not all that was said.
                return self._behind_proxy(peer_host, tls, head, authority)
            key = (peer_host, tls, authority, *map(fields.get, _SAID_BY_PROXY))
            return self._cache.get(key) or self._remember(key, self._behind_proxy(peer_host, tls, head, authority))
        key = (peer_host, tls, authority)
        known = self._cache.get(key)
        if known is not None:
            return known
        host = plain_address(peer_host) or peer_host
        return self._remember(key, self._made([host], "https" if tls else "http", authority, b"", trusted=False))

    def _remember(self, key: tuple[object, ...], client: Client) -> Client:
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        if sum(len(part) for part in key if isinstance(part, bytes)) <= 255:
            self._cache[key] = client
        return client

    def _behind_proxy(self, peer_host: str, tls: bool, head: RequestHead, authority: bytes) -> Client:
        hops = [plain_address(peer_host) or peer_host]
        if b"x-forwarded-for" in head.fields:
            elements = b",".join(values_of(head.headers, b"x-forwarded-for")).rsplit(b",", _HOPS)
            for element in reversed(elements[-_HOPS:]):
                host = _element(element.strip(b" \t"))
                if host is None:
                    break
                hops.append(host)
                if not self.trusts(host):
                    break
        hops.reverse()
        proto, named, port = (_only(head, name) for name in _SAID_ONCE)
        proto = proto.lower()
        scheme = proto.decode() if proto in (b"http", b"https") else "https" if tls else "http"
        return self._made(hops, scheme, named if named and _authority(named) else authority, port, trusted=True)

    def _made(self, hops: list[str], scheme: str, authority: bytes, port: bytes, *, trusted: bool) -> Client:
        found = _authority(authority)
        if not (_port(port) and 0 < int(port) < 65536):
            port = (found[1] if found else None) or (b"443" if scheme == "https" else b"80")
        told = [_LOOPBACK if hop == UNIX else hop for hop in hops]
        block = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\n" % (
            ", ".join(told).encode(),
            scheme.encode(),
            port,
        )
        if found:
            block += b"X-Forwarded-Host: %b\r\n" % authority
        if self._standard:
            pairs = [f'for="[{hop}]"' if ":" in hop else f"for={hop}" for hop in told]
            pairs[0] += f";proto={scheme}" + (f';host="{authority.decode()}"' if found else "")
            block += f"Forwarded: {', '.join(pairs)}\r\n".encode()
        return Client(hops[0], scheme, block, trusted=trusted)

    def _looked_up(self, host: str) -> bool:
        address = _parsed(host)
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(maxsize=_CACHE_SIZE)
def group(host: str) -> str:
    """
    What limits count as one address: an IPv6 address's /64, else *host* itself.
    """
    address = _parsed(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address) if address is not None else host


@lru_cache(maxsize=_CACHE_SIZE)
def plain_address(host: str) -> str | None:
    """
    Write an address one way: IPv6 compressed, without its zone, IPv4-mapped as IPv4; None if it is none.
    """
    address = _parsed(host)
    return None if address is None else str(address)


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_CACHE_SIZE)
def _element(element: bytes) -> str | None:
    """An element of X-Forwarded-For: an address, perhaps in brackets, perhaps with a port. A zone is none."""
    if len(element) > 64 or b"%" in element:
        return None
    text = element.decode("ascii", "replace")
    if text[:1] == "[":
        inside, closed, after = text[1:].partition("]")
        address = plain_address(inside)
        return address if closed and ":" in inside and (not after or _is_port(after)) else None
    if text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    return plain_address(text)


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text.isascii() and text[1:].isdigit() and len(text) <= 6


def _only(head: RequestHead, name: bytes) -> bytes:
    """The value of *name* if it stands there once; of several nobody knows who wrote which."""
    value = head.fields.get(name)
    if (
        value is None
        or b"," in value
        or (len(head.fields) != len(head.headers) and len(values_of(head.headers, name)) > 1)
    ):
        return b""
    return value.strip(b" \t")
