r"""
HTTP messages as values, once their bytes have been read and found unambiguous.

Names and values are ``bytes`` as they stood on the wire; whoever needs text decodes it.
A *block* is a run of complete header lines, each ended by CRLF, without the empty line:
``b"Accept: */*\r\nX-Id: 7\r\n"``. Blocks are what is written, because joining bytes once is
the cheapest way to send a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

__all__ = ["CHUNKED", "METHOD_NAMES", "Header", "RequestHead", "ResponseHead", "block_of", "values_of"]

Header = tuple[bytes, bytes]

METHOD_NAMES: Final = {
    method.encode("ascii"): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
}
"""Methods that have a name of their own in spans; every other is ``_OTHER`` there."""

CHUNKED = -1
"""The ``body_length`` of a message whose length is not known beforehand."""


class RequestHead:
    """
    The head of one request, read strictly (see ``web.channel`` for what was refused before).

    Attributes:
        method: Upper-case token, for instance ``b"GET"``.
        target: The request target in origin form, as received.
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
        headers: As received and in order; names with an underscore are already dropped.
        fields: Lower-case name to value; where a name was repeated, the last value.
            Names that must be unique are (a repeated one was refused).
        body_length: 0 without a body, ``CHUNKED``, or the number of bytes announced.
        keep_alive: The client wants the connection kept.
        expect_continue: The client waits for ``100 Continue`` before it sends the body.
        upgrade: The lower-case ``Upgrade`` token when ``Connection`` names it, else None.
        memo: Where what is derived from these headers alone may be kept, for every other request that
            has exactly the same ones; None when nobody remembers them. Headers and fields are then
            shared, too: like every head's, they are never changed.
    """

    __slots__ = (
        "body_length",
        "expect_continue",
        "fields",
        "headers",
        "keep_alive",
        "memo",
        "method",
        "minor",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: list[Header],
        fields: dict[bytes, bytes],
        *,
        minor: int = 1,
        body_length: int = 0,
        keep_alive: bool = True,
        expect_continue: bool = False,
        upgrade: bytes | None = None,
        memo: dict[Any, Any] | None = None,
    ) -> None:
        self.memo = memo
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = fields
        self.minor = minor
        self.body_length = body_length
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade


class ResponseHead:
    """
    The head of a backend's final response (never a 1xx), validated.

    Attributes:
        status: 200 to 599.
        reason: The reason phrase, perhaps empty.
        headers: As received, without the framing headers ``Content-Length`` and
            ``Transfer-Encoding``; hop-by-hop headers are still there.
        fields: Lower-case name to value of *headers*, as in ``RequestHead``.
        body_length: 0, ``CHUNKED`` (also for "until close"), or the number of bytes announced.
            For HEAD and 304 it is the announced length, though no body follows.
        trailers: Filled before the end is reported, for a chunked body that had some.
        block: What of it goes to a client (``core.headers.response_block``), where that was made
            already. Such a head is shared by all responses that have it, and never changed.
    """

    __slots__ = ("block", "body_length", "fields", "headers", "reason", "status", "trailers")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: list[Header],
        fields: dict[bytes, bytes],
        body_length: int,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.fields = fields
        self.body_length = body_length
        self.trailers: list[Header] = []
        self.block: bytes | None = None


def block_of(headers: Iterable[Header]) -> bytes:
    """
    Join *headers* into a block. The caller vouches that no value holds CR, LF or NUL.
    """
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def values_of(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """
    List every value of *name* (lower case) in order.
    """
    return [value for key, value in headers if key.lower() == name]
