"""
CORS: what browsers are told about answers that pages of other origins may read (Fetch standard, section 3.2).

Which origin asked decides; an origin that is not on the list gets no line at all, so its browser withholds the
answer. ``Vary: Origin`` stands on every answer, whoever asked, or a cache would give one page another's answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gateway.core.origins import Origins

__all__ = ["NAMES", "Cors"]

NAMES: Final = frozenset(
    (
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-allow-private-network",
        b"access-control-expose-headers",
        b"access-control-max-age",
    )
)
"""Stated by the gateway alone where it has a list; a backend's own are taken off."""

_VARY: Final = b"Vary: Origin\r\n"
_VARY_PREFLIGHT: Final = (
    b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers, "
    b"Access-Control-Request-Private-Network\r\n"
)
_REMEMBERED = 256
_MOST_ASKED = 4096
_names = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*").fullmatch


class Cors:
    """
    The rules of one route.

    Args:
        methods: Methods that a page may use; empty: those that the path takes.
        headers: Request headers that a page may set; ``*``: whichever it asks for.
        expose: Headers of answers that a page may read beside those that it always may.
        credentials: Cookies and client certificates may be sent along.
        max_age_s: How long a browser may remember the answer to a preflight.
        private_network: Pages of the public internet may ask although the gateway is on a private network.

    Attributes:
        origins: Who may.
    """

    __slots__ = ("_any_header", "_kept", "_lines", "_preflight", "methods", "origins", "private_network")

    def __init__(
        self,
        origins: Origins,
        *,
        methods: Iterable[str] = (),
        headers: Iterable[str] = (),
        expose: Iterable[str] = (),
        credentials: bool = False,
        max_age_s: float = 0.0,
        private_network: bool = False,
    ) -> None:
        self.origins = origins
        self.methods = tuple(method.encode("ascii") for method in methods)
        self.private_network = private_network
        names = [name.encode("ascii") for name in headers]
        self._any_header = b"*" in names
        exposed = ", ".join(expose).encode("ascii")
        self._lines = (b"Access-Control-Allow-Credentials: true\r\n" if credentials else b"") + _VARY
        self._preflight = b"Access-Control-Max-Age: %d\r\n" % max_age_s + (
            b"Access-Control-Allow-Headers: %b\r\n" % b", ".join(names) if names and not self._any_header else b""
        )
        if exposed:
            self._lines += b"Access-Control-Expose-Headers: %b\r\n" % exposed
        if credentials:
            self._preflight += b"Access-Control-Allow-Credentials: true\r\n"
        self._kept: dict[bytes, bytes] = {}

    def lines(self, origin: bytes | None) -> bytes:
        """
        Make the lines for an answer to *origin*, as its request says; None: it says none.
        """
        if origin is None:
            return _VARY
        lines = self._kept.get(origin)
        if lines is None:
            lines = b"%b%b" % (self._allow(origin), self._lines) if self.origins.has(origin) else _VARY
            if len(origin) <= _REMEMBERED:
                if len(self._kept) >= _REMEMBERED:
                    self._kept.clear()
                self._kept[origin] = lines
        return lines

    def preflight(
        self, origin: bytes, methods: Iterable[bytes], asked: bytes, *, private_network: bool = False
    ) -> bytes | None:
        """
        Make the lines that answer a preflight; None: pages of *origin* may not.

        Args:
            methods: Those that the path takes; ours, if there are any, say which of them.
            asked: Its ``Access-Control-Request-Headers``, perhaps empty.
            private_network: It asks whether the private network may be entered.
        """
        if not self.origins.has(origin):
            return None
        allowed = [method for method in sorted(methods) if not self.methods or method in self.methods]
        lines = [self._allow(origin), self._preflight, _VARY_PREFLIGHT]
        if allowed:
            lines.append(b"Access-Control-Allow-Methods: %b\r\n" % b", ".join(allowed))
        if self._any_header and len(asked) <= _MOST_ASKED and _names(asked):
            lines.append(b"Access-Control-Allow-Headers: %b\r\n" % asked)
        if private_network and self.private_network:
            lines.append(b"Access-Control-Allow-Private-Network: true\r\n")
        return b"".join(lines)

    def _allow(self, origin: bytes) -> bytes:
        return b"Access-Control-Allow-Origin: %b\r\n" % (b"*" if self.origins.any else origin)
