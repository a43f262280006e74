"""
What the admin port tells and does: its paths, each with a method, a scope and an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from twisted.internet.defer import Deferred

from gateway.core.identity import Revocation
from gateway.core.problems import Problem
from gateway.core.trace import TraceContext
from gateway.node.api_keys import Key
from gateway.ports.http import Downstream
from gateway.ports.identity import Revocations

__all__ = ["Answer", "Operations", "Page", "pages", "pages_for_all"]

_T = TypeVar("_T")

JSON: Final = b"application/json"
_PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = b"application/openmetrics-text"
_OPEN_TEXT: Final = _OPENMETRICS + b"; version=1.0.0; charset=utf-8"

LONGEST_S: Final = 10 * 365 * 86400.0
"""A revocation without an end."""


class Answer(NamedTuple):
    """
    What a page says; *policy* is its Content-Security-Policy where it is more than data.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    policy: bytes = b"default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Page:
    """
    One path.

    Attributes:
        method: ``GET`` answers ``HEAD`` too.
        scope: What a key must be allowed; empty: any key will do; None: no key is needed.
        answer: From the key and the request's body, now or later; may raise or fail with ``Problem``.
        placed: The same for pages that must know from where they are asked, with that address as well.
        traced: The same for pages whose asker's trace is continued, from that as well.
        chosen: The same for pages that have several forms, from what the asker accepts.
        stream: Answers for as long as the asker stays, beginning with these header lines; returns what is called when it
            has gone.
    """

    method: bytes
    scope: str | None
    answer: Callable[[Key, bytes], Answer | Deferred[Answer]]
    traced: Callable[[Key, bytes, TraceContext | None], Deferred[Answer]] | None = None
    chosen: Callable[[bytes], Answer | Deferred[Answer]] | None = None
    placed: Callable[[Key, bytes, str], Deferred[Answer]] | None = None
    stream: Callable[[Key, Downstream, bytes], Callable[[], None]] | None = None


@dataclass(frozen=True, slots=True)
class Operations:
    """
    What the admin port can tell and do; the application hands it in. What must be asked elsewhere comes later.

    Attributes:
        metrics: The Prometheus text, or (if true) that of OpenMetrics.
        ready: Whether clients should be sent here.
        readiness: Why, in detail.
        config: The configuration in force, without secrets.
        upstreams: Each upstream and the state of its targets.
        jwks: The JWK Set of minted tokens.
        openapi: What the gRPC routes offer.
        reload: Reads the configuration again; returns its faults.
        audit: Told of every order and every refusal: the event's name and its fields.
        wall: Seconds since the epoch.
    """

    metrics: Callable[[bool], bytes | Deferred[bytes]]
    ready: Callable[[], bool]
    readiness: Callable[[], dict[str, Any]]
    config: Callable[[], dict[str, Any]]
    upstreams: Callable[[], list[dict[str, Any]] | Deferred[list[dict[str, Any]]]]
    jwks: Callable[[], dict[str, Any]]
    openapi: Callable[[], dict[str, Any]]
    revocations: Revocations
    reload: Callable[[], list[str] | Deferred[list[str]]]
    audit: Callable[[str, dict[str, Any]], None]
    wall: Callable[[], float]


def pages_for_all(operations: Operations) -> dict[bytes, Page]:
    """
    List what load balancers, orchestrators and Prometheus ask: without a key.
    """

    def ready(_key: Key, _body: bytes) -> Answer:
        if operations.ready():
            return Answer(b'{"status":"ok"}')
        return Answer(b'{"status":"unavailable"}', 503)

    def exposed(accepted: bytes) -> Answer | Deferred[Answer]:
        openly = _OPENMETRICS in accepted
        kind = _OPEN_TEXT if openly else _PROMETHEUS
        return _answered(operations.metrics(openly), lambda text: Answer(text, 200, kind))

    alive = Page(b"GET", None, lambda _key, _body: Answer(b'{"status":"ok"}'))
    readiness = Page(b"GET", None, ready)
    return {
        b"/metrics": Page(b"GET", None, lambda _key, _body: exposed(b""), chosen=exposed),
        b"/health": alive,
        b"/livez": alive,
        b"/ready": readiness,
        b"/readyz": readiness,
    }


