"""
The sections of a backend: targets, time-outs, and what is done about failures. See ``config.sections``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.config.fields import KIB
from gateway.config.fields import key as _

__all__ = ["Breaker", "Health", "Outlier", "Retry", "Upstream", "UpstreamTls"]


@dataclass(frozen=True, slots=True)
class Health:
    """Active checks of each target."""

    path: str = field(default="/health", metadata=_("HTTP: the path to GET; any 2xx is healthy.", short=True))
    interval_s: float = field(default=10.0, metadata=_("Between two checks, with a fifth of jitter."))
    timeout_s: float = field(default=2.0, metadata=_("For one check."))
    unhealthy_after: int = field(default=3, metadata=_("Failures in a row until a target is left out."))
    healthy_after: int = field(default=2, metadata=_("Successes in a row until it is used again."))


@dataclass(frozen=True, slots=True)
class Outlier:
    """Targets that fail requests are left out for a while."""

    consecutive_failures: int = field(
        default=5, metadata=_("Failures in a row (5xx, reset, time-out) until a target is ejected.")
    )
    base_ejection_s: float = field(default=30.0, metadata=_("Multiplied by how often it was ejected."))
    max_ejection_s: float = field(default=300.0, metadata=_("At most this long."))
    max_ejected_percent: int = field(
        default=50, metadata=_("At most this share of the targets; the last one never.", least=0, most=100)
    )


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a whole upstream is given a rest."""

    max_requests: int = field(default=512, metadata=_("Requests under way at once; beyond it 503."))
    failure_percent: int = field(
        default=50, metadata=_("Share of failed requests within `window` that opens the breaker.", most=100)
    )
    min_requests: int = field(default=20, metadata=_("Fewer requests than this within `window` never open it."))
    window_s: float = field(default=10.0, metadata=_("The span looked at."))
    open_s: float = field(default=10.0, metadata=_("How long it stays open at first; doubles up to `max_open`."))
    max_open_s: float = field(default=300.0, metadata=_("At most this long."))
    probes: int = field(default=3, metadata=_("Requests let through at once while it is half open."))


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is tried again: only where it is safe."""

    attempts: int = field(default=2, metadata=_("Attempts in all; 1 switches retries off.", most=5))
    methods: tuple[str, ...] = field(
        default=("GET", "HEAD", "OPTIONS"),
        metadata=_(
            "Methods retried after the request was sent. Others only if nothing was sent, or with an `Idempotency-Key`."
        ),
    )
    statuses: tuple[int, ...] = field(
        default=(502, 503, 504), metadata=_("Answers that count as failures to be retried.")
    )
    budget_percent: int = field(
        default=20, metadata=_("Retries under way, as a share of requests under way.", least=0, most=100)
    )
    budget_min: int = field(default=3, metadata=_("Retries always allowed at once.", least=0))
    backoff_base_s: float = field(default=0.025, metadata=_("Full jitter from this, doubling.", least=0))
    backoff_max_s: float = field(default=0.25, metadata=_("At most this long."))
    max_body_bytes: int = field(
        default=64 * KIB, metadata=_("Bodies up to this size are kept for a second attempt.", least=0)
    )


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How targets named `https://` or `grpcs://` are verified, and who the gateway is to them."""

    ca_file: Path | None = field(default=None, metadata=_("PEM file of authorities instead of the system's."))
    certificate_file: Path | None = field(default=None, metadata=_("PEM file of the gateway's client certificate."))
    key_file: Path | None = field(default=None, metadata=_("Its key."))
    server_name: str | None = field(
        default=None, metadata=_("Name to verify and send as SNI, instead of the target's host.")
    )


@dataclass(frozen=True, slots=True)
class Upstream:
    """A backend: several equal targets. `[upstream.NAME]`."""

    name: str = field(metadata=_("From the table's name.", key=True))
    http: tuple[str, ...] = field(
        default=(), metadata=_("HTTP targets: `http://host:port`, `https://host:port`, `unix:/path`.")
    )
    grpc: tuple[str, ...] = field(
        default=(), metadata=_("gRPC targets: `host:port`, `grpcs://host:port`, `unix:/path`.")
    )
    client: Literal["lean", "grpcio"] = field(
        default="lean",
        metadata=_(
            "Who makes unary gRPC calls: a client of ours, which costs a tenth, or grpcio. Streams are grpcio's."
        ),
    )
    timeout_s: float = field(
        default=10.0, metadata=_("For the whole answer's head, retries included. A route may set its own.")
    )
    try_timeout_s: float | None = field(default=None, metadata=_("For one attempt; at most `timeout`."))
    idle_body_timeout_s: float = field(
        default=30.0, metadata=_("A response body that brings nothing for this long is cut.")
    )
    connect_timeout_s: float = field(default=2.0, metadata=_("For a connection, TLS included."))
    max_connections: int = field(default=256, metadata=_("Connections to one target."))
    idle_connections: int = field(default=64, metadata=_("Connections kept to one target while unused.", least=0))
    idle_timeout_s: float = field(default=30.0, metadata=_("How long they are kept. Shorter than the backend's own."))
    max_response_head_bytes: int = field(default=64 * KIB, metadata=_("Larger heads are a 502."))
    host: str | None = field(
        default=None,
        metadata=_("`Host` for the backend; without it the target's authority. `\"client\"` passes the client's."),
    )
    identity: Literal["headers", "token", "minted", "none"] = field(
        default="headers",
        metadata=_(
            "How the caller is told: `X-User-Id` and `identity_headers`; the client's own token; a fresh 60 s token signed by the gateway; not at all."
        ),
    )
    identity_headers: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_('Header name to claim path, for instance `{ X-User-Roles = "claims.roles" }`.', table=True),
    )
    minted_claims: tuple[str, ...] = field(
        default=(),
        metadata=_("Claims of the caller's token that a minted one states too, such as `scope` and `roles`."),
    )
    balance: Literal["least_requests", "round_robin"] = field(
        default="least_requests",
        metadata=_("Of two targets drawn by chance the one with fewer requests under way; or in turn."),
    )
    health: Health | None = field(
        default=None, metadata=_("A path, or a table. Without it targets are not checked actively.")
    )
    outlier: Outlier = field(default_factory=Outlier, metadata=_("Passive checks."))
    breaker: Breaker = field(default_factory=Breaker, metadata=_("Circuit breaker."))
    retry: Retry = field(default_factory=Retry, metadata=_("Retries."))
    tls: UpstreamTls = field(default_factory=UpstreamTls, metadata=_("TLS to the targets."))
    max_streams: int = field(default=64, metadata=_("gRPC: streams read at once, each by a thread; beyond it 503."))
    descriptors: Path | None = field(default=None, metadata=_("gRPC: a descriptor set file."))
    reflection: bool = field(default=False, metadata=_("gRPC: ask the backend for its descriptors."))
