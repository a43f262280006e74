r"""
Endpoint strings, taken apart as Twisted does, to see what they mean before anything listens.

``kind:first:name=value``, with ``\`` before a colon, an equals sign or itself where it is data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

__all__ = ["BadEndpoint", "Endpoint", "read_endpoint"]

_KINDS: Final = ("tcp", "tcp6", "unix", "systemd")
_ARGUMENTS: Final = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "interface", "backlog"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}


class BadEndpoint(ValueError):
    """
    A string that is no endpoint to listen on; the text says why.
    """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Where something listens.

    Attributes:
        kind: ``tcp``, ``tcp6``, ``unix`` or ``systemd``.
        port: For TCP; 0 lets the system choose.
        interface: For TCP; empty is every interface.
        path: For ``unix``.
        arguments: All of them by name.
    """

    kind: str
    port: int = 0
    interface: str = ""
    path: str = ""
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def loopback(self) -> bool:
        """Whether only processes of this machine can reach it. Of a systemd socket that cannot be known: no."""
        if self.kind == "unix":
            return True
        if self.interface == "localhost":
            return True
        try:
            return ip_address(self.interface).is_loopback
        except ValueError:
            return False

    def collides(self, other: Endpoint) -> bool:
        """Whether both cannot, or must not, be listened on at once."""
        if self.kind in ("tcp", "tcp6") and other.kind in ("tcp", "tcp6"):
            same = self.interface == other.interface or not self.interface or not other.interface
            return self.port == other.port != 0 and same
        return self == other


def read_endpoint(text: str) -> Endpoint:
    """
    Read *text*.

    Raises:
        BadEndpoint: it is not one that the gateway listens on.
    """
    pieces = _pieces(text)
    name, kind = pieces[0]
    if name is not None or kind not in _KINDS:
        raise BadEndpoint(_hint(text, kind))
    if len(text) - len(text.rstrip("\\")) & 1:
        raise BadEndpoint("ends in a backslash that escapes nothing")
    known = _ARGUMENTS[kind]
    arguments: dict[str, str] = {}
    for place, (key, value) in enumerate(pieces[1:]):
        if key is None and place >= len(known):
            raise BadEndpoint(f"has more than {kind} takes: {', '.join(known)}")
        argument = known[place] if key is None else key
        if argument not in known:
            raise BadEndpoint(f"{kind} takes {', '.join(known)}, and not {argument!r}")
        arguments[argument] = value
    if kind == "unix":
        path = arguments.get("address", "")
        if not path.startswith("/"):
            raise BadEndpoint("the path of a unix socket begins with /, such as unix:/run/gateway.sock")
        return Endpoint(kind, path=path, arguments=arguments)
    if kind == "systemd":
        if "index" not in arguments and "name" not in arguments:
            raise BadEndpoint("needs an index or a name, such as systemd:domain=INET:index=0")
        return Endpoint(kind, arguments=arguments)
    port = arguments.get("port", "")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise BadEndpoint(f"needs a port from 0 to 65535, such as {kind}:4000")
    interface = arguments.get("interface", "")
    if interface and interface != "localhost":
        try:
            ip_address(interface.partition("%")[0])
        except ValueError:
            raise BadEndpoint(f"the interface is an address of this machine, and {interface!r} is none") from None
    return Endpoint(kind, int(port), interface, arguments=arguments)


def _pieces(text: str) -> list[tuple[str | None, str]]:
    """Split at colons; each piece is a name, or None, and a value."""
    pieces: list[tuple[str | None, str]] = []
    name: str | None = None
    value = ""
    signs = iter(text)
    for sign in signs:
        if sign == "\\":
            value += next(signs, "")
            continue
        if sign == ":":
            pieces.append((name, value))
            name, value = None, ""
        elif sign == "=" and name is None:
            name, value = value, ""
        else:
            value += sign
    return [*pieces, (name, value)]


def _hint(text: str, kind: str) -> str:
    if kind in ("ssl", "tls"):
        return "TLS is a setting of the listener: `certificate` beside a tcp endpoint"
    if kind == "haproxy":
        return "the PROXY protocol is a setting of the listener: `proxy_protocol_from` beside a tcp endpoint"
    host, _, port = text.rpartition(":")
    if text.isdecimal():
        return f"is no endpoint; did you mean tcp:{text}?"
    address = host.strip("[]")
    if port.isdecimal() and (address == "localhost" or "." in address or "::" in address):
        return f"is no endpoint; did you mean tcp:{port}:interface={address.replace(':', chr(92) + ':')}?"
    return f"is no endpoint; it begins with one of {', '.join(known + ':' for known in _KINDS)}"
