"""
The rate limits of an instance: every policy in force, what is taken from its budgets, how they stand.

Of all that holds for one request or command, what is counted here is asked first and what all instances count
together in one step to the store. Nothing is asked, and nothing made, where no policy is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from gateway.config.limit_sections import Limits
from gateway.core import commands as c
from gateway.core.address import group
from gateway.core.gcra import spend
from gateway.core.rate_headers import wait_s
from gateway.core.verdicts import ClientError, CloseReason, ErrorCode, Refused
from gateway.node.muted import Muted
from gateway.node.plan import Pause
from gateway.node.rate_policies import Policy, ordered, whose
from gateway.ports.limits import Charge, LocalLimiter, RateLimiter, Verdict, Verdicts
from gateway.telemetry.tally import Tally

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["Asked", "Due", "Outcome", "RateLimits"]

MOST_BLOCKED: Final = 10_000
"""Addresses whose failures are used up; beyond it the oldest is forgotten, and counted."""

Due = tuple[Policy, str]
"""A policy, and whose budget it is this time."""


class Outcome(NamedTuple):
    """
    What is to be said.

    Attributes:
        refused: Budgets that are used up, each with its verdict; empty if it may be.
        least: Every one that was asked: what is left.
    """

    refused: Sequence[tuple[Policy, Verdict]]
    told: Sequence[tuple[Policy, Verdict]]


class Asked(Pause):
    """
    Who waits for what the store says.

    Attributes:
        due: What was asked.
        told: What is to be said beside it.
    """

    __slots__ = ("due", "rates", "told")

    rates: RateLimits
    due: Sequence[Due]
    told: list[tuple[Policy, Verdict]]

    def __call__(self, verdicts: Verdicts) -> None:
        """
        Take what the store said.
        """
        self.decided(self.rates.counted(verdicts, self))

    def decided(self, outcome: Outcome | None) -> None:
        """
        Go on, or do not.
        """
        raise NotImplementedError


class Awaited(Asked):
    """
    The same as a Deferred.
    """

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: Deferred[Outcome | None] = Deferred(_leave)

    def decided(self, outcome: Outcome | None) -> None:
        """
        Answer who waits.
        """
        if not self.answer.called:
            self.answer.callback(outcome)


A = TypeVar("A", bound=Asked)


class RateLimits:
    """
    What may be done how often.

    Args:
        shared: Counts for all instances together; the same as *local* where there is one.
        local: Counts here.
        decisions: By policy, ``passed`` or ``refused``, and who counted.

    Attributes:
        arrival: Policies of requests of which only the address is known yet.
        known: Those of requests whose route and caller are known.
        connects_by_address: Those of openings that need no caller.
        connects: The other ones.
        muted: Who may not publish for a while.
        tells: Also answers that are let through say what is left.
    """

    def __init__(
        self, shared: RateLimiter, local: LocalLimiter, decisions: Tally, seconds: Callable[[], float]
    ) -> None:
        self._shared = shared
        self._local = local
        self._decisions = decisions
        self._seconds = seconds
        self._together = shared is not local
        self._blocked: dict[str, tuple[float, Policy]] = {}
        self.forgotten = 0
        self.muted = Muted(seconds)
        self.configure(Limits())

    def configure(self, section: Limits) -> None:
        """
        Take other policies; budgets are kept by name.
        """
        self.policies = tuple(Policy(policy, self._decisions, together=self._together) for policy in section.policy)
        self.tells = section.tell == "always"
        self._unheeded = section.unheeded
        self.arrival = ordered(self.policies, "requests", lambda policy: policy.arrival)
        self.known = ordered(self.policies, "requests", lambda policy: not policy.arrival)
        self.connects_by_address = ordered(self.policies, "connect", lambda policy: policy.by_address)
        self.connects = ordered(self.policies, "connect", lambda policy: not policy.by_address)
        self.frames = ordered(self.policies, "frames", _any)
        self.commands = ordered(self.policies, "commands", _any)
        self.server_api = ordered(self.policies, "server_api", _any)
        self.failures = ordered(self.policies, "auth_failures", _any)
        if not self.failures:
            self._blocked.clear()

    def take(self, due: Sequence[Due], kind: type[A]) -> Outcome | A | None:
        """
        Take one from each budget; None: it may be, and there is nothing to say.

        Those counted here are asked first; the store only if they let it pass. Then who waits is one of *kind*.
        """
        told: list[tuple[Policy, Verdict]] = []
        for at, (policy, key) in enumerate(due):
            if policy.shared:
                asked = kind()
                asked.rates, asked.due, asked.told = self, due[at:] if at else due, told
                verdicts = self._shared.spend([Charge(policy.quota, key) for policy, key in asked.due], asked)
                return asked if verdicts is None else self.counted(verdicts, asked)
            verdict = self._local.one(Charge(policy.quota, key))
            policy.count(verdict)
            if not verdict.allowed:
                return Outcome([(policy, verdict)], [(policy, verdict)])
            if self.tells:
                told.append((policy, verdict))
        return Outcome((), told) if told else None

    def counted(self, verdicts: Verdicts, asked: Asked) -> Outcome | None:
        """
        Make of what the store said what is to be said.
        """
        told = asked.told
        refused: list[tuple[Policy, Verdict]] = []
        for (policy, _), verdict in zip(asked.due, verdicts, strict=True):
            policy.count(verdict)
            if not verdict.allowed:
                refused.append((policy, verdict))
            if self.tells or not verdict.allowed:
                told.append((policy, verdict))
        return Outcome(refused, told) if told else None

    # Failed authentication.

    def failed(self, host: str) -> None:
        """
        Count a credential of *host* that was refused against its address.
        """
        for policy in self.failures:
            key = "a:" + group(host)
            self._ask(policy, Charge(policy.quota, key), partial(self._failed, policy, key))

    def _ask(self, policy: Policy, charge: Charge, told: Callable[[Verdicts], None]) -> None:
        """Spend one, and tell of it, now or later."""
        limiter = self._shared if policy.shared else self._local
        verdicts = limiter.spend([charge], told)
        if verdicts is not None:
            told(verdicts)

    def _failed(self, policy: Policy, key: str, verdicts: Verdicts) -> None:
        [verdict] = verdicts
        policy.count(verdict)
        if verdict.remaining:
            return
        if len(self._blocked) >= MOST_BLOCKED:
            self._blocked.pop(next(iter(self._blocked)))
            self.forgotten += 1
        quota = policy.quota
        again_s = wait_s(verdict.full_after_s, quota.number, quota.per_s, quota.burst)
        self._blocked[key] = (self._seconds() + again_s, policy)

    def blocked(self, host: str) -> Outcome | None:
        """
        Whether *host* has failed too often, and how long that lasts.
        """
        if not self._blocked:
            return None
        key = "a:" + group(host)
        found = self._blocked.get(key)
        if found is None:
            return None
        left_s = found[0] - self._seconds()
        if left_s <= 0:
            del self._blocked[key]
            return None
        verdict = Verdict(False, 0, left_s, left_s)
        return Outcome([(found[1], verdict)], [(found[1], verdict)])

    # Real-time clients.

    def frame(self, client: Client) -> Callable[[c.Command], None]:
        """
        Take a message's part of the budgets, here and now; return what takes its commands, or refuses them.

        What the other instances have let pass is heard from the store a moment later: messages are never held.
        """
        for policy in self.frames:
            charge = Charge(policy.quota, policy.key_of_client(client))
            verdict = self._local.one(charge)
            policy.count(verdict)
            if not verdict.allowed:
                return partial(self._put_off, client, verdict.retry_after_s)
            if policy.shared:
                self._ask(policy, charge, partial(self._behind, charge))
        return client.take

    def _behind(self, charge: Charge, verdicts: Verdicts) -> None:
        [verdict] = verdicts
        if not verdict.away:
            self._local.behind(charge, verdict.full_after_s)

    def command(self, client: Client, request: c.Request) -> Deferred[None] | None:
        """
        Take a command's part; None: it may run, else it may once the Deferred says so.

        Raises:
            ClientError: ``TOO_MANY_REQUESTS``. Refused: it was told so too often. The Deferred fails with the same.
        """
        due = [
            (policy, policy.key_of_client(client, request))
            for policy in self.commands
            if policy.counts_command(client, request)
        ]
        return self._wait(due, client) if due else None

    def connect(self, client: Client) -> Deferred[None] | None:
        """
        The same of a client that is about to be let in.
        """
        return self._wait([(policy, policy.key_of_client(client)) for policy in self.connects], client)

    def _wait(self, due: Sequence[Due], client: Client) -> Deferred[None] | None:
        outcome = self.take(due, Awaited)
        if isinstance(outcome, Awaited):
            return outcome.answer.addCallback(self._told, client)
        self._told(outcome, client)
        return None

    def _told(self, outcome: Outcome | None, client: Client) -> None:
        if outcome is not None and outcome.refused:
            raise self.refusal(client, max(verdict.retry_after_s for _, verdict in outcome.refused))

    def refusal(self, client: Client, retry_after_s: float) -> ClientError | Refused:
        """
        What is said to a client that must wait: the wait; once it was told so too often, the end.
        """
        most = self._unheeded
        verdict = spend(client.unheeded, self._seconds(), 1, 1.0, most)
        if not verdict.allowed:
            return Refused(CloseReason.TOO_MANY_REQUESTS.closing)
        client.unheeded = verdict.at
        return too_many(retry_after_s)

    def _put_off(self, client: Client, wait_s: float, command: c.Command) -> None:
        refusal = self.refusal(client, wait_s)
        if isinstance(refusal, Refused):
            client.close(refusal.closing)
        elif command.id:
            client.fail(command, refusal)

    # Backends.

    async def operation(self, api_key: str, name: str) -> None:
        """
        Take an operation's part.

        Raises:
            ClientError: ``TOO_MANY_REQUESTS``.
        """
        due = [(policy, policy.key_of_operation(api_key, name)) for policy in self.server_api]
        taken = self.take(due, Awaited)
        outcome = await taken.answer if isinstance(taken, Awaited) else taken
        if outcome is not None and outcome.refused:
            raise too_many(max(verdict.retry_after_s for _, verdict in outcome.refused))

    # Support.

    async def standing(self, who: str) -> list[dict[str, Any]]:
        """
        Tell how the budgets of *who*, a user or an address, stand, by policy; nothing is taken.

        Each has ``policy``, ``remaining``, ``most``, ``retry_after_s`` (0: now), ``full_after_s``, ``store`` (``redis``,
        ``memory`` or ``away``) and ``blocked_s``: how much longer failures keep it out of this instance.
        """
        told = []
        for policy, key in self._of(who):
            quota = policy.quota
            answer: Deferred[Verdicts] = Deferred()
            self._ask(policy, Charge(quota, key, 0), answer.callback)
            [verdict] = await answer
            until, by = self._blocked.get(key, (0.0, None))
            told.append(
                {
                    "policy": policy.name,
                    "remaining": verdict.remaining,
                    "most": quota.burst or quota.number,
                    "retry_after_s": wait_s(verdict.full_after_s, quota.number, quota.per_s, quota.burst),
                    "full_after_s": verdict.full_after_s,
                    "store": "away" if verdict.away else "redis" if policy.shared else "memory",
                    "blocked_s": max(0.0, until - self._seconds()) if by is policy else 0.0,
                }
            )
        return told

    async def reset(self, who: str) -> int:
        """
        Give *who*, a user or an address, its whole budgets back; those counted by each instance, of this one.

        Returns:
            How many budgets.

        Raises:
            StoreUnavailable: it is not known whether all were.
        """
        found = self._of(who)
        for _, key in found:
            self._blocked.pop(key, None)
        await self._local.forget([Charge(policy.quota, key) for policy, key in found])
        shared = [Charge(policy.quota, key) for policy, key in found if policy.shared]
        if shared:
            await self._shared.forget(shared)
        return len(found)

    def _of(self, who: str) -> list[Due]:
        keys = ((policy, whose(policy, who)) for policy in self.policies)
        return [(policy, key) for policy, key in keys if key is not None]

    @property
    def keys(self) -> int:
        """How many keys are kept here."""
        return len(self._local) + len(self._blocked)

    @property
    def keys_forgotten(self) -> int:
        """How many were given up because there were too many."""
        return self._local.forgotten + self.forgotten


def too_many(retry_after_s: float) -> ClientError:
    """
    Tell a client to wait.
    """
    wait_ms = max(1, round(min(retry_after_s, 7 * 86400.0) * 1000))
    return ClientError(ErrorCode.TOO_MANY_REQUESTS, f"too many requests; retry_after_ms={wait_ms}")


def _leave(_: Deferred[Outcome | None]) -> None:
    """Cancelled: what was asked is spent, and nobody is told."""


def _any(_: Policy) -> bool:
    return True
