"""
What every request passes before its route's handler, one small filter each.

The order is stated in ``app.py``: client address, trace, per-address limit, route, CORS,
credentials, chosen users, per-user limit, rule, idempotency. A filter lets pass, makes wait, or raises
``Problem``; see ``node.plan.Filter``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gateway.core.address import AddressRule
from gateway.core.identity import Identity
from gateway.core.ids import Bits, acceptable
from gateway.core.path import Target, canonical
from gateway.core.problems import Problem
from gateway.core.routes import RouteTable
from gateway.core.trace import TraceContext, new, read
from gateway.node.http_spans import RequestSpans
from gateway.node.plan import ServedRoute
from gateway.ports.http import Exchange
from gateway.ports.identity import Authenticator, CertificateHolders

__all__ = ["Chosen", "ClientAddress", "Credentials", "Match", "Rule", "TokenSource", "Trace"]


class TokenSource(Protocol):
    """
    Who finds credentials in requests, and keeps them from going further than they should.
    """

    def __call__(self, exchange: Exchange, places: tuple[str, ...]) -> bytes:
        """Take the credential, given where it may stand; raise ``Problem`` without one."""

    def clean(self, exchange: Exchange) -> object:
        """Take out credentials that nobody asked for: they are no business of a backend or a log."""


class ClientAddress:
    """
    Who is asking, by the one rule; also what backends are told about it.
    """

    def __init__(self, rule: AddressRule) -> None:
        self._client = rule.client

    def __call__(self, exchange: Exchange) -> None:
        """
        Find the client's address and scheme.
        """
        peer = exchange.peer
        client = self._client(peer.host, peer.tls, exchange.head)
        exchange.client_host = client.host
        exchange.client_scheme = client.scheme
        exchange.trusted = client.trusted
        exchange.outbound_block = client.forwarded


class Trace:
    """
    A trace context and a request id for every request.

    A trusted peer's are continued. From anybody else they begin here: the request id is then
    the trace id, so that either finds both.

    Args:
        bits: So many random bits, as a number.
        requests: Those that are recorded.
        certified: Traces of peers that showed a client certificate are continued, too.
    """

    def __init__(self, bits: Bits, requests: RequestSpans, *, certified: bool = False) -> None:
        self._bits = bits
        self._requests = requests
        self._spans = requests.spans
        self._sampling = requests.spans.sampling
        self._certified = certified

    def __call__(self, exchange: Exchange) -> None:
        """
        Continue or begin the trace.
        """
        context: TraceContext | None = None
        request_id = ""
        if exchange.trusted:
            given = exchange.head.fields.get(b"x-request-id")
            if given is not None and acceptable(given):
                request_id = given.decode("ascii")
        if exchange.trusted or (self._certified and exchange.peer.certificate_subject is not None):
            context = read(exchange.head)
            # Where no spans are made, none may stand between the peer's and the backend's.
            if context is not None and self._spans.on:
                context = context.child(self._bits)
        if context is None:
            context = new(self._bits, below=self._sampling.below)
        exchange.trace = context
        if context.sampled and self._spans.on:
            self._requests.begun(exchange)
        exchange.request_id = request_id = request_id or context.trace_id
        line = b"X-Request-Id: %b\r\n" % request_id.encode("ascii")
        exchange.response_block = line
        exchange.outbound_block = b"%b%b" % (exchange.outbound_block, line)


class Chosen:
    """
    Has the traces of chosen users recorded, once it is known who asks.
    """

    def __init__(self, requests: RequestSpans) -> None:
        self._requests = requests
        self._sampling = requests.spans.sampling

    def __call__(self, exchange: Exchange) -> None:
        """
        Look whether the caller is chosen.
        """
        sampling = self._sampling
        if sampling.users and exchange.identity is not None and sampling.wants(exchange.identity.subject):
            exchange.trace.sampled = True
            self._requests.begun(exchange)


class Match:
    """
    The one canonical path, and the route it has.

    Args:
        server: What ``OPTIONS *`` leads to, which asks about the server and has no path.
        preflight: What preflights lead to, where the route that is asked about has rules for other origins.
    """

    def __init__(
        self,
        routes: RouteTable[ServedRoute],
        server: ServedRoute | None = None,
        preflight: ServedRoute | None = None,
    ) -> None:
        self._match = routes.match
        self._server = server
        self._preflight = preflight

    def __call__(self, exchange: Exchange) -> None:
        """
        Find the route.
        """
        head = exchange.head
        if head.target == b"*" and self._server is not None:
            exchange.route = self._server
            return
        exchange.target = target = canonical(head.target)
        exchange.query = target.query
        if head.method == b"OPTIONS" and self._asks_about(exchange, target):
            return
        match = self._match(target, head.method)
        route = match.value
        exchange.route = route
        if route.browsers is not None:
            exchange.browsers = route.browsers
        exchange.params = match.params
        exchange.deadline = exchange.started_at + route.timeout_s
        downstream = exchange.downstream
        downstream.max_body_bytes = route.max_body_bytes
        if head.body_length > route.max_body_bytes:
            raise Problem("body_too_large", f"At most {route.max_body_bytes} bytes are taken here.")

    def _asks_about(self, exchange: Exchange, target: Target) -> bool:
        """Whether it is a preflight for a route that answers pages of other origins; else it goes on as any request."""
        fields = exchange.head.fields
        wanted = fields.get(b"access-control-request-method")
        if wanted is None or b"origin" not in fields or self._preflight is None:
            return False
        browsers = self._match(target, wanted).value.browsers or exchange.browsers
        if browsers is None or browsers.cors is None:
            return False
        exchange.browsers = browsers
        exchange.route = self._preflight
        return True


class Credentials:
    """
    Who the caller is, on every route that does not say ``auth = "none"``.

    Args:
        take: Finds the credential in a request.
        check_scopes: Raises ``Problem("scope_missing")``.
        wall: Seconds since the epoch.
        certificates: Who holds a client certificate; None: nobody is known by one.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        take: TokenSource,
        check_scopes: Callable[[Identity, tuple[str, ...]], None],
        wall: Callable[[], float],
        certificates: CertificateHolders | None = None,
    ) -> None:
        self._certificates = certificates
        self._authenticate = authenticator.authenticate
        self._take = take
        self._clean = take.clean
        self._check_scopes = check_scopes
        self._wall = wall

    def __call__(self, exchange: Exchange) -> Deferred[Any] | None:
        """
        Prove the caller's identity.
        """
        route: ServedRoute = exchange.route
        if not route.auth:
            self._clean(exchange)
            return None
        try:
            token = self._take(exchange, route.credentials)
        except Problem as problem:
            certificate = exchange.peer.certificate if "certificate" in route.credentials else None
            if certificate is None or self._certificates is None or problem.kind.code != "credential_missing":
                raise
            self._known(self._certificates.holder(certificate, self._wall()), exchange)
            return None
        found = self._authenticate(token, self._wall())
        if isinstance(found, Deferred):
            return found.addCallback(self._known, exchange)
        self._known(found, exchange)
        return None

    def _known(self, identity: Identity, exchange: Exchange) -> None:
        exchange.identity = identity
        scopes = exchange.route.scopes
        if scopes:
            self._check_scopes(identity, scopes)


class Rule:
    """
    The route's own condition (``when``); anything but true is a 403.
    """

    def __call__(self, exchange: Exchange) -> None:
        """
        Ask the route's rule.
        """
        allows = exchange.route.allows
        if allows is not None:
            allows(exchange)
