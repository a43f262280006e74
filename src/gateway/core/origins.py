"""
Which pages may ask: a list of origins, exact or all sub-domains of a name.

An origin is scheme, host and port as browsers write them (RFC 6454, section 6.2). It is compared whole, in
lower case: nothing is searched for in it, so ``https://play.example.evil`` is never taken for
``https://play.example``. ``null``, which sandboxed pages and files send, is on the list only by that word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["Origins", "fault_of"]

ANY: Final = "*"
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_LONGEST = 300
_HOST = r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])"
_written = re.compile(rf"([a-z][a-z0-9+.-]*)://(\*\.)?({_HOST})(?::([0-9]{{1,5}}))?").fullmatch
_SUBDOMAINS: Final = r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+"


def fault_of(origin: str) -> str:
    """
    Say what is wrong with *origin* as an entry of the list; empty if nothing is.
    """
    if origin in {ANY, "null"}:
        return ""
    found = _written(origin.lower())
    if found is None or len(origin) > _LONGEST:
        return "is no origin such as https://play.example or https://*.play.example"
    scheme, below, host, port = found.groups()
    if below and ("." not in host or host.startswith("[")):
        return "would let in half of the internet: a sub-domain pattern needs a name with a dot, https://*.play.example"
    if port == _DEFAULT_PORTS.get(scheme):
        return f"is written without :{port} by browsers"
    return ""


class Origins:
    """
    The list, compiled.

    Args:
        origins: Without faults (``fault_of``).

    Attributes:
        any: Every origin but ``null`` is on it.
    """

    __slots__ = ("_exact", "_patterns", "any")

    def __init__(self, origins: Iterable[str]) -> None:
        exact: set[bytes] = set()
        patterns: list[str] = []
        for origin in origins:
            found = _written(origin.lower())
            if found is not None and found[2]:
                scheme, _, host, port = found.groups()
                ending = re.escape(host) + (f":{port}" if port else "")
                patterns.append(f"{re.escape(scheme)}://{_SUBDOMAINS}{ending}")
            else:
                exact.add(origin.lower().encode("ascii"))
        self.any = b"*" in exact
        self._exact = frozenset(exact - {b"*"})
        self._patterns = re.compile("|".join(patterns).encode("ascii")).fullmatch if patterns else None

    def __bool__(self) -> bool:
        """Whether anything is on it."""
        return self.any or bool(self._exact) or self._patterns is not None

    def has(self, origin: bytes) -> bool:
        """
        Whether the page of *origin*, as its browser sent it, is on the list.
        """
        if len(origin) > _LONGEST:
            return False
        origin = origin.lower()
        if origin in self._exact or (self.any and origin != b"null"):
            return True
        return self._patterns is not None and self._patterns(origin) is not None
