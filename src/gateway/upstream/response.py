"""
What a backend's response head must be, beyond what llhttp asks of it.

Status 100 to 599, HTTP/1.1 or 1.0, a printable reason; at most one length of at most 19 digits,
or exactly one ``chunked`` in HTTP/1.1; nothing that frames on an interim response. Everything
else could be read in two ways (RFC 9112, sections 4 and 6; RFC 9110, section 15.2).
"""

from __future__ import annotations

import re
from enum import Enum

from gateway.core.headers import response_block, tokens_of
from gateway.core.message import CHUNKED, Header, ResponseHead, values_of

__all__ = ["FRAMING", "Framing", "PlainHeads", "Unclear", "check_interim", "final_head", "head_bytes", "stays_open"]

FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Names that say where a body ends."""

_LEAST_STATUS, _NO_CONTENT, _LAST_STATUS = 100, 204, 599
_MOST_DIGITS = 19
_VERSIONS = ("1.1", "1.0")
_COMMON_REASONS = frozenset((b"OK", b""))
_is_plain = re.compile(rb"[\t -~\x80-\xff]*").fullmatch


_HEADS_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024
_plain = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([ -~]*+)\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:(?:[\t ]*+[!-~\x80-\xff]++)*+\r\n)++)\r\n"
).fullmatch
_lines = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r\n]*+)\r\n").findall
_length = re.compile(rb"[0-9]{1,19}").fullmatch
_SPECIAL = frozenset((b"transfer-encoding", b"upgrade", b"proxy-connection", b"trailer"))
_UNUSUAL = frozenset((_NO_CONTENT, 205, 304))


class PlainHeads:
    """
    Heads that need no parser, as most have none of what makes one necessary.

    HTTP/1.1, exactly one length, nothing about coding or the connection's end, every line in the
    narrowest grammar: whatever is taken here, llhttp takes as well and reads alike. Heads that were
    seen are remembered: those of a busy backend differ little within a second.

    Args:
        most_bytes: How large a head may be.
    """

    __slots__ = ("_known", "_most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._known: dict[bytes, ResponseHead] = {}

    def read(self, data: bytes, size: int) -> ResponseHead | None:
        """
        Read the first *size* bytes of *data*, which end with an empty line; None if that takes a parser.
        """
        raw = data[:size]
        head = self._known.get(raw)
        if head is None and size <= self._most_bytes:
            head = self._read(raw)
            if head is not None and size <= _LONGEST_REMEMBERED:
                if len(self._known) >= _HEADS_REMEMBERED:
                    self._known.clear()
                self._known[raw] = head
        return head

    def _read(self, raw: bytes) -> ResponseHead | None:
        if b"ontent-Length:" not in raw and b"ontent-length:" not in raw:
            return None
        found = _plain(raw)
        if found is None:
            return None
        code, reason, block = found.groups()
        status = int(code)
        headers: list[Header] = _lines(block)
        fields = {name.lower(): value for name, value in headers}
        length = fields.pop(b"content-length", b"")
        kept = [header for header in headers if header[0].lower() != b"content-length"]
        if (
            status in _UNUSUAL
            or not _length(length)
            or len(kept) != len(headers) - 1
            or not _SPECIAL.isdisjoint(fields)
            or fields.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or (len(fields) != len(kept) and len(values_of(kept, b"connection")) > 1)
        ):
            return None
        head = ResponseHead(status, reason, kept, fields, int(length))
        head.block = response_block(head)
        return head


class Framing(Enum):
    """
    How the end of a body is known.
    """

    LENGTH = "length"
    CHUNKS = "chunks"
    CLOSE = "close"


class Unclear(Exception):
    """
    A head that is not one response beyond doubt; the text says why.
    """


def check_interim(status: int, version: str, headers: list[Header]) -> None:
    """
    Check the head of a response below 200.

    Raises:
        Unclear: it has a body, or HTTP/1.0 does not know it, or its status is below 100.
    """
    if status < _LEAST_STATUS or version != "1.1":
        raise Unclear("status line")
    if not FRAMING.isdisjoint([name.lower() for name, _ in headers]):
        raise Unclear("an interim response with a body")


def final_head(
    status: int, version: str, reason: bytes, headers: list[Header], most_bytes: int | None = None
) -> tuple[ResponseHead, Framing]:
    """
    Make the head of a final response, and tell how the end of its body is known, if it has one.

    Args:
        most_bytes: How large the head may be; None when it is known to be small.

    Raises:
        Unclear: it can be read in two ways, or is too large.
    """
    if (
        status > _LAST_STATUS
        or version not in _VERSIONS
        or (reason not in _COMMON_REASONS and _is_plain(reason) is None)
    ):
        raise Unclear("status line")
    if most_bytes is not None and len(reason) + head_bytes(headers) > most_bytes:
        raise Unclear("head too large")
    fields = {name.lower(): value for name, value in headers}
    announced = fields.pop(b"content-length", None)
    if announced is not None:
        # llhttp saw to it that these are digits, and that there is neither a second one nor a coding.
        if len(announced) > _MOST_DIGITS:
            raise Unclear("length")
        kept = [header for header in headers if header[0] != b"Content-Length"]
        if len(kept) == len(headers):
            kept = [header for header in headers if header[0].lower() != b"content-length"]
        return ResponseHead(status, reason, kept, fields, int(announced)), Framing.LENGTH
    coding = fields.pop(b"transfer-encoding", None)
    if coding is None:
        return ResponseHead(status, reason, headers, fields, 0 if status == _NO_CONTENT else CHUNKED), Framing.CLOSE
    kept = [header for header in headers if header[0].lower() != b"transfer-encoding"]
    # Spaces alone: with a tab behind it, llhttp does not know the coding and would read until the connection closes.
    if version != "1.1" or coding.rstrip(b" ").lower() != b"chunked" or len(kept) != len(headers) - 1:
        raise Unclear("transfer coding")
    return ResponseHead(status, reason, kept, fields, CHUNKED), Framing.CHUNKS


def head_bytes(headers: list[Header]) -> int:
    """
    Count what the lines of a head took at least.
    """
    return sum([len(name) + len(value) + 4 for name, value in headers])


def stays_open(version: str, headers: list[Header]) -> bool:
    """
    Whether the connection outlives a response to HEAD (RFC 9112, section 9.3).

    llhttp cannot tell: without a length it waits for a body.
    """
    tokens = tokens_of(values_of(headers, b"connection"))
    return b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)
