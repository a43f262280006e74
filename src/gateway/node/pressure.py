"""
What an instance refuses when it has more to do than it can, told by how late it is.

A timer that fires late tells how long everything else waits, too. While that is more than the limit, a growing
share of new work is refused for next to nothing, so that the rest is answered in time; when it is less the share
falls again. First new real-time connections and callers without a credential, then every request. Connections
that stand, what comes over them and the gateway's own paths are never refused.

A refusal is held back for a moment: whoever sends the next request as soon as one is answered would otherwise
keep the instance busy with refusals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from gateway.core.problems import Problem
from gateway.core.rate_headers import REDUCED_CAPACITY
from gateway.node.plan import Pause

__all__ = ["Pressure"]

RISE = 0.1
"""How much the share grows with a measurement at twice the limit; more when it is later, less when less."""

FALL = 0.05

MOST_RISE = 0.3
HOLD_S = 0.5
"""How long a refusal is held back."""

MOST_HELD = 10_000
"""Refusals held back at once; others are told at once."""

TURN_S = 0.01
MOST_IN_TURN = 50
"""How often, and how many at a time, are told: all at once would make the instance late."""

MOST_SHARE = 0.98
"""Something always passes: else nothing would tell that it is over."""


class Pressure:
    """
    How much is refused now.

    Attributes:
        share: Of what may be refused, from 0 to 1: up to a half it grows for strangers and openings, then for all.
        shed: How many were refused.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._held: deque[tuple[float, Pause]] = deque()
        self.share = 0.0
        self.shed = 0
        self._limit_s = 0.0
        self._owed = [0.0, 0.0]

    def configure(self, limit_s: float) -> None:
        """
        Take another limit; 0: refuse nothing.
        """
        self._limit_s = limit_s
        if not limit_s:
            self.share = 0.0

    def measured(self, lag_s: float) -> None:
        """
        Take how late the reactor was.
        """
        limit_s = self._limit_s
        if not limit_s:
            return
        if lag_s > limit_s:
            self.share = min(MOST_SHARE, self.share + min(MOST_RISE, RISE * (lag_s / limit_s - 1) + 0.02))
        else:
            self.share = max(0.0, self.share - FALL * (1 - lag_s / limit_s))

    def pass_or_shed(self, kind: str, fields: Mapping[bytes, bytes]) -> Pause | None:
        """
        Let a request pass (None), or refuse it in a moment.

        Args:
            kind: ``ServedRoute.kind``.
            fields: Its headers: with a credential it goes before those without.

        Raises:
            Problem: ``overloaded``, where too many are held back already.
        """
        share = self.share
        if not share or kind in ("own", "said"):
            return None
        known = kind != "opening" and (b"authorization" in fields or b"cookie" in fields)
        share = max(0.0, 2 * share - 1) if known else min(1.0, 2 * share)
        # A share and no chance: every second, every third, as evenly as they come.
        owed = self._owed[known] + share
        if owed < 1:
            self._owed[known] = owed
            return None
        self._owed[known] = owed - 1
        self.shed += 1
        held = self._held
        if len(held) >= MOST_HELD:
            raise _overloaded()
        if not held:
            self._clock.callLater(TURN_S, self._turn)
        pause = Pause()
        held.append((self._clock.seconds() + HOLD_S, pause))
        return pause

    def _turn(self) -> None:
        """Tell those who have waited long enough."""
        now, held = self._clock.seconds(), self._held
        for _ in range(MOST_IN_TURN):
            if not held or held[0][0] > now:
                break
            pause = held.popleft()[1]
            pause.refuse(pause.exchange, _overloaded())
        if held:
            self._clock.callLater(TURN_S, self._turn)


def _overloaded() -> Problem:
    return Problem("overloaded", headers=((b"Retry-After", b"1"),), extra={"type": REDUCED_CAPACITY})
