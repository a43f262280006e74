"""
Every refusal the gateway itself can answer with, in one catalogue (RFC 9457).

A feature raises or returns a ``Problem``; the edge alone turns it into bytes. ``docs/errors.md``
is checked against ``CATALOGUE``, so a kind that is not documented fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.core.message import Header

__all__ = ["CATALOGUE", "Kind", "Problem", "problem_body"]


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of refusal.

    Attributes:
        code: Stable, dotted by nothing, searched for by operators: ``no_route``.
        status: The HTTP status.
        title: Constant per kind.
        flag: Two or three letters in the access line and ``X-Gateway-Error``: who failed and how.
        retriable: Whether the same request may succeed later.
    """

    code: str
    status: int
    title: str
    flag: str
    retriable: bool = False


def _kinds(*kinds: Kind) -> dict[str, Kind]:
    return {kind.code: kind for kind in kinds}


CATALOGUE: Final = _kinds(
    # The request cannot be read, or is read but not accepted.
    Kind("bad_request", 400, "The request is malformed", "BR"),
    Kind("bad_host", 400, "Exactly one valid Host is required", "BR"),
    Kind("tls_unexpected", 400, "This port speaks plain HTTP, not TLS", "BR"),
    Kind("bad_path", 400, "The path is not acceptable", "BR"),
    Kind("message_invalid", 400, "The request does not fit the call", "BR"),
    Kind("credentials_conflict", 400, "More than one credential was presented", "BR"),
    Kind("credential_missing", 401, "A token is required", "UA"),
    Kind("token_invalid", 401, "The token is not acceptable", "UA"),
    Kind("admin_key_missing", 401, "A key is required", "UA"),
    Kind("scope_missing", 403, "The token lacks a scope", "UAZ"),
    Kind("forbidden", 403, "The caller may not do this", "UAZ"),
    Kind("origin_refused", 403, "Pages of this origin may not connect", "UAZ"),
    Kind("no_session", 404, "There is no such session here", "NR"),
    Kind("command_failed", 409, "The command was not done", "BR"),
    Kind("no_route", 404, "No route has this path", "NR"),
    Kind("method_not_allowed", 405, "The path does not take this method", "NR"),
    Kind("request_timeout", 408, "The request did not arrive in time", "RT"),
    Kind("length_required", 411, "A length is required", "BR"),
    Kind("body_too_large", 413, "The body is too large", "TL"),
    Kind("target_too_long", 414, "The request target is too long", "TL"),
    Kind("media_type", 415, "The content type is not taken here", "BR"),
    Kind("expectation_failed", 417, "Only 100-continue can be expected", "BR"),
    Kind("upgrade_required", 426, "A WebSocket is opened here", "BR"),
    Kind("rate_limited", 429, "A limit is used up", "RL", retriable=True),
    Kind("head_too_large", 431, "The header section is too large", "TL"),
    Kind("method_unknown", 501, "The method is not implemented here", "BR"),
    Kind("version_unsupported", 505, "Only HTTP/1.0 and HTTP/1.1 are spoken here", "BR"),
    Kind("loop_detected", 508, "The request passed through this gateway before", "LD"),
    # The gateway cannot serve it now.
    Kind("internal", 500, "The gateway failed", "GE"),
    Kind("keys_unavailable", 503, "The issuer's keys are not available", "KU", retriable=True),
    Kind("not_ready", 503, "This instance is not ready", "RD", retriable=True),
    Kind("draining", 503, "This instance is shutting down", "DR", retriable=True),
    Kind("forward_overload", 503, "Too much waits for another instance", "OF", retriable=True),
    Kind("too_many_connections", 503, "This instance takes no more connections", "OC", retriable=True),
    Kind("too_many_openings", 503, "This instance opens no more connections just now", "OC", retriable=True),
    Kind("overloaded", 503, "This instance has more to do than it can", "OL", retriable=True),
    # The backend.
    Kind("upstream_unreachable", 503, "The backend cannot be reached", "UF", retriable=True),
    Kind("upstream_no_target", 503, "No target of the backend is usable", "UH", retriable=True),
    Kind("upstream_overload", 503, "The backend has as many requests as it may have", "UO", retriable=True),
    Kind("upstream_open", 503, "The backend failed too often and is given a rest", "UC", retriable=True),
    Kind("upstream_reset", 502, "The backend closed the connection", "UR", retriable=True),
    Kind("upstream_malformed", 502, "The backend's answer cannot be read", "UPE"),
    Kind("upstream_timeout", 504, "The backend did not answer in time", "UT", retriable=True),
    Kind("upstream_credentials", 502, "The backend does not accept the gateway", "UPE"),
    # What the backend itself answered to a call: one for each gRPC status.
    Kind("call_refused", 422, "The backend refused the request", "BA"),
    Kind("grpc_cancelled", 499, "The call was cancelled", "BA"),
    Kind("grpc_unknown", 500, "The backend failed", "BA"),
    Kind("grpc_invalid_argument", 400, "The backend takes no such request", "BA"),
    Kind("grpc_deadline_exceeded", 504, "The backend ran out of time", "BA", retriable=True),
    Kind("grpc_not_found", 404, "There is no such thing", "BA"),
    Kind("grpc_already_exists", 409, "It exists already", "BA"),
    Kind("grpc_permission_denied", 403, "The backend does not allow it", "BA"),
    Kind("grpc_resource_exhausted", 429, "A quota is used up", "BA", retriable=True),
    Kind("grpc_failed_precondition", 400, "The state does not allow it", "BA"),
    Kind("grpc_aborted", 409, "It collided with something else", "BA", retriable=True),
    Kind("grpc_out_of_range", 400, "It goes past the valid range", "BA"),
    Kind("grpc_unimplemented", 501, "The backend does not do this", "BA"),
    Kind("grpc_internal", 500, "The backend failed", "BA"),
    Kind("grpc_unavailable", 503, "The backend cannot serve it now", "BA", retriable=True),
    Kind("grpc_data_loss", 500, "The backend lost data", "BA"),
    Kind("grpc_unauthenticated", 401, "The backend asks for other credentials", "BA"),
)
"""Kind by code. A room adds its kinds here; nowhere else."""


class Problem(Exception):
    """
    A refusal on its way to the edge.

    Attributes:
        kind: From ``CATALOGUE``.
        detail: One sentence for the reader; never a backend's text, a token or a body.
        headers: Headers the answer needs (``WWW-Authenticate``, ``Allow``, ``Retry-After``).
        extra: Members added to the body (``errors``, ``violated-policies``).
        reason: What to write in the log and count, when it must not be told to the caller.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        headers: tuple[Header, ...] = (),
        extra: dict[str, Any] | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(detail or CATALOGUE[code].title)
        self.kind = CATALOGUE[code]
        self.detail = detail
        self.headers = headers
        self.extra = extra
        self.reason = reason or code


_encode = msgspec.json.Encoder().encode


def problem_body(problem: Problem, *, request_id: str = "", trace_id: str = "", instance: str = "") -> bytes:
    """
    Encode *problem* as the body of an ``application/problem+json`` answer.
    """
    kind = problem.kind
    body: dict[str, Any] = {
        "type": f"urn:gateway:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "retriable": kind.retriable,
    }
    if problem.detail:
        body["detail"] = problem.detail
    if instance:
        body["instance"] = instance
    if request_id:
        body["request_id"] = request_id
    if trace_id:
        body["trace_id"] = trace_id
    if problem.extra:
        body.update(problem.extra)
    return _encode(body)
