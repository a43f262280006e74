"""
Which ports of this machine can be listened on.
"""

from __future__ import annotations

import random
import socket

__all__ = ["free_port", "taken"]

_MOST_GIVEN = 5000
_given: set[int] = set()


def taken(port: int) -> str:
    """
    Say why *port* of 127.0.0.1 cannot be listened on; empty if it can.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return ""


def free_port() -> int:
    """
    Return a port that nobody listens on, another one each time.

    From below the range of outgoing connections: those take and leave ports all the time.
    """
    while (port := random.randrange(10240, 32768)) in _given or taken(port):
        pass
    if len(_given) > _MOST_GIVEN:
        _given.clear()
    _given.add(port)
    return port
