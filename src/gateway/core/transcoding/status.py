"""
A call that failed, as the client may hear of it (google/rpc/code.proto, google/rpc/error_details.proto).

What the backend said and what happened on this side of it are told apart: a quota of the backend
is 429, a reply too large for the gateway is 502, though gRPC has one number for both. The message
of a status is passed on where a service speaks to its caller, and never where it speaks of itself
(``MASKED``): servers put exception texts and addresses there. ``docs/errors.md`` has the table.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from math import ceil
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.core.message import Header
from gateway.core.problems import CATALOGUE, Problem
from gateway.core.transcoding.encode import Encoders, ToBuiltins, Unwritable

__all__ = ["LOCAL", "MASKED", "NAMES", "http_status", "problem_of"]

NAMES: Final = (
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
)
"""By number. ``grpc_`` before it is the kind of the problem."""

MASKED: Final = frozenset(("unknown", "internal", "unavailable", "data_loss"))
"""Statuses whose message stays in the log."""

LOCAL: Final = {
    "connect": "upstream_unreachable",
    "lost": "upstream_reset",
    "no_target": "upstream_no_target",
    "overload": "upstream_overload",
    "open": "upstream_open",
    "deadline": "upstream_timeout",
    "cancelled": "grpc_cancelled",
    "malformed": "upstream_malformed",
    "no_message": "upstream_malformed",
    "too_large_reply": "upstream_malformed",
    "too_large_request": "head_too_large",
    "too_large_message": "body_too_large",
}
"""
What failed on this side, to the kind of problem. gRPC refuses locally to send too much metadata
(``too_large_request``) or too large a message (``too_large_message``).
"""

_LOCAL_BY_NAME: Final = {
    "cancelled": "grpc_cancelled",
    "deadline_exceeded": "upstream_timeout",
    "unavailable": "upstream_unreachable",
}
_LATER: Final = frozenset(("upstream_unreachable", "upstream_no_target", "upstream_overload", "upstream_open"))
"""Failures of a moment: without a better figure the client is asked to wait a second."""

_LONGEST_TEXT: Final = 1024
_MOST_DETAILS: Final = 100
_LONGEST_RETRY_S: Final = 86400
_PREFIX: Final = "google.rpc."
_NEVER_TOLD: Final = frozenset((f"{_PREFIX}DebugInfo", f"{_PREFIX}RequestInfo"))
_PUBLIC: Final = frozenset(
    f"{_PREFIX}{name}" for name in ("QuotaFailure", "PreconditionFailure", "ResourceInfo", "Help")
)


def http_status(code: int) -> int:
    """
    Return the HTTP status of the gRPC status *code*; numbers that gRPC does not have are 500.
    """
    return 200 if code == 0 else CATALOGUE[f"grpc_{_name(code)}"].status


def problem_of(
    code: int,
    message: str = "",
    *,
    local: bool = False,
    kind: str = "",
    details: bytes = b"",
    retry_after_s: float | None = None,
    verified: bool = True,
    relay_unauthenticated: bool = False,
    show_message: bool = True,
    encoders: Encoders | None = None,
) -> Problem:
    """
    Make the problem of a call that failed.

    Args:
        code: The gRPC status number.
        message: The status message.
        local: It failed on this side; *message* and *details* are then not looked at.
        kind: Of a local failure, a key of ``LOCAL``.
        details: A serialised ``google.rpc.Status``, or empty.
        retry_after_s: When to try again, if known.
        verified: The gateway had verified the caller, so UNAUTHENTICATED is about the gateway itself: 502.
        relay_unauthenticated: The route says that it is about the caller all the same: 401.
        show_message: The route lets messages of statuses out that are not masked.
        encoders: Of the backend's types, for details that it made itself.
    """
    name = _name(code)
    if local:
        chosen = LOCAL.get(kind) or _LOCAL_BY_NAME.get(name, "internal")
        if retry_after_s is None and chosen in _LATER:
            retry_after_s = 1.0
        return Problem(chosen, headers=_retry(retry_after_s), reason=kind or chosen)
    if name == "unauthenticated":
        return _unauthenticated(verified, relay_unauthenticated)
    masked = name in MASKED
    told = _Told(masked, encoders)
    told.read(code, details)
    waits = [wait for wait in (retry_after_s, told.retry_after_s) if wait is not None]
    detail = told.localized or ("" if masked or not show_message else _clean(message))
    return Problem(f"grpc_{name}", detail, headers=_retry(max(waits, default=None)), extra=told.extra or None)


def _unauthenticated(verified: bool, relay: bool) -> Problem:
    """A 401 always says how to authenticate, in the gateway's words."""
    if verified and not relay:
        return Problem("upstream_credentials")
    challenge = b'Bearer error="invalid_token"' if verified else b"Bearer"
    return Problem("grpc_unauthenticated", headers=((b"WWW-Authenticate", challenge),))


