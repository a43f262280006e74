"""
The gateway's own road from a client's socket to a backend's: channel, edge, proxy, pools.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

from tests.web.harness import RawClient, clock, eventually
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from gateway.config.sections import Limits, Listener, Route, Upstream
from gateway.core.address import AddressRule
from gateway.core.headers import identity_names
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.routes import Entry, RouteTable
from gateway.node.edge import Edge
from gateway.node.filters import ClientAddress, Match, Trace
from gateway.node.http_spans import RequestSpans
from gateway.node.plan import Plan, ServedRoute
from gateway.ports.http import Exchange, Peer
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.backends import Backends
from gateway.upstream.cluster import Cluster
from gateway.upstream.pool import Pool
from gateway.upstream.proxy import Proxy
from gateway.web.factory import ChannelFactory
from gateway.web.listen import Listening, listen

ALICE = Identity("alice", "https://issuer.example", 4e9, claims={"role": "player"})


class Kept:
    """
    A journal that remembers (``node.edge.Journal``).

    Attributes:
        ended: Each exchange and whether it was whole.
    """

    def __init__(self) -> None:
        self.ended: list[tuple[Exchange, bool]] = []
        self.refusals: list[Problem] = []
        self.crashes: list[Failure] = []

    def request(self, exchange: Exchange, ended_at: float, *, whole: bool) -> None:
        self.ended.append((exchange, whole))

    def malformed(self, peer: Peer, status: int, code: str, head: bytes) -> None: ...

    def refused(self, problem: Problem) -> None:
        self.refusals.append(problem)

    def crashed(self, exchange: Exchange, failure: Failure) -> None:
        self.crashes.append(failure)


class Answer:
    """
    A response as a client read it.

    Attributes:
        whole: It was framed to its end; else the connection was cut within it.
        rest: What came after it.
    """

    def __init__(self, data: bytes, *, bodyless: bool = False) -> None:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ")[1]) if head else 0
        self.headers = [tuple(part.strip().decode() for part in line.split(b":", 1)) for line in lines[1:]]
        self.body = b""
        self.trailers = b""
        self.whole = False
        self.rest = b""
        chunked = self.header("transfer-encoding") == "chunked"
        length = self.header("content-length")
        if not head or b"\r\n\r\n" not in data:
            return
        if bodyless or self.status in {204, 304}:
            self.whole, self.rest = True, rest
        elif chunked:
            self._chunks(rest)
        elif length is not None:
            size = int(length)
            self.body, self.rest = rest[:size], rest[size:]
            self.whole = len(self.body) == size
        else:
            self.body = rest

    def _chunks(self, rest: bytes) -> None:
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line, 16)
            if not size:
                self.trailers, mark, self.rest = rest.partition(b"\r\n") if rest[:2] == b"\r\n" else _trailers(rest)
                self.whole = bool(mark)
                return
            self.body += rest[:size]
            rest = rest[size + 2 :]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def code(self) -> str:
        """The problem's code, from its body."""
        code: str = json.loads(self.body)["code"]
        return code


def _trailers(rest: bytes) -> tuple[bytes, bytes, bytes]:
    block, mark, rest = rest.partition(b"\r\n\r\n")
    return block + b"\r\n", mark, rest


