"""
The sections of real time: WebSockets, channels, methods, sessions. See ``config.sections``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.config.fields import KIB, MIB
from gateway.config.fields import key as _
from gateway.config.units import Rate

__all__ = ["BackendCall", "Channel", "Decision", "History", "Publishing", "Realtime", "Rpc", "Snapshot", "WebSocket"]

Overflow = Literal["disconnect", "latest", "drop"]


@dataclass(frozen=True, slots=True)
class BackendCall:
    """A call to a backend: gRPC with `call`, HTTP with `http`."""

    upstream: str = field(default="", metadata=_("Name of the upstream."))
    call: str = field(default="", metadata=_("gRPC: `pkg.Service/Method`."))
    http: str = field(default="", metadata=_("HTTP: `POST /internal/may-chat`; the request's body is JSON."))
    set: tuple[tuple[str, str], ...] = field(
        default=(), metadata=_("Field to expression; a client can never set these.", table=True, cel=True)
    )
    timeout_s: float | None = field(default=None, metadata=_("Instead of the upstream's."))


@dataclass(frozen=True, slots=True)
class Decision(BackendCall):
    """Who may: a word, an expression, or a backend's answer (a call that succeeds says yes)."""

    rule: str = field(
        default="",
        metadata=_(
            "`authenticated`, `anybody` (anonymous ones too), `token` (a subscription token), or CEL that must be true.",
            short=True,
            cel=True,
        ),
    )
    allowed: str = field(default="", metadata=_("Path of a boolean in the backend's answer that must be true."))


@dataclass(frozen=True, slots=True)
class Publishing(Decision):
    """Who may publish, and what becomes of it."""

    data: str = field(
        default="", metadata=_("Path of a field in the backend's answer that is published instead of what was sent.")
    )


@dataclass(frozen=True, slots=True)
class Snapshot(BackendCall):
    """The state of a channel, asked of a backend when somebody subscribes."""

    data: str = field(default="", metadata=_("Path of the field that is the state; without it the whole answer."))
    version: str = field(
        default="",
        metadata=_("Path of the state's version: publications whose version is not above it are left out."),
    )


@dataclass(frozen=True, slots=True)
class History:
    """What is kept of a channel. With it subscriptions recover what they missed."""

    size: int = field(metadata=_("Publications kept."))
    ttl_s: float = field(metadata=_("How long after the last publication they are kept."))


@dataclass(frozen=True, slots=True)
class Channel:
    """Channels whose names a pattern has. `[channels."table:{table_id}"]`; the most specific pattern wins."""

    pattern: str = field(metadata=_("The pattern: `lobby`, `table:{table_id}`, `files:{path*}`.", key=True))
    subscribe: Decision = field(metadata=_("Who may subscribe. Mandatory: no channel is open by omission."))
    publish: Publishing | None = field(default=None, metadata=_("Which clients may publish; without it none."))
    snapshot: Snapshot | None = field(default=None, metadata=_("What a subscriber gets first."))
    history: History | None = field(default=None, metadata=_("What is kept, for recovery and for `history`."))
    presence: bool = field(default=False, metadata=_("Subscribers may ask who is there."))
    join_leave: bool = field(
        default=False, metadata=_("Subscribers are told who comes and goes (first and last connection of a user).")
    )
    join_leave_most: int = field(default=100, metadata=_("Above so many users only their number is told.", least=0))
    hold_s: float | None = field(
        default=None,
        metadata=_(
            "How long somebody whose connection was lost is still there for the others; without it `resume_window`.",
            least=0,
        ),
    )
    server_side: bool = field(
        default=False,
        metadata=_("Every connection that may is subscribed when it connects; needs one variable at most."),
    )
    overflow: Overflow = field(
        default="disconnect",
        metadata=_(
            "A slow reader: `disconnect` it, keep the `latest` publication for it, or `drop` and tell how many."
        ),
    )
    max_message_bytes: int = field(default=64 * KIB, metadata=_("Largest publication."))
    rate: Rate | None = field(
        default=None, metadata=_("Publications of one connection into one channel: `5/s`; beyond it error 111.")
    )
    info: str | None = field(
        default=None, metadata=_("CEL: what others are told about a subscriber (`chan_info`).", cel=True)
    )
    times: bool = field(default=False, metadata=_("Tell clients when each publication was made."))
    coalesce_s: float = field(
        default=0.005,
        metadata=_("On a busy channel publications are sent together after at most this; 0: never.", least=0, most=1),
    )


