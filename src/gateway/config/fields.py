"""
What every section's fields are made of: their text for users, and the types TOML does not have.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

__all__ = ["KIB", "MIB", "Network", "Secret", "key"]

Network = IPv4Network | IPv6Network

KIB = 1024
MIB = 1024 * 1024


class Secret(str):
    """
    Text that must not be shown: its repr and format are ``***``; ``reveal`` gives it.
    """

    __slots__ = ()

    def reveal(self) -> str:
        """Return the text itself, for the one place that uses it."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


def key(text: str, **more: Any) -> dict[str, Any]:
    """
    Metadata of a field: *text* is its line in the reference; *more* is read by ``config.shape``.

    Args:
        more: ``at`` (dotted TOML name, when it is not the field's), ``least`` and ``most`` (a number's
            range, inclusive; an array's least length), ``key`` (the field is the table's name),
            ``short`` (a bare string stands for a table with this key), ``table`` (pairs are written
            as a table), ``folder`` (a path is a folder's), ``cel`` (an expression, which may have several lines).
    """
    return {"doc": text, **more}
