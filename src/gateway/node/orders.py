"""
What backends order through the server API: one structure for each operation, read from JSON.

Names are those of Centrifugo's server API, so that its libraries can be used; a member that is not
known here is refused rather than ignored, because somebody counts on what it does.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.core.verdicts import ClientError, ErrorCode

__all__ = ["ORDERS", "Order", "Publish", "payload", "read"]


User = Annotated[str, Meta(min_length=1)]
"""A subject. Clients without one are nobody's: an empty name would quietly mean no connection at all."""


Version = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Replicas = Annotated[int, Meta(ge=0, le=100)]
WaitMs = Annotated[int, Meta(ge=1, le=10_000)]


class Order(Struct, forbid_unknown_fields=True, kw_only=True):
    """
    An operation's parameters.
    """


class _Payload(Order, forbid_unknown_fields=True, kw_only=True):
    data: Raw = Raw(b"")
    b64data: str = ""


class Publish(_Payload, forbid_unknown_fields=True, kw_only=True):
    """Publish *data* into a channel."""

    channel: str
    skip_history: bool = False
    tags: dict[str, str] = {}
    idempotency_key: str = ""
    version: Version = 0
    version_epoch: str = ""
    delta: bool = False
    wait_replicas: Replicas = 0
    wait_ms: WaitMs = 1000


class Broadcast(_Payload, forbid_unknown_fields=True, kw_only=True):
    """Publish the same *data* into many channels."""

    channels: list[str]
    skip_history: bool = False
    tags: dict[str, str] = {}
    idempotency_key: str = ""
    version: Version = 0
    version_epoch: str = ""
    delta: bool = False
    wait_replicas: Replicas = 0
    wait_ms: WaitMs = 1000


class Since(Order, forbid_unknown_fields=True, kw_only=True):
    """A position in a stream."""

    offset: int = 0
    epoch: str = ""


class Subscribe(_Payload, forbid_unknown_fields=True, kw_only=True):
    """Subscribe a user's connections (or one of them) to a channel; the channel's rule is not asked."""

    user: User
    channel: str
    client: str = ""
    session: str = ""
    info: Raw = Raw(b"")
    b64info: str = ""
    recover_since: Since | None = None


class Unsubscribe(Order, forbid_unknown_fields=True, kw_only=True):
    """End the subscriptions of a user's connections (or of one) to a channel."""

    user: User
    channel: str
    client: str = ""
    session: str = ""


class Reason(Order, forbid_unknown_fields=True, kw_only=True):
    """A close code, and what it says to a developer."""

    code: int = 3503
    reason: str = "force disconnect"


class Disconnect(Order, forbid_unknown_fields=True, kw_only=True):
    """Close a user's connections (or one of them)."""

    user: User
    client: str = ""
    session: str = ""
    whitelist: list[str] = []
    disconnect: Reason | None = None


class Refresh(Order, forbid_unknown_fields=True, kw_only=True):
    """Let a user's connections go on until *expire_at* (epoch seconds), or end them as expired."""

    user: User
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: float = 0.0


class OfChannel(Order, forbid_unknown_fields=True, kw_only=True):
    """An operation on one channel."""

    channel: str


class History(OfChannel, forbid_unknown_fields=True, kw_only=True):
    """Read a stream: *limit* publications (0: only its position; -1: all) after *since*."""

    limit: Annotated[int, Meta(ge=-1)] = 0
    since: Since | None = None
    reverse: bool = False


class Channels(Order, forbid_unknown_fields=True, kw_only=True):
    """List channels that somebody listens to; *pattern* is a glob."""

    pattern: str = ""


class Connections(Order, forbid_unknown_fields=True, kw_only=True):
    """List the connections of a user."""

    user: User


class Info(Order, forbid_unknown_fields=True, kw_only=True):
    """Describe this instance."""


class Batch(Order, forbid_unknown_fields=True, kw_only=True):
    """Several operations, one after the other: each ``{"publish": {...}}``."""

    commands: list[dict[str, Raw]]
    parallel: bool = False


ORDERS: Final[Mapping[str, tuple[type[Order], str]]] = {
    "publish": (Publish, "publish"),
    "broadcast": (Broadcast, "publish"),
    "subscribe": (Subscribe, "connections"),
    "unsubscribe": (Unsubscribe, "connections"),
    "disconnect": (Disconnect, "connections"),
    "refresh": (Refresh, "connections"),
    "presence": (OfChannel, "presence"),
    "presence_stats": (OfChannel, "presence"),
    "history": (History, "history"),
    "history_remove": (OfChannel, "publish"),
    "channels": (Channels, "read"),
    "connections": (Connections, "connections"),
    "info": (Info, "read"),
    "batch": (Batch, ""),
}
"""By name: the parameters, and the scope that a key needs. A batch needs none: what is in it does."""


def read(name: str, data: bytes) -> Order:
    """
    Read the parameters of operation *name*.

    Raises:
        ClientError: ``METHOD_NOT_FOUND``, or ``BAD_REQUEST`` with what is wrong with them.
    """
    known = ORDERS.get(name)
    if known is None:
        raise ClientError(ErrorCode.METHOD_NOT_FOUND, f"there is no operation {name[:64]!r}")
    try:
        return msgspec.json.decode(data or b"{}", type=known[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(ErrorCode.BAD_REQUEST, f"{name}: {error}") from error


def payload(order: Any, name: str = "data", *, wanted: bool = False) -> bytes:
    """
    Take what was sent as JSON in *name*, or in base64 in ``b64`` and *name*; empty if neither was.

    Raises:
        ClientError: it is no JSON, or there is none though it is *wanted*.
    """
    data = bytes(getattr(order, name))
    encoded: str = getattr(order, f"b64{name}")
    if encoded:
        try:
            data = b64decode(encoded, validate=True)
        except ValueError:
            raise ClientError(ErrorCode.BAD_REQUEST, f"b64{name} is not base64") from None
    if not data:
        if wanted:
            raise ClientError(ErrorCode.BAD_REQUEST, f"{name} is missing")
        return b""
    try:
        # Clients are sent it as it is. ``format`` and ``Raw`` let bytes pass that are not UTF-8, and one
        # such byte in a text frame makes every browser in the channel fail its connection.
        msgspec.json.decode(data)
        # On one line, which frames demand.
        return msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ClientError(ErrorCode.BAD_REQUEST, f"{name} is not JSON") from None
