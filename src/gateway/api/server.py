"""
A gRPC server in front of the operations.

grpcio serves in threads of its own; each call waits in one of them while the reactor does the work. Who
hangs up, or runs out of time, has the work cancelled, as over HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as HungUp
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.message_factory import GetMessageClass
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from gateway.api.messages import fill, plain
from gateway.core.trace import TraceContext, parse
from gateway.core.verdicts import ClientError
from gateway.node.api_keys import ApiKeys, Key, bearer
from gateway.node.operations import Operations
from gateway.protos.gateway.v1 import api_pb2

__all__ = ["ApiServer", "CannotListen"]

AT_ONCE = 32
"""Calls served at the same time; the others wait for a thread."""

MOST_WAITING = 8 * AT_ONCE
"""Calls that are served or wait for a thread; more are refused with ``RESOURCE_EXHAUSTED``."""

LONGEST_S = 30.0
"""For a call without a deadline of its own."""

MOST_MESSAGE = 4 * 1024 * 1024
STOP_S = 2.0

_service: Final = api_pb2.DESCRIPTOR.services_by_name["GatewayApi"]


class CannotListen(OSError):
    """
    The server API's address cannot be used.
    """


class ApiServer:
    """
    The server API over gRPC on one address.

    Args:
        address: ``HOST:PORT``, or ``unix:PATH``.
        crashed: Told of failures of our own.
    """

    def __init__(
        self,
        reactor: Any,
        operations: Operations,
        keys: ApiKeys,
        address: str,
        crashed: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._operations = operations
        self._keys = keys
        self._address = address
        self._crashed = crashed
        self._pool: ThreadPoolExecutor | None = None
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        """
        Listen; twistd has forked.

        Raises:
            CannotListen: somebody else does, or it is no address.
        """
        self._pool = ThreadPoolExecutor(AT_ONCE, "server-api")
        server: Any = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=MOST_WAITING,
            options=[
                # With it a second instance would share the port, and get calls that are not its own.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MOST_MESSAGE),
                ("grpc.max_send_message_length", -1),
            ],
        )
        handlers = {method.name: self._handler(method) for method in _service.methods}
        server.add_registered_method_handlers(_service.full_name, handlers)
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError as error:
            self._pool.shutdown(wait=False)
            raise CannotListen(f"listen.api: cannot listen on {self._address}") from error
        server.start()
        self._server = server

    async def stop(self) -> None:
        """
        Take no more calls, let those that run end, cut the rest.
        """
        if self._server is not None and self._pool is not None:
            stopped = self._server.stop(STOP_S)
            await deferToThread(stopped.wait)
            self._pool.shutdown(wait=False)
            self._server = None

    def _handler(self, method: Any) -> Any:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        def serve(message: Any, context: grpc.ServicerContext) -> Any:
            return self._serve(name, message, response(), context)

        return grpc.unary_unary_rpc_method_handler(
            serve, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )

    def _serve(self, name: str, message: Any, reply: Any, context: grpc.ServicerContext) -> Any:
        """In a thread of grpcio's."""
        key = self._key(context)
        data = msgspec.json.encode(plain(message))
        outcome: Future[dict[str, Any]] = Future()
        self._reactor.callFromThread(self._do, name, data, key, _trace(context), outcome)

        def gone() -> None:
            outcome.cancel()

        if not context.add_callback(gone):
            gone()
        left = context.time_remaining()
        try:
            result = self._result(outcome, LONGEST_S if left is None else min(left, LONGEST_S))
        except ClientError as error:
            reply.error.code, reply.error.message = error.code, error.text
            return reply
        except TookTooLong:
            status, why = grpc.StatusCode.DEADLINE_EXCEEDED, "the operation took too long"
        except HungUp:
            status, why = grpc.StatusCode.CANCELLED, "the call was cancelled"
        except Exception:  # It is in the log; what it says is nobody else's business.
            status, why = grpc.StatusCode.INTERNAL, "internal server error"
        else:
            fill(reply.result, result)
            return reply
        context.abort(status, why)
        raise AssertionError("abort raises")

    def _result(self, outcome: Future[dict[str, Any]], within_s: float) -> dict[str, Any]:
        try:
            return outcome.result(within_s)
        except TookTooLong:
            if outcome.cancel():
                raise
            return outcome.result()  # It ended at this very moment.

    def _key(self, context: grpc.ServicerContext) -> Key:
        presented: list[bytes] = []
        metadata: Sequence[Any] = context.invocation_metadata() or ()
        for pair in metadata:
            if pair.key == "x-api-key":
                presented.append(str(pair.value).encode())
            elif pair.key == "authorization":
                token = bearer(str(pair.value).encode())
                presented += [token] if token is not None else []
        found = self._keys.find(presented[0]) if len(presented) == 1 else None
        if found is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "send one key as metadata, x-api-key: KEY")
            raise AssertionError("abort raises")
        return found

    def _do(
        self, name: str, data: bytes, key: Key, trace: TraceContext | None, outcome: Future[dict[str, Any]]
    ) -> None:
        """On the reactor's thread."""
        if outcome.cancelled():
            return
        doing = Deferred.fromCoroutine(self._operations.do(name, data, key, trace, over="grpc"))

        def done(result: dict[str, Any]) -> None:
            # From here on it cannot be cancelled any more.
            if outcome.set_running_or_notify_cancel():
                outcome.set_result(result)

        def failed(failure: Failure) -> None:
            if not failure.check(ClientError, CancelledError):
                self._crashed(failure)
            if outcome.set_running_or_notify_cancel():
                outcome.set_exception(failure.value)

        def cancelled(of: Future[dict[str, Any]]) -> None:
            if of.cancelled():
                self._reactor.callFromThread(doing.cancel)

        doing.addCallbacks(done, failed)
        outcome.add_done_callback(cancelled)


def _trace(context: grpc.ServicerContext) -> TraceContext | None:
    """Read the caller's trace out of its metadata."""
    metadata: Sequence[Any] = context.invocation_metadata() or ()
    parents = [str(pair.value) for pair in metadata if pair.key == "traceparent"]
    if len(parents) != 1:
        return None
    states = [str(pair.value).encode("latin-1", "replace") for pair in metadata if pair.key == "tracestate"]
    return parse(parents[0].encode("latin-1", "replace"), states)
