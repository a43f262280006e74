"""
What Redis answers when it cannot or will not, sorted by what callers can do about it.
"""

from __future__ import annotations

from typing import Final

from gateway.ports.realtime import StoreUnavailable

__all__ = ["RedisFault", "RedisRefused", "error_of"]

_FOR_NOW: Final = frozenset(
    (
        *("OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "MASTERDOWN", "CLUSTERDOWN"),
        *("TRYAGAIN", "MOVED", "ASK", "NOAUTH", "WRONGPASS", "NOPERM", "STALE"),
    )
)


class RedisRefused(StoreUnavailable):
    """
    The server is there and cannot do it now, or not for us.

    Attributes:
        code: The first word of its answer: ``OOM``, ``READONLY``, ``NOPERM``.
    """

    def __init__(self, text: str) -> None:
        super().__init__(f"Redis refuses: {text}")
        self.code = text.partition(" ")[0]


class RedisFault(Exception):
    """
    The server does not understand us: a fault of ours, or of a module that it lacks.
    """


def error_of(text: str) -> Exception:
    """
    Make the exception of an error reply.
    """
    if text.startswith("ERR max number of clients"):
        return RedisRefused("MAXCLIENTS " + text)
    # Lua puts our own refusals behind the script's name.
    code = text.partition(" ")[0]
    return RedisRefused(text) if code in _FOR_NOW else RedisFault(text)
