"""
The seam of a backend that speaks HTTP: one target's connections, and one request over them.

Called on the reactor thread, plain and synchronous, because it is done for every request.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.message import Header, ResponseHead
from gateway.ports.http import Producer

__all__ = ["Fault", "HttpUpstream", "ResponseReceiver", "UpstreamCall"]


class Fault(Exception):
    """
    An exchange with a backend failed.

    Attributes:
        kind: ``connect`` (no connection, or none that could be verified), ``reset`` (closed before
            the answer was whole), ``malformed`` (not HTTP, or ambiguous), ``timeout``, ``overflow``
            (more than the target's connections may be), ``cancelled`` (the request's body was not
            as long as it had been announced).
        sent: Whether any byte of the request may have reached the backend.
        answered: Whether the response head had arrived.
    """

    def __init__(self, kind: str, detail: str = "", *, sent: bool = False, answered: bool = False) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail
        self.sent = sent
        self.answered = answered


class ResponseReceiver(Protocol):
    """
    Where a backend's response goes. Exactly one of "ended" and ``failed`` closes it.

    A response that is small enough comes in one call. Nothing is called after the end, nor after
    ``UpstreamCall.cancel``.
    """

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        """
        Take the head and the first bytes of the body.

        It may come before the request's body is whole; what is still written of that goes out until *ended*.
        """

    def received(self, data: bytes, ended: bool) -> None:
        """Take more of the body."""

    def informed(self, status: int, headers: list[Header]) -> None:
        """An interim response other than 100 and 101 came (103)."""

    def failed(self, fault: Fault) -> None:
        """Nothing more will come: *fault* says why and how far it got."""


class UpstreamCall(Protocol):
    """
    One request under way at a backend. After its end every call does nothing.

    Attributes:
        deadline: Monotonic seconds by which the response head must be there, else
            ``Fault("timeout")``; 0 for none. Looked at every 50 ms or so.
        idle_body_s: Once the head is there, longest time without a byte of the body while it is
            not paused; 0 for none.
    """

    deadline: float
    idle_body_s: float

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""

    def finish(self, trailers: bytes = b"") -> None:
        """End the request's body."""

    def cancel(self) -> None:
        """Give the request up: the connection is cut and not used again. ``failed`` is not called."""

    def pause(self) -> None:
        """Read no more of the response until resumed; one read may still come."""

    def resume(self) -> None:
        """Read again."""

    def register(self, producer: Producer) -> None:
        """Name who writes the request's body, to be paused while the backend is slower."""


class HttpUpstream(Protocol):
    """
    One target of one upstream: where its connections are kept.
    """

    def request(
        self,
        method: bytes,
        head: bytes,
        length: int,
        data: bytes,
        ended: bool,
        receiver: ResponseReceiver,
    ) -> UpstreamCall:
        """
        Send a request, on a kept connection or a new one.

        Args:
            method: To know whether a response can have a body (HEAD).
            head: Request line and header lines, each with CRLF, without framing headers and
                without the empty line: they are added here.
            length: Body bytes to come in all, ``CHUNKED``, or 0.
            data: First bytes of the body.
            ended: *data* is the whole body.

        Raises:
            Fault: ``overflow``, at once, when the target has as many connections as it may.
            ValueError: *data* is not what *length* and *ended* say.

        The receiver is never called before this returns. A kept connection that turns out to be
        closed before any byte of the answer is reported as ``Fault("reset")`` with ``sent`` true,
        unless no byte was written.
        """
