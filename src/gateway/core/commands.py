"""
What a real-time client can ask, and what it can be told, whatever its dialect.

The shapes are those of the Centrifuge client protocol, because its official SDKs are the first
clients; a dialect maps its own bytes to them and back. ``data`` is bytes that are passed
through: JSON text in a JSON dialect, anything in a binary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from gateway.core.publications import ClientInfo, Position, Publication

__all__ = [
    "Command",
    "Connect",
    "Connected",
    "Done",
    "HistoryAsked",
    "HistoryTold",
    "Ping",
    "Presence",
    "PresenceStats",
    "PresenceStatsTold",
    "PresenceTold",
    "Publish",
    "Refresh",
    "Refreshed",
    "Request",
    "Result",
    "Rpc",
    "RpcDone",
    "Send",
    "SubRefresh",
    "Subscribe",
    "Subscribed",
    "Unsubscribe",
]


class Subscribe(Struct, frozen=True):
    """
    Listen to a channel; with *recover*, from *since* on.
    """

    channel: str
    token: str = ""
    recover: bool = False
    since: Position = field(default_factory=Position)
    data: bytes = b""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class Connect(Struct, frozen=True):
    """
    The first command: who the client is, and server-side subscriptions it had before (*subs*).

    Attributes:
        name: The SDK's name (``js``, ``python``, ``swift``, …).
        version: The application's version.
        headers: Headers the client emulates; never trusted as transport headers are.
    """

    token: str = ""
    data: bytes = b""
    subs: Mapping[str, Subscribe] = field(default_factory=dict)
    name: str = ""
    version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Unsubscribe(Struct, frozen=True):
    """Listen no more."""

    channel: str


class Publish(Struct, frozen=True):
    """Publish *data* into a channel."""

    channel: str
    data: bytes


class Presence(Struct, frozen=True):
    """Ask who is there."""

    channel: str


class PresenceStats(Struct, frozen=True):
    """Ask how many are there."""

    channel: str


class HistoryAsked(Struct, frozen=True):
    """Ask for a part of a stream: *limit* 0 asks for the position only, -1 for all there is."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


class Rpc(Struct, frozen=True):
    """Call a backend."""

    method: str
    data: bytes


class Send(Struct, frozen=True):
    """A message that expects no reply."""

    data: bytes


class Refresh(Struct, frozen=True):
    """Present a newer token for the connection."""

    token: str


class SubRefresh(Struct, frozen=True):
    """Present a newer token for a subscription."""

    channel: str
    token: str


class Ping(Struct, frozen=True):
    """The client's own ping, or its answer to the server's (``Command.id`` 0)."""


Request = (
    Connect
    | Subscribe
    | Unsubscribe
    | Publish
    | Presence
    | PresenceStats
    | HistoryAsked
    | Rpc
    | Send
    | Refresh
    | SubRefresh
    | Ping
)


class Command(Struct, frozen=True):
    """
    One request and the id its reply will carry; 0 where none is expected.

    Attributes:
        span: What tells of it, where its trace is recorded (``node.realtime_spans.CommandSpan``).
    """

    id: int
    request: Request
    span: Any = None


class Subscribed(Struct, frozen=True):
    """
    A subscription stands.

    Attributes:
        recovered: *publications* are everything since the position the client named.
        was_recovering: The client had asked for that.
        position: From here on live publications follow without a hole.
        data: The snapshot.
        ttl_s: Seconds until the subscription's token must be renewed; 0 without an end.
    """

    position: Position = field(default_factory=Position)
    recoverable: bool = False
    positioned: bool = False
    recovered: bool = False
    was_recovering: bool = False
    publications: tuple[Publication, ...] = ()
    data: bytes = b""
    expires: bool = False
    ttl_s: int = 0


class Connected(Struct, frozen=True):
    """
    The connection is authenticated; *subs* are its server-side subscriptions.
    """

    client: str
    version: str
    expires: bool = False
    ttl_s: int = 0
    data: bytes = b""
    subs: Mapping[str, Subscribed] = field(default_factory=dict)
    ping_s: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class Done(Struct, frozen=True):
    """Nothing more to say (unsubscribe, publish, ping)."""

    request: type[Request]


class PresenceTold(Struct, frozen=True):
    """Who is there, by connection id."""

    presence: Mapping[str, ClientInfo]


class PresenceStatsTold(Struct, frozen=True):
    """How many are there."""

    clients: int
    users: int


class HistoryTold(Struct, frozen=True):
    """A part of a stream and the stream's top."""

    publications: tuple[Publication, ...]
    position: Position


class RpcDone(Struct, frozen=True):
    """A backend's answer."""

    data: bytes


class Refreshed(Struct, frozen=True):
    """A newer token was taken; *channel* names a subscription, empty the connection."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl_s: int = 0
    channel: str = ""


Result = Connected | Subscribed | Done | PresenceTold | PresenceStatsTold | HistoryTold | RpcDone | Refreshed
