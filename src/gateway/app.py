"""
The composition root: the one place that names concrete classes and says who knows whom.

``Gateway`` reads top to bottom as a request travels: listeners, channel, edge with its filters
in order, routes, upstreams. Nothing here decides anything about a request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from gateway.api.server import ApiServer
from gateway.auth.identity_block import identity_block
from gateway.auth.keys import KeyRing
from gateway.auth.minted import Minter
from gateway.auth.revocation_file import load_revocations
from gateway.auth.tokens import JwtAuthenticator
from gateway.browsing import rules_for_all
from gateway.config.describe import describe
from gateway.config.sections import Config
from gateway.core.address import AddressRule
from gateway.core.problems import Problem
from gateway.core.routes import RouteTable
from gateway.core.transcoding.openapi import Operation, openapi
from gateway.draining import drain
from gateway.live import Live
from gateway.net.process import raise_descriptor_limit
from gateway.node.api_keys import ApiKeys
from gateway.node.background import Background
from gateway.node.edge import Edge
from gateway.node.filters import Chosen, ClientAddress, Rule, Trace
from gateway.node.http_spans import RequestSpans
from gateway.node.journal import HttpJournal
from gateway.node.limiting import Limiting
from gateway.node.plan import Filter, Plan
from gateway.node.rules import ROOTS
from gateway.part import WHOLE, Part
from gateway.ports.http import Exchange
from gateway.reloading import Reloading
from gateway.routing import Wiring, credentials, matching, own_paths
from gateway.storage import Storage
from gateway.supporting import Supporting
from gateway.telemetry.access import AccessLog
from gateway.telemetry.logs import Logs, tell
from gateway.telemetry.metrics import Metrics, package_version
from gateway.tracing import Tracing
from gateway.upstream.asking import Asking
from gateway.upstream.backends import Backends
from gateway.upstream.call_backends import CallBackends
from gateway.upstream.descriptors import Schema
from gateway.upstream.fetch import Fetcher
from gateway.upstream.mounts import Mount, check_paths, mounts_of
from gateway.upstream.offline import operations_of
from gateway.web.admin import AdminPort, Operations
from gateway.web.factory import ChannelFactory
from gateway.web.listen import Listening, listen
from gateway.web.server_api import server_api_pages

__all__ = ["Gateway"]

DESCRIPTORS_RESERVED = 256
"""Descriptors kept for files, backends and the console when the number of connections is bounded."""

LAG_S = 0.1

SWEEP_S = 10.0
"""How late a request that goes on for long is told to whoever records it."""


class Gateway:
    """
    One instance, from its configuration to its last byte.

    Args:
        reactor: Everything real is reached through it.
        path: Where the configuration is read again from.
        wall: Seconds since the epoch.
        part: What this process is of the gateway.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        path: Path,
        logs: Logs,
        wall: Callable[[], float] = time.time,
        part: Part = WHOLE,
    ) -> None:
        self.reactor = reactor
        self.part = part
        self.config = config = part.narrow(config)
        self.path = path
        self.wall = wall
        self.logs = logs
        self.log = logs.logger()
        self.metrics = Metrics()
        self.reloading = Reloading(self)
        self.offered: list[Operation] = []
        self.draining = False
        self._listens = False
        self.background = Background(reactor, self._task_failed)

        self.tracing = Tracing(
            reactor,
            wall=wall,
            metrics=self.metrics,
            log=self.log,
            spawn=self.background.spawn,
            failed=self._task_failed,
        )
        self.tracing.spans.privacy = config.privacy.of("traces")

        # Identity.
        self.fetch = Fetcher(reactor)
        self.storage = Storage(reactor, config, wall=wall, log=self.log, failed=self._task_failed)
        self.revocations = self.storage.revocations
        self.minter = Minter(config.server, wall, part.minting)
        self.keys = KeyRing(config.auth, self.fetch, reactor, self._keys_event)
        self.authenticator = JwtAuthenticator(config.auth, self.keys, self.revocations)

        # Upstreams, and the edge in front of them.
        self.backends = Backends(reactor, random.random, self.metrics, self._event)
        self.calls = CallBackends(reactor, random.random, self.metrics, self.tracing.spans, self._event)
        access = AccessLog(logs, wall) if config.log.access else None
        self.recorded = RequestSpans(self.tracing.spans)
        self.journal = HttpJournal(self.metrics, access, self.log, self.recorded)
        self.wiring = Wiring(
            reactor,
            self.backends,
            self.calls,
            self.minter,
            self.metrics,
            self.tracing.spans,
            refuse=self._refuse,
            crashed=self._crash,
        )

        # Real time: clients that stay, and who is asked about them.
        self.asking = Asking(
            reactor,
            self.backends,
            self.calls,
            lambda section: identity_block(section, self.minter),
            random.random,
            self.metrics,
            self.tracing.spans,
        )
        self.live = Live(
            reactor,
            config,
            authenticator=self.authenticator,
            storage=self.storage,
            metrics=self.metrics,
            spans=self.tracing.spans,
            log=self.log,
            wall=wall,
            refuse=self._refuse,
            crashed=self._crash,
            opened=lambda exchange: self.recorded.opened(exchange, reactor.seconds()),
        )
        self.supporting = Supporting(self)
        self.limiting = Limiting(self.live.node.rates, reactor, self.metrics)

        self.api_keys = ApiKeys(config.admin_key)
        at, failed = config.listen.api, partial(self._task_failed, "server_api")
        self.api = ApiServer(reactor, self.live.operations, self.api_keys, at, failed) if at is not None else None

    async def start(self) -> None:
        """
        Open everything, listeners last.

        Raises:
            ListenFailed, CertificateFault, OSError: something the configuration names cannot be used.
        """
        config, reactor = self.config, self.reactor
        capacity = self._raise_descriptor_limit()
        self.tracing.configure(config.tracing)
        self.load_revocations(config)
        self.keys.start()
        self.backends.prepare(config.upstream)()
        await self.calls.start(config.upstream, self.part.descriptors)
        mounts, change_live = self.compiled(config, self.calls.schemas())
        change_live()
        await self.storage.start()
        self.live.start()
        self.edge = Edge(self.plan(config, mounts), reactor.seconds, self.journal, self.limiting.rates.failed)
        self.site = ChannelFactory(
            self.edge, config.limits, reactor, server=config.server, capacity=capacity, wall=self.wall
        )
        self.site.configure(config.limits, self.edge.plan.browsers)
        shared = config.listen.workers > 1
        self.listening: Listening = await listen(reactor, config.listen.clients, self.site, shared=shared)
        pages = {**server_api_pages(self.live.operations), **self.supporting.pages()}
        self.admin = AdminPort(self.part.tells(self._operations()), config.listen, config.admin_key, pages)
        try:
            await self.admin.open(reactor)
            await self.supporting.open()
            if self.api is not None:
                self.api.start()
        except BaseException:
            self.listening.abandon()
            raise
        self._observe()
        self._listens = True
        self.log.info(
            "gateway.started",
            version=package_version(),
            config=str(self.path),
            digest=config.digest,
            clients=[listener.endpoint for listener in config.listen.clients],
            admin=list(config.listen.admin),
            most_connections=capacity,
            reactor=type(reactor).__name__,
        )

    # What holds: routes and the filters before them.

    def compiled(self, config: Config, schemas: Mapping[str, Schema]) -> tuple[list[Mount], Callable[[], None]]:
        """
        Compile what routes, channels and methods ask of backends: the mounts, and what changes the rest.

        Raises:
            ValueError: something does not fit.
        """
        mounts = mounts_of(config.route, schemas, ROOTS)
        check_paths(config.route, mounts)
        return mounts, self.live.prepare(config, self.asking.maker(config.upstream, schemas))

    def plan(self, config: Config, mounts: Sequence[Mount]) -> Plan:
        """
        The filters in their order, and every path with what it leads to.
        """
        self.offered = operations_of(mounts)
        self.limiting.configure(config.limits)
        self.storage.configure(config.limits, lambda: len(self.live.node.membership.keeper.living))
        self.recorded.secrets = frozenset(name for name in (config.auth.query,) if name)
        routes = RouteTable(
            [*own_paths(self.why_not_ready), *self.live.entries(config), *self.wiring.entries(config, mounts)]
        )
        filters: tuple[Filter, ...] = (
            ClientAddress(AddressRule(config.listen.trusted_proxies)),
            Trace(random.getrandbits, self.recorded, certified=config.tracing.trust_certificates),
            *self.limiting.arrival(),
            matching(routes),
            *self.limiting.doors(),
            credentials(config.auth, self.authenticator, self.revocations, self.wall),
            Chosen(self.recorded),
            *self.limiting.known(),
            # Idempotency belongs after the rule.
            Rule(),
        )
        return Plan(filters, routes, config.digest, rules_for_all(config))

    def _crash(self, exchange: Exchange, failure: Failure) -> None:
        self.edge.crash(exchange, failure)

    def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        self.edge.refuse(exchange, problem)

    # What operators ask and order.

    def why_not_ready(self) -> str:
        """
        Say in a word why no clients should be sent here; empty if they should.
        """
        if self.draining:
            return "draining"
        if not self._listens:
            return "not_listening"
        if not self.storage.ready():
            return "store"
        return "" if self.authenticator.ready() else "keys"

    def ready(self) -> bool:
        """Whether clients should be sent here."""
        return not self.why_not_ready()

    def readiness(self) -> dict[str, Any]:
        """Why it is or is not ready."""
        return {
            "ready": self.ready(),
            "reason": self.why_not_ready(),
            "config": {"digest": self.config.digest, "source": str(self.path), "reload_fault": self.reloading.fault},
        }

    def _operations(self) -> Operations:
        return Operations(
            metrics=lambda openly: self.metrics.render(openmetrics=openly),
            ready=self.ready,
            readiness=self.readiness,
            config=lambda: describe(self.config),
            upstreams=lambda: [*self.backends.describe(), *self.calls.describe()],
            jwks=self.minter.jwks,
            openapi=lambda: openapi(self.offered, title=self.config.server, version=self.config.digest),
            revocations=self.revocations,
            reload=self.reloading.now,
            audit=lambda event, fields: self.log.info(event, **fields),
            wall=self.wall,
        )

    def hang_up(self) -> None:
        """
        Do what SIGHUP asks: read the configuration again.
        """
        self.reloading.now()

    def kill(self) -> None:
        """
        End at once whatever would outlive this process: nothing.
        """

    async def stop(self) -> None:
        """
        Drain, then close; see ``gateway.draining``.
        """
        if not self.draining:
            self.draining = True
            await drain(self)

    async def close(self) -> None:
        """
        End everything that is not a client's: who gives orders, then what they act on, then what that stands on.
        """
        self._listens = False
        if self.api is not None:
            await self.api.stop()
        await self.supporting.close()
        await self.admin.close()
        await self.live.stop()
        await self.background.stop()
        await self.keys.stop()
        await self.backends.stop()
        await self.calls.stop()
        self.fetch.close()
        await self.storage.stop()
        await self.tracing.stop()

    # Beside the requests.

    def _observe(self) -> None:
        metrics = self.metrics
        metrics.active_requests.from_source(lambda: [((), len(self.edge.open))])
        self.site.observe(metrics)
        metrics.jwks_age.from_source(lambda: [((issuer,), age) for issuer, age in self.keys.ages()])
        metrics.token_cache.from_source(lambda: [((), self.authenticator.cached)])
        metrics.log_dropped.from_source(lambda: [((), self.logs.sink.dropped)])
        self.storage.observe(metrics)
        metrics.ready.from_source(lambda: [((), float(self.ready()))])
        metrics.config_info.from_source(lambda: [((self.config.digest,), 1.0)])
        self._due = self.reactor.seconds() + LAG_S
        self.background.every("reactor.lag", LAG_S, self._measure_lag)
        self.background.every("tracing.sweep", SWEEP_S, lambda: self.recorded.sweep(self.reactor.seconds()))

    def _measure_lag(self) -> None:
        now = self.reactor.seconds()
        lag_s = max(0.0, now - self._due)
        self.metrics.reactor_lag.observe(lag_s)
        self.limiting.pressure.measured(lag_s)
        self._due = now + LAG_S

    def load_revocations(self, config: Config) -> None:
        """
        Revoke what the configuration's file says.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if config.auth.revocations_file is not None:
            load_revocations(config.auth.revocations_file, self.revocations, self.wall())

    def _raise_descriptor_limit(self) -> int:
        """
        Raise the soft limit to the hard one; return how many client connections that allows.
        """
        before, now = raise_descriptor_limit()
        backends = sum(len(upstream.http) * upstream.max_connections for upstream in self.config.upstream)
        possible = max(now - DESCRIPTORS_RESERVED - backends, now // 4)
        self.log.info("descriptors.raised", before=before, now=now, most_connections=possible)
        return possible

    def _keys_event(self, event: str, *, issuer: str, detail: str) -> None:
        level = self.log.info if event == "keys.fetched" else self.log.warning
        level(event, issuer=issuer, detail=detail)

    def _event(self, event: str, fields: dict[str, Any]) -> None:
        self.metrics.saw(event, fields)
        tell(self.log, event, fields)

    def _task_failed(self, name: str, failure: Failure) -> None:
        self.log.error("background.failed", task=name, exception=failure.getTraceback())
