"""
Preflights: what a browser asks before a page's request may be sent (Fetch standard, section 3.2.2).

Answered here without a token and without a backend, for paths that some route has.
"""

from __future__ import annotations

from gateway.core.problems import Problem
from gateway.core.routes import RouteTable
from gateway.node.plan import ServedRoute
from gateway.ports.http import Exchange

__all__ = ["Preflight"]


class Preflight:
    """
    What a preflight leads to (``ports.http.RouteHandler``).

    Args:
        routes: Every path with the methods that it takes.
    """

    def __init__(self, routes: RouteTable[ServedRoute]) -> None:
        self._allowed = routes.allowed

    def handle(self, exchange: Exchange) -> None:
        """
        Answer.

        Raises:
            Problem: ``origin_refused``.
        """
        browsers = exchange.browsers
        cors = browsers.cors if browsers is not None else None
        if browsers is None or cors is None:
            raise Problem("origin_refused", reason="preflight")
        fields = exchange.head.fields
        lines = cors.preflight(
            fields[b"origin"],
            self._allowed(exchange.target),
            fields.get(b"access-control-request-headers", b""),
            private_network=fields.get(b"access-control-request-private-network") == b"true",
        )
        if lines is None:
            raise Problem("origin_refused", "The list is [cors] of the configuration, origins.", reason="preflight")
        block = lines + browsers.security(secure=exchange.client_scheme == "https")
        exchange.relay(204, b"", block, 0, b"", ended=True)
