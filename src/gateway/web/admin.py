"""
The admin port: metrics, health in detail, and what operators and their scripts order.

A ``twisted.web`` site of its own, never on the clients' port. It is no hot path, so the stock
server serves it, with its limits tightened and ``admin_guard`` before every resource.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from gateway.config.sections import AdminKey, Listen
from gateway.core.message import Header
from gateway.core.problems import Problem, problem_body
from gateway.ports.identity import Revocations
from gateway.web.admin_guard import Guard
from gateway.web.listen import ListenFailed, with_backlog

__all__ = ["AdminPort", "Operations"]

MAX_BODY = 1024 * 1024
IDLE_S = 30.0
_JSON = b"application/json"
_ALWAYS: tuple[Header, ...] = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)


@dataclass(frozen=True, slots=True)
class Operations:
    """
    What the admin port can tell and do; the application hands it in.

    Attributes:
        metrics: The Prometheus text.
        audit: Told of every order: the event's name and its fields.
        wall: Seconds since the epoch.
    """

    metrics: Callable[[], bytes]
    ready: Callable[[], bool]
    readiness: Callable[[], dict[str, Any]]
    config: Callable[[], dict[str, Any]]
    upstreams: Callable[[], list[dict[str, Any]]]
    jwks: Callable[[], dict[str, Any]]
    revocations: Revocations
    reload: Callable[[], list[str]]
    audit: Callable[[str, dict[str, Any]], None]
    wall: Callable[[], float]


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """
    The body of ``POST /api/revoke``: one token, or all that a subject was issued before a time.
    """

    token_id: str | None = None
    subject: str | None = None
    issued_before: float | None = None
    ttl_s: float = 86400.0


class _Answer(Resource):
    """
    One path: a method, a scope, and a function from the request to what is encoded.
    """

    isLeaf = True

    def __init__(
        self, method: bytes, scope: str, answer: Callable[[Request, str], Any], guard: Callable[[], Guard]
    ) -> None:
        super().__init__()
        self._method = method
        self._scope = scope
        self._answer = answer
        self._guard = guard

    def render(self, request: Any) -> bytes:
        """
        Guard, answer, encode.
        """
        for name, value in _ALWAYS:
            request.setHeader(name, value)
        try:
            key = self._guard().admit(request, self._scope)
            if request.postpath:
                raise Problem("no_route")
            if request.method not in (self._method, b"HEAD" if self._method == b"GET" else self._method):
                raise Problem("method_not_allowed", headers=((b"Allow", self._method),))
            answer = self._answer(request, key)
        except Problem as problem:
            return _refused(request, problem)
        if isinstance(answer, bytes):
            request.setHeader(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")
            return answer
        request.setHeader(b"Content-Type", _JSON)
        return msgspec.json.encode(answer)


def _refused(request: Any, problem: Problem) -> bytes:
    request.setResponseCode(problem.kind.status)
    request.setHeader(b"Content-Type", b"application/problem+json")
    for name, value in problem.headers:
        request.setHeader(name, value)
    return problem_body(problem)


class _Nothing(Resource):
    """Any other path: guarded like the others, so that nothing is told to strangers."""

    isLeaf = True

    def __init__(self, guard: Callable[[], Guard]) -> None:
        super().__init__()
        self._guard = guard

    def render(self, request: Any) -> bytes:
        """Refuse."""
        try:
            self._guard().admit(request, "read")
        except Problem as problem:
            return _refused(request, problem)
        return _refused(request, Problem("no_route"))


class _Root(Resource):
    """Finds the longest path that is there."""

    def __init__(self, paths: dict[bytes, Resource], other: Resource) -> None:
        super().__init__()
        self._paths = paths
        self._other = other

    def getChild(self, path: Any, request: Any) -> Resource:
        """Look at the whole path, not at its pieces."""
        request.postpath = []
        return self._paths.get(request.path, self._other)


class _BoundedRequest(Request):
    """
    A request whose body is refused before it is read when it is larger than any order can be.
    """

    def gotLength(self, length: int | None) -> None:
        """
        Refuse at the end of the headers.
        """
        if length is None or length > MAX_BODY:
            self.channel.transport.write(
                b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.channel.loseConnection()
            return
        super().gotLength(length)


class AdminPort:
    """
    The admin endpoints and the metrics-only endpoints.
    """

    def __init__(self, operations: Operations, listen: Listen, keys: Sequence[AdminKey]) -> None:
        self._operations = operations
        self._listen = listen
        self._ports: list[IListeningPort] = []
        self.configure(listen, keys)

    def configure(self, listen: Listen, keys: Sequence[AdminKey]) -> None:
        """
        Take other names and keys; endpoints change with a restart only.
        """
        self._guard = Guard(listen.admin_hosts, keys)
        self._open_guard = Guard(listen.admin_hosts, ())

    async def open(self, reactor: Any) -> None:
        """
        Open every endpoint, or none.

        Raises:
            ListenFailed: with the first that cannot be opened.
        """
        try:
            for endpoint in self._listen.admin:
                await self._listen_on(reactor, endpoint, self._paths())
            for endpoint in self._listen.metrics:
                await self._listen_on(reactor, endpoint, self._shown_to_all())
        except ListenFailed:
            await self.close()
            raise

    async def close(self) -> None:
        """
        Close every endpoint.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)

    @property
    def addresses(self) -> list[Any]:
        """
        Where it listens, for tests and the log.
        """
        return [port.getHost() for port in self._ports]

    async def _listen_on(self, reactor: Any, endpoint: str, paths: dict[bytes, Resource]) -> None:
        site = Site(_Root(paths, _Nothing(lambda: self._guard)), requestFactory=_BoundedRequest, timeout=IDLE_S)
        site.displayTracebacks = False
        site.noisy = False
        site.protocol = HTTPChannel
        try:
            self._ports.append(await serverFromString(reactor, with_backlog(endpoint)).listen(site))
        except Exception as error:  # Whatever an endpoint raises, the operator needs its name with it.
            cause = getattr(error, "socketError", error)
            raise ListenFailed(f"{endpoint}: {cause}") from error

    def _path(self, method: bytes, scope: str, answer: Callable[[Request, str], Any]) -> _Answer:
        return _Answer(method, scope, answer, lambda: self._guard)

    def _shown_to_all(self) -> dict[bytes, Resource]:
        operations = self._operations
        alive = self._path(b"GET", "", lambda _request, _key: {"status": "ok"})
        ready = self._path(b"GET", "", self._ready)
        return {
            b"/metrics": self._path(b"GET", "", lambda _request, _key: operations.metrics()),
            b"/health": alive,
            b"/livez": alive,
            b"/ready": ready,
            b"/readyz": ready,
        }

    def _paths(self) -> dict[bytes, Resource]:
        operations = self._operations
        return {
            **self._shown_to_all(),
            b"/status": self._path(b"GET", "read", lambda _request, _key: operations.readiness()),
            b"/config": self._path(b"GET", "read", lambda _request, _key: operations.config()),
            b"/upstreams": self._path(b"GET", "read", lambda _request, _key: operations.upstreams()),
            b"/jwks.json": self._path(b"GET", "read", lambda _request, _key: operations.jwks()),
            b"/reload": self._path(b"POST", "operate", self._reload),
            b"/api/revoke": self._path(b"POST", "revoke", self._revoke),
        }

    def _ready(self, request: Request, _key: str) -> dict[str, Any]:
        ready = self._operations.ready()
        if not ready:
            request.setResponseCode(503)
        return {"status": "ok" if ready else "unavailable"}

    def _reload(self, request: Request, key: str) -> dict[str, Any]:
        faults = self._operations.reload()
        self._operations.audit("admin.reload", {"key": key, "faults": len(faults)})
        if faults:
            request.setResponseCode(409)
        return {"reloaded": not faults, "faults": faults}

    def _revoke(self, request: Request, key: str) -> dict[str, Any]:
        try:
            order = msgspec.json.decode(request.content.read(), type=Revoke)  # type: ignore[union-attr]  # set once the body is there
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem("bad_request", str(error)) from error
        now = self._operations.wall()
        if (order.token_id is None) == (order.subject is None):
            raise Problem("bad_request", "Name exactly one of token_id and subject.")
        if not 0 < order.ttl_s <= 10 * 365 * 86400:
            raise Problem("bad_request", "ttl_s is a number of seconds up to ten years.")
        until = now + order.ttl_s
        if order.token_id is not None:
            self._operations.revocations.add_token(order.token_id, until)
        elif order.subject is not None:
            before = order.issued_before if order.issued_before is not None else now
            self._operations.revocations.add_subject(order.subject, before, until)
        self._operations.audit(
            "admin.revoke", {"key": key, "token_id": order.token_id, "subject": order.subject, "until": until}
        )
        return {"revoked": True, "until": until}
