"""
Pass-through: a request goes to a backend and its answer comes back, changed as little as possible.

Out go the hop-by-hop headers and everything that would say who the caller is; in come the
caller as the gateway knows it, where the request came from, and its trace. Bodies stream both
ways with back-pressure. An attempt that failed is repeated only where nobody can notice.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from gateway.config.sections import Route, Upstream
from gateway.core.headers import request_block, tokens_of
from gateway.core.identity import Identity
from gateway.core.message import RequestHead, values_of
from gateway.core.problems import Problem
from gateway.ports.http import Exchange
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.cluster import Cluster
from gateway.upstream.passing import Passing
from gateway.upstream.pool import Pool
from gateway.upstream.request_body import RequestBody

__all__ = ["Proxy"]

MAX_VIA = 3
"""How often our own pseudonym may already stand in ``Via``; then it is a loop (RFC 9110, section 7.6.3)."""

FAIR_SHARE = 0.5


class Proxy:
    """
    What a pass-through route leads to (``ports.http.RouteHandler``).

    Args:
        drop: Names a client may not set, for ``core.headers.request_block``.
        identity_block: Makes the header lines that tell this upstream who calls.
        pseudonym: Ours, in ``Via``.
        refuse: The node's way to answer with a problem.
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        cluster: Cluster[Pool],
        section: Upstream,
        route: Route,
        *,
        drop: frozenset[bytes],
        identity_block: Callable[[Identity], bytes],
        pseudonym: str,
        refuse: Callable[[Exchange, Problem], None],
        clock: IReactorTime,
        random: Callable[[], float],
        metrics: Metrics,
        spans: Spans,
    ) -> None:
        self.cluster = cluster
        self.section = section
        self.methods = frozenset(method.encode("ascii") for method in section.retry.methods)
        self.statuses = frozenset(section.retry.statuses)
        self.drop = drop
        self.refuse = refuse
        self.clock = clock
        self.random = random
        self.metrics = metrics
        self.spans = spans
        whole_s = section.timeout_s if route.timeout_s is None else route.timeout_s
        self.fair_s = FAIR_SHARE * (whole_s if section.try_timeout_s is None else min(whole_s, section.try_timeout_s))
        """A target that had less than this is not to blame for a time-out."""
        self._identity_block = identity_block
        self._pseudonym = pseudonym.encode("ascii")
        self._via = (b"Via: 1.0 %b\r\n" % self._pseudonym, b"Via: 1.1 %b\r\n" % self._pseudonym)
        self.response_lines = self._via[1]
        """Header lines added to every relayed answer."""
        self._prefix = (route.strip_prefix or "").rstrip("/").encode("ascii")
        self._host = section.host.encode("ascii") if section.host not in {None, "client"} else None
        self._client_host = section.host == "client"

    def handle(self, exchange: Exchange) -> None:
        """
        Ask the upstream.

        Raises:
            Problem: ``loop_detected``; or the upstream takes nothing now (``Cluster.admit``).
        """
        head = exchange.head
        via = self._via[head.minor] if b"via" not in head.fields else self._joined_via(head)
        identity = exchange.identity
        # The gateway's own lines last: no header of a client's can take one of them away.
        block = b"%b%b%b%b%b" % (
            request_block(head, self.drop),
            exchange.outbound_block,
            # Recorded, each attempt is a place of its own.
            b"" if exchange.trace.sampled else exchange.trace.block(),
            via,
            self._identity_block(identity) if identity is not None else b"",
        )
        Passing(self, exchange, self._target(exchange), block).begin()

    def body(self, exchange: Exchange) -> RequestBody:
        """
        Make what takes the body of *exchange* to a backend.
        """
        section = self.section
        return RequestBody(exchange, section.retry.max_body_bytes, section.try_timeout_s, self.drop, self.clock.seconds)

    def authority(self, pool: Pool, head: RequestHead) -> bytes:
        """
        What ``Host`` says to the target behind *pool*.
        """
        if self._host is not None:
            return self._host
        if self._client_host:
            return head.fields.get(b"host", pool.target.authority)
        return pool.target.authority

    def _target(self, exchange: Exchange) -> bytes:
        path: bytes = exchange.target.path
        prefix = self._prefix
        if prefix and path.startswith(prefix):
            rest = path[len(prefix) :]
            # Only whole segments: "/api" is not the beginning of "/apis".
            if not rest or rest[:1] == b"/":
                path = rest or b"/"
        return b"%b?%b" % (path, exchange.query) if exchange.query else path

    def _joined_via(self, head: RequestHead) -> bytes:
        values = values_of(head.headers, b"via")
        own = sum(token.endswith(b" " + self._pseudonym.lower()) for token in tokens_of(values))
        if own >= MAX_VIA:
            raise Problem("loop_detected")
        return b"Via: %b, 1.%d %b\r\n" % (b", ".join(values), head.minor, self._pseudonym)
