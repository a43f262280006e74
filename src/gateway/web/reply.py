"""
The bytes of a response's head that do not depend on who answers.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from gateway.core.problems import CATALOGUE

__all__ = ["CONTINUE", "Preamble", "refusal", "status_line"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
_OWN: Final = re.compile(rb"(?im)^(date|server):")


def status_line(status: int, reason: bytes) -> bytes:
    """
    Make a status line; an empty *reason* becomes the standard phrase, or stays empty where there is none.
    """
    if not reason:
        line = _STATUS_LINES.get(status)
        if line is not None:
            return line
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


class Preamble:
    """
    ``Date`` and ``Server``, made once a second.

    Attributes:
        block: Both lines.
    """

    __slots__ = ("_date", "_second", "_server", "block")

    def __init__(self, server: str) -> None:
        self._server = b"Server: %b\r\n" % server.encode("latin-1") if server else b""
        self._date = b""
        self._second = -1
        self.block = self._server

    def tick(self, wall: float) -> None:
        """
        Bring the date up to *wall*, seconds since the epoch.
        """
        second = int(wall)
        if second != self._second:
            self._second = second
            self._date = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
            self.block = self._server + self._date

    def beside(self, block: bytes) -> bytes:
        """
        Give the lines that *block* does not have itself: a proxied response keeps its own date.
        """
        if (b"\nDate: " in block or block[:6] == b"Date: ") and (b"\nServer: " in block or block[:8] == b"Server: "):
            return b""
        lowered = block.lower()
        if b"date:" not in lowered and b"server:" not in lowered:
            return self.block
        own = {name.lower() for name in _OWN.findall(block)}
        return (b"" if b"server" in own else self._server) + (b"" if b"date" in own else self._date)


def refusal(status: int, code: str, preamble: bytes, body: bytes, *, head_only: bool = False) -> bytes:
    """
    Make a whole response that refuses with a problem and announces the end of the connection.
    """
    kind = CATALOGUE.get(code)
    return b"".join(
        (
            status_line(status, b""),
            preamble,
            b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\nX-Gateway-Error: ",
            (kind.flag if kind is not None else "BR").encode("ascii"),
            b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body),
            b"" if head_only else body,
        )
    )
