"""
The bytes of HTTP/2 (RFC 9113) that a client of unary calls needs: frames, and header blocks without a memory.

Header fields are written as literals that no table remembers, so that what is the same for all calls of a method is
encoded once. Blocks that come are decoded by hpack; the server is told to remember nothing either
(``SETTINGS_HEADER_TABLE_SIZE`` 0), so that a block means the same whenever it comes, and is decoded once.
"""

from __future__ import annotations

from typing import Final

import hpack

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "MAX_FRAME",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Blocks",
    "Field",
    "ProtocolError",
    "field",
    "frame",
    "setting",
    "unpadded",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME: Final = 16384
"""Bytes of a frame's payload, in both directions: nobody is told of another."""

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

MAX_BLOCK: Final = 64 * 1024
"""Bytes of a header block, as it comes and decoded."""

_REMEMBERED: Final = 256
_LONGEST: Final = 512

Field = tuple[bytes, bytes]


class ProtocolError(Exception):
    """
    The other side breaks a rule, and the connection with it.
    """


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """
    Return one frame.
    """
    return b"".join((len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload))


def setting(name: int, value: int) -> bytes:
    """
    Return one setting of a ``SETTINGS`` frame.
    """
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def field(name: bytes, value: bytes) -> bytes:
    """
    Return one header field that no table remembers, without Huffman coding (RFC 7541, 6.2.2).
    """
    return b"\x00%b%b%b%b" % (_length(len(name)), name, _length(len(value)), value)


def _length(number: int) -> bytes:
    # An integer with a prefix of seven bits (RFC 7541, 5.1).
    if number < 127:
        return bytes((number,))
    number -= 127
    out = bytearray((127,))
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def unpadded(payload: bytes) -> bytes:
    """
    Return a padded frame's payload without its padding.

    Raises:
        ProtocolError: there is more padding than frame.
    """
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("padding that is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


class Blocks:
    """
    Decodes the header blocks of one connection, in their order.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_BLOCK)
        self._decoder.header_table_size = 0
        self._known: dict[bytes, tuple[Field, ...]] = {}

    def decode(self, block: bytes) -> tuple[Field, ...]:
        """
        Return the fields of a block.

        Raises:
            ProtocolError: it is none.
        """
        found = self._known.get(block)
        if found is not None:
            return found
        try:
            fields: tuple[Field, ...] = tuple((name, value) for name, value in self._decoder.decode(block, raw=True))
        except hpack.HPACKError as error:
            raise ProtocolError(f"header block: {type(error).__name__}") from error
        if self._decoder.header_table_size:
            # A server that remembers all the same: then every block counts, in its order.
            self._known.clear()
        elif len(block) <= _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[block] = fields
        return fields
