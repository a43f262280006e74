"""
A backend's response as Twisted's ``IResponse``: the body waits until somebody asks for it, and
then comes as fast as it is taken.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IClientRequest, IResponse
from zope.interface import implementer

from gateway.core.message import CHUNKED, ResponseHead
from gateway.upstream.call import Call

__all__ = ["MOST_WAITING_BYTES", "AgentResponse", "Asked"]

MOST_WAITING_BYTES = 64 * 1024
"""Body bytes taken before somebody asks for the body, and one read more; then the backend waits."""

_NO_BODY = (204, 304)


@implementer(IClientRequest)
class Asked:
    """
    What a response answers.
    """

    def __init__(self, method: bytes, uri: bytes, headers: Headers) -> None:
        self.method = method
        self.absoluteURI = uri
        self.headers = headers


@implementer(IResponse)
class AgentResponse:
    """
    One response.

    Attributes:
        length: Of the body that comes: 0 after HEAD, whatever was announced.
    """

    def __init__(self, reactor: Any, asked: Asked, head: ResponseHead, call: Call) -> None:
        self.version = (b"HTTP", 1, 1)
        self.code = head.status
        self.phrase = head.reason
        self.length: Any = head.body_length if head.body_length != CHUNKED else UNKNOWN_LENGTH
        if asked.method == b"HEAD" or head.status in _NO_BODY:
            self.length = 0
        self.headers = Headers()
        for name, value in head.headers:
            self.headers.addRawHeader(name, value)
        self.request = asked
        self.previousResponse: IResponse | None = None
        self._reactor = reactor
        self._call = call
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ended: Failure | None = None
        self._protocol: IProtocol | None = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """
        Remember what was redirected from.
        """
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        Give the body to *protocol*, from its beginning; once.
        """
        if self._protocol is not None:
            raise RuntimeError("the body was asked for before")
        self._protocol = protocol
        transport: Any = _BodyTransport(self)
        protocol.makeConnection(transport)
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            if not transport.disconnecting:
                protocol.dataReceived(data)
        if self._ended is not None:
            protocol.connectionLost(self._ended)
        elif self._waiting_bytes > MOST_WAITING_BYTES and not transport.paused:
            self._call.resume()

    def take(self, data: bytes) -> None:
        """
        More of the body came.
        """
        if not data or self._ended is not None:
            return
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._call.pause()

    def end(self, reason: Failure) -> None:
        """
        The body is over, well or badly.
        """
        if self._ended is None:
            self._ended = reason
            if self._protocol is not None:
                self._protocol.connectionLost(reason)

    def pause(self) -> None:
        """
        Hold the backend back.
        """
        self._call.pause()

    def resume(self) -> None:
        """
        Let it go on.
        """
        self._call.resume()

    def abandon(self) -> None:
        """
        Whoever read the body wants no more of it; the protocol hears of the end in the next turn, as of any other.
        """
        self._call.cancel()
        if self._ended is None:
            reason = Failure(ResponseFailed([Failure(ConnectionAborted())], self))
            self._reactor.callLater(0, self.end, reason)


@implementer(IPushProducer)
class _BodyTransport:
    """
    What a body's protocol may do to its response.
    """

    disconnecting = False

    def __init__(self, response: AgentResponse) -> None:
        self._response = response
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True
        self._response.pause()

    def resumeProducing(self) -> None:
        self.paused = False
        self._response.resume()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._response.abandon()

    abortConnection = loseConnection
