"""
One upstream: its targets, which of them are used, and how much it may be asked.

It does not know what a target is: a pool of HTTP connections, a gRPC channel. A request is
admitted once (breaker, bound on requests under way) and finished once; each of its attempts goes
to a target that is picked, begun and ended. A success costs about a microsecond in all.

Failures are what a backend is to blame for: no connection, a reset, an answer that cannot be
read or says that the backend is broken, a time-out it had a fair time to avoid. A client's
mistake, a client that left and the gateway's own limits say nothing about a backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, Generic, TypeVar

from gateway.config.sections import Upstream
from gateway.core.balance import candidates, least_requests, round_robin
from gateway.core.breaker import Breaker, BreakerState
from gateway.core.budget import RetryBudget
from gateway.core.outlier import Record, room_to_eject
from gateway.core.problems import Problem

__all__ = ["Cluster", "Member"]

T = TypeVar("T")

_TOLD = -1
"""The admission of a request about which the breaker knows already."""


class Member(Generic[T]):
    """
    One target.

    Attributes:
        value: What is asked: a pool, a channel.
        healthy: What the active check says; True until it has said anything.
        aside_until: Seconds until which somebody has put it aside.
        in_flight: Attempts under way.
        record: Its failures and ejections.
        attempts: Attempts so far.
        failures: Those that failed by its fault.
    """

    __slots__ = ("aside_until", "attempts", "failures", "healthy", "in_flight", "name", "record", "value")

    def __init__(self, name: str, value: T) -> None:
        self.name = name
        self.value = value
        self.healthy = True
        self.aside_until = 0.0
        self.in_flight = 0
        self.record = Record()
        self.attempts = 0
        self.failures = 0

    def is_out(self, now: float) -> bool:
        """
        Whether it is left out for now.
        """
        return not self.healthy or self.record.ejected_until > now or self.aside_until > now

    def is_ejected(self, now: float) -> bool:
        """
        Whether it is left out because it failed requests.
        """
        return self.record.ejected_until > now


class Cluster(Generic[T]):
    """
    The targets of one upstream and what is known about them.

    Args:
        random: Evenly from 0 to 1.
        changed: Told when something an operator should know happens: the event's name and its fields.

    Attributes:
        active: Requests under way.
        budget: For retries.
    """

    def __init__(
        self,
        section: Upstream,
        targets: Sequence[tuple[str, T]],
        random: Callable[[], float],
        changed: Callable[[str, dict[str, Any]], None] = lambda _event, _fields: None,
    ) -> None:
        self.name = section.name
        self.members = [Member(name, value) for name, value in targets]
        self.active = 0
        self.budget = RetryBudget(percent=section.retry.budget_percent, minimum=section.retry.budget_min)
        self._outlier = section.outlier
        self._max_requests = section.breaker.max_requests
        self._least = section.balance == "least_requests"
        self._turn = 0
        self._random = random
        self._changed = changed
        self._impaired = False
        self.breaker = Breaker(
            failure_percent=section.breaker.failure_percent,
            min_requests=section.breaker.min_requests,
            window_s=section.breaker.window_s,
            open_s=section.breaker.open_s,
            max_open_s=section.breaker.max_open_s,
            probes=section.breaker.probes,
            random=random,
        )

    def admit(self, now: float) -> int:
        """
        Begin a request; ``finished`` ends it, with what this returns.

        Raises:
            Problem: ``upstream_overload``, ``upstream_open``; with ``Retry-After``.
        """
        if self.active >= self._max_requests:
            raise Problem("upstream_overload", headers=((b"Retry-After", b"1"),))
        breaker = self.breaker
        before = breaker.state
        if before is not BreakerState.CLOSED:
            wait = breaker.admit(now)
            self._say_breaker(before)
            if wait:
                raise Problem("upstream_open", headers=((b"Retry-After", b"%d" % math.ceil(wait)),))
        self.active += 1
        return breaker.epoch

    def answering(self, admission: int, now: float) -> int:
        """
        Hear that a good answer has begun, which may take long to end.

        A probe that streams for an hour must not keep the upstream closed for an hour. Returns
        the admission to finish with.
        """
        if self.breaker.state is BreakerState.CLOSED:
            return admission
        self._tell(admission, now, ok=True)
        return _TOLD

    def finished(self, admission: int, now: float, *, ok: bool | None) -> None:
        """
        End a request: answered, failed by the backend's fault, or None when it says nothing about the backend.
        """
        self.active -= 1
        if ok:
            self.budget.earn()
            if self.breaker.state is BreakerState.CLOSED:
                self.breaker.succeeded(now, admission)
                return
        if admission != _TOLD:
            self._tell(admission, now, ok=ok)

    def _tell(self, admission: int, now: float, *, ok: bool | None) -> None:
        breaker = self.breaker
        before = breaker.state
        if ok is None:
            breaker.abandoned(admission)
        elif ok:
            breaker.succeeded(now, admission)
        else:
            breaker.failed(now, admission)
        self._say_breaker(before)

    def _say_breaker(self, before: BreakerState) -> None:
        state = self.breaker.state
        if state is not before:
            self._changed("upstream.breaker", {"upstream": self.name, "state": state.name.lower()})

    def pick(self, now: float, tried: Container[Member[T]] = ()) -> Member[T]:
        """
        Choose a target that is used, preferably one not *tried* yet; see ``core.balance.candidates``.

        Raises:
            Problem: ``upstream_no_target`` when there is none at all.
        """
        members: Sequence[Member[T]] = self.members
        if self._impaired or tried:
            self._impaired = any(member.is_out(now) for member in members)
            members = candidates(members, lambda member: member.is_out(now), tried)
        if not members:
            raise Problem("upstream_no_target")
        if self._least:
            return least_requests(members, self._random)
        self._turn += 1
        return round_robin(members, self._turn)

    def began(self, member: Member[T]) -> None:
        """
        An attempt goes to *member*.
        """
        member.in_flight += 1
        member.attempts += 1

    def ended(self, member: Member[T], now: float, *, ok: bool | None) -> None:
        """
        An attempt is over: answered, failed by the target's fault, or None when it says nothing about it.
        """
        member.in_flight -= 1
        if ok:
            member.record.failures = 0
        elif ok is not None:
            member.failures += 1
            outlier = self._outlier
            if member.record.failed(now, outlier.consecutive_failures) and room_to_eject(
                sum(other.is_out(now) for other in self.members if other is not member),
                len(self.members),
                outlier.max_ejected_percent,
            ):
                member.record.eject(now, outlier.base_ejection_s, outlier.max_ejection_s)
                self._impaired = True
                seconds = round(member.record.ejected_until - now, 1)
                self._changed("upstream.ejected", {"upstream": self.name, "target": member.name, "seconds": seconds})

    def checked(self, member: Member[T], now: float, *, healthy: bool) -> None:
        """
        The active check has a verdict about *member*; a good one uses it again at once.
        """
        if healthy and member.is_ejected(now):
            member.record.readmit(now)
            self._changed("upstream.readmitted", {"upstream": self.name, "target": member.name})
        if member.healthy is not healthy:
            member.healthy = healthy
            self._impaired = True
            event = "upstream.healthy" if healthy else "upstream.unhealthy"
            self._changed(event, {"upstream": self.name, "target": member.name})

    def eject(self, name: str, now: float, seconds: float) -> bool:
        """
        Leave a target out on somebody's word, whatever checks say; False if there is none of that name.
        """
        for member in self.members:
            if member.name == name:
                member.aside_until = now + seconds
                self._impaired = True
                return True
        return False

    def restore(self, name: str, now: float) -> bool:
        """
        Use a target again on somebody's word; False if there is none of that name.
        """
        for member in self.members:
            if member.name == name:
                member.record.readmit(now)
                member.healthy = True
                member.aside_until = 0.0
                return True
        return False

    def describe(self, now: float) -> dict[str, Any]:
        """
        Tell everything for the admin port and the console.
        """
        return {
            "upstream": self.name,
            "breaker": self.breaker.state.name.lower(),
            "active": self.active,
            "retrying": self.budget.retrying,
            "targets": [
                {
                    "target": member.name,
                    "healthy": member.healthy,
                    "ejected_s": round(max(0.0, member.record.ejected_until - now, member.aside_until - now), 1),
                    "in_flight": member.in_flight,
                    "attempts": member.attempts,
                    "failures": member.failures,
                }
                for member in self.members
            ],
        }
