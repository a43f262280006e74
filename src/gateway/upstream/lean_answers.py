"""
What an answer of gRPC says, from its header fields and its bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from gateway.ports.calls import CallFailed
from gateway.upstream.call_failures import DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, failure_from
from gateway.upstream.http2 import Field

__all__ = [
    "CANCEL",
    "PREFIX",
    "broken",
    "ended_by_reset",
    "message_of",
    "metadata_of",
    "overdue",
    "refusal_of",
    "request_fields",
]

PREFIX: Final = 5
"""Bytes before a message: whether it is compressed, and its length."""

CANCEL: Final = 8
REFUSED_STREAM: Final = 7
UNKNOWN: Final = 2

# What an HTTP status means where gRPC's is missing (grpc/doc/http-grpc-status-mapping.md).
_BY_HTTP: Final = {b"400": INTERNAL, b"401": 16, b"403": 7, b"404": 12, b"429": 14, b"502": 14, b"503": 14, b"504": 14}
# What a code of RST_STREAM means (PROTOCOL-HTTP2.md, "Errors").
_BY_RESET: Final = {REFUSED_STREAM: UNAVAILABLE, CANCEL: 1, 11: RESOURCE_EXHAUSTED, 12: 7}
_NOT_METADATA: Final = frozenset(
    (b"content-type", b"grpc-status", b"grpc-message", b"grpc-encoding", b"grpc-accept-encoding", b"te")
)
_OURS: Final = frozenset(
    (
        "te",
        "content-type",
        "user-agent",
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    )
)


def request_fields(metadata: list[tuple[str, str | bytes]]) -> Iterable[Field]:
    """
    Return metadata as header fields; those that HTTP/2 or gRPC set themselves are left out.
    """
    for key, value in metadata:
        if key not in _OURS:
            text = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode("ascii")
            yield key.encode("ascii"), text


def metadata_of(fields: Iterable[Field]) -> list[tuple[str, str | bytes]]:
    """
    Return what a backend tells beside its message; values of ``-bin`` keys are bytes, those that are no Base64 are left out.
    """
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name[:1] == b":" or name in _NOT_METADATA:
            continue
        key = name.decode("latin-1")
        if not key.endswith("-bin"):
            found.append((key, value.decode("latin-1")))
            continue
        for each in value.split(b","):
            try:
                found.append((key, base64.b64decode(each.strip() + b"=" * (-len(each.strip()) % 4), validate=True)))
            except binascii.Error:
                continue
    return found


def broken(text: str, code: int = INTERNAL) -> CallFailed:
    """
    Return the failure of an answer that is none.
    """
    return CallFailed(code, text, local=True, kind="malformed")


def overdue() -> CallFailed:
    """
    Return the failure of a call that took too long.
    """
    return CallFailed(DEADLINE_EXCEEDED, "Deadline Exceeded", local=True, kind="deadline")


def refusal_of(head: tuple[Field, ...]) -> CallFailed | None:
    """
    Tell what is wrong with the first header block of an answer; None if nothing.
    """
    fields = dict(head)
    status = fields.get(b":status")
    if status != b"200":
        code = _BY_HTTP.get(status or b"", UNKNOWN)
        kind = "connect" if code == UNAVAILABLE else "malformed"
        shown = (status or b"none").decode("latin-1")[:8]
        return CallFailed(code, f"Received http2 header with status: {shown}", local=True, kind=kind)
    if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
        return broken("the content type is not gRPC's", UNKNOWN)
    return None


def message_of(trailers: tuple[Field, ...], body: list[bytes]) -> bytes:
    """
    Return the message of an answer that is whole.

    Raises:
        CallFailed: the backend's status, or the answer breaks a rule.
    """
    status = text = None
    for name, value in trailers:
        if name == b"grpc-status":
            status = value
        elif name == b"grpc-message":
            text = value
    if status != b"0":
        raise _failure(status, text, trailers)
    data = body[0] if len(body) == 1 else b"".join(body)
    if not data:
        raise CallFailed(INTERNAL, "OK without a message", local=True, kind="no_message")
    if len(data) < PREFIX or int.from_bytes(data[1:PREFIX], "big") != len(data) - PREFIX:
        raise broken("not one message")
    if data[0]:
        raise broken("a compressed message, which was not asked for")
    return data[PREFIX:]


def _failure(status: bytes | None, text: bytes | None, trailers: tuple[Field, ...]) -> CallFailed:
    if status is None:
        return broken("no status", UNKNOWN)
    code = int(status) if status.isdigit() and len(status) < 4 else UNKNOWN
    said = unquote((text or b"").decode("latin-1"), errors="replace")
    return failure_from(code if 1 <= code <= 16 else UNKNOWN, said, metadata_of(trailers))


def ended_by_reset(code: int) -> CallFailed:
    """
    Return the failure of a stream that the backend ended with RST_STREAM.
    """
    status = _BY_RESET.get(code, INTERNAL)
    # A stream that was refused was not looked at: as if there had been no connection.
    kinds: dict[int, Any] = {UNAVAILABLE: "connect", 1: "cancelled"}
    return CallFailed(status, f"RST_STREAM with code {code}", local=True, kind=kinds.get(status, "malformed"))
