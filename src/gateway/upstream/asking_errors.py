"""
What a real-time client is told when a backend's call failed.

A code from 400 on is the backend's: the HTTP status that the same failure has over HTTP, so one table
serves both protocols. That it is not allowed is 103, as if the gateway had said so. Everything that is
no answer to the client (no connection, no time, a 500) is 100, and may be tried again.
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


def of_call(failed: CallFailed, codes: Mapping[str, int], encoders: Encoders) -> ClientError:
    """
    Judge a gRPC call that failed.

    Args:
        codes: By the name of the status in capitals, its number, or ``*``.
    """
    problem = problem_of(
        failed.code,
        failed.message,
        local=failed.local,
        kind=failed.kind,
        details=failed.details,
        encoders=encoders,
    )
    if failed.local:
        return ClientError(ErrorCode.INTERNAL)
    name = NAMES[failed.code].upper() if 1 <= failed.code < len(NAMES) else "UNKNOWN"
    own = _own(codes, name, str(failed.code))
    if own is not None:
        return ClientError(own, problem.detail or problem.kind.title, temporary=problem.kind.retriable)
    return _of(problem.kind.status, problem.detail)


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


def of_status(status: int, body: bytes, codes: Mapping[str, int]) -> ClientError:
    """
    Judge an HTTP answer that is no success.
    """
    text = _text(body) if 400 <= status < 500 else ""  # noqa: PLR2004
    own = _own(codes, str(status))
    if own is not None:
        return ClientError(own, text or f"status {status}", temporary=status in LATER or status >= 500)  # noqa: PLR2004
    return _of(status, text)


def _of(status: int, text: str) -> ClientError:
    if status == _FORBIDDEN:
        return ClientError(ErrorCode.PERMISSION_DENIED, text)
    if not 400 <= status < 500 or status == _UNAUTHENTICATED:  # noqa: PLR2004
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
