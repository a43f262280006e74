"""
``/health`` and ``/ready`` (also ``/livez`` and ``/readyz``): two questions of whoever starts and routes.

Alive is whoever answers. Ready is who should be given requests: configured, listening, with
the keys it needs, and not leaving. Neither tells more here; the detail is on the admin port.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.problems import Problem
from gateway.ports.http import Exchange

__all__ = ["HEALTH_PATHS", "READY_PATHS", "Alive", "Options", "Ready"]

HEALTH_PATHS = ("/health", "/livez")
READY_PATHS = ("/ready", "/readyz")

_HEADERS = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"


def _say(exchange: Exchange, body: bytes) -> None:
    exchange.start(200, b"", _HEADERS, len(body), body, ended=True)


class Alive:
    """
    Answers 200 as long as there is somebody to answer.
    """

    def handle(self, exchange: Exchange) -> None:
        """
        Answer.
        """
        _say(exchange, b'{"status":"ok"}')


class Ready:
    """
    Answers 200 while *reason* gives none, else 503.

    Args:
        reason: Why this instance should be given no requests, in a word for the log; empty if it may.
    """

    def __init__(self, reason: Callable[[], str]) -> None:
        self._reason = reason

    def handle(self, exchange: Exchange) -> None:
        """
        Answer.

        Raises:
            Problem: ``not_ready``; the client is not told why.
        """
        reason = self._reason()
        if reason:
            raise Problem("not_ready", headers=((b"Retry-After", b"1"),), reason=reason)
        _say(exchange, b'{"status":"ready"}')


class Options:
    """
    Answers ``OPTIONS *``: what the server as a whole takes (RFC 9110, section 9.3.7).
    """

    def handle(self, exchange: Exchange) -> None:
        """
        Answer.
        """
        exchange.start(204, b"", b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n", 0, b"", ended=True)
