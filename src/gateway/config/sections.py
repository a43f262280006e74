"""
What can be configured: one frozen section per room, with defaults that are safe.

A room is handed its own section and no other. Field metadata is the single source of the
reference in ``docs/configuration.md`` and of the JSON Schema: the text of ``_(...)`` is what a user reads.
Field names are the TOML keys; a name ending in ``_s`` or ``_bytes`` is written in TOML without
that ending, with a unit in its value: ``timeout = "2s"``, ``max_body = "1MiB"``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.config.browser_sections import Cors, Headers
from gateway.config.console_section import Console
from gateway.config.events_section import Events
from gateway.config.fields import KIB, Network, Secret
from gateway.config.fields import key as _
from gateway.config.limit_sections import LimitPolicy, Limits
from gateway.config.privacy_section import Privacy
from gateway.config.realtime_sections import Channel, Realtime, Rpc, WebSocket
from gateway.config.store_section import Store
from gateway.config.tracing_section import Tracing
from gateway.config.upstream_sections import Breaker, Health, Outlier, Retry, Upstream, UpstreamTls

__all__ = [
    "AdminKey",
    "Auth",
    "Breaker",
    "Certificate",
    "CertificateIdentity",
    "Channel",
    "Config",
    "Console",
    "Cors",
    "Events",
    "Headers",
    "Health",
    "Issuer",
    "LimitPolicy",
    "Limits",
    "Listen",
    "Listener",
    "Log",
    "Network",
    "Outlier",
    "Realtime",
    "Retry",
    "Route",
    "RouteAnswer",
    "RouteJson",
    "Rpc",
    "Secret",
    "Store",
    "Tracing",
    "Upstream",
    "UpstreamTls",
    "WebSocket",
]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of a TLS listener and the names it is shown for."""

    certificate_file: Path = field(metadata=_("PEM file: the certificate, then its chain."))
    key_file: Path = field(metadata=_("PEM file of the private key."))
    names: tuple[str, ...] = field(
        default=(), metadata=_("Server names (SNI), `*.` allowed in front; empty: the names in the certificate.")
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """One place where clients connect. A bare string is short for `{ endpoint = "…" }`."""

    endpoint: str = field(
        metadata=_("A Twisted endpoint: `tcp:4000`, `unix:/run/gw.sock`, `systemd:domain=INET:index=0`.", short=True)
    )
    proxy_protocol_from: tuple[Network, ...] = field(
        default=(),
        metadata=_("Peers that must begin with a PROXY protocol header (v1 or v2); from others it is refused."),
    )
    certificate: tuple[Certificate, ...] = field(default=(), metadata=_("With at least one the listener speaks TLS."))
    client_ca_file: Path | None = field(
        default=None, metadata=_("PEM file of the authorities for client certificates.")
    )
    client_certificate: Literal["none", "optional", "required"] = field(
        default="none", metadata=_("Whether clients show a certificate.")
    )


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the gateway listens, and whom it believes."""

    clients: tuple[Listener, ...] = field(
        default=(Listener("tcp:4000"),), metadata=_("The clients' port: HTTP and WebSocket.")
    )
    admin: tuple[str, ...] = field(
        default=("tcp:9100:interface=127.0.0.1",),
        metadata=_("Metrics, health in detail, the server API. Never the clients' port."),
    )
    api: str | None = field(
        default=None,
        metadata=_(
            "Address of the server API over gRPC, `127.0.0.1:10000` or `unix:/run/gw-api.sock`; without it none."
        ),
    )
    metrics: tuple[str, ...] = field(
        default=(), metadata=_("Endpoints that answer `/metrics`, `/health` and `/ready` only, as containers need.")
    )
    admin_hosts: tuple[str, ...] = field(
        default=("localhost", "127.0.0.1", "[::1]"),
        metadata=_("Names by which the admin port may be called (its `Host`)."),
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(), metadata=_("Peers whose `X-Forwarded-*`, `X-Request-Id` and `traceparent` are believed.")
    )
    workers: int = field(
        default=1,
        metadata=_(
            "Processes that share the clients' port, each an instance; more than one needs Redis. A restart changes it.",
            least=1,
            most=256,
        ),
    )


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody whose tokens are accepted. Exactly one of `secret`, `public_key_file`, `jwks_url`, `jwks_file`."""

    issuer: str = field(metadata=_("The `iss` claim, exactly."))
    audience: tuple[str, ...] = field(metadata=_("The token's `aud` must contain one of these.", least=1))
    algorithms: tuple[str, ...] = field(
        metadata=_("Accepted algorithms, of one family: HS…, or any of RS…, PS…, ES…, EdDSA.", least=1)
    )
    secret: Secret | None = field(
        default=None, metadata=_("The shared secret, for HS256, HS384 and HS512: at least as many bytes as the hash.")
    )
    public_key_file: Path | None = field(default=None, metadata=_("PEM file of the issuer's public key."))
    private_key_file: Path | None = field(
        default=None, metadata=_("PEM file with which `gateway token` signs development tokens.")
    )
    jwks_url: str | None = field(default=None, metadata=_("Where the issuer publishes its keys."))
    jwks_file: Path | None = field(default=None, metadata=_("The same as a file, read again at reload."))
    jwks_ttl_s: float = field(
        default=600.0, metadata=_("Keys are fetched again in the background at 80 % of this age.")
    )
    jwks_max_stale_s: float = field(
        default=86400.0, metadata=_("During an outage keys are used up to this age; then 503.")
    )
    jwks_ca_file: Path | None = field(
        default=None, metadata=_("PEM file of authorities for the `jwks_url`, instead of the system's.")
    )
    leeway_s: float = field(
        default=30.0,
        metadata=_("Clock difference allowed for `exp`, `nbf` and `iat`; at most 300 s.", least=0, most=300),
    )
    max_lifetime_s: float | None = field(
        default=None, metadata=_("A token whose `exp` is further than this after its `iat` is refused.")
    )
    type: str | None = field(
        default=None,
        metadata=_("The token's `typ` header, for instance `at+jwt`; without it any but `JWT` and none is refused."),
    )


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """Who the holder of a client certificate is, where routes and WebSockets take `certificate` among their `credentials`."""

    subject: Literal["common_name", "dns", "uri", "email", "subject"] = field(
        default="common_name",
        metadata=_(
            "What becomes `claims.sub`: the common name, the one alternative name of a kind, or the whole name (RFC 4514)."
        ),
    )
    plain: bool = field(
        default=False,
        metadata=_(
            "As it stands; else with `certificate:` in front, so that nobody's certificate makes them a token's user."
        ),
    )
    issuer: str = field(default="certificate", metadata=_("What becomes `claims.iss`."))


@dataclass(frozen=True, slots=True)
class Auth:
    """How callers prove who they are."""

    issuer: tuple[Issuer, ...] = field(default=(), metadata=_("Whose tokens are accepted."))
    cache_size: int = field(default=10000, metadata=_("Verified tokens remembered until they expire.", least=0))
    max_token_bytes: int = field(default=8 * KIB, metadata=_("Longest token."))
    cookie: str | None = field(
        default=None, metadata=_("Also take the token from this cookie. A route says so with `credentials`.")
    )
    query: str | None = field(
        default=None, metadata=_("Also take it from this query parameter, which is then removed.")
    )
    certificate: CertificateIdentity = field(
        default_factory=CertificateIdentity, metadata=_("Client certificates as identities.")
    )
    revocations_file: Path | None = field(
        default=None, metadata=_("Revoked token ids and subjects, one JSON object a line; read at start and at reload.")
    )


@dataclass(frozen=True, slots=True)
class RouteJson:
    """gRPC: how JSON is read and written on a route. `[route.json]`."""

    proto_names: bool = field(default=False, metadata=_("Write `table_id` as the proto has it, not `tableId`."))
    defaults: bool = field(default=False, metadata=_("Write fields that have their default too."))
    nulls: bool = field(default=False, metadata=_("Write fields that are not set as null."))
    int64_numbers: bool = field(default=False, metadata=_("Write 64-bit integers as numbers, which browsers round."))
    enum_numbers: bool = field(default=False, metadata=_("Write enums as numbers."))
    ignore_unknown_fields: bool = field(default=False, metadata=_("Drop members that are no field, instead of a 400."))
    ignore_unknown_parameters: bool = field(default=False, metadata=_("Likewise query parameters."))
    ignore_parameters: tuple[str, ...] = field(
        default=(), metadata=_("Query parameters always dropped; `utm_*` stands for a beginning.")
    )


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """gRPC: how a reply becomes an answer. `[route.response]`."""

    unwrap: str = field(default="", metadata=_("Path of the field that alone is sent."))
    status: int = field(default=200, metadata=_("Status of a success; 204 sends no body.", least=200, most=299))
    ok: str = field(default="", metadata=_("Path of a boolean that is false when the backend refused."))
    error: str = field(default="", metadata=_("Path of the enum or string that says why it refused."))
    message: str = field(default="", metadata=_("Path of a text for people, told as `detail`."))
    statuses: tuple[tuple[str, str], ...] = field(
        default=(), metadata=_('Status by error: `{ SEAT_TAKEN = "409", "*" = "422" }`.', table=True)
    )
    metadata: tuple[str, ...] = field(
        default=(), metadata=_("Keys of the reply's metadata that become headers of the answer.")
    )


@dataclass(frozen=True, slots=True)
class Route:
    """A path and what it leads to. `[[route]]`; the most specific one wins, whatever the order."""

    path: str | None = field(
        default=None, metadata=_("`/api/players/**`, `/tables/{table_id}`: `*` is one segment, `**` the rest.")
    )
    methods: tuple[str, ...] = field(default=(), metadata=_("Empty: every method (GET also answers HEAD)."))
    upstream: str = field(default="", metadata=_("Name of the upstream."))
    auth: Literal["required", "none"] = field(
        default="required", metadata=_("`none` opens the route to anybody; its backend is never told an identity.")
    )
    scopes: tuple[str, ...] = field(default=(), metadata=_("Scopes the token must all carry; else 403."))
    when: str | None = field(
        default=None,
        metadata=_("CEL over `claims`, `path`, `query`, `header`, `request`; anything but true is a 403.", cel=True),
    )
    credentials: tuple[Literal["header", "cookie", "query", "certificate"], ...] = field(
        default=("header",),
        metadata=_(
            "Where the token may stand; `certificate`: who sends none is the holder of their client certificate."
        ),
    )
    strip_prefix: str | None = field(default=None, metadata=_("Taken off the path before it is forwarded."))
    timeout_s: float | None = field(default=None, metadata=_("Instead of the upstream's."))
    max_body_bytes: int | None = field(default=None, metadata=_("Instead of the limit for all.", least=0))
    name: str | None = field(default=None, metadata=_("For logs and metrics; without it the path."))
    service: str | None = field(default=None, metadata=_("gRPC: mounts every method that carries `google.api.http`."))
    call: str | None = field(default=None, metadata=_("gRPC: `pkg.Service/Method` this path calls."))
    body: str | None = field(default=None, metadata=_("gRPC: `*` or the field that the body fills."))
    set: tuple[tuple[str, str], ...] = field(
        default=(), metadata=_("gRPC: field to expression; a client can never set these.", table=True, cel=True)
    )
    response_body: str = field(default="", metadata=_("gRPC: the field of the reply that is the answer's body."))
    metadata: tuple[str, ...] = field(default=(), metadata=_("gRPC: request headers that are passed on as metadata."))
    cors: Cors = field(default_factory=Cors, metadata=_("Pages of other origins."))
    headers: Headers = field(default_factory=Headers, metadata=_("Headers that protect browsers."))
    json: RouteJson = field(default_factory=RouteJson, metadata=_("gRPC: how JSON is read and written."))
    response: RouteAnswer = field(default_factory=RouteAnswer, metadata=_("gRPC: how a reply becomes an answer."))


@dataclass(frozen=True, slots=True)
class AdminKey:
    """A key of the admin port. `[[admin.key]]`."""

    name: str = field(metadata=_("For the log."))
    secret: Secret = field(metadata=_("Sent as `Authorization: Bearer …` or `X-API-Key`; at least 16 characters."))
    scopes: tuple[str, ...] = field(
        metadata=_(
            "What it may do: `read`, `operate` (reload), `revoke`, `publish`, `presence`, `history`, `connections`; "
            "`*` is everything.",
            least=1,
        )
    )
    channels: tuple[str, ...] = field(
        default=(),
        metadata=_("Globs, such as `table:*`: the channels that its operations may name. Empty: every channel."),
    )


@dataclass(frozen=True, slots=True)
class Log:
    """The log."""

    format: Literal["auto", "json", "pretty"] = field(
        default="auto", metadata=_("`auto`: pretty on a terminal, else JSON lines.")
    )
    level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata=_("The least severe lines shown.")
    )
    access: bool = field(default=True, metadata=_("One line per request."))
    sessions: bool = field(default=True, metadata=_("One line per end of a session."))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything, checked. Built by ``config.load``."""

    listen: Listen = field(default_factory=Listen, metadata=_("Where the gateway listens."))
    limits: Limits = field(default_factory=Limits, metadata=_("Sizes, times, connections."))
    auth: Auth = field(default_factory=Auth, metadata=_("Identity."))
    upstream: tuple[Upstream, ...] = field(default=(), metadata=_("Backends, by name."))
    route: tuple[Route, ...] = field(default=(), metadata=_("Paths."))
    websocket: tuple[WebSocket, ...] = field(default=(), metadata=_("Where real-time clients connect."))
    channels: tuple[Channel, ...] = field(default=(), metadata=_("Channels, by pattern."))
    rpc: tuple[Rpc, ...] = field(default=(), metadata=_("Methods that real-time clients can call, by name."))
    store: Store = field(default_factory=Store, metadata=_("Where channels, presence and sessions are kept."))
    realtime: Realtime = field(default_factory=Realtime, metadata=_("Sessions, presence, and what backends are told."))
    events: Events = field(default_factory=Events, metadata=_("Who is told of sessions."))
    admin_key: tuple[AdminKey, ...] = field(default=(), metadata=_("Keys of the admin port.", at="admin.key"))
    cors: Cors = field(default_factory=Cors, metadata=_("Pages of other origins."))
    headers: Headers = field(default_factory=Headers, metadata=_("Headers that protect browsers."))
    console: Console = field(default_factory=Console, metadata=_("The support console."))
    log: Log = field(default_factory=Log, metadata=_("The log."))
    tracing: Tracing = field(default_factory=Tracing, metadata=_("Traces."))
    privacy: Privacy = field(default_factory=Privacy, metadata=_("How people are written down."))
    drain_timeout_s: float = field(
        default=30.0,
        metadata=_(
            "At SIGTERM, and after `min_drain`, how long requests and commands under way may take to end.",
            at="gateway.drain_timeout",
            least=0,
        ),
    )
    drain_window_s: float = field(
        default=10.0,
        metadata=_(
            "At SIGTERM, over how long real-time clients are asked to come back elsewhere, evenly; less where that is "
            "fewer than 20 a second, at most four fifths of `drain_timeout`.",
            at="gateway.drain_window",
            least=0,
        ),
    )
    min_drain_s: float = field(
        default=0.0,
        metadata=_(
            "At SIGTERM, how long to go on accepting while `/ready` already says no.", at="gateway.min_drain", least=0
        ),
    )
    server: str = field(
        default="gateway", metadata=_("The `Server` header and the `Via` pseudonym.", at="gateway.server")
    )
    source: str = ""
    digest: str = ""
