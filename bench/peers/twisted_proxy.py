"""
A proxy from Twisted's stock parts: a ``twisted.web`` resource that asks through treq.

``python twisted_proxy.py PORT UPSTREAM-URL``. Written as its documentation suggests, with what a proxy must
switch off (redirects, buffering) switched off and a connection pool that is large enough.
"""

from __future__ import annotations

import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"host"),
}


class Proxy(Resource):
    """Everything below ``/``."""

    isLeaf = True

    def __init__(self, client: HTTPClient, upstream: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource has no types
        self._client = client
        self._upstream = upstream

    def render(self, request: Request) -> Any:
        """Ask the upstream, and pass on what it says as it comes."""
        headers = Headers()
        for name, values in request.requestHeaders.getAllRawHeaders():
            if name.lower() not in HOP_BY_HOP:
                headers.setRawHeaders(name, values)
        headers.addRawHeader(b"X-Forwarded-For", request.getClientAddress().host)
        body = request.content.read() if request.content else b""
        asked = self._client.request(
            request.method.decode("ascii"),
            self._upstream + request.uri.decode("ascii"),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            unbuffered=True,
        )

        def answered(response: Any) -> Deferred[None]:
            request.setResponseCode(response.code)
            for name, values in response.headers.getAllRawHeaders():
                if name.lower() not in HOP_BY_HOP:
                    request.responseHeaders.setRawHeaders(name, values)
            if isinstance(response.length, int):
                request.setHeader(b"Content-Length", b"%d" % response.length)
            collected: Deferred[None] = self._collect(response, request.write)
            return collected

        def failed(_: Failure) -> None:
            request.setResponseCode(502)

        def finish(_: object) -> None:
            if not request._disconnected:
                request.finish()

        asked.addCallback(answered)
        asked.addErrback(failed)
        asked.addCallback(finish)
        return NOT_DONE_YET

    @staticmethod
    def _collect(response: Any, write: Any) -> Any:
        from treq import collect

        return collect(response, write)


def main() -> None:
    """Serve until a signal comes."""
    port, upstream = int(sys.argv[1]), sys.argv[2]
    reactor: Any = global_reactor
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = 128
    client = HTTPClient(Agent(reactor, pool=pool))
    reactor.listenTCP(port, Site(Proxy(client, upstream)), backlog=4096, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
