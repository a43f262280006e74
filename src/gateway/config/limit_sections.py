"""
The sections of limits: sizes, times and connections, and how often things may be done. See ``config.sections``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.config.fields import KIB, MIB
from gateway.config.fields import key as _
from gateway.config.units import Rate

__all__ = ["LimitPolicy", "Limits"]


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """How often something may be done. `[limits.policy."http per address"]`; see [limits.md](limits.md)."""

    name: str = field(metadata=_("Its name, in answers, metrics and the console.", key=True))
    rate: Rate = field(metadata=_("So many in a span: `100/s`, `1000/h`, `5/10s`; they come back evenly."))
    burst: int = field(default=0, metadata=_("So many at once; 0: the rate's number.", least=0))
    key: tuple[str, ...] = field(
        default=("address",),
        metadata=_(
            "Who has a budget of their own: `address` (IPv6: its /64), `user` (without one the address), `route`, `channel`, "
            "`command`, `api_key`, or CEL; several: each combination; none: all have one together.",
            cel=True,
        ),
    )
    on: tuple[Literal["requests", "connect", "frames", "commands", "auth_failures", "server_api"], ...] = field(
        default=("requests",), metadata=_("What is counted; several share the budget.", least=1)
    )
    routes: tuple[str, ...] = field(
        default=(), metadata=_("Requests on these only: globs of routes' names and paths (`/api/tables/*`).")
    )
    channels: tuple[str, ...] = field(default=(), metadata=_("Commands on these only: patterns as in `[channels]`."))
    commands: tuple[str, ...] = field(
        default=(),
        metadata=_("Only these, such as `publish`; empty: every command but `unsubscribe`, `refresh` and `ping`."),
    )
    methods: tuple[str, ...] = field(default=(), metadata=_("Calls of these only: globs of methods (`table.*`)."))
    shared: bool = field(
        default=True,
        metadata=_("All instances count together where there is Redis; `false`: each by itself, for less."),
    )
    when_store_away: Literal["local", "open", "closed"] = field(
        default="local",
        metadata=_(
            "While Redis is away: each instance counts its part (`local`), all pass (`open`), or none (`closed`)."
        ),
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, how many and how long, towards clients."""

    max_target_bytes: int = field(default=8 * KIB, metadata=_("Longest request target; beyond it 414."))
    max_head_bytes: int = field(default=32 * KIB, metadata=_("Largest head of a request; beyond it 431."))
    max_headers: int = field(default=100, metadata=_("Most header lines of a request; beyond it 431."))
    max_body_bytes: int = field(
        default=64 * MIB, metadata=_("Largest body of a request; beyond it 413. A route may set its own.", least=0)
    )
    head_timeout_s: float = field(
        default=10.0, metadata=_("A request's head must be complete this long after its first byte; else 408.")
    )
    body_grace_s: float = field(default=10.0, metadata=_("After this long a body must keep `min_body_rate`."))
    min_body_rate_bytes: int = field(
        default=KIB, metadata=_("Bytes a second, averaged from the body's start; below it 408. 0: no limit.", least=0)
    )
    idle_timeout_s: float = field(
        default=75.0, metadata=_("A kept connection without a request is closed after this long.")
    )
    write_timeout_s: float = field(
        default=30.0, metadata=_("A client that takes nothing of an answer for this long is cut.")
    )
    write_buffer_bytes: int = field(
        default=64 * KIB, metadata=_("Unsent bytes for one connection before its producer is paused.")
    )
    connections: int = field(
        default=0, metadata=_("Most client connections; 0: what the descriptor limit allows.", least=0)
    )
    connections_per_address: int = field(
        default=0, metadata=_("Most client connections of one address (IPv6: of one /64); 0: no limit.", least=0)
    )
    connections_per_user: int = field(
        default=0, metadata=_("Most real-time connections of one user; 0: no limit.", least=0)
    )
    openings: Rate | None = field(
        default=None,
        metadata=_(
            "Real-time connections opened on one instance: `200/s`; beyond it 503 and a wait. Without it no limit."
        ),
    )
    shed_lag_s: float = field(
        default=0.0,
        metadata=_(
            "When the instance is later than this, new work is refused: openings and strangers first; 0: never.",
            least=0,
        ),
    )
    unheeded: int = field(
        default=50,
        metadata=_(
            "Messages and commands that a connection may send although it was told to wait, one of them forgotten a "
            "second; beyond it is closed with 3013."
        ),
    )
    tell: Literal["refused", "always"] = field(
        default="refused", metadata=_("Which answers carry `RateLimit` and `RateLimit-Policy`.")
    )
    store_timeout_s: float = field(
        default=0.02, metadata=_("A verdict is waited for this long; then `when_store_away` holds.")
    )
    policy: tuple[LimitPolicy, ...] = field(default=(), metadata=_("How often things may be done, by name."))
