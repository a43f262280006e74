"""
A route's own condition: an expression over claims, path, query, headers and the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from gateway.config.expressions import Denied, Expression
from gateway.core.problems import Problem
from gateway.ports.http import Exchange

__all__ = ["ROOTS", "RouteRule", "context_of"]

ROOTS: Final = frozenset(("claims", "path", "query", "header", "request"))
"""What an expression of a route may name."""

MAX_PARAMETERS = 64


def _header(exchange: Exchange) -> Mapping[str, str]:
    return {name.decode("ascii"): value.decode("latin-1") for name, value in exchange.head.fields.items()}


def _query(exchange: Exchange) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(
            exchange.query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict"
        )
    except ValueError as error:
        raise Denied("too_large", "the query cannot be read") from error
    seen: dict[str, str] = {}
    for name, value in pairs:
        if name in seen:
            # One value for the rule and another for the backend would be a way around it.
            raise Denied("error", "a query parameter stands there twice")
        seen[name] = value
    return seen


def _request(exchange: Exchange) -> Mapping[str, str]:
    return {
        "method": exchange.head.method.decode("ascii"),
        "path": exchange.target.path.decode("ascii"),
        "scheme": exchange.client_scheme,
        "address": exchange.client_host,
        "id": exchange.request_id,
        # Without one from the client a request is its own: the same for each of its attempts.
        "idempotency_key": exchange.head.fields.get(b"idempotency-key", b"").decode("latin-1") or exchange.request_id,
    }


_SOURCES: Final[Mapping[str, Callable[[Exchange], Mapping[str, Any]]]] = {
    "claims": lambda exchange: exchange.identity.claims if exchange.identity is not None else {},
    "path": lambda exchange: exchange.params,
    "query": _query,
    "header": _header,
    "request": _request,
}


def context_of(exchange: Exchange, roots: frozenset[str]) -> dict[str, Mapping[str, Any]]:
    """
    Build what an expression is evaluated on, with only the *roots* it names.

    Raises:
        Denied: what it names cannot be told without doubt.
    """
    return {root: _SOURCES[root](exchange) for root in roots}


class RouteRule:
    """
    Raises ``Problem("forbidden")`` unless the expression is true; a missing claim is not.

    Args:
        denied: Told the cause of each denial, a word of ``config.expressions.Denied``.
    """

    def __init__(self, expression: Expression, denied: Callable[[str], None]) -> None:
        self._expression = expression
        self._denied = denied

    def __call__(self, exchange: Exchange) -> None:
        """
        Allow *exchange*, or refuse it.
        """
        try:
            self._expression.allows(context_of(exchange, self._expression.roots))
        except Denied as denied:
            self._denied(denied.reason)
            reason = f"rule: {denied.reason} {denied.detail}".rstrip()
            raise Problem("forbidden", reason=reason) from denied
