"""
The span of one attempt at a backend, by OpenTelemetry's conventions for HTTP and RPC clients.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and …/rpc/rpc-spans/. Only for attempts whose trace is
recorded; the backend was told the span's id.
"""

from __future__ import annotations

from typing import Final

from gateway.core.message import METHOD_NAMES
from gateway.core.redacted import shown_query
from gateway.core.trace import TraceContext
from gateway.core.transcoding.status import NAMES
from gateway.telemetry.spans import CLIENT, Spans
from gateway.upstream.target import Target

__all__ = ["tell_attempt", "tell_call"]

_FAILED: Final = 400
"""To who asked, a status from here on is a failure."""


def tell_attempt(
    spans: Spans,
    place: TraceContext,
    parent: TraceContext,
    began: float,
    ended: float,
    *,
    method: bytes,
    target: Target,
    path: bytes,
    upstream: str,
    status: int,
    outcome: str,
    resends: int,
) -> None:
    """
    Tell of an attempt over HTTP.

    Args:
        path: With the query.
        status: Of the answer; 0 if none came.
        outcome: As it is counted: ``ok``, or what went wrong.
        resends: How many attempts came before it.
    """
    name = METHOD_NAMES.get(method, "_OTHER")
    path, mark, query = path.partition(b"?")
    shown = path.decode("latin-1") + (f"?{shown_query(query)}" if mark else "")
    said: dict[str, str | int | bool | float] = {
        "http.request.method": name,
        "url.full": f"{'https' if target.tls else 'http'}://{target.authority.decode('ascii')}{shown}",
        "server.address": target.host or target.path,
        "gateway.upstream": upstream,
    }
    if target.port:
        said["server.port"] = target.port
    if name == "_OTHER":
        said["http.request.method_original"] = method.decode("latin-1")
    if status:
        said["http.response.status_code"] = status
    if resends:
        said["http.request.resend_count"] = resends
    cut_short = outcome not in ("ok", "error")
    failed = status >= _FAILED or not status or cut_short
    if failed:
        said["error.type"] = outcome if cut_short else str(status) if status else "_OTHER"
    spans.tell(name, CLIENT, place, began, ended, said, parent=parent, failed=failed)


def tell_call(
    spans: Spans,
    place: TraceContext,
    parent: TraceContext,
    began: float,
    ended: float,
    *,
    method: str,
    target: str,
    upstream: str,
    code: int,
    outcome: str,
    resends: int,
) -> None:
    """
    Tell of an attempt over gRPC.

    Args:
        method: ``/pkg.Service/Method``.
        target: ``host:port``, or a socket's path.
        code: The status, of the backend or made here.
        outcome: As it is counted: ``ok``, or what went wrong.
        resends: How many attempts came before it.
    """
    name = method.lstrip("/")
    status = NAMES[code].upper() if 0 <= code < len(NAMES) else "UNKNOWN"
    host, _, port = target.rpartition(":")
    said: dict[str, str | int | bool | float] = {
        "rpc.system.name": "grpc",
        "rpc.method": name,
        "rpc.response.status_code": status,
        "server.address": host.strip("[]") or target,
        "gateway.upstream": upstream,
    }
    if host and port.isdigit():
        said["server.port"] = int(port)
    if resends:
        said["gateway.resend_count"] = resends
    if code:
        said["error.type"] = status
        if outcome not in ("ok", "error"):
            said["gateway.outcome"] = outcome
    spans.tell(name, CLIENT, place, began, ended, said, parent=parent, failed=bool(code))
