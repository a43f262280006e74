"""
What an instance has been told to do: routes and the filters before them, immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.internet.defer import Deferred

from gateway.core.browser_rules import BrowserRules
from gateway.core.problems import Problem
from gateway.core.routes import RouteTable
from gateway.ports.http import Exchange, RouteHandler

__all__ = ["Filter", "Pause", "Plan", "ServedRoute"]

Filter = Callable[[Exchange], "Deferred[Any] | Pause | None"]
"""Lets an exchange pass (None), makes it wait, or raises ``Problem``."""


class Pause:
    """
    What an exchange waits for where a Deferred would cost more than the filter: the edge says where it goes on.

    Attributes:
        go_on: Called with the exchange, the filters and a place among them.
        refuse: Called with the exchange and a ``Problem``.
    """

    __slots__ = ("at", "exchange", "filters", "go_on", "refuse")

    exchange: Exchange
    filters: Sequence[Filter]
    at: int
    go_on: Callable[[Exchange, Sequence[Filter], int], None]
    refuse: Callable[[Exchange, Problem], None]

    def over(self) -> None:
        """
        Let the exchange go on, if it is still there.
        """
        if not self.exchange.ended:
            self.go_on(self.exchange, self.filters, self.at)


@dataclass(frozen=True, slots=True)
class ServedRoute:
    """
    One route as it is served.

    Attributes:
        name: The label in metrics and logs.
        browsers: What browsers are told beside its answers; None: what holds for all.
        template: The path as it is configured, for spans; empty where several lead here.
        kind: A ``request``; an ``opening`` of a real-time connection; ``said``: what comes over one that stands;
            ``own``: the gateway's own paths, which nothing limits.
        handler: Who answers.
        auth: Whether a token is required; True unless the configuration says ``auth = "none"``.
        credentials: Where the token may stand: ``header``, ``cookie``, ``query``.
        scopes: What the token must carry.
        allows: The route's rule: raises ``Problem("forbidden")``; None without a rule.
        timeout_s: For the whole exchange until the response head.
        max_body_bytes: Largest request body.
        methods: For CORS and ``Allow``; empty is every method.
    """

    name: str
    handler: RouteHandler
    auth: bool = True
    credentials: tuple[str, ...] = ("header",)
    scopes: tuple[str, ...] = ()
    allows: Callable[[Exchange], None] | None = None
    timeout_s: float = 10.0
    max_body_bytes: int = 64 * 1024 * 1024
    methods: tuple[str, ...] = ()
    template: str = ""
    browsers: BrowserRules | None = None
    kind: Literal["request", "opening", "said", "own"] = "request"


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Routes and filters that belong together.

    Attributes:
        filters: Run in this order on every exchange. ``filters.Match`` among them sets the route.
        routes: Every path that is served.
        browsers: What browsers are told beside answers that belong to no route; None: nothing.
    """

    filters: tuple[Filter, ...]
    routes: RouteTable[ServedRoute]
    digest: str = ""
    browsers: BrowserRules | None = None
