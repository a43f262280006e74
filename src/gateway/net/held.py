"""
A TCP port kept for processes that will share it (SO_REUSEPORT), and for nobody else.

The kernel lets a socket join a port if it and all that have it say SO_REUSEPORT and belong to one user. So a
stranger's server that says it too would be joined, and take its share of our clients, unless somebody
asks for the port without it first. ``HeldPort`` does: it binds as a server does that shares with nobody, which
fails while anybody listens. Only then does its socket allow others, and it keeps the port bound, never
listening: in the moments when no worker has it, a stranger that does not say SO_REUSEPORT cannot take it.
What it cannot keep away is a program of the same user that comes later and says SO_REUSEPORT.
"""

from __future__ import annotations

import socket

from twisted.internet.abstract import isIPv6Address

__all__ = ["HeldPort"]


class HeldPort:
    """
    One address and port, held until ``close``.

    Args:
        interface: An address of this machine, or ``localhost``; empty for every one.
        ipv6: Whether an empty interface means those of IPv6.

    Attributes:
        number: The port; chosen by the system where 0 was asked for.

    Raises:
        OSError: somebody listens there (``EADDRINUSE``), or it is no address of ours.
    """

    def __init__(self, port: int, interface: str, *, ipv6: bool = False) -> None:
        ipv6 = ipv6 or isIPv6Address(interface.partition("%")[0])
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        found = socket.getaddrinfo(interface or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            # As servers do, so that connections of the past (TIME_WAIT) are no hindrance.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(found[0][4])
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # With it a socket that does not listen could be bound over by any other that says it.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except BaseException:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """
        Let the port go.
        """
        self._socket.close()
