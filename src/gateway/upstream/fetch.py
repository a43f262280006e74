"""
The gateway's own questions to other services: keys, documents, hooks.

By treq, on our agent, with what treq does unasked switched off: no redirect is followed (the
answer's address would be somebody else's choice), no cookie is kept (all callers share the
client), nothing is decoded (a small body could become a large one). One deadline covers
everything and one bound the body.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, NamedTuple

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gateway.config.sections import UpstreamTls
from gateway.core.message import Header
from gateway.upstream.agent import PoolAgent, UpstreamAgent
from gateway.upstream.agent_response import AgentResponse

__all__ = ["Fetched", "Fetcher", "TooLarge", "send"]

LONGEST_S = 300.0
"""The agent's own bound; what a caller asks for is shorter."""


class TooLarge(ValueError):
    """
    A body has more bytes than were asked for.
    """


class Fetched(NamedTuple):
    """
    A response read to its end.

    Attributes:
        headers: As received, grouped by name, without those that frame.
    """

    status: int
    headers: list[Header]
    body: bytes


class Fetcher:
    """
    Asks other services; connections are kept and shared by all callers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._agents: dict[Path | None, UpstreamAgent] = {}

    def __call__(self, url: str, ca_file: Path | None, timeout_s: float, max_bytes: int) -> Deferred[Any]:
        """
        GET *url* as ``fetch`` does; gives a ``Fetched``.
        """
        return Deferred.fromCoroutine(self.fetch("GET", url, timeout_s=timeout_s, max_bytes=max_bytes, ca_file=ca_file))

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Iterable[Header] = (),
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int,
        ca_file: Path | None = None,
    ) -> Fetched:
        """
        Send a request and read its answer, whatever its status.

        Args:
            url: ``http://`` or ``https://``.
            timeout_s: For everything, from the name's look-up to the last byte of the body.
            max_bytes: Of the answer's body, as it comes.
            ca_file: PEM file of authorities instead of the system's.

        Raises:
            twisted.internet.defer.TimeoutError: it took longer than *timeout_s*.
            TooLarge: the body is larger than *max_bytes*.
            twisted.web.client.ResponseFailed: around a ``ports.upstream.Fault``.
            ValueError: the URL cannot be asked for.
            OSError, ValueError: *ca_file* cannot be used.
        """
        lines = Headers()
        for name, value in headers:
            lines.addRawHeader(name, value)
        agent = self._agent(ca_file)
        reading = Deferred.fromCoroutine(send(self._reactor, agent, method, url, lines, body, max_bytes))
        return await reading.addTimeout(timeout_s, self._reactor)

    def close(self) -> None:
        """
        Cut every connection; what is under way fails.
        """
        for agent in self._agents.values():
            agent.close()

    def _agent(self, ca_file: Path | None) -> UpstreamAgent:
        agent = self._agents.get(ca_file)
        if agent is None:
            agent = UpstreamAgent(self._reactor, tls=UpstreamTls(ca_file=ca_file), timeout_s=LONGEST_S)
            self._agents[ca_file] = agent
        return agent


async def send(
    reactor: Any,
    agent: PoolAgent | UpstreamAgent,
    method: str,
    url: str,
    headers: Headers,
    body: bytes | None,
    max_bytes: int,
) -> Fetched:
    """
    Send a request by *agent* and read its answer, whatever its status; its deadline is the caller's.

    Raises:
        TooLarge, ResponseFailed, ValueError: as ``Fetcher.fetch``.
    """
    plain = _Plain(agent, headers)
    client = HTTPClient(plain, cookiejar=IndexableCookieJar(_NoCookies()))
    wrapped = await client.request(
        method,
        url,
        headers=headers,
        data=_Bytes(body) if body is not None else None,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )
    response = plain.response
    if response is None:
        raise RuntimeError(f"{wrapped!r} is not of our agent")
    collect = _Collect(max_bytes)
    response.deliverBody(collect)
    content = await collect.done
    received = [(name, value) for name, values in response.headers.getAllRawHeaders() for value in values]
    return Fetched(response.code, received, content)


@implementer(IAgent)
class _Plain:
    """
    Below treq: sends the caller's own headers, and keeps the response from treq's decoders.
    """

    def __init__(self, agent: PoolAgent | UpstreamAgent, lines: Headers) -> None:
        self._agent = agent
        self._lines = lines
        self.response: AgentResponse | None = None

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        return self._agent.request(method, uri, self._lines, bodyProducer).addCallback(self._keep)

    def _keep(self, response: Any) -> Any:
        self.response = response
        return response


@implementer(IBodyProducer)
class _Bytes:
    """
    A body that is here already.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self._data:
            consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _Collect(Protocol):
    """
    Reads a body of at most *most* bytes.
    """

    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._most = most
        self._parts: list[bytes] = []
        self._taken = 0

    def _stop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._taken += len(data)
        self._parts.append(data)
        if self._taken > self._most:
            self._stop()
            self.done.errback(Failure(TooLarge(f"the body is larger than {self._most} bytes")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)


class _NoCookies(DefaultCookiePolicy):
    """
    Neither takes cookies nor sends any.
    """

    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False

    def return_ok(self, cookie: Any, request: Any) -> bool:
        return False
