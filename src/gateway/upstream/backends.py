"""
Every upstream of an instance: built from the configuration, kept over reloads where unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from gateway.config.sections import Upstream
from gateway.core.message import Header, ResponseHead
from gateway.ports.upstream import Fault
from gateway.telemetry.metrics import Metrics
from gateway.upstream.cluster import Cluster
from gateway.upstream.health import HealthChecks
from gateway.upstream.pool import Pool
from gateway.upstream.target import Target

__all__ = ["Backends"]


class _Upstream:
    __slots__ = ("checks", "cluster", "section")

    def __init__(self, section: Upstream, cluster: Cluster[Pool], checks: HealthChecks[Pool] | None) -> None:
        self.section = section
        self.cluster = cluster
        self.checks = checks


class Backends:
    """
    The HTTP upstreams by name.

    Args:
        random: Evenly from 0 to 1.
        changed: Told of ejections, checks and breakers, for the log.
    """

    def __init__(
        self,
        reactor: Any,
        random: Callable[[], float],
        metrics: Metrics,
        changed: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._reactor = reactor
        self._random = random
        self._changed = changed
        self._upstreams: dict[str, _Upstream] = {}
        self._retired: list[_Upstream] = []
        metrics.upstream_in_flight.from_source(self._in_flight)
        metrics.upstream_target_up.from_source(self._up)
        metrics.upstream_breaker.from_source(self._breakers)
        metrics.upstream_connections.from_source(self._connections)

    def prepare(self, sections: Iterable[Upstream]) -> Callable[[], None]:
        """
        Build what *sections* ask for, changing nothing yet; an equal section keeps its upstream.

        Returns:
            What makes the change. Upstreams that are gone finish their requests.

        Raises:
            OSError, ValueError: a certificate file cannot be used.
        """
        built: dict[str, _Upstream] = {}
        for section in sections:
            if not section.http:
                continue
            known = self._upstreams.get(section.name)
            built[section.name] = known if known is not None and known.section == section else self._build(section)

        def change() -> None:
            before, self._upstreams = self._upstreams, built
            for upstream in built.values():
                if upstream.checks is not None and upstream not in before.values():
                    upstream.checks.start()
            for upstream in before.values():
                if upstream not in built.values():
                    self._retire(upstream)

        return change

    def cluster(self, name: str) -> Cluster[Pool]:
        """
        Return the upstream called *name*.
        """
        return self._upstreams[name].cluster

    def clusters(self) -> list[Cluster[Pool]]:
        """
        List all, for the console.
        """
        return [upstream.cluster for upstream in self._upstreams.values()]

    def describe(self) -> list[dict[str, Any]]:
        """
        Tell the state of all, for the admin port.
        """
        now = self._reactor.seconds()
        return [cluster.describe(now) for cluster in self.clusters()]

    async def stop(self) -> None:
        """
        End the checks and cut every connection.
        """
        for upstream in (*self._upstreams.values(), *self._retired):
            if upstream.checks is not None:
                await upstream.checks.stop()
            for member in upstream.cluster.members:
                member.value.abort()

    def _build(self, section: Upstream) -> _Upstream:
        targets = [Target.parse(text) for text in section.http]
        pools = [(target.name, Pool(self._reactor, target, section)) for target in targets]
        cluster = Cluster(section, pools, self._random, self._changed)
        checks = None
        if section.health is not None:
            health = section.health

            async def probe(pool: Pool) -> bool:
                now = self._reactor.seconds()
                return await _Probe(pool, health.path.encode("ascii"), now, health.timeout_s).done

            checks = HealthChecks(cluster, health, probe, self._reactor, self._random)
        return _Upstream(section, cluster, checks)

    def _retire(self, upstream: _Upstream) -> None:
        self._retired = [other for other in self._retired if other.cluster.active]
        self._retired.append(upstream)
        if upstream.checks is not None:
            Deferred.fromCoroutine(upstream.checks.stop()).addErrback(lambda _: None)
        for member in upstream.cluster.members:
            member.value.close()

    # Read at scrape time.

    def _in_flight(self) -> Iterable[tuple[tuple[str, ...], float]]:
        for cluster in self.clusters():
            for member in cluster.members:
                yield (cluster.name, member.name), member.in_flight

    def _up(self) -> Iterable[tuple[tuple[str, ...], float]]:
        now = self._reactor.seconds()
        for cluster in self.clusters():
            for member in cluster.members:
                yield (cluster.name, member.name), float(not member.is_out(now))

    def _breakers(self) -> Iterable[tuple[tuple[str, ...], float]]:
        for cluster in self.clusters():
            yield (cluster.name,), cluster.breaker.state.value

    def _connections(self) -> Iterable[tuple[tuple[str, ...], float]]:
        for cluster in self.clusters():
            for member in cluster.members:
                pool = member.value
                yield (cluster.name, member.name, "idle"), pool.idle
                yield (cluster.name, member.name, "used"), pool.open - pool.idle


class _Probe:
    """
    One check: a GET whose answer is 2xx. Its body is read, up to a bound, and forgotten.
    """

    MAX_BODY = 64 * 1024

    def __init__(self, pool: Pool, path: bytes, now: float, timeout_s: float) -> None:
        self.done: Deferred[bool] = Deferred(lambda _: self._call.cancel() if self._call is not None else None)
        self._well = False
        self._taken = 0
        self._call = None
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: gateway-health\r\n" % (path, pool.target.authority)
        try:
            self._call = pool.request(b"GET", head, 0, b"", True, self)
        except Fault:
            # As many requests are under way as may be: it is at work, which is well enough.
            self.done.callback(True)
            return
        self._call.deadline = now + timeout_s
        self._call.idle_body_s = timeout_s

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        """Judge the status."""
        self._well = 200 <= head.status < 300  # noqa: PLR2004
        self.received(data, ended)

    def received(self, data: bytes, ended: bool) -> None:
        """Read to the end."""
        self._taken += len(data)
        if ended:
            self.done.callback(self._well)
        elif self._taken > self.MAX_BODY and self._call is not None:
            self._call.cancel()
            self.done.callback(self._well)

    def informed(self, status: int, headers: list[Header]) -> None:
        """Nothing to do."""

    def failed(self, fault: Fault) -> None:
        """Not well."""
        self.done.callback(False)
