"""
From routes of the configuration to what serves them: each path, its handler, its conditions.

Part of the composition root: it names the concrete handlers, and decides nothing about a request.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.python.failure import Failure

from gateway.auth.certificates import Certificates
from gateway.auth.credentials import CredentialSource
from gateway.auth.identity_block import identity_block
from gateway.auth.minted import Minter
from gateway.auth.scopes import check_scopes
from gateway.browsing import rules_of_route
from gateway.config.expressions import compile_expression
from gateway.config.sections import Auth, Config, Route
from gateway.core.headers import identity_names
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.node.filters import Credentials, Match
from gateway.node.plan import ServedRoute
from gateway.node.rules import ROOTS, RouteRule, context_of
from gateway.ports.http import Exchange, RouteHandler
from gateway.ports.identity import Authenticator, Revocations
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.backends import Backends
from gateway.upstream.call_backends import CallBackends
from gateway.upstream.mounts import Mount
from gateway.upstream.proxy import Proxy
from gateway.upstream.transcoder import Transcoder
from gateway.web.health import HEALTH_PATHS, READY_PATHS, Alive, Options, Ready
from gateway.web.preflight import Preflight

__all__ = ["Wiring", "credentials", "matching", "own_paths"]

MOST_MESSAGE = 4 * 1024 * 1024
"""Largest body of a gRPC route that states none: it is held whole, and gRPC takes no more by default."""


def own_paths(why_not_ready: Callable[[], str]) -> list[Entry[ServedRoute]]:
    """
    The paths that the gateway answers itself, to anybody.
    """
    alive = ServedRoute("_health", Alive(), auth=False, kind="own")
    ready = ServedRoute("_ready", Ready(why_not_ready), auth=False, kind="own")
    asked = frozenset((b"GET",))
    return [
        *(Entry(path, asked, alive) for path in HEALTH_PATHS),
        *(Entry(path, asked, ready) for path in READY_PATHS),
    ]


def matching(routes: RouteTable[ServedRoute]) -> Match:
    """
    The filter that finds the route, and who answers what asks about routes.
    """
    return Match(
        routes,
        ServedRoute("_options", Options(), auth=False),
        ServedRoute("_preflight", Preflight(routes), auth=False, kind="own"),
    )


def credentials(
    section: Auth, authenticator: Authenticator, revocations: Revocations, wall: Callable[[], float]
) -> Credentials:
    """
    The filter that finds out who calls: by a token, or by a client certificate.
    """
    certificates = Certificates(section.certificate, revocations.is_revoked)
    return Credentials(authenticator, CredentialSource(section), check_scopes, wall, certificates)


class Wiring:
    """
    Makes the entries of a route table.

    Args:
        refuse: The node's way to answer with a problem.
        crashed: The node's way to report a failure of our own.
    """

    def __init__(
        self,
        reactor: Any,
        backends: Backends,
        calls: CallBackends,
        minter: Minter,
        metrics: Metrics,
        spans: Spans,
        *,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Callable[[Exchange, Failure], None],
    ) -> None:
        self._reactor = reactor
        self._backends = backends
        self._calls = calls
        self._minter = minter
        self._metrics = metrics
        self._spans = spans
        self._refuse = refuse
        self._crashed = crashed

    def entries(self, config: Config, mounts: Sequence[Mount]) -> list[Entry[ServedRoute]]:
        """
        Every configured path: proxied ones, and those of *mounts*.
        """
        tell = {upstream.name: identity_block(upstream, self._minter) for upstream in config.upstream}
        return [
            *(
                self._proxied(route, config, tell[route.upstream])
                for route in config.route
                if route.call is None and route.path
            ),
            *(self._called(mount, config, tell) for mount in mounts),
        ]

    def _proxied(self, route: Route, config: Config, tell: Callable[[Identity], bytes]) -> Entry[ServedRoute]:
        section = next(upstream for upstream in config.upstream if upstream.name == route.upstream)
        handler = Proxy(
            self._backends.cluster(route.upstream),
            section,
            route,
            drop=identity_names(name for upstream in config.upstream for name, _ in upstream.identity_headers)
            | {b"authorization"},
            identity_block=tell,
            pseudonym=config.server,
            refuse=self._refuse,
            clock=self._reactor,
            random=random.random,
            metrics=self._metrics,
            spans=self._spans,
        )
        served = self._served(route, route.name or str(route.path), str(route.path), handler, config)
        return Entry(str(route.path), frozenset(method.encode("ascii") for method in route.methods), served)

    def _called(
        self, mount: Mount, config: Config, tell: Mapping[str, Callable[[Identity], bytes]]
    ) -> Entry[ServedRoute]:
        route = mount.route
        handler = Transcoder(
            self._calls.upstream(route.upstream),
            mount.binding,
            mount.responder,
            name=route.upstream,
            identity_block=tell[route.upstream],
            metadata_in=frozenset(name.lower().encode("ascii") for name in route.metadata),
            metadata_out=frozenset(name.lower() for name in route.response.metadata),
            values=mount.values,
            context=context_of,
            encoders=mount.schema.codecs.encoders(),
            refuse=self._refuse,
            crashed=self._crashed,
            clock=self._reactor,
        )
        served = self._served(route, mount.name, mount.path, handler, config)
        methods = frozenset(method.encode("ascii") for method in mount.methods)
        return Entry(mount.path, methods, served, encoded_slash=True)

    def _served(self, route: Route, name: str, path: str, handler: RouteHandler, config: Config) -> ServedRoute:
        section = next(upstream for upstream in config.upstream if upstream.name == route.upstream)
        rule = None
        if route.when is not None:
            rule = RouteRule(compile_expression(route.when, ROOTS, rule=True), self._metrics.rule_denials.inc)
        most = route.max_body_bytes
        if most is None:
            most = config.limits.max_body_bytes if section.http else min(config.limits.max_body_bytes, MOST_MESSAGE)
        return ServedRoute(
            name,
            handler,
            auth=route.auth == "required",
            credentials=route.credentials,
            scopes=route.scopes,
            allows=rule,
            timeout_s=route.timeout_s if route.timeout_s is not None else section.timeout_s,
            max_body_bytes=most,
            methods=route.methods,
            template=path,
            browsers=rules_of_route(config, route),
        )
