"""
When a whole upstream is given a rest.

    CLOSED --enough failures within the window--> OPEN
    OPEN --its time is over, and somebody asks--> HALF_OPEN
    HALF_OPEN --every probe succeeded--> CLOSED
    HALF_OPEN --a probe failed--> OPEN, for twice as long

Each change begins an epoch. A request is admitted in one and reports to it; what it says about
an earlier one is out of date and counts for nothing, so a straggler neither closes nor opens
what it knows nothing of. Pure: time and randomness are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

__all__ = ["Breaker", "BreakerState"]

_SLICES = 10
_MOST_DOUBLINGS = 16
_PROBING_S = 1.0
"""When to ask again while every probe is out: nobody knows when they come back."""


class BreakerState(Enum):
    """
    What the breaker does; the value is the number in the metric.
    """

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """
    One upstream's breaker.

    Args:
        failure_percent: Share of failures within the window that opens it.
        min_requests: Fewer requests than this never open it.
        window_s: The span looked at, in ten slices.
        open_s: How long it stays open at first; doubles up to *max_open_s*, minus up to a tenth by chance.
        probes: Requests let through while half open.
        random: Evenly from 0 to 1.

    Attributes:
        state: Changes only in the methods below.
        epoch: How often it changed. To be remembered with each request that passes.
    """

    __slots__ = (
        "_failure_percent",
        "_max_open_s",
        "_min_requests",
        "_open_s",
        "_open_until",
        "_probes",
        "_probes_left",
        "_probes_missing",
        "_random",
        "_slice_s",
        "_slices",
        "_times_opened",
        "epoch",
        "state",
    )

    def __init__(
        self,
        *,
        failure_percent: int,
        min_requests: int,
        window_s: float,
        open_s: float,
        max_open_s: float,
        probes: int,
        random: Callable[[], float],
    ) -> None:
        self._failure_percent = failure_percent
        self._min_requests = min_requests
        self._slice_s = window_s / _SLICES
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._probes = probes
        self._random = random
        self._slices: dict[int, list[int]] = {}
        self._times_opened = 0
        self._open_until = 0.0
        self._probes_left = 0
        self._probes_missing = 0
        self.epoch = 0
        self.state = BreakerState.CLOSED

    def admit(self, now: float) -> float:
        """
        Let a request pass (0), or say how many seconds are left until it may.

        Every request that passes must be reported once, by ``succeeded``, ``failed`` or
        ``abandoned``, with the ``epoch`` it passed in.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.OPEN:
            if now < self._open_until:
                return self._open_until - now
            self._become(BreakerState.HALF_OPEN)
            self._probes_left = self._probes_missing = self._probes
        if self._probes_left:
            self._probes_left -= 1
            return 0.0
        return _PROBING_S

    def succeeded(self, now: float, epoch: int) -> None:
        """
        A request that passed was answered.
        """
        if epoch != self.epoch:
            return
        if self.state is BreakerState.CLOSED:
            self._count(now, 0)
        elif self.state is BreakerState.HALF_OPEN:
            self._probes_missing -= 1
            if not self._probes_missing:
                self._times_opened = 0
                self._become(BreakerState.CLOSED)

    def failed(self, now: float, epoch: int) -> None:
        """
        A request that passed failed by the backend's fault.
        """
        if epoch != self.epoch:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._open(now)
        elif self.state is BreakerState.CLOSED:
            self._count(now, 1)
            answered = failures = 0
            for good, bad in self._slices.values():
                answered += good
                failures += bad
            total = answered + failures
            if total >= self._min_requests and failures * 100 >= total * self._failure_percent:
                self._open(now)

    def abandoned(self, epoch: int) -> None:
        """
        A request that passed came to nothing that says anything about the backend (the client left).
        """
        if epoch == self.epoch and self.state is BreakerState.HALF_OPEN:
            self._probes_left += 1

    def _count(self, now: float, outcome: int) -> None:
        at = int(now / self._slice_s)
        counted = self._slices.get(at)
        if counted is None:
            oldest = at - _SLICES
            for old in [key for key in self._slices if key <= oldest]:
                del self._slices[old]
            counted = self._slices[at] = [0, 0]
        counted[outcome] += 1

    def _open(self, now: float) -> None:
        lasts = min(self._max_open_s, self._open_s * 2**self._times_opened)
        self._times_opened = min(self._times_opened + 1, _MOST_DOUBLINGS)
        self._open_until = now + lasts * (1 - 0.1 * self._random())
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1
        self._slices.clear()
