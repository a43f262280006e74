"""
The section of traces: where spans go, and which are made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.config.fields import MIB, Secret
from gateway.config.fields import key as _
from gateway.config.upstream_sections import UpstreamTls

__all__ = ["Tracing"]


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans for OpenTelemetry: where they go, and which requests and commands get some. Without `otlp` none are made."""

    otlp: str | None = field(
        default=None,
        metadata=_(
            "The collector: `http://127.0.0.1:4317` for gRPC, `http://127.0.0.1:4318` for HTTP; `https://` for TLS."
        ),
    )
    protocol: Literal["grpc", "http"] = field(
        default="grpc",
        metadata=_(
            "What the collector speaks. `http` is Protobuf over HTTP, to `/v1/traces` where `otlp` names no path."
        ),
    )
    headers: tuple[tuple[str, Secret], ...] = field(
        default=(), metadata=_('Sent along, for instance `{ Authorization = "Bearer ${OTLP_TOKEN}" }`.', table=True)
    )
    sample: float = field(
        default=0.01,
        metadata=_(
            "Share of traces begun here that are recorded; 0 is none, 1 is all. What a believed peer began keeps its own decision.",
            least=0,
            most=1,
        ),
    )
    users: tuple[str, ...] = field(default=(), metadata=_("Subjects whose requests and commands are all recorded."))
    trust_certificates: bool = field(
        default=True,
        metadata=_("Continue traces of peers that showed a client certificate, as those of `listen.trusted_proxies`."),
    )
    service: str = field(default="gateway", metadata=_("`service.name`."))
    attributes: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_('More of the resource, for instance `{ "deployment.environment.name" = "test" }`.', table=True),
    )
    compression: Literal["none", "gzip"] = field(default="none", metadata=_("Of what is sent."))
    timeout_s: float = field(default=5.0, metadata=_("For one attempt to send spans.", least=0.1, most=60))
    retry_s: float = field(
        default=60.0, metadata=_("How long the same spans are sent again and again; then they are dropped.", least=0)
    )
    delay_s: float = field(
        default=1.0, metadata=_("How long spans gather before they are sent together.", least=0.01, most=60)
    )
    batch: int = field(default=256, metadata=_("Spans sent together at most.", most=4096))
    queue: int = field(default=8192, metadata=_("Spans that wait; those beyond are dropped and counted."))
    memory_bytes: int = field(default=8 * MIB, metadata=_("What they may take; likewise."))
    tls: UpstreamTls = field(default_factory=UpstreamTls, metadata=_("How `https://` is verified."))
