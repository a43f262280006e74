"""
One access line and one set of counts for each exchange.
"""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from gateway.core.problems import Problem
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.access import MAX_PATH, AccessLine, AccessLog
from gateway.telemetry.metrics import Metrics

__all__ = ["HttpJournal"]

_METHODS = {method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_STATUSES = {status: str(status) for status in range(100, 600)}
_NO_ROUTE = "_none"


class HttpJournal:
    """
    The ``node.edge.Journal`` that writes to metrics and the access log.

    Args:
        access: None switches access lines off.
        log: A structlog logger, for our own failures.
    """

    def __init__(self, metrics: Metrics, access: AccessLog | None, log: Any) -> None:
        self._metrics = metrics
        self._access = access
        self._log = log

    def request(self, exchange: Exchange, ended_at: float, *, whole: bool) -> None:
        """
        Count one exchange and write its line.
        """
        metrics = self._metrics
        head = exchange.head
        downstream = exchange.downstream
        route = exchange.route
        name = route.name if route is not None else _NO_ROUTE
        method = _METHODS.get(head.method, "_OTHER")
        status = exchange.status
        lasted = ended_at - exchange.started_at
        metrics.requests.inc(name, method, _STATUSES.get(status, "_other"))
        metrics.request_seconds.observe(lasted, name)
        if downstream.bytes_in:
            metrics.request_bytes.inc(by=downstream.bytes_in)
        metrics.response_bytes.inc(by=downstream.bytes_out)
        if exchange.attempts:
            metrics.upstream_seconds.observe(ended_at - exchange.upstream_started_at, exchange.upstream)
        access = self._access
        if access is None:
            return
        target = exchange.target
        path = (target.path if target is not None else head.target.partition(b"?")[0])[:MAX_PATH]
        identity = exchange.identity
        trace = exchange.trace
        access.write(
            AccessLine(
                event="request",
                level="info" if status < 500 else "warning",  # noqa: PLR2004
                ts=access.stamp(),
                method=method if method != "_OTHER" else head.method.decode("latin-1"),
                path=path.decode("latin-1"),
                status=status,
                duration_ms=round(lasted * 1000, 3),
                route=name,
                flag=exchange.flag,
                reason=exchange.reason,
                bytes_in=downstream.bytes_in,
                bytes_out=downstream.bytes_out,
                client=exchange.client_host,
                peer=exchange.peer.host,
                sub=identity.subject if identity is not None else "",
                request_id=exchange.request_id,
                trace_id=trace.trace_id if trace is not None else "",
                upstream=exchange.upstream,
                target=exchange.upstream_target,
                attempts=exchange.attempts,
                ttfb_ms=round(exchange.upstream_ttfb_s * 1000, 3),
                ua=head.fields.get(b"user-agent", b"")[:256].decode("latin-1"),
                protocol="HTTP/1.1" if head.minor else "HTTP/1.0",
                tls=exchange.peer.tls,
                whole=whole,
                notes=exchange.notes,
            )
        )

    def malformed(self, peer: Peer, status: int, code: str, head: bytes) -> None:
        """
        Count one unreadable request and write its line; the path is what could be made out.
        """
        self._metrics.malformed.inc(code)
        access = self._access
        if access is None:
            return
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        access.write(
            AccessLine(
                event="request",
                level="info",
                ts=access.stamp(),
                method=method[:32].decode("latin-1"),
                path=path[:MAX_PATH].decode("latin-1"),
                status=status,
                duration_ms=0.0,
                route=_NO_ROUTE,
                flag="BR",
                reason=code,
                client=peer.host,
                peer=peer.socket_host,
                tls=peer.tls,
                whole=False,
            )
        )

    def refused(self, problem: Problem) -> None:
        """
        Count an answer of the gateway's own.
        """
        self._metrics.refusals.inc(problem.kind.code)
        if problem.kind.status == 401:  # noqa: PLR2004
            self._metrics.auth_failures.inc(problem.reason)

    def crashed(self, exchange: Exchange, failure: Failure) -> None:
        """
        Write the traceback of our own failure, with the ids to find it by.
        """
        self._log.error(
            "request.crashed",
            request_id=exchange.request_id,
            route=exchange.route.name if exchange.route is not None else _NO_ROUTE,
            exception=failure.getTraceback(),
        )
