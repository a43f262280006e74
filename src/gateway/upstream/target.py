"""
Where a backend is: ``http://host:port``, ``https://host:port`` or ``unix:/path``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

__all__ = ["BadTarget", "Target", "endpoint_of"]

_PORTS = {"http": 80, "https": 443}


class BadTarget(ValueError):
    """
    A target that cannot be read.
    """


@dataclass(frozen=True, slots=True)
class Target:
    """
    One place of one upstream.

    Attributes:
        name: For logs, metrics and the console: ``host:port`` or the socket's path.
        host: Host name or address without brackets; empty for a unix socket.
        port: TCP port; 0 for a unix socket.
        path: The socket's path; empty for TCP.
        tls: Whether to speak TLS.
        authority: What ``Host`` says by default.
    """

    name: str
    host: str
    port: int
    path: str
    tls: bool
    authority: bytes

    @classmethod
    def parse(cls, text: str) -> Target:
        """
        Read a target as the configuration has it.

        Raises:
            BadTarget: with what is wrong.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise BadTarget(f"{text!r}: a unix socket needs an absolute path")
            return cls(path, "", 0, path, tls=False, authority=b"localhost")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadTarget(f"{text!r}: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise BadTarget(f"{text!r} is not http://host:port, https://host:port or unix:/path")
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
            raise BadTarget(f"{text!r} says more than scheme, host and port")
        host = parts.hostname
        shown = f"[{host}]" if ":" in host else host
        default = _PORTS[parts.scheme]
        authority = shown if port in {None, default} else f"{shown}:{port}"
        port = default if port is None else port
        return cls(f"{shown}:{port}", host, port, "", tls=parts.scheme == "https", authority=authority.encode("ascii"))


def endpoint_of(reactor: Any, target: Target, timeout_s: float) -> IStreamClientEndpoint:
    """
    Return what connects to *target*, within *timeout_s*.
    """
    if target.path:
        return UNIXClientEndpoint(reactor, target.path, timeout=timeout_s)
    if target.host.replace(".", "").isdigit():
        return TCP4ClientEndpoint(reactor, target.host, target.port, timeout=timeout_s)
    if ":" in target.host:
        return TCP6ClientEndpoint(reactor, target.host, target.port, timeout=timeout_s)
    return HostnameEndpoint(reactor, target.host, target.port, timeout=timeout_s)
