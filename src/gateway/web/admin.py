"""
The admin port: metrics, health in detail, and what operators and their scripts order.

A site of its own on the clients' strict channel, with smaller limits, ``admin_guard`` before every
path of ``admin_pages``. The decision is taken at the end of the headers: who may not ask is answered before a
byte of a body was taken. It shares no port, no route and no filter with clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.config.sections import AdminKey, Limits, Listen, Listener
from gateway.core.browser_rules import BrowserRules, SecurityHeaders
from gateway.core.message import block_of
from gateway.core.path import canonical
from gateway.core.problems import CATALOGUE, Problem, problem_body
from gateway.core.trace import read
from gateway.node.api_keys import Key
from gateway.ports.http import Downstream, Exchange, Peer
from gateway.web.admin_guard import Guard
from gateway.web.admin_pages import Answer, Operations, Page, pages, pages_for_all
from gateway.web.api_page import api_pages
from gateway.web.factory import ChannelFactory
from gateway.web.listen import ListenFailed, Listening, listen
from gateway.web.live_page import live_pages

__all__ = ["AdminPort", "Operations"]

log = Logger()

LIMITS: Final = Limits(
    max_target_bytes=2 * 1024,
    max_head_bytes=16 * 1024,
    max_headers=64,
    max_body_bytes=1024 * 1024,
    connections=256,
    idle_timeout_s=60.0,
)
"""What holds here, whatever clients may do."""

_BROWSERS: Final = BrowserRules(
    SecurityHeaders(
        {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
    ),
    None,
)
"""On every answer of this port, also to what is no request. A page's own policy comes with it."""

_NO_STORE: Final = b"Cache-Control: no-store\r\n"


class AdminPort:
    """
    The admin endpoints and the metrics-only endpoints.

    Args:
        more: Pages beside those for operators: the server API's.
    """

    def __init__(
        self, operations: Operations, listen: Listen, keys: Sequence[AdminKey], more: Mapping[bytes, Page] | None = None
    ) -> None:
        self._listen = listen
        self._samples, live = live_pages(operations, more or {})
        self._admin = _Handler({**pages(operations), **api_pages(), **live, **(more or {})}, operations.audit)
        # Asked by the address of a container, which nobody can list beforehand; it tells no secrets.
        self._metrics = _Handler(pages_for_all(operations), operations.audit)
        self._open: list[tuple[ChannelFactory, Listening]] = []
        self.configure(listen, keys)

    def configure(self, listen: Listen, keys: Sequence[AdminKey]) -> None:
        """
        Take other names and keys; endpoints change with a restart only. Who looks at the page has to show the key again.
        """
        self._admin.guard = Guard(listen.admin_hosts, keys)
        self._samples.close()

    async def open(self, reactor: Any) -> None:
        """
        Open every endpoint, or none.

        Raises:
            ListenFailed: with the first that cannot be opened.
        """
        self._samples.open(reactor)
        try:
            for handler, endpoints in ((self._admin, self._listen.admin), (self._metrics, self._listen.metrics)):
                if endpoints:
                    site = ChannelFactory(handler, LIMITS, reactor, browsers=_BROWSERS)
                    listeners = [Listener(endpoint) for endpoint in endpoints]
                    self._open.append((site, await listen(reactor, listeners, site)))
        except ListenFailed:
            opened, self._open = self._open, []
            for site, listening in opened:
                listening.abandon()
                site.stop()
            raise

    async def close(self) -> None:
        """
        Close every endpoint, and every connection.
        """
        self._samples.close()
        opened, self._open = self._open, []
        for site, listening in opened:
            await listening.stop()
            site.stop()

    @property
    def addresses(self) -> list[IAddress]:
        """
        Where it listens, for tests and the log.
        """
        return [port.getHost() for _, listening in self._open for port in listening.ports]


