"""
Policies of rate limits as they are applied: whose budget a request or a command is taken from, and whether it counts.

A key's parts have their kind in front, so that a user called like an address is not one. Who has no user
is counted by address; so is whoever a key's expression cannot tell, or leaving something out would be a way around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from gateway.config.checks.limits import KEYS, roots_of
from gateway.config.expressions import Denied, Expression, compile_expression
from gateway.config.limit_sections import LimitPolicy
from gateway.core import commands as c
from gateway.core.address import group
from gateway.node.plan import ServedRoute
from gateway.node.rules import context_of
from gateway.ports.http import Exchange
from gateway.ports.limits import Quota, Verdict
from gateway.telemetry.tally import Tally

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["FREE", "NAMES", "Policy", "whose"]

NAMES: Final[Mapping[type, str]] = {
    c.Subscribe: "subscribe",
    c.Unsubscribe: "unsubscribe",
    c.Publish: "publish",
    c.Presence: "presence",
    c.PresenceStats: "presence_stats",
    c.HistoryAsked: "history",
    c.Rpc: "rpc",
    c.Send: "send",
    c.Refresh: "refresh",
    c.SubRefresh: "sub_refresh",
    c.Ping: "ping",
}
"""What the configuration calls a command."""

FREE: Final = frozenset((c.Unsubscribe, c.Refresh, c.SubRefresh, c.Ping))
"""Commands that count only where a policy names them: with them a client asks for less, or keeps what it has."""

MOST_KEY: Final = 512
"""Of what an expression makes of a key; the rest of it does not count."""

_ONCE_KNOWN: Final = frozenset(("user", "route"))
"""Keys of a request that are not known before its route and its caller are."""


class Policy:
    """
    One ``[limits.policy.NAME]``.

    Attributes:
        on: What it counts.
        arrival: Requests are counted before anything else is known of them than their address.
        shared: All instances count together.
    """

    __slots__ = (
        "_by_user",
        "_kinds",
        "_methods",
        "_parts",
        "_passed",
        "_patterns",
        "_refused",
        "_routes",
        "_served",
        "arrival",
        "by_address",
        "name",
        "on",
        "quota",
        "section",
        "shared",
    )

    def __init__(self, section: LimitPolicy, decisions: Tally, *, together: bool) -> None:
        self.section = section
        self.name = section.name
        self.on = frozenset(section.on)
        self.quota = Quota(
            section.name, section.rate.number, section.rate.per_s, section.burst, section.when_store_away
        )
        self.shared = section.shared and together
        self.by_address = section.key == ("address",)
        self._by_user = section.key == ("user",)
        self.arrival = not section.routes and all(key == "address" for key in section.key)
        roots = roots_of(section)
        self._parts = [key if key in KEYS else compile_expression(key, roots) for key in section.key]
        self._kinds = frozenset(
            kind for kind, name in NAMES.items() if (name in section.commands if section.commands else kind not in FREE)
        )
        self._patterns = frozenset(section.channels)
        self._methods = section.methods
        self._routes = section.routes
        self._served: dict[str, bool] = {}
        store = "redis" if self.shared else "memory"
        self._passed = {
            away: decisions.series((self.name, "passed", "away" if away else store)) for away in (False, True)
        }
        self._refused = {
            away: decisions.series((self.name, "refused", "away" if away else store)) for away in (False, True)
        }

    def count(self, verdict: Verdict) -> None:
        """
        Count what was decided.
        """
        (self._passed if verdict.allowed else self._refused)[verdict.away].number += 1

    # Requests.

    def counts_route(self, route: ServedRoute) -> bool:
        """
        Whether requests on *route* count.
        """
        if not self._routes:
            return True
        found = self._served.get(route.name)
        if found is None:
            names = (route.name, route.template)
            found = any(fnmatchcase(name, glob) for glob in self._routes for name in names if name)
            self._served[route.name] = found
        return found

    def key_of_request(self, exchange: Exchange) -> str:
        """
        Whose budget a request is taken from.
        """
        if self.by_address:
            return _address(exchange.client_host)
        if self._by_user:
            identity = exchange.identity
            return _address(exchange.client_host) if identity is None else f"u:{identity.subject}"
        return _joined([self._of_request(part, exchange) for part in self._parts])

    def _of_request(self, part: str | Expression, exchange: Exchange) -> str:
        if part == "user" and exchange.identity is not None:
            return "u:" + exchange.identity.subject
        if part == "route":
            return f"r:{exchange.route.name}"
        if isinstance(part, Expression):
            try:
                return _made(part.value(context_of(exchange, part.roots)))
            except Denied:
                pass
        return _address(exchange.client_host)

    # Clients.

    def counts_command(self, client: Client, request: c.Request) -> bool:
        """
        Whether a command counts.
        """
        if type(request) not in self._kinds:
            return False
        if self._methods:
            method = getattr(request, "method", None)
            if method is None or not any(fnmatchcase(method, glob) for glob in self._methods):
                return False
        if self._patterns:
            match = client.node.rules.channels.match(getattr(request, "channel", ""))
            return match is not None and match.pattern in self._patterns
        return True

    def key_of_client(self, client: Client, request: c.Request | None = None) -> str:
        """
        Whose budget something of *client* is taken from.
        """
        if self.by_address:
            return _address(client.opening.address)
        return _joined([self._of_client(part, client, request) for part in self._parts])

    def _of_client(self, part: str | Expression, client: Client, request: c.Request | None) -> str:
        if part == "user" and client.identity is not None:
            return "u:" + client.user
        if part == "channel":
            return "c:" + getattr(request, "channel", "")
        if part == "command":
            return "k:" + (getattr(request, "method", "") or NAMES.get(type(request), ""))
        if isinstance(part, Expression):
            try:
                return _made(part.value(client.facts()))
            except Denied:
                pass
        return _address(client.opening.address)

    # Backends.

    def key_of_operation(self, api_key: str, operation: str) -> str:
        """
        Whose budget an operation of the server API is taken from.
        """
        parts = {"api_key": "b:" + api_key, "command": "o:" + operation}
        return _joined([parts[part] for part in self._parts if isinstance(part, str)])


def whose(policy: Policy, who: str) -> str | None:
    """
    Whose budget *who*, a user or an address, has of *policy*; None where it is kept by something else, too.
    """
    address = group(who)
    is_address = ":" in address or address.replace(".", "").isdigit()
    if policy.section.key == ("address",):
        return "a:" + address if is_address else None
    if policy.section.key == ("user",):
        return "a:" + address if is_address else "u:" + who
    return None


def _address(host: str) -> str:
    return "a:" + group(host)


def _joined(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return "".join(f"{len(part)}:{part}" for part in parts)


def _made(value: Any) -> str:
    if isinstance(value, str):
        return "e:" + value[:MOST_KEY]
    if isinstance(value, bool | int | float):
        return f"n:{value}"
    raise Denied("type", "a key is a text or a number")


def ordered(policies: Iterable[Policy], on: str, wanted: Callable[[Policy], bool]) -> tuple[Policy, ...]:
    """
    Those that count *on* and are *wanted*; first those that are counted here and cost least.
    """
    return tuple(
        sorted((policy for policy in policies if on in policy.on and wanted(policy)), key=lambda policy: policy.shared)
    )
