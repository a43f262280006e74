"""
One channel on one node: who listens, and where in its stream they all stand.

Pure bookkeeping; the hub sends, and ``node.mending`` reads what was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall

from gateway.core.channels import ChannelMatch
from gateway.core.publications import ClientInfo, Position, Publication
from gateway.node.rulebook import ChannelRule
from gateway.ports.clients import Form

if TYPE_CHECKING:
    from gateway.node.subscription import Subscription

__all__ = ["MENDING", "UNKNOWN", "Group", "Mended", "Room", "pieces"]

UNKNOWN: Final = -1
MENDING: Final = -2
"""No publication is the next one: whatever comes is looked at before it is delivered."""

MOST_KEPT: Final = 1024 * 1024

MOST_TOGETHER: Final = 64 * 1024
"""Bytes of publications that are sent together."""


class Mended:
    """
    A room whose sequence has a hole, until it is filled.

    Attributes:
        position: What everybody in the room has.
        again: Something was missed that was not kept: what is read next may not be all.
        seen: The last publication that came meanwhile.
    """

    __slots__ = ("_bytes", "_kept", "again", "position", "seen")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.again = False
        self.seen = position
        self._kept: list[tuple[Publication, str]] = []
        self._bytes = 0

    def keep(self, publication: Publication, epoch: str) -> None:
        """
        Keep what comes meanwhile; beyond a bound it is read from history instead.
        """
        self.seen = Position(publication.offset, epoch)
        self._bytes += len(publication.data)
        if self._bytes > MOST_KEPT:
            self._kept.clear()
            self._bytes = 0
            self.again = True
        else:
            self._kept.append((publication, epoch))

    def take(self, epoch: str) -> list[Publication]:
        """
        Take what was kept of *epoch*.
        """
        kept, self._kept, self._bytes = self._kept, [], 0
        return [publication for publication, of in kept if of == epoch]


class Group:
    """
    The listeners of a channel that share a form.

    Attributes:
        direct: With how each one's bytes are sent; nothing is queued for these.
        queued: The others: blocked, or without a socket of their own.
        frames: Publications that each of them was given, ever; ``bytes`` likewise. Who came later has a mark.
    """

    __slots__ = ("bytes", "direct", "frames", "queued")

    def __init__(self) -> None:
        self.direct: dict[Subscription, Callable[[bytes], int]] = {}
        self.queued: dict[Subscription, None] = {}
        self.frames = self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self.direct or self.queued)

    def __iter__(self) -> Iterator[Subscription]:
        yield from self.direct
        yield from self.queued

    def send(self, frame: bytes, publications: Sequence[Publication]) -> None:
        """
        Give everybody *frame*, which is *publications*: one ``send`` and one comparison for each whom nothing waits for.
        """
        size = len(frame)
        self.frames += len(publications)
        self.bytes += size
        short: list[tuple[Subscription, int]] | None = None
        for subscription, send in self.direct.items():
            try:
                if (sent := send(frame)) == size:
                    continue
            except OSError:
                sent = 0
            if short is None:
                short = []
            short.append((subscription, sent))
        if short is not None:
            for subscription, sent in short:
                # From here on it is blocked, and no longer in ``direct``, before anything else is sent.
                subscription.client.transport.write(frame[sent:] if sent else frame)
        if self.queued:
            behind = {subscription for subscription, _ in short} if short is not None else ()
            for subscription in list(self.queued):
                if subscription not in behind:
                    subscription.deliver(frame, publications)


class Room:
    """
    One channel on this node.

    Attributes:
        groups: Live subscriptions by form.
        joining: Subscriptions that are still being made; publications are kept for them.
        offset: Of the last publication that came, or what history said; ``UNKNOWN`` and ``MENDING`` are no offsets.
        heard: The broker delivers this channel.
        hoping: While the broker is asked for that, who else wants to know what becomes of it.
        comings: Users that came or went since they were last told, see ``node.presence``.
        late: Live subscriptions that have more than the room: by the offset that they have.
        mended: Set while what was missed is being read.
        checked: The offset at the last check of the position.
        since: When the first of those came that wait to be sent together.
        told: Many were sent a publication in this turn of the reactor; another one waits for its end.
    """

    __slots__ = (
        "checked",
        "comings",
        "epoch",
        "groups",
        "heard",
        "hoping",
        "joining",
        "last_at",
        "late",
        "lock",
        "mended",
        "name",
        "offset",
        "pending",
        "pending_bytes",
        "quiet_since",
        "rule",
        "since",
        "size",
        "timer",
        "told",
    )

    def __init__(self, match: ChannelMatch[ChannelRule]) -> None:
        self.name = match.name
        self.rule: ChannelRule = match.rule
        self.groups: dict[Form, Group] = {}
        self.joining: dict[Subscription, None] = {}
        self.late: dict[Subscription, int] = {}
        self.mended: Mended | None = None
        self.checked = UNKNOWN
        self.size = 0
        self.offset = UNKNOWN
        self.epoch = ""
        self.heard = False
        self.hoping: list[Deferred[None]] | None = None
        self.lock = DeferredLock()
        self.last_at = float("-inf")
        self.pending: list[Publication] = []
        self.pending_bytes = 0
        self.since = 0.0
        self.timer: IDelayedCall | None = None
        self.told = False
        self.quiet_since = 0.0
        self.comings: dict[str, tuple[bool, ClientInfo]] = {}

    async def hope(self) -> None:
        """
        Wait for what the broker answers to whoever asked it.
        """
        assert self.hoping is not None, "somebody asks"
        answer: Deferred[None] = Deferred()
        self.hoping.append(answer)
        await answer

    def __iter__(self) -> Iterator[Subscription]:
        for group in self.groups.values():
            yield from group
        yield from self.late


def pieces(publications: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """
    Cut what is to be sent where it would be too much for one frame; a piece has one publication at least.
    """
    begin = total = 0
    for end, publication in enumerate(publications):
        total += len(publication.data)
        if total > MOST_TOGETHER and end > begin:
            yield publications[begin:end]
            begin, total = end, len(publication.data)
    if begin < len(publications):
        yield publications[begin:]
