"""
Server streams: grpcio reads them in a thread each, a bounded number of them, one message ahead.
"""

from __future__ import annotations

import threading
from typing import Any

import grpc
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.ports.calls import CallFailed
from gateway.upstream.call_failures import failure_of

__all__ = ["Stream", "Streams"]


class Stream:
    """
    One stream. ``next`` gives its messages as bytes, then None; it raises ``CallFailed``.
    """

    def __init__(self, owner: Streams, call: Any, target: str) -> None:
        self._owner = owner
        self._call = call
        self._target = target
        # One message may wait while the consumer is busy with another; then the backend waits.
        self._permits = threading.Semaphore(1)
        self._arrived: list[bytes] = []
        self._ended = False
        self._failure: CallFailed | None = None
        self._waiting: Deferred[bytes | None] | None = None
        self._cancelled = False

    def run(self) -> None:
        """Read until the end; in a thread of its own."""
        failure: CallFailed | None = None
        try:
            while True:
                self._permits.acquire()
                if self._cancelled:
                    break
                data = next(self._call)
                self._owner.reactor.callFromThread(self._message, data)
        except StopIteration:
            pass
        except grpc.RpcError as error:
            failure = failure_of(error)
        finally:
            self._owner.reactor.callFromThread(self._end, failure)

    def _message(self, data: bytes) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._permits.release()
            waiting.callback(data)
        else:
            self._arrived.append(data)

    def _end(self, failure: CallFailed | None) -> None:
        self._owner.ended(self)
        self._ended = True
        self._failure = failure
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if failure is not None:
                waiting.errback(Failure(failure))
            else:
                waiting.callback(None)

    async def next(self) -> bytes | None:
        """Wait for the next message; None at a clean end."""
        if self._arrived:
            data = self._arrived.pop(0)
            self._permits.release()
            return data
        if self._ended:
            if self._failure is not None:
                raise self._failure
            return None
        self._waiting = Deferred(lambda _: self.cancel())
        return await self._waiting

    def cancel(self) -> None:
        """Give the stream up: its thread ends by itself."""
        self._cancelled = True
        self._waiting = None
        self._call.cancel()
        self._permits.release()


class Streams:
    """
    The streams of one upstream.

    Attributes:
        open: How many are read now.
    """

    def __init__(self, reactor: Any, most: int) -> None:
        self.reactor = reactor
        self._most = most
        self._running: set[Stream] = set()

    @property
    def open(self) -> int:
        """How many threads read."""
        return len(self._running)

    def begin(
        self,
        channel: Any,
        method: str,
        data: bytes,
        metadata: list[tuple[str, str | bytes]],
        timeout_s: float,
        target: str,
    ) -> Stream:
        """
        Begin a stream.

        Raises:
            CallFailed: local ``overload``, when as many are read as may be.
        """
        if len(self._running) >= self._most:
            raise CallFailed(
                14, "too many streams", local=True, kind="overload", retry_after_s=1.0, attempts=0, target=target
            )
        call = channel.unary_stream(method)(data, timeout=timeout_s, metadata=metadata)
        stream = Stream(self, call, target)
        self._running.add(stream)
        threading.Thread(target=stream.run, name="grpc-stream", daemon=True).start()
        return stream

    def ended(self, stream: Stream) -> None:
        """A thread is done."""
        self._running.discard(stream)

    def stop(self) -> None:
        """Give all up."""
        for stream in list(self._running):
            stream.cancel()
