"""
One client's subscription to one channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.core.channels import ChannelMatch
from gateway.core.publications import ClientInfo, Publication
from gateway.core.verdicts import CloseReason
from gateway.node.rulebook import ChannelRule

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.presence import Place
    from gateway.node.room import Room

__all__ = ["Subscription"]

MOST_KEPT = 4 * 1024 * 1024
"""Bytes of publications kept for a subscription that is being made (its snapshot may take a while)."""


class Subscription:
    """
    From the moment it is asked for until it ended.

    Attributes:
        offset: Of the last publication that its reply gave it.
        live: Its reply was sent; publications go to the client.
        broken: Something may have been missed while it was being made.
        info: How others see it in this channel.
        place: Where it stands in the channel's presence, from when it began to enter.
        returns: It took a place that was held; None while that is not known.
        expires_at: Epoch seconds at which its token ends; 0 for never.
        number: Which of its connection's facts says that it stands; 0 until it does.
        server_side: The server made it, and only the server ends it.
        mark: How many publications and bytes others of its room had been given when it was seated.
    """

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "broken",
        "client",
        "expires_at",
        "info",
        "join_leave",
        "live",
        "mark",
        "match",
        "number",
        "offset",
        "place",
        "returns",
        "room",
        "server_side",
    )

    def __init__(self, client: Client, match: ChannelMatch[ChannelRule], *, server_side: bool = False) -> None:
        self.client = client
        self.match = match
        self.server_side = server_side
        self.room: Room | None = None
        self.offset = 0
        self.mark = (0, 0)
        self.live = False
        self.broken = False
        self.place: Place | None = None
        self.returns: bool | None = None
        self.join_leave = False
        self.number = 0
        self.expires_at = 0.0
        self.info: ClientInfo | None = None
        self._kept: list[Publication] | None = None
        self._kept_bytes = 0

    def keep(self, publication: Publication) -> None:
        """
        Keep a publication that came before the subscription was live.
        """
        if self._kept is None:
            self._kept = []
        self._kept_bytes += len(publication.data)
        if self._kept_bytes > MOST_KEPT:
            self.broken = True
            self._kept.clear()
        else:
            self._kept.append(publication)

    def kept(self) -> Sequence[Publication]:
        """
        Take what was kept.
        """
        kept, self._kept = self._kept, None
        self._kept_bytes = 0
        return kept or ()

    def deliver(self, frame: bytes, publications: Sequence[Publication]) -> None:
        """
        Send *frame*, or let it wait as the channel's overflow policy says.
        """
        client = self.client
        transport = client.transport
        outbox = client.outbox
        if not transport.blocked and not outbox:
            transport.write(frame)
            return
        overflow = self.match.rule.overflow
        if overflow == "drop":
            outbox.put_or_drop(self.match.name, frame, len(publications))
            return
        if overflow == "latest":
            if len(publications) > 1:
                form = transport.form
                frame = form.frame(form.dialect.publication(self.match.name, publications[-1]))
            fits = outbox.put_latest(self.match.name, frame)
        else:
            fits = outbox.put(frame)
        if not fits:
            client.close(CloseReason.SLOW.closing)

    def told_since(self, since: float) -> bool:
        """
        Whether publications went to it at *since* or later, in the clock's seconds.
        """
        return self.live and self.room is not None and self.room.last_at >= since