class Gate:
    """
    A gateway without tokens: everybody on it is Alice.

    Attributes:
        journal: What ended how.
        events: What the clusters said.
    """

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        routes: Iterable[Route],
        *,
        identity: Identity | None = ALICE,
        limits: Limits | None = None,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self.metrics = Metrics()
        self.journal = Kept()
        self.events: list[tuple[str, dict[str, Any]]] = []
        bits = Random(4)
        self.chance = chance or bits.random
        self.backends = Backends(
            reactor, self.chance, self.metrics, lambda event, fields: self.events.append((event, fields))
        )
        sections = {upstream.name: upstream for upstream in upstreams}
        self.backends.prepare(sections.values())()

        def known(exchange: Exchange) -> None:
            exchange.identity = identity

        self.edge = Edge(Plan((), RouteTable([])), clock().seconds, self.journal)
        table = RouteTable([self._entry(route, sections[route.upstream]) for route in routes])
        filters = (
            ClientAddress(AddressRule(())),
            Trace(bits.getrandbits, RequestSpans(Spans.off())),
            Match(table),
            known,
        )
        self.edge.plan = Plan(filters, table)
        self.site = ChannelFactory(self.edge, limits or Limits(), clock())
        self.clients: list[RawClient] = []
        self.listening: Listening

    def _entry(self, route: Route, section: Upstream) -> Entry[ServedRoute]:
        proxy = Proxy(
            self.backends.cluster(section.name),
            section,
            route,
            drop=identity_names(["X-Role"]) | {b"authorization"},
            identity_block=lambda who: b"X-User-Id: %b\r\nX-Role: player\r\n" % who.subject.encode(),
            pseudonym="gateway",
            refuse=self.edge.refuse,
            clock=clock(),
            random=self.chance,
            metrics=self.metrics,
            spans=Spans.off(),
        )
        served = ServedRoute(
            route.name or str(route.path),
            proxy,
            auth=False,
            timeout_s=route.timeout_s if route.timeout_s is not None else section.timeout_s,
        )
        return Entry(str(route.path), frozenset(), served)

    async def __aenter__(self) -> Gate:
        self.listening = await listen(reactor, [Listener("tcp:0:interface=127.0.0.1")], self.site)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            if client.lost is None:
                client.reset()
        await self.listening.stop()
        self.site.stop()
        await self.backends.stop()
        await eventually(lambda: not self.site.connections)
        assert not self.edge.open
        for cluster in self.backends.clusters():
            # Whatever happened: nothing is counted as under way for ever.
            assert cluster.active == 0
            assert cluster.budget.retrying == 0
            assert [member.in_flight for member in cluster.members] == [0] * len(cluster.members)
        assert not self.journal.crashes, self.journal.crashes[0].getTraceback()

    @property
    def port(self) -> int:
        host: Any = self.listening.ports[0].getHost()
        return int(host.port)

    def cluster(self, name: str = "backend") -> Cluster[Pool]:
        return self.backends.cluster(name)

    async def connect(self) -> RawClient:
        here: Any = reactor
        client: RawClient = await clientFromString(here, f"tcp:127.0.0.1:{self.port}").connect(
            Factory.forProtocol(RawClient)
        )
        self.clients.append(client)
        return client

    async def ask(
        self, target: str, *headers: str, method: str = "GET", body: bytes = b"", within: float = 20.0
    ) -> Answer:
        """Send one request on a connection of its own and read until that is closed."""
        client = await self.connect()
        if body:
            headers = (*headers, f"Content-Length: {len(body)}")
        client.send(head_of(target, *headers, "Connection: close", method=method) + body)
        return Answer(await client.closed(within), bodyless=method == "HEAD")


def head_of(target: str, *headers: str, method: str = "GET") -> bytes:
    """A request's head."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: gw.example", *headers, "", ""]).encode("latin-1")


def upstream(*targets: str, name: str = "backend", **changes: Any) -> Upstream:
    """An upstream; a change named ``retry__attempts`` is one of its table ``retry``."""
    section = Upstream(name=name, http=targets)
    tables: dict[str, dict[str, Any]] = {}
    for key in list(changes):
        table, _, inner = key.partition("__")
        if inner:
            tables.setdefault(table, {})[inner] = changes.pop(key)
    made = {table: replace(getattr(section, table), **inner) for table, inner in tables.items()}
    return replace(section, **made, **changes)


def route(path: str = "/**", name: str = "backend", **changes: Any) -> Route:
    """A route to the upstream *name*."""
    return Route(path=path, upstream=name, **changes)
