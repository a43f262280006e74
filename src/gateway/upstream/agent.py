"""
An ``IAgent`` on our own pools, so that treq works for every call the gateway makes for itself.

It sends what it is given and hands over what comes: no cookies, no redirects, no decoding, no
retries. What frames a message and whom the connection is for it decides alone; a caller's
``Content-Length``, ``Connection`` and the like beside its own would be read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gateway.config.sections import Upstream, UpstreamTls
from gateway.core.message import CHUNKED, Header, ResponseHead
from gateway.ports.upstream import Fault
from gateway.upstream.agent_response import AgentResponse, Asked
from gateway.upstream.agent_upload import Upload
from gateway.upstream.call import Call
from gateway.upstream.pool import Pool
from gateway.upstream.target import Target

__all__ = ["PoolAgent", "UpstreamAgent"]

MOST_ORIGINS = 64
"""Pools of origins that nothing is asked of any more are closed beyond this."""

_OURS = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
    )
)
_is_token = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_uri = re.compile(rb"[!-~]+").fullmatch
_is_value = re.compile(rb"[\t -~\x80-\xff]*").fullmatch


@implementer(IAgent)
class UpstreamAgent:
    """
    Requests to any origin, each origin with a pool of its own (``twisted.web.iweb.IAgent``).

    Args:
        tls: How ``https`` origins are verified.
        timeout_s: For the response head, and for each pause within a body.
        connect_timeout_s: For a connection, TLS included.
    """

    def __init__(
        self, reactor: Any, *, tls: UpstreamTls | None = None, timeout_s: float = 10.0, connect_timeout_s: float = 5.0
    ) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._section = Upstream(
            name="agent", tls=tls or UpstreamTls(), idle_connections=4, connect_timeout_s=connect_timeout_s
        )
        self._pools: dict[Target, Pool] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request.

        Returns:
            Fails with ``ResponseFailed`` around a ``Fault``, with ``RequestGenerationFailed`` where
            the body's producer failed, with ``ValueError`` where there is nothing to be sent.
            Cancelling it cuts the connection; once it has fired, the body's transport does.
        """
        try:
            pool = self._pool_of(method, uri)
        except (
            Exception
        ) as error:  # An agent does not raise: what cannot be asked for, or a certificate's file that is not there.
            return fail(error)
        return _send(self._reactor, pool, pool.target.authority, method, uri, headers, bodyProducer, self._timeout_s)

    def close(self) -> None:
        """
        Cut every connection; what is under way fails.
        """
        for pool in self._pools.values():
            pool.abort()

    def _pool_of(self, method: bytes, uri: bytes) -> Pool:
        _check(method, uri)
        parts = urlsplit(uri.decode("ascii"))
        return self._pool(Target.parse(f"{parts.scheme}://{parts.netloc}"))

    def _pool(self, target: Target) -> Pool:
        pool = self._pools.get(target)
        if pool is None:
            pool = Pool(self._reactor, target, self._section)
            if len(self._pools) >= MOST_ORIGINS:
                for other in [other for other, unused in self._pools.items() if not unused.active]:
                    self._pools.pop(other).close()
            self._pools[target] = pool
        return pool


@implementer(IAgent)
class PoolAgent:
    """
    Requests to one target, whatever host their URI names (``twisted.web.iweb.IAgent``).

    Args:
        host: What ``Host`` says; empty for the target's own authority.
        timeout_s: For the response head, and for each pause within a body.
    """

    def __init__(self, reactor: Any, pool: Pool, *, host: bytes = b"", timeout_s: float = 10.0) -> None:
        self._reactor = reactor
        self._pool = pool
        self._host = host or pool.target.authority
        self._timeout_s = timeout_s

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request, as ``UpstreamAgent.request`` does.
        """
        return _send(self._reactor, self._pool, self._host, method, uri, headers, bodyProducer, self._timeout_s)


def _send(
    reactor: Any,
    pool: Pool,
    host: bytes,
    method: bytes,
    uri: bytes,
    headers: Headers | None,
    source: IBodyProducer | None,
    timeout_s: float,
) -> Deferred[IResponse]:
    try:
        lead = _lead(method, uri, headers, host)
    except ValueError as error:
        return fail(error)
    length = 0
    if source is not None:
        length = source.length if source.length is not UNKNOWN_LENGTH else CHUNKED
    exchange = _Exchange(reactor, Asked(method, uri, headers or Headers()))
    try:
        call = pool.request(method, lead, length, b"", source is None, exchange)
    except Fault as fault:
        return fail(ResponseFailed([Failure(fault)]))
    call.deadline = reactor.seconds() + timeout_s
    call.idle_body_s = timeout_s
    exchange.begin(call, source)
    return exchange.response


def _check(method: bytes, uri: bytes) -> None:
    if not _is_token(method) or not _is_uri(uri):
        raise ValueError(f"{method!r} {uri!r} cannot be asked for")


def _lead(method: bytes, uri: bytes, headers: Headers | None, host: bytes) -> bytes:
    _check(method, uri)
    parts = urlsplit(uri.decode("ascii"))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = []
    for name, value in _lines(headers):
        if name.lower() == b"host":
            host = value
        elif name.lower() not in _OURS:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (method, path.encode("ascii"), host, b"".join(lines))


def _lines(headers: Headers | None) -> Iterator[Header]:
    for name, values in headers.getAllRawHeaders() if headers is not None else ():
        for value in values:
            if not _is_token(name) or not _is_value(value):
                raise ValueError(f"{name!r} is no header, or its value none")
            yield name, value


class _Exchange:
    """
    One request of the agent (``ports.upstream.ResponseReceiver``).
    """

    def __init__(self, reactor: Any, asked: Asked) -> None:
        self.response: Deferred[IResponse] = Deferred(lambda _: self._cancel())
        self._reactor = reactor
        self._asked = asked
        self._call: Call | None = None
        self._upload: Upload | None = None
        self._answer: AgentResponse | None = None

    def begin(self, call: Call, source: IBodyProducer | None) -> None:
        """
        Start sending the body.
        """
        self._call = call
        if source is not None:
            self._upload = Upload(call, source, self._cannot_be_sent)
            self._upload.begin()

    def _cannot_be_sent(self, failure: Failure) -> None:
        if self._call is not None:
            self._call.cancel()
        self._fail(Failure(RequestGenerationFailed([failure])))

    def _cancel(self) -> None:
        self._end_upload()
        if self._call is not None:
            self._call.cancel()

    def _end_upload(self) -> None:
        if self._upload is not None:
            self._upload.stop()

    def _fail(self, failure: Failure) -> None:
        self._end_upload()
        if self._answer is not None:
            self._answer.end(failure)
        elif not self.response.called:
            self.response.errback(failure)

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        """
        Hand the response out; its body waits until somebody wants it.
        """
        if self._call is None:
            return
        self._answer = answer = AgentResponse(self._reactor, self._asked, head, self._call)
        self.received(data, ended)
        self.response.callback(answer)

    def received(self, data: bytes, ended: bool) -> None:
        """
        Hand more of the body out.
        """
        if self._answer is not None:
            self._answer.take(data)
            if ended:
                self._end_upload()
                self._answer.end(Failure(ResponseDone()))

    def informed(self, status: int, headers: list[Header]) -> None:
        """
        Interim responses say nothing to an agent.
        """

    def failed(self, fault: Fault) -> None:
        """
        Tell whoever waits.
        """
        self._fail(Failure(ResponseFailed([Failure(fault)], self._answer)))
