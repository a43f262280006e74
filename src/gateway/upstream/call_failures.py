"""
What a failed call was: whose fault, and in which of our words. And metadata that no server can refuse.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from gateway.ports.calls import CallFailed, Metadata

__all__ = ["TARGET_FAULTS", "UNAVAILABLE", "clean_metadata", "failure_of"]

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
TARGET_FAULTS: Final = frozenset((2, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, 15))
"""Statuses that say something about the target: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS."""

MAX_METADATA: Final = 8 * 1024
"""Bytes of metadata; servers refuse more, each at its own bound, with a status of their own."""

_key = re.compile(r"[0-9a-z_.\-]+").fullmatch
_value = re.compile(r"[!-~](?:[ -~]*[!-~])?|").fullmatch
_pushback: Final = "grpc-retry-pushback-ms"


def failure_of(error: Any, attempts: int, target: str) -> CallFailed:
    """
    Read a finished grpcio call whose status is not OK.
    """
    status = error.code()
    code = status.value[0] if status is not None else 2
    text = error.details() or ""
    trailing = error.trailing_metadata() or ()
    details = b""
    retry_after_s = None
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            details = value
        elif key == _pushback and isinstance(value, str) and value.isdigit():
            retry_after_s = int(value) / 1000
    # grpcio says so of what came over the wire; everything else was made on this side of it.
    debug = error.debug_error_string() if hasattr(error, "debug_error_string") else ""
    local = "received from peer" not in (debug or "")
    kind = _kind(code, text) if local else ""
    return CallFailed(
        code,
        text,
        local=bool(kind) and local,
        kind=kind,
        details=details,
        metadata=[(key, value) for key, value in trailing],
        retry_after_s=retry_after_s,
        attempts=attempts,
        target=target,
    )


def _kind(code: int, text: str) -> str:
    if code == CANCELLED:
        return "cancelled"
    if code == DEADLINE_EXCEEDED:
        return "deadline"
    if code == UNAVAILABLE:
        return "connect"
    if code == RESOURCE_EXHAUSTED:
        lowered = text.lower()
        if "metadata" in lowered:
            return "too_large_request"
        return "too_large_message" if "sent message" in lowered else "too_large_reply"
    if code in (INTERNAL, 2):
        return "malformed"
    return ""


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