@dataclass(frozen=True, slots=True)
class Rpc(BackendCall):
    """A method that clients can call. `[rpc."table.drop"]`; `*` at the end takes every method that begins so."""

    method: str = field(default="", metadata=_("The method.", key=True))
    echo: bool = field(default=False, metadata=_("Answered by the gateway with what was sent: to measure round trips."))
    when: str | None = field(default=None, metadata=_("CEL; anything but true is error 103.", cel=True))
    data: str = field(default="", metadata=_("Path of the field of the answer that is sent; without it the whole."))
    errors: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_('gRPC status or HTTP status to error code: `{ NOT_FOUND = "404", "*" = "400" }`.', table=True),
    )
    anonymous: bool = field(default=False, metadata=_("Anonymous connections may call it too."))


@dataclass(frozen=True, slots=True)
class WebSocket:
    """Where real-time clients connect, and how. `[[websocket]]`."""

    path: str = field(default="/ws", metadata=_("The path of the WebSocket."))
    dialect: str = field(
        default="centrifuge", metadata=_("The protocol: `centrifuge`, or an application's own as `module:Class`.")
    )
    sse: str | None = field(default=None, metadata=_("Path for clients that can only do Server-Sent Events."))
    http_stream: str | None = field(default=None, metadata=_("Path for clients that can only read an HTTP stream."))
    emulation: str | None = field(default=None, metadata=_("Path where clients of both send their commands."))
    origins: tuple[str, ...] | None = field(
        default=None,
        metadata=_("Origins of pages that may connect, beside the same origin, instead of those in `[cors]`."),
    )
    credentials: tuple[Literal["command", "header", "subprotocol", "query", "cookie", "certificate"], ...] = field(
        default=("command", "header", "subprotocol"),
        metadata=_(
            "Where the token may stand; `cookie` and `query` by the names in `[auth]`; `certificate` as on routes."
        ),
    )
    anonymous: bool = field(default=False, metadata=_("Connections without a token are let in, as nobody."))
    anonymous_claims: tuple[tuple[str, str], ...] = field(
        default=(), metadata=_("Claims that rules see of an anonymous connection.", table=True)
    )
    device: Literal["sid", "data"] = field(
        default="sid", metadata=_("What makes a session one device: the `sid` claim, or else also `data.device`.")
    )
    info: str | None = field(
        default=None, metadata=_("CEL: what others are told about a connection (`conn_info`).", cel=True)
    )
    compression: bool = field(
        default=False, metadata=_("Offer permessage-deflate; one compressed frame serves all subscribers.")
    )
    max_message_bytes: int = field(default=64 * KIB, metadata=_("Largest message from a client."))
    auth_timeout_s: float = field(
        default=5.0, metadata=_("A connection must be authenticated this long after it opened.")
    )
    close_timeout_s: float = field(default=5.0, metadata=_("How long the closing handshake may take."))
    ping_s: float = field(
        default=25.0, metadata=_("Between two pings of the server; the first comes earlier, at random.")
    )
    pong_timeout_s: float = field(default=8.0, metadata=_("A client that is silent this long after a ping is closed."))
    outbox_bytes: int = field(
        default=1 * MIB, metadata=_("Unsent bytes for one connection; beyond it the overflow policy.")
    )
    max_channels: int = field(default=128, metadata=_("Most subscriptions of one connection."))
    max_in_flight: int = field(default=32, metadata=_("Commands of one connection that run at once."))
    max_waiting_bytes: int = field(
        default=256 * KIB, metadata=_("Commands waiting for others; beyond it the socket is not read.")
    )


@dataclass(frozen=True, slots=True)
class Realtime:
    """Sessions, presence and what backends are told about them."""

    resume_window_s: float = field(
        default=30.0,
        metadata=_("A device that is back this soon after a lost connection goes on with its session.", least=0),
    )
    expired_grace_s: float = field(
        default=25.0, metadata=_("A connection may outlive its token by this, to refresh it.", least=0)
    )
    position_check_s: float = field(
        default=40.0,
        metadata=_("A quiet channel with history is compared with the store about this often; 0: never.", least=0),
    )
    join_leave_tick_s: float = field(
        default=0.5, metadata=_("Joins and leaves of a channel are told together, this often.")
    )
    on_connect: BackendCall | None = field(
        default=None, metadata=_("Asked before a connection is let in; a failure refuses it.")
    )
    on_disconnect: BackendCall | None = field(default=None, metadata=_("Told when a connection is gone."))
    on_subscribe: BackendCall | None = field(default=None, metadata=_("Told when a subscription stands."))
    on_unsubscribe: BackendCall | None = field(default=None, metadata=_("Told when it ended."))
    told_most_bytes: int = field(
        default=4 * MIB,
        metadata=_("Facts waiting to be told to backends; beyond it they are lost, counted and logged."),
    )
    told_for_s: float = field(default=60.0, metadata=_("How long telling a fact is tried again."))
