"""
The keys of backends, operators and scripts: which one was sent, and what it may do.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gateway.config.sections import AdminKey

__all__ = ["ApiKeys", "Key", "bearer"]


class Key:
    """
    A key that was recognised, or none where none is needed.

    Attributes:
        name: For the log; empty for none.
    """

    __slots__ = ("_channels", "_scopes", "name")

    def __init__(self, name: str = "", scopes: Sequence[str] = (), channels: Sequence[str] = ()) -> None:
        self.name = name
        self._scopes = frozenset(scopes)
        self._channels = tuple(channels)

    def allows(self, scope: str) -> bool:
        """
        Whether it may do what needs *scope*; empty: what any key may.
        """
        return not scope or scope in self._scopes or "*" in self._scopes

    def reaches(self, channel: str) -> bool:
        """
        Whether it may name *channel*, and be told of it.
        """
        return not self._channels or any(fnmatchcase(channel, pattern) for pattern in self._channels)


class ApiKeys:
    """
    The keys in force.
    """

    def __init__(self, keys: Sequence[AdminKey] = ()) -> None:
        self._keys: list[tuple[Key, bytes]] = []
        self.configure(keys)

    def configure(self, keys: Sequence[AdminKey]) -> None:
        """
        Take other keys.
        """
        self._keys = [
            (Key(key.name, key.scopes, key.channels), _digest(key.secret.reveal().encode("utf-8"))) for key in keys
        ]

    def find(self, secret: bytes) -> Key | None:
        """
        Find the key with *secret*.
        """
        digest = _digest(secret)
        found = None
        for key, known in self._keys:
            # Every key is compared, in the same time whichever it is and however long.
            if hmac.compare_digest(digest, known):
                found = key
        return found


def bearer(value: bytes) -> bytes | None:
    """
    Take the key out of the value of ``Authorization``; ``apikey`` is what Centrifugo's libraries write.
    """
    scheme, _, token = value.partition(b" ")
    return token.strip(b" ") if scheme.lower() in (b"bearer", b"apikey") else None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