def pages(operations: Operations) -> dict[bytes, Page]:
    """
    List every path of the admin port.
    """

    def reload(key: Key, _body: bytes) -> Answer | Deferred[Answer]:
        def reloaded(faults: list[str]) -> Answer:
            operations.audit("admin.reload", {"key": key.name, "faults": len(faults)})
            return _json({"reloaded": not faults, "faults": faults}, 409 if faults else 200)

        return _answered(operations.reload(), reloaded)

    return {
        **pages_for_all(operations),
        # Public keys: a backend's JWT library can fetch them, but seldom send a key of ours.
        b"/jwks.json": Page(b"GET", None, lambda _key, _body: _json(operations.jwks())),
        b"/status": Page(b"GET", "read", lambda _key, _body: _json(operations.readiness())),
        b"/config": Page(b"GET", "read", lambda _key, _body: _json(operations.config())),
        b"/upstreams": Page(b"GET", "read", lambda _key, _body: _answered(operations.upstreams(), _json)),
        b"/openapi.json": Page(b"GET", "read", lambda _key, _body: _json(operations.openapi())),
        b"/reload": Page(b"POST", "operate", reload),
        b"/api/revoke": Page(
            b"POST", "revoke", lambda key, body: Deferred.fromCoroutine(_revoke(operations, key.name, body))
        ),
    }


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """
    The body of ``POST /api/revoke``: one token or session, or all that a subject was issued before a time.

    Attributes:
        token_id: A ``jti`` or ``sid``.
        issued_before: Seconds since the epoch; now, if it is not said.
        until: Seconds since the epoch, when it may be forgotten: not before the tokens meant have expired.
        ttl_s: The same, in seconds from now.
    """

    token_id: str | None = None
    subject: str | None = None
    issued_before: float | None = None
    until: float | None = None
    ttl_s: float | None = None


_decode_revoke = msgspec.json.Decoder(_Revoke).decode


async def _revoke(operations: Operations, key: str, body: bytes) -> Answer:
    try:
        order = _decode_revoke(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("bad_request", str(error)) from error
    now = operations.wall()
    if bool(order.token_id) == bool(order.subject):
        raise Problem("bad_request", "Name exactly one of token_id and subject.")
    if order.token_id and order.issued_before is not None:
        raise Problem("bad_request", "issued_before has no meaning for a token_id.")
    if order.until is not None and order.ttl_s is not None:
        raise Problem("bad_request", "Give until or ttl_s, not both.")
    until = order.until if order.until is not None else now + (LONGEST_S if order.ttl_s is None else order.ttl_s)
    if not now < until <= now + LONGEST_S:
        raise Problem("bad_request", "until and ttl_s lie in the future, ten years away at most.")
    before = now if order.issued_before is None else order.issued_before
    if order.token_id:
        revocation = Revocation(until, token_id=order.token_id)
    else:
        revocation = Revocation(until, subject=order.subject or "", issued_before=before)
    # Before it is stored: whoever hangs up has ordered it all the same.
    operations.audit("admin.revoke", {"key": key, "token_id": order.token_id, "subject": order.subject, "until": until})
    if await operations.revocations.revoke(revocation):
        return _json({"revoked": True, "until": until})
    return _json({"revoked": True, "until": until, "pending": True}, 202)


def _answered(value: _T | Deferred[_T], answer: Callable[[_T], Answer]) -> Answer | Deferred[Answer]:
    """*answer* with what is there now, or later."""
    return value.addCallback(answer) if isinstance(value, Deferred) else answer(value)


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value), status)
