"""
One upstream: its targets, which of them are used, and how much it may be asked.

It does not know what a target is: a pool of HTTP connections, a gRPC channel. A request is
admitted once (breaker, bound on requests under way) and ended once; each of its attempts goes
to a target that is picked, begun and ended. A success costs about a microsecond in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, Generic, TypeVar

from gateway.config.sections import Upstream
from gateway.core.balance import least_requests, round_robin
from gateway.core.breaker import Breaker, BreakerState
from gateway.core.budget import RetryBudget
from gateway.core.outlier import Record
from gateway.core.problems import Problem

__all__ = ["Cluster", "Member"]

T = TypeVar("T")


class Member(Generic[T]):
    """
    One target.

    Attributes:
        value: What is asked: a pool, a channel.
        healthy: What the active check says; True until it has said anything.
        in_flight: Attempts under way.
        record: Its failures and ejections.
        attempts: Attempts so far.
        failures: Those that failed by its fault.
    """

    __slots__ = ("attempts", "failures", "healthy", "in_flight", "name", "record", "value")

    def __init__(self, name: str, value: T) -> None:
        self.name = name
        self.value = value
        self.healthy = True
        self.in_flight = 0
        self.record = Record()
        self.attempts = 0
        self.failures = 0


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
        self._ejected = 0
        self.breaker = Breaker(
            failure_percent=section.breaker.failure_percent,
            min_requests=section.breaker.min_requests,
            window_s=section.breaker.window_s,
            open_s=section.breaker.open_s,
            max_open_s=section.breaker.max_open_s,
            probes=section.breaker.probes,
            random=random,
        )

    def admit(self, now: float) -> None:
        """
        Begin a request; ``finished`` ends it.

        Raises:
            Problem: ``upstream_overload``, ``upstream_open``; with ``Retry-After``.
        """
        if self.active >= self._max_requests:
            raise Problem("upstream_overload", headers=((b"Retry-After", b"1"),))
        wait = self.breaker.admit(now)
        if wait:
            raise Problem("upstream_open", headers=((b"Retry-After", b"%d" % math.ceil(wait)),))
        self.active += 1

    def finished(self, now: float, *, ok: bool | None) -> None:
        """
        End a request: answered, failed by the backend's fault, or None when it says nothing about the backend.
        """
        self.active -= 1
        breaker = self.breaker
        if ok and breaker.state is BreakerState.CLOSED:
            breaker.succeeded(now)
            return
        before = breaker.state
        if ok is None:
            breaker.abandoned()
        elif ok:
            breaker.succeeded(now)
        else:
            breaker.failed(now)
        if breaker.state is not before:
            self._changed("upstream.breaker", {"upstream": self.name, "state": breaker.state.name.lower()})

    def pick(self, now: float, tried: Container[Member[T]] = ()) -> Member[T]:
        """
        Choose a target that is used, preferably one not *tried* yet.

        When every target is left out, all are used again: a wrong verdict must not be worse
        than the fault.

        Raises:
            Problem: ``upstream_no_target`` when there is none at all.
        """
        members = self.members
        if self._ejected or tried or not all(member.healthy for member in members):
            usable = [member for member in members if member.healthy and member.record.ejected_until <= now]
            self._ejected = sum(member.record.ejected_until > now for member in members)
            usable = usable or members
            members = [member for member in usable if member not in tried] or usable
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
            if member.record.failures or member.record.ejections:
                member.record.succeeded()
        elif ok is not None:
            member.failures += 1
            outlier = self._outlier
            if member.record.failed(
                now,
                consecutive=outlier.consecutive_failures,
                base_s=outlier.base_ejection_s,
                most_s=outlier.max_ejection_s,
                others_out=sum(self._is_out(other, now) for other in self.members if other is not member),
                all_targets=len(self.members),
                percent=outlier.max_ejected_percent,
            ):
                self._ejected += 1
                seconds = round(member.record.ejected_until - now, 1)
                self._changed("upstream.ejected", {"upstream": self.name, "target": member.name, "seconds": seconds})

    def checked(self, member: Member[T], *, healthy: bool) -> None:
        """
        The active check changed its mind about *member*; a passing one readmits it at once.
        """
        if healthy:
            member.record.readmit()
        if member.healthy is not healthy:
            member.healthy = healthy
            event = "upstream.healthy" if healthy else "upstream.unhealthy"
            self._changed(event, {"upstream": self.name, "target": member.name})

    def eject(self, name: str, now: float, seconds: float) -> bool:
        """
        Leave a target out on somebody's word; False if there is none of that name.
        """
        for member in self.members:
            if member.name == name:
                member.record.ejected_until = now + seconds
                self._ejected += 1
                return True
        return False

    def restore(self, name: str) -> bool:
        """
        Use a target again on somebody's word; False if there is none of that name.
        """
        for member in self.members:
            if member.name == name:
                member.record.readmit()
                member.healthy = True
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
                    "ejected_s": round(max(0.0, member.record.ejected_until - now), 1),
                    "in_flight": member.in_flight,
                    "attempts": member.attempts,
                    "failures": member.failures,
                }
                for member in self.members
            ],
        }

    def _is_out(self, member: Member[T], now: float) -> bool:
        return not member.healthy or member.record.ejected_until > now
