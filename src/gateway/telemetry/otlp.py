"""
OTLP, over gRPC and over HTTP (https://opentelemetry.io/docs/specs/otlp/): which answers mean what.

The library's exporters wait for a collector in the thread that calls them, and try again by themselves; here
both is the affair of ``telemetry.outgoing``, and nothing waits.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from gateway.telemetry.outgoing import Unsent

__all__ = ["EXPORT", "GrpcSender", "HttpSender", "Pack", "Posted"]

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

Pack = Callable[[Sequence[bytes]], bytes]
"""Makes an ``ExportTraceServiceRequest`` of spans."""

_AGAIN: Final = frozenset(("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"))
_STATUSES_AGAIN: Final = frozenset((429, 502, 503, 504))
_LONGEST_WAIT_S: Final = 300.0

MOST_ANSWER: Final = 64 * 1024


class Posted(NamedTuple):
    """
    What a collector answered over HTTP.

    Attributes:
        retry_after: The value of that header, or None.
    """

    status: int
    body: bytes
    retry_after: bytes | None


class Post(Protocol):
    """
    Sends a POST and reads the answer, of at most ``MOST_ANSWER`` bytes, within a deadline.
    """

    def __call__(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float) -> Awaitable[Posted]:
        """
        Send *body*.

        Raises:
            Unsent: there was no answer.
        """

    def close(self) -> None:
        """Cut the connections."""


class HttpSender:
    """
    Protobuf over HTTP (``telemetry.outgoing.Sender``).

    Args:
        headers: Sent along.
        compress: By gzip.
    """

    def __init__(self, pack: Pack, post: Post, headers: Mapping[str, str], *, compress: bool) -> None:
        self._pack = pack
        self._post = post
        self._compress = compress
        self._headers = [
            (b"Content-Type", b"application/x-protobuf"),
            *([(b"Content-Encoding", b"gzip")] if compress else []),
            *((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()),
        ]

    async def send(self, spans: list[bytes], timeout_s: float) -> int:
        """
        Send *spans* (``Sender.send``).
        """
        body = self._pack(spans)
        if self._compress:
            body = await deferToThread(gzip.compress, body, 1)
        posted = await self._post(self._headers, body, timeout_s)
        if 200 <= posted.status < 300:  # noqa: PLR2004
            return _rejected(posted.body)
        after = posted.retry_after
        raise Unsent(
            f"status {posted.status}",
            lasting=posted.status not in _STATUSES_AGAIN,
            after_s=min(float(after), _LONGEST_WAIT_S) if after is not None and after.isdigit() else 0.0,
        )

    async def close(self) -> None:
        """Cut the connections."""
        self._post.close()


class GrpcSender:
    """
    The same over gRPC.

    Args:
        open_: Opens the channel, when there are spans, so after the last fork; raises OSError for a file that cannot be read.
        reactor: What finishes in threads of grpcio's is brought over to it.
    """

    def __init__(
        self, pack: Pack, open_: Callable[[], Any], headers: Mapping[str, str], reactor: Any, *, compress: bool
    ) -> None:
        self._pack = pack
        self._open = open_
        self._reactor = reactor
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        self._compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        self._channel: Any = None
        self._export: Any = None

    async def send(self, spans: list[bytes], timeout_s: float) -> int:
        """
        Send *spans* (``Sender.send``).
        """
        if self._channel is None:
            try:
                self._channel = self._open()
            except (OSError, ValueError) as error:
                raise Unsent(f"no channel: {error}") from error
            self._export = self._channel.unary_unary(EXPORT)
        future = self._export.future(
            self._pack(spans), timeout=timeout_s, metadata=self._metadata, compression=self._compression
        )
        finished: Deferred[None] = Deferred(lambda _: future.cancel())

        def done() -> None:
            if not finished.called:
                finished.callback(None)

        future.add_done_callback(lambda _: self._reactor.callFromThread(done))
        await finished
        code = future.code()
        if code is grpc.StatusCode.OK:
            return _rejected(future.result() or b"")
        after_s = _retry_after_s(future.trailing_metadata() or ())
        again = code.name in _AGAIN or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is not None)
        raise Unsent(f"{code.name}: {future.details()}", lasting=not again, after_s=after_s or 0.0)

    async def close(self) -> None:
        """
        Close the channel; what is under way is cancelled.
        """
        channel, self._channel = self._channel, None
        # Closing waits for grpcio's own threads.
        await (deferToThread(channel.close) if channel is not None else succeed(None))


def _rejected(answer: bytes) -> int:
    try:
        return int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans)
    except Exception as error:  # protobuf's implementations raise different ones.
        raise Unsent("the answer is none of a collector", lasting=True) from error


def _retry_after_s(trailing: Sequence[tuple[str, str | bytes]]) -> float | None:
    """Read how long to wait out of a status's details; None if it does not say."""
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                status, info = Status.FromString(value), RetryInfo()
                for detail in status.details:
                    if detail.Unpack(info):
                        wait_s: float = float(info.retry_delay.seconds) + info.retry_delay.nanos / 1e9
                        return min(wait_s, _LONGEST_WAIT_S)
            except Exception:  # Not what it says it is; see above.
                return None
    return None
