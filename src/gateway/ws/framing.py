"""
How messages to clients are framed (RFC 6455, section 5.2; RFC 7692): once for all who share a form.
"""

from __future__ import annotations

import zlib
from typing import Final

from gateway.ports.dialect import Dialect

__all__ = ["CompressedForm", "FrameForm", "header"]

TEXT: Final = 0x1
BINARY: Final = 0x2
_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40

LEAST_COMPRESSED = 128
"""Shorter messages are sent as they are: deflate's own bytes would eat the gain."""


def header(first: int, size: int) -> bytes:
    """
    Make the header of an unmasked frame; *first* is its first byte.
    """
    if size < 126:  # noqa: PLR2004  # the last length that is its own
        return bytes((first, size))
    if size < 65536:  # noqa: PLR2004  # what two bytes hold
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class FrameForm:
    """
    A message is a frame (``ports.clients.Form``).
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._first = _FINAL | (BINARY if dialect.binary else TEXT)
        self._short = [bytes((self._first, size)) for size in range(126)]

    def frame(self, message: bytes) -> bytes:
        """Put a header in front."""
        size = len(message)
        return (self._short[size] if size < 126 else header(self._first, size)) + message  # noqa: PLR2004


class CompressedForm:
    """
    A message is a deflated frame that needs no other to be inflated, so it may be sent to everybody.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._first = _FINAL | (BINARY if dialect.binary else TEXT)

    def frame(self, message: bytes) -> bytes:
        """Deflate the message where that makes it shorter."""
        if len(message) >= LEAST_COMPRESSED:
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            # RFC 7692, section 7.2.1: without the four bytes that a flush ends with.
            data = (deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            if len(data) < len(message):
                return header(self._first | _COMPRESSED, len(data)) + data
        return header(self._first, len(message)) + message
