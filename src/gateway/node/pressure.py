"""
What an instance refuses when it has more to do than it can, told by how late it is.

A timer that fires late tells how long everything else waits, too. While that is more than the limit, a growing
share of new work is refused for next to nothing, so that the rest is answered in time; when it is less the share
falls again. First new real-time connections and callers without a credential, then every request. Connections
that stand, what comes over them and the gateway's own paths are never refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.problems import Problem
from gateway.core.rate_headers import REDUCED_CAPACITY

__all__ = ["Pressure"]

RISE = 0.1
"""How much the share grows with a measurement at twice the limit; more when it is later, less when less."""

FALL = 0.05

MOST_RISE = 0.3
MOST_SHARE = 0.98
"""Something always passes: else nothing would tell that it is over."""


class Pressure:
    """
    How much is refused now.

    Attributes:
        share: Of what may be refused, from 0 to 1: up to a half it grows for strangers and openings, then for all.
        shed: How many were refused.
    """

    def __init__(self) -> None:
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

    def pass_or_shed(self, kind: str, fields: Mapping[bytes, bytes]) -> None:
        """
        Let a request pass, or refuse it.

        Args:
            kind: ``ServedRoute.kind``.
            fields: Its headers: with a credential it goes before those without.

        Raises:
            Problem: ``overloaded``.
        """
        share = self.share
        if not share or kind in ("own", "said"):
            return
        known = kind != "opening" and (b"authorization" in fields or b"cookie" in fields)
        share = max(0.0, 2 * share - 1) if known else min(1.0, 2 * share)
        # A share and no chance: every second, every third, as evenly as they come.
        owed = self._owed[known] + share
        if owed < 1:
            self._owed[known] = owed
            return
        self._owed[known] = owed - 1
        self.shed += 1
        raise Problem("overloaded", headers=((b"Retry-After", b"1"),), extra={"type": REDUCED_CAPACITY})