class _Told:
    """What the details of a status tell."""

    def __init__(self, masked: bool, encoders: Encoders | None) -> None:
        self.masked = masked
        self.encoders = encoders
        self.localized = ""
        self.retry_after_s: float | None = None
        self.extra: dict[str, Any] = {}

    def read(self, code: int, serialized: bytes) -> None:
        if not serialized:
            return
        try:
            status = status_pb2.Status.FromString(serialized)
        except DecodeError:
            return
        if status.code != code:  # Of another failure than the one that is reported.
            return
        for detail in status.details[:_MOST_DETAILS]:
            name = detail.type_url.rpartition("/")[2]
            try:
                self.one(name, detail)
            except (DecodeError, Unwritable):
                continue

    def one(self, name: str, detail: Any) -> None:
        if name in _NEVER_TOLD:
            return
        if name == f"{_PREFIX}RetryInfo":
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            self.retry_after_s = delay.seconds + delay.nanos / 1e9
        elif name == f"{_PREFIX}LocalizedMessage":
            self.localized = _clean(error_details_pb2.LocalizedMessage.FromString(detail.value).message)
        elif name == f"{_PREFIX}ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            self.extra.update({"reason": info.reason, "domain": info.domain})
            if info.metadata and not self.masked:
                self.extra["metadata"] = dict(info.metadata)
        elif self.masked:
            return
        elif name == f"{_PREFIX}BadRequest":
            self.violations(error_details_pb2.BadRequest.FromString(detail.value))
        else:
            self.extra.setdefault("details", []).append(self.other(name, detail))

    def violations(self, request: Any) -> None:
        errors = self.extra.setdefault("errors", [])
        for violation in request.field_violations[: _MOST_DETAILS - len(errors)]:
            text = violation.localized_message.message or violation.description
            error = {"path": _clean(violation.field), "message": _clean(text)}
            if violation.reason:
                error["reason"] = _clean(violation.reason)
            errors.append(error)

    def other(self, name: str, detail: Any) -> dict[str, Any]:
        if name in _PUBLIC:
            known: dict[str, Any] = _standard()(detail)
            return known
        if self.encoders is not None:
            try:
                made: dict[str, Any] = self.encoders.builtins(detail.DESCRIPTOR)(detail)
            except Unwritable:
                pass
            else:
                return made
        return {"@type": detail.type_url, "value": b64encode(detail.value).decode("ascii")}


@cache
def _standard() -> ToBuiltins:
    """Write an Any of google.rpc's own types."""
    return Encoders(Default()).builtins(any_pb2.Any.DESCRIPTOR)


def _name(code: int) -> str:
    return NAMES[code] if 1 <= code < len(NAMES) else "unknown"


def _retry(after_s: float | None) -> tuple[Header, ...]:
    if after_s is None or not 0 <= after_s <= _LONGEST_RETRY_S:
        return ()
    return ((b"Retry-After", b"%d" % max(1, ceil(after_s))),)


def _clean(text: str) -> str:
    """A backend's text, made fit for an answer."""
    text = text[:_LONGEST_TEXT]
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)
