"""
The body of a request, decoded strictly while it arrives (RFC 9112, sections 6 and 7).

Both readers are fed whatever was received and tell what of it was body and what lies beyond.
Chunks are decoded here and not by llhttp, because it neither bounds chunk extensions nor says
how much of its input they were. Sizes are hexadecimal digits and nothing else: Python's own
``int`` would take ``0x5``, ``+5`` and ``0_5``.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core.message import Header
from gateway.web.head import Refused

__all__ = ["BodyReader", "ChunkedBody", "LengthBody"]

MAX_CHUNK_LINE = 272
"""Bytes of a chunk's size with its extensions, CRLF not counted."""
MAX_EXTENSIONS = 16 * 1024
"""Bytes of chunk extensions in one body."""
MAX_TRAILERS = 8 * 1024
MAX_TRAILER_LINES = 64

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_FORBIDDEN: Final = frozenset(
    b"transfer-encoding content-length host trailer te connection keep-alive upgrade expect "
    b"authorization proxy-authorization cookie set-cookie content-type content-encoding content-range "
    b"cache-control max-forwards range age date vary warning "
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-real-ip forwarded via".split()
)
"""Names that frame, route, identify or change the meaning; a trailer section with one is refused (RFC 9110, 6.5.1)."""


class LengthBody:
    """
    A body of a known number of bytes.

    Attributes:
        ended: All of it was seen.
        left: Bytes still to come.
        room: Most bytes it may have; looked at by the channel, since the length is known.
        trailers: Always empty.
        fault: Never set.
    """

    __slots__ = ("ended", "fault", "left", "room", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.room = length
        self.ended = length == 0
        self.trailers: list[Header] = []
        self.fault: Refused | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Split *data* into what belongs to the body and what comes after it.
        """
        size = len(data)
        if size < self.left:
            self.left -= size
            return data, b""
        body, rest = (data, b"") if size == self.left else (data[: self.left], data[self.left :])
        self.left = 0
        self.ended = True
        return body, rest


class ChunkedBody:
    """
    A body in chunks.

    Args:
        room: Most bytes it may have; may be set later.

    Attributes:
        ended: The empty line after the last chunk and the trailers was seen.
        left: Bytes of the current chunk still to come.
        room: Bytes that chunks not yet begun may have.
        trailers: Trailer lines, once ended; names with an underscore are dropped.
        fault: What is wrong with it; what came before the fault has been returned as body.
    """

    __slots__ = ("_extensions", "_line", "_need_crlf", "_trailer_bytes", "ended", "fault", "left", "room", "trailers")

    def __init__(self, room: int) -> None:
        self.room = room
        self.ended = False
        self.fault: Refused | None = None
        self.left = 0
        self.trailers: list[Header] = []
        self._line = b""
        self._need_crlf = False
        self._extensions = 0
        self._trailer_bytes = -1

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Decode *data* into body bytes and what comes after the body.

        Anything but exact chunks sets ``fault``: 400, 413 beyond ``room``, 431 for trailers
        beyond their bounds.
        """
        pieces: list[bytes] = []
        try:
            rest = self._feed(self._line + data if self._line else data, pieces)
        except Refused as fault:
            self.fault = fault
            rest = b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), rest

    def _feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        at = 0
        size = len(data)
        self._line = b""
        while at < size:
            left = self.left
            if left:
                piece = data[at : at + left]
                pieces.append(piece)
                at += len(piece)
                self.left = left - len(piece)
                self._need_crlf = True
            elif self._need_crlf:
                mark = data[at : at + 2]
                if mark == b"\r":
                    break
                if mark != b"\r\n":
                    raise Refused(400, "bad_request")
                self._need_crlf = False
                at += 2
            elif self._trailer_bytes < 0:
                end = data.find(b"\n", at, at + MAX_CHUNK_LINE + 2)
                if end < 0:
                    if size - at >= MAX_CHUNK_LINE + 2:
                        raise Refused(400, "bad_request")
                    break
                self._chunk(data[at:end])
                at = end + 1
            else:
                allowed = MAX_TRAILERS - self._trailer_bytes
                end = data.find(b"\n", at, at + allowed)
                if end < 0:
                    if size - at >= allowed:
                        raise Refused(431, "head_too_large")
                    break
                self._trailer_bytes += end + 1 - at
                self._trailer(data[at:end])
                at = end + 1
                if self.ended:
                    return data[at:]
        self._line = data[at:]
        return b""

    def _chunk(self, line: bytes) -> None:
        """Take a chunk's first line, which still has its CR."""
        match = _SIZE.fullmatch(line, 0, len(line) - 1) if line[-1:] == b"\r" else None
        if match is None:
            raise Refused(400, "bad_request")
        if match.end(1) != len(line) - 1:
            self._extensions += len(line)
            if self._extensions > MAX_EXTENSIONS:
                raise Refused(400, "bad_request")
        self.left = left = int(match.group(1), 16)
        self.room -= left
        if self.room < 0:
            raise Refused(413, "body_too_large")
        if not left:
            self._trailer_bytes = 0

    def _trailer(self, line: bytes) -> None:
        """Take a trailer line, or the empty one that ends the body; it still has its CR."""
        if line == b"\r":
            self.ended = True
            return
        match = _LINE.fullmatch(line, 0, len(line) - 1) if line[-1:] == b"\r" else None
        if match is None:
            raise Refused(400, "bad_request")
        name, value = match.groups()
        if name.lower() in _FORBIDDEN:
            raise Refused(400, "bad_request")
        if b"_" not in name:
            self.trailers.append((name, value.rstrip(b" \t")))
            if len(self.trailers) > MAX_TRAILER_LINES:
                raise Refused(431, "head_too_large")


BodyReader = LengthBody | ChunkedBody
