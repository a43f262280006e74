"""
Unary calls to one target through grpcio's futures (``unary.Unary``).

grpcio finishes calls in threads of its own; what finishes within one turn of the reactor is brought over together.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import grpc
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gateway.ports.calls import CallFailed
from gateway.upstream.call_failures import CANCELLED, INTERNAL, failure_of
from gateway.upstream.unary import UnaryReply

__all__ = ["GrpcioUnary"]


class GrpcioUnary:
    """
    Calls on one channel, which is another's.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.channel: Any = None
        self._methods: dict[str, Any] = {}
        self._completed: deque[tuple[Any, Deferred[UnaryReply]]] = deque()
        self._awaited = False

    async def stop(self) -> None:
        """
        Closing the channel ends its calls.
        """

    def call(
        self, method: str, data: bytes, metadata: list[tuple[str, str | bytes]], timeout_s: float
    ) -> Deferred[UnaryReply]:
        """
        Make a call.
        """
        unary = self._methods.get(method)
        if unary is None:
            unary = self._methods[method] = self.channel.unary_unary(method)
        try:
            future = unary.future(data, timeout=timeout_s, metadata=metadata)
        except ValueError as error:
            # grpcio says so of a closed channel: a reload put another upstream in its place, or all ends.
            raise CallFailed(CANCELLED, "the channel is closed", local=True, kind="cancelled") from error
        finished: Deferred[UnaryReply] = Deferred(lambda _: future.cancel())
        future.add_done_callback(lambda done: self._done(done, finished))
        return finished

    def _done(self, future: Any, finished: Deferred[UnaryReply]) -> None:
        """In one of grpcio's threads: leave it for the reactor, and wake the reactor once for all that is left."""
        self._completed.append((future, finished))
        if not self._awaited:
            self._awaited = True
            self._reactor.callFromThread(self._collect)

    def _collect(self) -> None:
        self._awaited = False
        completed = self._completed
        while completed:
            future, finished = completed.popleft()
            if finished.called:
                continue
            if future.code() is not grpc.StatusCode.OK:
                finished.errback(Failure(failure_of(future)))
            elif (data := future.result()) is None:
                finished.errback(Failure(CallFailed(INTERNAL, "OK without a message", local=True, kind="no_message")))
            else:
                finished.callback(UnaryReply(data, future.initial_metadata() or (), future.trailing_metadata() or ()))
