"""
Where requests meet limits: by address before anything else, by user once it is known who asks.

Only those filters exist in a plan that have something to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.message import Header
from gateway.core.problems import Problem
from gateway.core.rate_headers import QUOTA_EXCEEDED, limit_item, policy_item, retry_after, wait_s
from gateway.node.admission import Admission
from gateway.node.plan import Pause
from gateway.node.pressure import Pressure
from gateway.node.rate_limits import Asked, Outcome, RateLimits
from gateway.node.rate_policies import Policy
from gateway.ports.http import Exchange
from gateway.ports.limits import Verdict

__all__ = ["Arrival", "Doors", "Known"]

_OURS = frozenset((b"/health", b"/ready", b"/livez", b"/readyz"))


class _Waiting(Asked):
    """
    A request that waits for its verdicts.
    """

    __slots__ = ()

    def decided(self, outcome: Outcome | None) -> None:
        """
        Go on, or refuse.
        """
        if outcome is not None:
            if self.exchange.ended:
                return
            try:
                _told(outcome, self.exchange)
            except Problem as problem:
                self.refuse(self.exchange, problem)
                return
        self.over()


class Arrival:
    """
    Limits of addresses: nothing but the address is known, and nothing was spent on the request yet.
    """

    def __init__(self, rates: RateLimits) -> None:
        self._rates = rates
        self._blocked = rates.blocked if rates.failures else None
        self._policies = rates.arrival

    def __call__(self, exchange: Exchange) -> Pause | None:
        """
        Take the request's part of its address's budgets.

        Raises:
            Problem: ``rate_limited``.
        """
        if exchange.head.target in _OURS:
            return None
        if self._blocked is not None:
            outcome = self._blocked(exchange.client_host)
            if outcome is not None:
                raise _refusal(outcome)
        policies = self._policies
        if not policies:
            return None
        taken = self._rates.take([(policy, policy.key_of_request(exchange)) for policy in policies], _Waiting)
        return _now(taken, exchange) if taken is not None else None


class Doors:
    """
    Openings of real-time connections, and all that can be refused when there is too much.
    """

    def __init__(self, rates: RateLimits, admission: Admission | None, pressure: Pressure | None) -> None:
        self._rates = rates
        self._policies = rates.connects_by_address
        self._admission = admission
        self._pressure = pressure

    def __call__(self, exchange: Exchange) -> Pause | None:
        """
        Let it through, or not.

        Raises:
            Problem: ``overloaded``, ``too_many_openings``, ``rate_limited``.
        """
        kind = exchange.route.kind
        if self._pressure is not None:
            shed = self._pressure.pass_or_shed(kind, exchange.head.fields)
            if shed is not None:
                return shed
        if kind != "opening":
            return None
        if self._admission is not None:
            self._admission.take()
        policies = self._policies
        if not policies:
            return None
        taken = self._rates.take([(policy, policy.key_of_request(exchange)) for policy in policies], _Waiting)
        return _now(taken, exchange) if taken is not None else None


class Known:
    """
    Limits of users, routes and whatever an expression makes of a request.
    """

    def __init__(self, rates: RateLimits) -> None:
        self._rates = rates
        self._policies = rates.known

    def __call__(self, exchange: Exchange) -> Pause | None:
        """
        Take the request's part of every budget that holds for it.

        Raises:
            Problem: ``rate_limited``.
        """
        route = exchange.route
        if route.kind == "own" or exchange.target is None:
            return None  # OPTIONS * has no path that an expression could name.
        due = [(policy, policy.key_of_request(exchange)) for policy in self._policies if policy.counts_route(route)]
        if not due:
            return None
        taken = self._rates.take(due, _Waiting)
        return _now(taken, exchange) if taken is not None else None


def _now(taken: Outcome | _Waiting, exchange: Exchange) -> Pause | None:
    if isinstance(taken, _Waiting):
        return taken
    _told(taken, exchange)
    return None


def _told(outcome: Outcome, exchange: Exchange) -> None:
    if outcome.refused:
        raise _refusal(outcome)
    # Of all policies that hold, what is left of the one that has least left.
    said, verdict = min(outcome.told, key=lambda each: each[1].remaining)
    block = b"".join(b"%b: %b\r\n" % header for header in _headers(((said, verdict),)))
    exchange.response_block = b"%b%b" % (exchange.response_block, block)


def _refusal(outcome: Outcome) -> Problem:
    """
    Make a 429 that says which policies, and when to come back.
    """
    refused = outcome.refused
    seconds = retry_after(verdict.retry_after_s for _, verdict in refused)
    names = [policy.name for policy, _ in refused]
    return Problem(
        "rate_limited",
        f"Come back in {seconds} s.",
        headers=(*_headers(refused), (b"Retry-After", b"%d" % seconds)),
        extra={"type": QUOTA_EXCEEDED, "violated-policies": names},
        reason="limit: " + ", ".join(names),
    )


def _headers(told: Sequence[tuple[Policy, Verdict]]) -> tuple[Header, Header]:
    limits, policies = [], []
    for policy, verdict in told:
        quota = policy.quota
        wait = wait_s(verdict.full_after_s, quota.number, quota.per_s, quota.burst)
        limits.append(
            limit_item(policy.name, verdict.remaining, max(wait, 0.0 if verdict.allowed else verdict.retry_after_s))
        )
        policies.append(policy_item(policy.name, quota.number, quota.per_s))
    return (b"RateLimit", b", ".join(limits)), (b"RateLimit-Policy", b", ".join(policies))
