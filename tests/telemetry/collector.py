"""
Collectors of a test: real servers for OTLP over gRPC and HTTP that read what arrives, and may behave badly.
"""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.web.certificates import Made

__all__ = ["Collector", "Seen", "over_grpc", "over_http"]

WAIT_S = 30.0
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass(frozen=True)
class Seen:
    """One span as it arrived."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    said: dict[str, Any]
    failed: bool
    lasted_s: float
    resource: dict[str, Any]


@dataclass
class Collector:
    """
    What arrived.

    Attributes:
        port: On 127.0.0.1.
        headers: Of each request, names in lower case.
        answer: Called for each request; may wait, and gives None (well), or how it is refused: a gRPC status, or an HTTP one.
    """

    port: int = 0
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[], Any] = lambda: None
    ending: threading.Event = field(default_factory=threading.Event)

    def spans(self) -> list[Seen]:
        """Every span that arrived."""
        return [
            _seen(span, of_resource.resource)
            for request in list(self.requests)
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]

    def wait(self, what: str, look: Callable[[list[Seen]], Any]) -> Any:
        """Return the first true value of *look*."""
        until = time.monotonic() + WAIT_S
        while not (found := look(self.spans())):
            assert time.monotonic() < until, f"{what}; there are {[span.name for span in self.spans()]}"
            time.sleep(0.03)
        return found

    def one(self, name: str, **said: Any) -> Seen:
        """Wait for a span by its name and some of what it says."""

        def look(spans: list[Seen]) -> list[Seen]:
            return [span for span in spans if span.name == name and said.items() <= span.said.items()]

        found: list[Seen] = self.wait(f"a span {name!r} {said}", look)
        assert len(found) == 1, f"{len(found)} spans {name!r} {said}"
        return found[0]

    def hang(self) -> None:
        """Answer nobody until the test ends."""
        self.ending.wait(WAIT_S)


def _seen(span: Any, resource: Any) -> Seen:
    return Seen(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _said(span.attributes),
        span.status.code == 2,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        _said(resource.attributes),
    )


def _said(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


class _Traces(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == METHOD else None

    def _export(self, request: bytes, context: Any) -> bytes:
        collector = self._collector
        refused = collector.answer()
        collector.headers.append({key: str(value) for key, value in context.invocation_metadata()})
        if refused is not None:
            context.abort(refused, "refused")
        collector.requests.append(ExportTraceServiceRequest.FromString(request))
        return ExportTraceServiceResponse().SerializeToString()


@contextmanager
def over_grpc(port: int = 0, certificate: Made | None = None) -> Iterator[Collector]:
    """
    Run a collector for OTLP over gRPC, with a certificate over TLS.
    """
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Traces(collector)], options=[("grpc.so_reuseport", 0)])
    address = f"127.0.0.1:{port}"
    if certificate is None:
        collector.port = server.add_insecure_port(address)
    else:
        pair = (certificate.key.read_bytes(), certificate.certificate.read_bytes())
        collector.port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield collector
    finally:
        collector.ending.set()
        server.stop(0).wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what some tests are about."""


@contextmanager
def over_http(port: int = 0, certificate: Made | None = None) -> Iterator[Collector]:
    """
    Run a collector for OTLP over HTTP, with a certificate over TLS.
    """
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            refused = collector.answer()
            collector.headers.append({name.lower(): value for name, value in self.headers.items()} | {"": self.path})
            answer = ExportTraceServiceResponse().SerializeToString()
            if refused is None:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(refused or 200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    collector.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield collector
    finally:
        collector.ending.set()
        server.shutdown()
        server.server_close()
