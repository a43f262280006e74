"""
What a real-time client is told when a backend's call failed; ``docs/backend-calls.md`` has the table.

A code from 400 on is the backend's: the HTTP status that the same failure has over HTTP, so one table
serves both protocols. That it is not allowed is 103, as if the gateway had said so. Everything that is
no answer to the client (no connection, no time, a 500, a call that was cancelled) is 100, and may be
tried again. A 401 says that the backend does not accept the gateway, and is 100 too: the caller was
verified. Only of an anonymous caller it says what it seems to, and is 101.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.core.problems import Problem
from gateway.core.transcoding.encode import Encoders
from gateway.core.transcoding.status import NAMES, problem_of
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.calls import CallFailed

__all__ = ["of_call", "of_problem", "of_status"]

LATER: Final = frozenset((408, 409, 425, 429))
"""Statuses after which the same request may succeed."""

LONGEST_TEXT = 512
_TEXTS: Final = ("detail", "message", "error", "title")
_FORBIDDEN: Final = 403
_UNAUTHENTICATED: Final = 401
_NOT_TOLD: Final = frozenset((_UNAUTHENTICATED, 407, 499))
"""Of 4xx: about the gateway, or about nobody who waits for an answer."""

_EITHER_SIDE: Final = {
    "connect": "UNAVAILABLE",
    "lost": "UNAVAILABLE",
    "no_target": "UNAVAILABLE",
    "overload": "UNAVAILABLE",
    "open": "UNAVAILABLE",
    "deadline": "DEADLINE_EXCEEDED",
}
"""Failures that a backend may report as well as the gateway: which of them is quicker is chance."""


def of_call(failed: CallFailed, codes: Mapping[str, int], encoders: Encoders, *, verified: bool) -> ClientError:
    """
    Judge a gRPC call that failed.

    Args:
        codes: By the name of the status in capitals, its number, or ``*`` for everything that a backend answers.
        verified: The caller is known, so that UNAUTHENTICATED is about the gateway.
    """
    problem = problem_of(
        failed.code,
        failed.message,
        local=failed.local,
        kind=failed.kind,
        details=failed.details,
        verified=verified,
        encoders=encoders,
    )
    if failed.local:
        return _of_local(failed, codes)
    name = NAMES[failed.code].upper() if 1 <= failed.code < len(NAMES) else "UNKNOWN"
    own = _own(codes, name, str(failed.code))
    if own is not None:
        return ClientError(own, problem.detail or problem.kind.title, temporary=problem.kind.retriable)
    status = _UNAUTHENTICATED if name == "UNAUTHENTICATED" else problem.kind.status
    return _of(status, problem.detail, verified=verified)


def _of_local(failed: CallFailed, codes: Mapping[str, int]) -> ClientError:
    if failed.kind == "too_large_message":
        return ClientError(ErrorCode.LIMIT_EXCEEDED)
    status = _EITHER_SIDE.get(failed.kind)
    own = codes.get(status, codes.get(str(failed.code))) if status is not None else None
    return ClientError(ErrorCode.INTERNAL) if own is None else ClientError(own, ErrorCode.INTERNAL.text, temporary=True)


def of_problem(problem: Problem) -> ClientError:
    """
    Judge data that makes no request, or an upstream that takes none now.
    """
    if problem.kind.status >= 500:  # noqa: PLR2004
        return ClientError(ErrorCode.INTERNAL)
    errors = (problem.extra or {}).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    text = problem.detail or problem.kind.title
    if isinstance(first, dict):
        text = f"{first.get('path') or 'data'}: {first.get('message', '')}"
    return ClientError(ErrorCode.BAD_REQUEST, text[:LONGEST_TEXT])


def of_status(status: int, body: bytes, codes: Mapping[str, int], *, verified: bool) -> ClientError:
    """
    Judge an HTTP answer that is no success.

    Args:
        codes: By the status, or ``*``.
        verified: The caller is known, so that 401 is about the gateway.
    """
    text = _text(body) if 400 <= status < 500 else ""  # noqa: PLR2004
    own = _own(codes, str(status))
    if own is not None:
        return ClientError(own, text or f"status {status}", temporary=status in LATER or status >= 500)  # noqa: PLR2004
    return _of(status, text, verified=verified)


def _of(status: int, text: str, *, verified: bool) -> ClientError:
    if status == _FORBIDDEN:
        return ClientError(ErrorCode.PERMISSION_DENIED, text)
    if status == _UNAUTHENTICATED and not verified:
        return ClientError(ErrorCode.UNAUTHORIZED)
    if not 400 <= status < 500 or status in _NOT_TOLD:  # noqa: PLR2004
        # A backend that does not accept the gateway says nothing about the client, who was verified.
        return ClientError(ErrorCode.INTERNAL)
    return ClientError(status, text or f"status {status}", temporary=status in LATER)


def _own(codes: Mapping[str, int], *names: str) -> int | None:
    for name in (*names, "*"):
        if name in codes:
            return codes[name]
    return None


def _text(body: bytes) -> str:
    """What a backend says of its refusal, in the member that problem documents and most services have."""
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    found = [said[name] for name in _TEXTS if isinstance(said.get(name), str)]
    text = found[0][:LONGEST_TEXT] if found else ""
    return text if text.isprintable() else ""
