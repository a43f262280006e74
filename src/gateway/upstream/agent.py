"""
An ``IAgent`` on our own pools, so that treq works for every call the gateway makes for itself.

No cookies, no redirects, no decoding: what treq adds by itself is switched off in ``fetch``,
because a jar shared by all callers carries one user's session into another's request.
"""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gateway.config.sections import Upstream, UpstreamTls
from gateway.core.message import CHUNKED, Header, ResponseHead
from gateway.ports.upstream import Fault
from gateway.upstream.call import Call
from gateway.upstream.pool import Pool
from gateway.upstream.target import BadTarget, Target

__all__ = ["Fetched", "Fetcher", "UpstreamAgent"]

MAX_BUFFERED = 64 * 1024
"""Body bytes taken before somebody asks for the body; then the backend waits."""

_OURS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection"))


@implementer(IAgent)
class UpstreamAgent:
    """
    Requests to any origin, each origin with a pool of its own (``twisted.web.iweb.IAgent``).

    Args:
        tls: How ``https`` origins are verified.
        timeout_s: For the response head, and for each pause within a body.
    """

    def __init__(self, reactor: Any, *, tls: UpstreamTls | None = None, timeout_s: float = 10.0) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._section = Upstream(name="agent", tls=tls or UpstreamTls(), idle_connections=4)
        self._pools: dict[tuple[str, str], Pool] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request; the Deferred fails with ``ResponseFailed``, and cancelling it cuts the connection.
        """
        try:
            parts = urlsplit(uri.decode("ascii"))
            pool = self._pool(parts.scheme, parts.netloc)
        except (BadTarget, ValueError) as error:
            return fail(error)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path.encode("ascii"), pool.target.authority)]
        for name, values in headers.getAllRawHeaders() if headers is not None else ():
            if name.lower() not in _OURS:
                lines += [b"%b: %b\r\n" % (name, value) for value in values]
        exchange = _AgentExchange()
        length = 0
        if bodyProducer is not None:
            length = bodyProducer.length if bodyProducer.length is not UNKNOWN_LENGTH else CHUNKED
        try:
            call = pool.request(method, b"".join(lines), length, b"", bodyProducer is None, exchange)
        except Fault as fault:
            return fail(ResponseFailed([Failure(fault)]))
        call.deadline = self._reactor.seconds() + self._timeout_s
        call.idle_body_s = self._timeout_s
        exchange.begin(call, bodyProducer)
        return exchange.response

    def close(self) -> None:
        """
        Cut every connection.
        """
        for pool in self._pools.values():
            pool.abort()

    def _pool(self, scheme: str, netloc: str) -> Pool:
        pool = self._pools.get((scheme, netloc))
        if pool is None:
            target = Target.parse(f"{scheme}://{netloc}")
            pool = self._pools[(scheme, netloc)] = Pool(self._reactor, target, self._section)
        return pool


class _AgentExchange:
    """
    One request of the agent: the receiver of its response, and the consumer of its body.
    """

    def __init__(self) -> None:
        self.response: Deferred[IResponse] = Deferred(lambda _: self._cancel())
        self._call: Call | None = None
        self._answer: _Response | None = None
        self._producer: IBodyProducer | None = None

    def begin(self, call: Call, producer: IBodyProducer | None) -> None:
        """Start sending the body."""
        self._call = call
        if producer is None:
            return
        self._producer = producer
        # A body producer is told to pause and resume like any push producer.
        call.register(producer)
        producing: Deferred[Any] = producer.startProducing(self)
        producing.addCallbacks(lambda _: call.finish(), self._broken)

    def _broken(self, failure: Failure) -> None:
        if self._call is not None and not self._call.over:
            self._call.cancel()
            self._fail(failure)

    def _cancel(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()
        if self._call is not None:
            self._call.cancel()

    def _fail(self, failure: Failure) -> None:
        if self._answer is not None:
            self._answer.end(Failure(ResponseFailed([failure], self._answer)))
        elif not self.response.called:
            self.response.errback(Failure(ResponseFailed([failure])))

    # IConsumer, as a body producer sees it.

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        if self._call is not None:
            self._call.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Body producers are registered by ``begin``."""

    def unregisterProducer(self) -> None:
        """See ``registerProducer``."""

    # ports.http.ResponseReceiver.

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        """Hand the response out; its body waits until somebody wants it."""
        self._answer = answer = _Response(head, self._call)
        answer.take(data)
        if ended:
            answer.end(Failure(ResponseDone()))
        if not self.response.called:
            self.response.callback(answer)

    def received(self, data: bytes, ended: bool) -> None:
        """Hand more of the body out."""
        if self._answer is not None:
            self._answer.take(data)
            if ended:
                self._answer.end(Failure(ResponseDone()))

    def informed(self, status: int, headers: list[Header]) -> None:
        """Interim responses say nothing to an agent."""

    def failed(self, fault: Fault) -> None:
        """Tell whoever waits."""
        self._fail(Failure(fault))


