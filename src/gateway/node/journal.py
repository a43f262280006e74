"""
One access line and one set of counts for each exchange, and a span where its trace is recorded.
"""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from gateway.core.problems import Problem
from gateway.node.http_spans import RequestSpans
from gateway.node.taps import Taps
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.access import MAX_METHOD, MAX_PATH, MAX_WORD, AccessLine, AccessLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tally import Count, Series

__all__ = ["HttpJournal"]

_METHODS = {method.encode("ascii"): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_STATUSES = {status: str(status) for status in range(100, 600)}
_NO_ROUTE = "_none"
_BROKEN = 500
_KINDS_REMEMBERED = 4096
_ENDS = (
    (',"protocol":"HTTP/1.0"', ',"protocol":"HTTP/1.0","tls":true'),
    (',"protocol":"HTTP/1.1"', ',"protocol":"HTTP/1.1","tls":true'),
)


def _level(status: int) -> str:
    return "info" if status < _BROKEN else "warning"


class _Kind:
    """
    What exchanges of one route, method and status have in common: their counters, and parts of their lines.
    """

    __slots__ = ("answered", "asked", "begins", "method", "requests", "seconds")

    def __init__(self, requests: Count, seconds: Series, method: str, status: int) -> None:
        self.requests = requests
        self.seconds = seconds
        self.method = method
        self.begins = f'{{"event":"request","level":"{_level(status)}",'
        self.asked = f',"method":"{method}",'
        self.answered = f',"status":{status},'


class HttpJournal:
    """
    The ``node.edge.Journal`` that writes to metrics, the access log and spans.

    Args:
        access: None switches access lines off.
        log: A structlog logger, for our own failures.
        recorded: The requests that have a span.

    Attributes:
        taps: Who looks on.
    """

    def __init__(self, metrics: Metrics, access: AccessLog | None, log: Any, recorded: RequestSpans) -> None:
        self._recorded = recorded
        self._metrics = metrics
        self._access = access
        self._log = log
        self._usual = access if access is not None and access.json else None
        self._kinds: dict[tuple[str, bytes, int], _Kind] = {}
        self._upstreams: dict[str, Series] = {}
        self._response_bytes = metrics.response_bytes.series()
        self.taps = Taps(lambda: 0.0)

    def request(self, exchange: Exchange, ended_at: float, *, whole: bool) -> None:
        """
        Count one exchange, write its line, and tell its span if it has one.
        """
        trace = exchange.trace
        if trace is not None and trace.sampled:
            self._recorded.ended(exchange, ended_at, whole=whole)
        head = exchange.head
        downstream = exchange.downstream
        route = exchange.route
        name = route.name if route is not None else _NO_ROUTE
        status = exchange.status
        if self.taps.on is not None:
            self._show(exchange, name, ended_at)
        kind = self._kinds.get((name, head.method, status))
        if kind is None:
            kind = self._learn(name, head.method, status)
        lasted = ended_at - exchange.started_at
        kind.requests.number += 1
        kind.seconds.observe(lasted)
        if trace is not None and trace.sampled:
            kind.seconds.show(lasted, trace.trace_id)
        bytes_out = downstream.bytes_out
        self._response_bytes.number += bytes_out
        upstream = exchange.upstream
        if exchange.attempts:
            series = self._upstreams.get(upstream)
            if series is None:
                series = self._upstreams[upstream] = self._metrics.upstream_seconds.series((upstream,))
            series.observe(ended_at - exchange.upstream_started_at)
        if downstream.bytes_in:
            self._metrics.request_bytes.inc(by=downstream.bytes_in)
        access = self._usual
        target = exchange.target
        if (
            access is None
            or not whole
            or downstream.bytes_in
            or exchange.flag
            or exchange.reason
            or exchange.attempts != 1
            or target is None
        ):
            if self._access is not None:
                self._access.write(self._line(self._access, exchange, name, kind.method, lasted, whole=whole))
            return
        # A plain request to a backend: the same line, from text that was encoded before. The path is
        # canonical, an id ours or taken only without signs that need an escape.
        path = target.path if len(target.path) <= MAX_PATH else target.path[:MAX_PATH]
        quoted, addresses = access.quoted, access.addresses
        identity = exchange.identity
        agent = head.fields.get(b"user-agent")
        sent = f',"bytes_out":{bytes_out}' if bytes_out else ""
        sub = f',"sub":{access.users[identity.subject]}' if identity is not None else ""
        ua = f',"ua":{quoted[agent]}' if agent else ""
        access.put(
            f'{kind.begins}"ts":"{access.stamp()}"{kind.asked}"path":"{path.decode("ascii")}"{kind.answered}'
            f'"duration_ms":{lasted * 1000:.3f},"route":{quoted[name]}{sent}'
            f',"client":{addresses[exchange.client_host]},"peer":{addresses[exchange.peer.host]}{sub}'
            f',"request_id":"{exchange.request_id}","trace_id":"{trace.trace_id}"'
            f',"upstream":{quoted[upstream]},"target":{quoted[exchange.upstream_target]}'
            f',"attempts":1,"ttfb_ms":{exchange.upstream_ttfb_s * 1000:.3f}{ua}{_ENDS[head.minor][exchange.peer.tls]}'
        )

    def _show(self, exchange: Exchange, route: str, ended_at: float) -> None:
        """Show it to those who look on; the query is nobody's affair."""
        head, target, identity = exchange.head, exchange.target, exchange.identity
        path = target.path.decode("ascii") if target is not None else "-"
        took_ms = (ended_at - exchange.started_at) * 1000
        told = f"{head.method.decode('latin-1')} {path} -> {exchange.status} in {took_ms:.1f} ms"
        self.taps.request(route, identity.subject if identity is not None else "", told)

    def _learn(self, name: str, method: bytes, status: int) -> _Kind:
        if len(self._kinds) >= _KINDS_REMEMBERED:
            self._kinds.clear()
        metrics = self._metrics
        label = _METHODS.get(method, "_OTHER")
        kind = _Kind(
            metrics.requests.series((name, label, _STATUSES.get(status, "_other"))),
            metrics.request_seconds.series((name,)),
            method[:MAX_METHOD].decode("latin-1"),
            status,
        )
        if len(method) <= MAX_METHOD:
            self._kinds[(name, method, status)] = kind
        return kind

    def _line(
        self, access: AccessLog, exchange: Exchange, route: str, method: str, lasted: float, *, whole: bool
    ) -> AccessLine:
        head = exchange.head
        downstream = exchange.downstream
        status = exchange.status
        target = exchange.target
        path = (target.path if target is not None else head.target.partition(b"?")[0])[:MAX_PATH]
        identity = exchange.identity
        trace = exchange.trace
        privacy = access.privacy
        return AccessLine(
            event="request",
            level=_level(status),
            ts=access.stamp(),
            method=method,
            path=path.decode("latin-1"),
            status=status,
            duration_ms=round(lasted * 1000, 3),
            route=route,
            flag=exchange.flag,
            reason=exchange.reason[:MAX_WORD],
            bytes_in=downstream.bytes_in,
            bytes_out=downstream.bytes_out,
            client=privacy.address(exchange.client_host),
            peer=privacy.address(exchange.peer.host),
            sub=privacy.user(identity.subject)[:MAX_WORD] if identity is not None else "",
            request_id=exchange.request_id,
            trace_id=trace.trace_id if trace is not None else "",
            upstream=exchange.upstream,
            target=exchange.upstream_target,
            attempts=exchange.attempts,
            ttfb_ms=round(exchange.upstream_ttfb_s * 1000, 3),
            ua=head.fields.get(b"user-agent", b"")[:MAX_WORD].decode("latin-1"),
            protocol="HTTP/1.1" if head.minor else "HTTP/1.0",
            tls=exchange.peer.tls,
            whole=whole,
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
                method=method[:MAX_METHOD].decode("latin-1"),
                path=path[:MAX_PATH].decode("latin-1"),
                status=status,
                duration_ms=0.0,
                route=_NO_ROUTE,
                flag="BR",
                reason=code,
                client=access.privacy.address(peer.host),
                peer=access.privacy.address(peer.socket_host),
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
            trace_id=exchange.trace.trace_id if exchange.trace is not None else "",
            route=exchange.route.name if exchange.route is not None else _NO_ROUTE,
            exception=failure.getTraceback(),
        )
