"""
What travels through channels, and where it stands in a channel's stream.

A stream is a channel's publications in order. Its *epoch* names one run of the counter, its
*offset* counts within it; no (channel, epoch, offset) ever names two different publications.
After Centrifugo's history and recovery model.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["ClientInfo", "History", "Position", "Publication", "PublishOptions", "Published"]


class Position(Struct, frozen=True):
    """
    A place in a channel's stream. Offset 0 is before the first publication.
    """

    offset: int = 0
    epoch: str = ""


class ClientInfo(Struct, frozen=True):
    """
    Who a connection is to others.

    Attributes:
        user: The identity's subject.
        client: The connection's public id.
        conn_info: JSON (or any bytes, for Protobuf-only products) given at connect; perhaps empty.
        chan_info: The same given at subscribe.
    """

    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


class Publication:
    """
    One message of a channel. Made once, shared by all its receivers, never changed.

    Attributes:
        data: The payload; JSON unless the product speaks Protobuf only.
        offset: Its place in the stream; 0 in channels without history.
        info: The publisher, when a client published it.
        tags: Small key-value pairs that go along.
        time_ms: When it was published, milliseconds since the epoch by the store's clock; 0 if not told.
        version: The application's own version of the state that *data* shows; 0 if none.
        trace: A ``traceparent`` value that was sampled, else empty.
    """

    __slots__ = ("data", "info", "offset", "tags", "time_ms", "trace", "version")

    def __init__(
        self,
        data: bytes,
        offset: int = 0,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        time_ms: int = 0,
        version: int = 0,
        trace: str = "",
    ) -> None:
        self.data = data
        self.offset = offset
        self.info = info
        self.tags = tags
        self.time_ms = time_ms
        self.version = version
        self.trace = trace

    def __repr__(self) -> str:
        return f"Publication(offset={self.offset}, {len(self.data)} bytes)"


class PublishOptions(Struct, frozen=True):
    """
    How to publish.

    Attributes:
        history_size: Publications kept in the channel's stream; 0 keeps none and gives no offset.
        history_ttl_s: How long the stream lives after its last publication.
        idempotency_key: A second publication with the same key within five minutes is not made;
            the first one's position is returned.
        version: With *version_epoch*: a publication whose version is not above the last one's is dropped.
        version_epoch: A new one lets versions start over.
        timed: Clients are told when it was made.
        replicas: Wait until so many replicas of the store have it, or ``wait_s`` are over; 0 does not wait.
    """

    history_size: int = 0
    history_ttl_s: float = 0.0
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    timed: bool = False
    replicas: int = 0
    wait_s: float = 0.0


class Published(Struct, frozen=True):
    """
    What became of a publication.

    Attributes:
        position: Its place, or that of the first one with the same idempotency key.
        suppressed: It was not delivered: ``"idempotency"`` or ``"version"``; else empty.
        replicas: How many replicas have it for certain; 0 if that was not asked.
    """

    position: Position
    suppressed: str = ""
    replicas: int = 0


class History(Struct, frozen=True):
    """
    A part of a stream.

    Attributes:
        publications: In the order asked for.
        position: The top of the stream at that moment.
    """

    publications: tuple[Publication, ...]
    position: Position