@implementer(IResponse)
class _Response:
    def __init__(self, head: ResponseHead, call: Call | None) -> None:
        self.version = (b"HTTP", 1, 1)
        self.code = head.status
        self.phrase = head.reason
        self.length: Any = head.body_length if head.body_length != CHUNKED else UNKNOWN_LENGTH
        self.headers = Headers()
        for name, value in head.headers:
            self.headers.addRawHeader(name, value)
        self.request: Any = None
        self.previousResponse: Any = None
        self._call = call
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ended: Failure | None = None
        self._protocol: IProtocol | None = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember what was redirected from."""
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """Give the body to *protocol*, from its beginning."""
        self._protocol = protocol
        protocol.makeConnection(_BodyTransport(self._call))  # type: ignore[arg-type]  # what a body protocol uses of it
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            protocol.dataReceived(data)
        if self._ended is not None:
            protocol.connectionLost(self._ended)
        elif self._call is not None:
            self._call.resume()

    def take(self, data: bytes) -> None:
        """More of the body came."""
        if not data:
            return
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MAX_BUFFERED and self._call is not None:
            self._call.pause()

    def end(self, reason: Failure) -> None:
        """The body is over, well or badly."""
        if self._ended is None:
            self._ended = reason
            if self._protocol is not None:
                self._protocol.connectionLost(reason)


class _BodyTransport:
    """What a body protocol may do to its response."""

    disconnecting = False

    def __init__(self, call: Call | None) -> None:
        self._call = call

    def pauseProducing(self) -> None:
        if self._call is not None:
            self._call.pause()

    def resumeProducing(self) -> None:
        if self._call is not None:
            self._call.resume()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        if self._call is not None:
            self._call.cancel()

    abortConnection = loseConnection


class Fetched(NamedTuple):
    """A response read to its end."""

    status: int
    headers: list[Header]
    body: bytes


class _Collect(Protocol):
    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._most = most
        self._parts: list[bytes] = []
        self._taken = 0

    def _stop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._taken += len(data)
        self._parts.append(data)
        if self._taken > self._most and not self.done.called:
            self._stop()
            self.done.errback(Failure(ValueError(f"the body is larger than {self._most} bytes")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


class _NoCookies(DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False

    def return_ok(self, cookie: Any, request: Any) -> bool:
        return False


class Fetcher:
    """
    GETs for the gateway itself (keys, documents): one deadline, one bound, no redirects, no cookies.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._agents: dict[Path | None, UpstreamAgent] = {}

    def __call__(self, url: str, ca_file: Path | None, timeout_s: float, max_bytes: int) -> Deferred[Any]:
        """
        Read *url*; the Deferred gives a ``Fetched`` or fails within *timeout_s* seconds.
        """
        agent = self._agents.get(ca_file)
        if agent is None:
            agent = self._agents[ca_file] = UpstreamAgent(self._reactor, tls=UpstreamTls(ca_file=ca_file))
        client = HTTPClient(agent, cookiejar=IndexableCookieJar(_NoCookies()))

        async def read() -> Fetched:
            response = await client.get(
                url,
                headers=Headers({"Accept-Encoding": ["identity"]}),
                allow_redirects=False,
                unbuffered=True,
                browser_like_redirects=False,
            )
            collect = _Collect(max_bytes)
            original = response.original
            original.deliverBody(collect)
            body = await collect.done
            headers = [(name, value) for name, values in original.headers.getAllRawHeaders() for value in values]
            return Fetched(original.code, headers, body)

        return Deferred.fromCoroutine(read()).addTimeout(timeout_s, self._reactor)

    def close(self) -> None:
        """
        Cut every connection.
        """
        for agent in self._agents.values():
            agent.close()
