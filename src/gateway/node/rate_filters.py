"""
Where requests meet limits: by address before anything else, by user once it is known who asks.

Only those filters exist in a plan that have something to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from gateway.core.message import Header
from gateway.core.problems import Problem
from gateway.core.rate_headers import QUOTA_EXCEEDED, limit_item, policy_item, retry_after, wait_s
from gateway.node.admission import Admission
from gateway.node.pressure import Pressure
from gateway.node.rate_limits import Outcome, RateLimits
from gateway.node.rate_policies import Policy
from gateway.ports.http import Exchange
from gateway.ports.limits import Verdict

__all__ = ["Arrival", "Doors", "Known"]

_OURS = frozenset((b"/health", b"/ready", b"/livez", b"/readyz"))


class Arrival:
    """
    Limits of addresses: nothing but the address is known, and nothing was spent on the request yet.
    """

    def __init__(self, rates: RateLimits) -> None:
        self._rates = rates
        self._blocked = rates.blocked if rates.failures else None
        self._policies = rates.arrival

    def __call__(self, exchange: Exchange) -> Deferred[None] | None:
        """
        Take the request's part of its address's budgets.

        Raises:
            Problem: ``rate_limited``. The Deferred fails with the same.
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
        return _wait(self._rates.take([(policy, policy.key_of_request(exchange)) for policy in policies]), exchange)


class Doors:
    """
    Openings of real-time connections, and all that can be refused when there is too much.
    """

    def __init__(self, rates: RateLimits, admission: Admission | None, pressure: Pressure | None) -> None:
        self._rates = rates
        self._policies = rates.connects_by_address
        self._admission = admission
        self._pressure = pressure

    def __call__(self, exchange: Exchange) -> Deferred[None] | None:
        """
        Let it through, or not.

        Raises:
            Problem: ``overloaded``, ``too_many_openings``, ``rate_limited``. The Deferred fails with the last.
        """
        kind = exchange.route.kind
        if self._pressure is not None:
            self._pressure.pass_or_shed(kind, exchange.head.fields)
        if kind != "opening":
            return None
        if self._admission is not None:
            self._admission.take()
        policies = self._policies
        if not policies:
            return None
        return _wait(self._rates.take([(policy, policy.key_of_request(exchange)) for policy in policies]), exchange)


class Known:
    """
    Limits of users, routes and whatever an expression makes of a request.
    """

    def __init__(self, rates: RateLimits) -> None:
        self._rates = rates
        self._policies = rates.known

    def __call__(self, exchange: Exchange) -> Deferred[None] | None:
        """
        Take the request's part of every budget that holds for it.

        Raises:
            Problem: ``rate_limited``. The Deferred fails with the same.
        """
        route = exchange.route
        if route.kind == "own":
            return None
        due = [(policy, policy.key_of_request(exchange)) for policy in self._policies if policy.counts_route(route)]
        return _wait(self._rates.take(due), exchange) if due else None


def _wait(outcome: Outcome | Deferred[Outcome | None] | None, exchange: Exchange) -> Deferred[None] | None:
    if outcome is None:
        return None
    if isinstance(outcome, Deferred):
        return outcome.addCallback(_told, exchange)
    _told(outcome, exchange)
    return None


def _told(outcome: Outcome | None, exchange: Exchange) -> None:
    if outcome is None:
        return
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
