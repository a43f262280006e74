"""
What a real-time client can ask, and what it can be told, whatever its dialect.

The shapes are those of the Centrifuge client protocol, because its official SDKs are the first
clients; a dialect maps its own bytes to them and back. ``data`` is bytes that are passed
through: JSON text in a JSON dialect, anything in a binary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Subscribe:
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


@dataclass(frozen=True, slots=True)
class Connect:
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


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Listen no more."""

    channel: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish *data* into a channel."""

    channel: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Presence:
    """Ask who is there."""

    channel: str


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """Ask how many are there."""

    channel: str


@dataclass(frozen=True, slots=True)
class HistoryAsked:
    """Ask for a part of a stream: *limit* 0 asks for the position only, -1 for all there is."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call a backend."""

    method: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """A message that expects no reply."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Refresh:
    """Present a newer token for the connection."""

    token: str


@dataclass(frozen=True, slots=True)
class SubRefresh:
    """Present a newer token for a subscription."""

    channel: str
    token: str


@dataclass(frozen=True, slots=True)
class Ping:
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


@dataclass(frozen=True, slots=True)
class Command:
    """
    One request and the id its reply will carry; 0 where none is expected.
    """

    id: int
    request: Request


@dataclass(frozen=True, slots=True)
class Subscribed:
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


@dataclass(frozen=True, slots=True)
class Connected:
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


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to say (unsubscribe, publish, ping)."""

    request: type[Request]


@dataclass(frozen=True, slots=True)
class PresenceTold:
    """Who is there, by connection id."""

    presence: Mapping[str, ClientInfo]


@dataclass(frozen=True, slots=True)
class PresenceStatsTold:
    """How many are there."""

    clients: int
    users: int


@dataclass(frozen=True, slots=True)
class HistoryTold:
    """A part of a stream and the stream's top."""

    publications: tuple[Publication, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class RpcDone:
    """A backend's answer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A newer token was taken; *channel* names a subscription, empty the connection."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl_s: int = 0
    channel: str = ""


Result = Connected | Subscribed | Done | PresenceTold | PresenceStatsTold | HistoryTold | RpcDone | Refreshed