class _Handler:
    """
    Answers from a table of pages (``ports.http.HttpHandler``).
    """

    def __init__(self, table: Mapping[bytes, Page], audit: Callable[[str, dict[str, Any]], None]) -> None:
        self.guard = Guard(None, ())
        self._table = table
        self._audit = audit

    def begin(self, downstream: Downstream) -> Exchange:
        """Decide, then collect the body where there is one."""
        exchange = Exchange(downstream, 0.0)
        exchange.browsers = _BROWSERS
        try:
            page, key = self._admitted(exchange)
            downstream.receive(_Body(lambda body: self._answer(exchange, page, key, body)))
        except Problem as problem:
            self._refuse(exchange, problem)
        return exchange

    def ended(self, exchange: Exchange, *, whole: bool) -> None:
        """Whatever still runs for it is cancelled."""
        exchange.ended = True
        cancel, exchange.on_gone = exchange.on_gone, None
        if cancel is not None and not whole:
            cancel()

    def refused(self, peer: Peer, status: int, code: str, head: bytes) -> bytes:
        """Not even a request."""
        return problem_body(Problem(code if code in CATALOGUE else "bad_request"))

    def _admitted(self, exchange: Exchange) -> tuple[Page, Key]:
        head = exchange.head
        path = canonical(head.target).path
        page = self._table.get(path)
        try:
            # Whether a path is there is told to nobody without a key.
            key = self.guard.admit(head, "read" if page is None else page.scope)
        except Problem as problem:
            if problem.reason != "admin_key_none":
                told = {"path": path.decode("ascii"), "peer": exchange.peer.host, "reason": problem.reason}
                self._audit("admin.refused", told)
            raise
        if page is None:
            raise Problem("no_route")
        if head.method != page.method and (head.method, page.method) != (b"HEAD", b"GET"):
            allowed = b"GET, HEAD" if page.method == b"GET" else page.method
            raise Problem("method_not_allowed", headers=((b"Allow", allowed),))
        if head.body_length > LIMITS.max_body_bytes:
            raise Problem("body_too_large", f"At most {LIMITS.max_body_bytes} bytes are taken here.")
        return page, key

    def _answer(self, exchange: Exchange, page: Page, key: Key, body: bytes) -> None:
        try:
            if page.stream is not None:
                exchange.on_gone = page.stream(key, exchange.downstream, _NO_STORE)
                return
            if page.chosen is not None:
                answer = page.chosen(exchange.head.fields.get(b"accept", b""))
            elif page.traced is not None:
                answer = page.traced(key, body, read(exchange.head))
            elif page.placed is not None:
                answer = page.placed(key, body, exchange.peer.host)
            else:
                answer = page.answer(key, body)
        except Exception:  # Whatever fails behind a page, its asker gets an answer and the log the traceback.
            self._failed(Failure(), exchange)
            return
        if isinstance(answer, Deferred):
            exchange.on_gone = answer.cancel
            answer.addCallbacks(self._send, self._failed, callbackArgs=(exchange,), errbackArgs=(exchange,))
        else:
            self._send(answer, exchange)

    def _send(self, answer: Answer, exchange: Exchange) -> None:
        policy = b"Content-Security-Policy: %b\r\n" % answer.policy
        block = b"Content-Type: %b\r\n%b%b" % (answer.content_type, _NO_STORE, policy)
        exchange.start(answer.status, b"", block, len(answer.body), answer.body, ended=True)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        error = failure.value
        if exchange.ended or isinstance(error, CancelledError):
            return
        if isinstance(error, Problem):
            self._refuse(exchange, error)
        else:
            log.failure("an admin page failed", failure)
            self._refuse(exchange, Problem("internal"))

    def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        kind = problem.kind
        body = problem_body(problem)
        block = b"Content-Type: application/problem+json\r\nX-Gateway-Error: %b\r\n%b%b" % (
            kind.flag.encode("ascii"),
            block_of((*problem.headers, (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"))),
            _NO_STORE,
        )
        exchange.start(kind.status, b"", block, len(body), body, ended=True)


class _Body:
    """
    Collects a body; the channel bounds it.
    """

    __slots__ = ("_done", "_pieces")

    def __init__(self, done: Callable[[bytes], None]) -> None:
        self._done = done
        self._pieces: list[bytes] = []

    def received(self, data: bytes, ended: bool) -> None:
        """Take the next bytes."""
        self._pieces.append(data)
        if ended:
            self._done(b"".join(self._pieces))
