"""
What a failed call was: whose fault, and in which of our words. And metadata that no server can refuse.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from gateway.ports.calls import CallFailed, Metadata

__all__ = [
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
    "TARGET_FAULTS",
    "UNAVAILABLE",
    "clean_metadata",
    "failure_from",
    "failure_of",
]

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
TARGET_FAULTS: Final = frozenset((2, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, 15))
"""Statuses that say something about the target: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS."""

MAX_METADATA: Final = 8 * 1024
"""Bytes of metadata; servers refuse more, each at its own bound, with a status of their own."""

_KINDS: Final = {
    CANCELLED: "cancelled",
    2: "malformed",
    DEADLINE_EXCEEDED: "deadline",
    12: "malformed",
    INTERNAL: "malformed",
    UNAVAILABLE: "connect",
}
_TRANSPORT: Final = (
    r"failed to connect to all addresses|connections to all backends failing|DNS resolution failed|"
    r"(?:Stream removed|Socket closed|Connection (?:reset|refused)|Broken pipe|GOAWAY received|Endpoint closing|"
    r"End of TCP stream|keepalive watchdog timeout|Transport closed|Channel (?:closed|is shut ?down)|recvmsg:|sendmsg:|"
    r"Cancelling all calls|too_many_pings|Received http2 header with status)"
)
_OWN_WORDS: Final = {
    CANCELLED: re.compile(
        r"Locally cancelled by application!|Channel closed!?|CANCELLED|Stream removed|.*RST_STREAM", re.DOTALL
    ).match,
    2: re.compile(
        r"Stream removed|Received http2 header with status|(?:Stream|Missing|Unexpected).*(?:trailers|status)",
        re.DOTALL,
    ).match,
    DEADLINE_EXCEEDED: re.compile(r".*deadline.?exceeded|$", re.IGNORECASE | re.DOTALL).match,
    RESOURCE_EXHAUSTED: re.compile(
        r".*(?:Received message larger than max|Sent message larger than max|metadata size exceeds)", re.DOTALL
    ).match,
    12: re.compile(r"Received http2 header with status").match,
    INTERNAL: re.compile(
        r".*RST_STREAM|Received http2|Failed parsing HTTP/2|Stream removed|Exception (?:de)?serializing|"
        r"No status received|Missing .*status|Invalid metadata|Bad .*(?:frame|header)|.*compress",
        re.DOTALL,
    ).match,
    UNAVAILABLE: re.compile(r".*(?:" + _TRANSPORT + ")", re.DOTALL).match,
}
"""How grpcio's own failures begin, by status."""

_key = re.compile(r"[0-9a-z_.\-]+").fullmatch
_value = re.compile(r"[!-~](?:[ -~]*[!-~])?|").fullmatch
_pushback: Final = "grpc-retry-pushback-ms"


def failure_of(error: Any) -> CallFailed:
    """
    Read a finished grpcio call whose status is not OK.
    """
    status = error.code()
    code = status.value[0] if status is not None else 2
    text = error.details() or ""
    return failure_from(code, text, error.trailing_metadata() or (), _kind(code, text))


def failure_from(code: int, text: str, trailing: Metadata, kind: str = "") -> CallFailed:
    """
    Return the failure that a status and its metadata tell; of the backend unless *kind* says otherwise.
    """
    details = b""
    retry_after_s = None
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            details = value
        elif key == _pushback and isinstance(value, str) and value.isdigit():
            retry_after_s = int(value) / 1000
    return CallFailed(
        code,
        text,
        local=bool(kind),
        kind=kind,
        details=details,
        metadata=[(key, value) for key, value in trailing],
        retry_after_s=retry_after_s,
    )


def _kind(code: int, text: str) -> str:
    """
    Tell what grpcio made itself from what the backend said; empty for the backend's.

    grpcio 1.85 marks neither: only its own texts tell them apart. A backend that used one of
    them would at worst be blamed less than it should.
    """
    said = _OWN_WORDS.get(code)
    if said is None or not said(text):
        return ""
    if code == RESOURCE_EXHAUSTED:
        if "metadata" in text.lower():
            return "too_large_request"
        return "too_large_message" if "Sent message" in text else "too_large_reply"
    return _KINDS[code]


def clean_metadata(pairs: Metadata) -> list[tuple[str, str | bytes]]:
    """
    Make metadata that is valid whatever a client sent: a value that is not ASCII is percent-encoded.

    Keys that are no keys, or are gRPC's own, are left out.

    Raises:
        CallFailed: local ``too_large_request``.
    """
    cleaned: list[tuple[str, str | bytes]] = []
    size = 0
    for key, value in pairs:
        if not _key(key) or key.startswith("grpc-"):
            continue
        if key.endswith("-bin"):
            kept: str | bytes = value if isinstance(value, bytes) else value.encode("utf-8")
        else:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            kept = text if _value(text) else quote(text, safe=" !#$&'()*+,/:;=?@[]~").strip()
        size += len(key) + len(kept) + 32
        cleaned.append((key, kept))
    if size > MAX_METADATA:
        raise CallFailed(RESOURCE_EXHAUSTED, "metadata too large", local=True, kind="too_large_request")
    return cleaned
