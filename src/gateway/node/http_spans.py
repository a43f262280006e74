"""
The span of a request, by OpenTelemetry's conventions for HTTP servers: told once, when it is over or has lasted a minute.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/. Only for requests whose trace is recorded; what it
says stands in the exchange.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from gateway.core.message import METHOD_NAMES
from gateway.core.redacted import shown_query
from gateway.core.trace import TraceContext, read
from gateway.ports.http import Exchange
from gateway.telemetry.spans import SERVER, Spans

__all__ = ["RequestSpans"]

LONGEST_S: Final = 60.0
"""A span that lasts for longer is told when nobody looks for it any more."""

_BROKEN: Final = 500
_PORTS: Final = {"http": 80, "https": 443}


class RequestSpans:
    """
    The requests of an instance whose traces are recorded.

    Attributes:
        spans: What makes spans.
        secrets: Names in a query whose values are never shown.
    """

    __slots__ = ("_open", "secrets", "spans")

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.secrets: Collection[str] = frozenset()
        self._open: dict[Exchange, None] = {}

    def begun(self, exchange: Exchange) -> None:
        """
        Record *exchange*.
        """
        self._open[exchange] = None

    def opened(self, exchange: Exchange, now: float) -> None:
        """
        Tell it now: its answer has begun, and goes on for as long as somebody listens.
        """
        if exchange in self._open:
            del self._open[exchange]
            _tell(self.spans, exchange, now, whole=True, secrets=self.secrets)

    def ended(self, exchange: Exchange, now: float, *, whole: bool) -> None:
        """
        Tell it if it has not been told.

        Args:
            whole: It was answered to the last byte.
        """
        if exchange in self._open:
            del self._open[exchange]
            _tell(self.spans, exchange, now, whole=whole, secrets=self.secrets)

    def sweep(self, now: float) -> None:
        """
        Tell what goes on for long; what it comes to is in the access line.
        """
        for exchange in [exchange for exchange in self._open if now - exchange.started_at > LONGEST_S]:
            self.opened(exchange, now)


def _tell(spans: Spans, exchange: Exchange, ended_at: float, *, whole: bool, secrets: Collection[str]) -> None:
    place: TraceContext = exchange.trace
    head = exchange.head
    fields = head.fields
    method = METHOD_NAMES.get(head.method, "_OTHER")
    route = exchange.route
    template = route.template if route is not None else ""
    target = exchange.target
    said: dict[str, str | int | bool | float] = {
        "http.request.method": method,
        "url.scheme": exchange.client_scheme,
        "url.path": (target.path if target is not None else head.target.partition(b"?")[0]).decode("latin-1"),
        "http.response.status_code": exchange.status,
        "client.address": exchange.client_host,
        "network.peer.address": exchange.peer.host,
        "network.peer.port": exchange.peer.port,
        "network.protocol.version": "1.1" if head.minor else "1.0",
    }
    if method == "_OTHER":
        said["http.request.method_original"] = head.method.decode("latin-1")
    if template:
        said["http.route"] = template
    if exchange.query:
        said["url.query"] = shown_query(exchange.query, secrets)
    agent = fields.get(b"user-agent")
    if agent:
        said["user_agent.original"] = agent.decode("latin-1")
    host = fields.get(b"host")
    if host:
        said["server.address"], said["server.port"] = _server(host.decode("latin-1"), exchange.client_scheme)
    if exchange.identity is not None:
        said["user.id"] = exchange.identity.subject
    if exchange.request_id != place.trace_id:
        said["gateway.request_id"] = exchange.request_id
    if exchange.flag:
        said["gateway.flag"] = exchange.flag
        said["gateway.reason"] = exchange.reason
    failed = exchange.status >= _BROKEN or (not whole and exchange.flag not in ("", "DC"))
    if failed:
        said["error.type"] = exchange.flag or str(exchange.status)
    inbound = read(head)
    # Nobody knows an id of ours beforehand: who has the same one was continued.
    continued = inbound is not None and inbound.trace_id == place.trace_id
    spans.tell(
        f"{method} {template}" if template else method,
        SERVER,
        place,
        exchange.started_at,
        ended_at,
        said,
        parent=inbound if continued else None,
        remote=True,
        links=() if inbound is None or continued else (inbound,),
        failed=failed,
    )


def _server(host: str, scheme: str) -> tuple[str, int]:
    """Split ``Host`` into a name and a port."""
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdigit() and not name.endswith(":"):
        return name, int(port[:5])
    return host, _PORTS.get(scheme, 80)
