"""
Looking on: what a user does, what is published in a channel, what a route answers, for as long as somebody asks.

Nothing of what clients and backends say is kept, only what it was, how large, and what became of it. Where nobody
looks on, a hot path compares with None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import commands as c
from gateway.core.publications import Publication
from gateway.core.verdicts import ClientError, ErrorCode

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["Heard", "Taps"]

MOST_TAPS: Final = 20
MOST_KEPT: Final = 200
MOST_A_SECOND: Final = 50
"""Of one tap; more are counted and left out."""

STAYS_S: Final = 10.0
"""How long a tap stays that nobody asks for."""

LONGEST: Final = 120

Key = tuple[str, str]


class Heard(NamedTuple):
    """
    One thing that happened.

    Attributes:
        number: Ascending.
        at: Seconds of the clock.
    """

    number: int
    at: float
    what: str
    who: str
    detail: str


class _Tap:
    __slots__ = ("heard", "left_out", "number", "second", "this_second", "until")

    def __init__(self) -> None:
        self.heard: deque[Heard] = deque(maxlen=MOST_KEPT)
        self.number = self.left_out = self.this_second = 0
        self.second = 0
        self.until = 0.0


class Taps:
    """
    Who is looked at on this instance.

    Args:
        seconds: The monotonic clock.

    Attributes:
        on: This, while there is something to look at; None otherwise: all that a hot path looks at.
    """

    __slots__ = ("_seconds", "_taps", "on")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._taps: dict[Key, _Tap] = {}
        self.on: Taps | None = None

    def look(self, kind: str, name: str, since: int) -> tuple[list[Heard], int, int]:
        """
        Look at a ``user``, ``channel`` or ``route`` for a while from now on.

        Returns:
            What was heard after number *since*, the last number, and how many were left out since the last time.

        Raises:
            ClientError: too many are looked at already.
        """
        self.sweep()
        key = kind, name
        tap = self._taps.get(key)
        if tap is None:
            if len(self._taps) >= MOST_TAPS:
                raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"{MOST_TAPS} are looked at already")
            tap = self._taps[key] = _Tap()
            self.on = self
        tap.until = self._seconds() + STAYS_S
        left_out, tap.left_out = tap.left_out, 0
        return [each for each in tap.heard if each.number > since], tap.number, left_out

    def sweep(self) -> None:
        """
        Forget what nobody asks for any more.
        """
        now = self._seconds()
        self._taps = {key: tap for key, tap in self._taps.items() if tap.until > now}
        if not self._taps:
            self.on = None

    def _hear(self, tap: _Tap, what: str, who: str, detail: str) -> None:
        second = int(self._seconds())
        if second != tap.second:
            tap.second, tap.this_second = second, 0
            if second > tap.until:
                self.sweep()
                return
        tap.this_second += 1
        if tap.this_second > MOST_A_SECOND:
            tap.left_out += 1
            return
        tap.number += 1
        tap.heard.append(Heard(tap.number, self._seconds(), what, who[:LONGEST], detail[:LONGEST]))

    def command(self, client: Client, command: c.Command, outcome: str) -> None:
        """
        A command of *client* was answered.
        """
        request: Any = command.request
        about = getattr(request, "channel", "") or getattr(request, "method", "")
        for key in (("user", client.user), ("channel", about)):
            tap = self._taps.get(key)
            if tap is not None:
                data = getattr(request, "data", b"")
                size = f" {len(data)} B" if data else ""
                self._hear(tap, type(request).__name__.lower(), client.user, f"{about}{size} -> {outcome}".strip())

    def closed(self, client: Client, code: int, reason: str) -> None:
        """
        A connection has ended.
        """
        tap = self._taps.get(("user", client.user))
        if tap is not None:
            self._hear(tap, "closed", client.user, f"{code} {reason}".strip())

    def published(self, channel: str, publication: Publication) -> None:
        """
        Something came into a channel.
        """
        tap = self._taps.get(("channel", channel))
        if tap is not None:
            who = publication.info.user if publication.info is not None else ""
            self._hear(tap, "publication", who, f"offset {publication.offset}, {len(publication.data)} B")

    def request(self, route: str, user: str, detail: str) -> None:
        """
        A request was answered.
        """
        for key in (("route", route), ("user", user)):
            tap = self._taps.get(key)
            if tap is not None:
                self._hear(tap, "request", user, detail)
