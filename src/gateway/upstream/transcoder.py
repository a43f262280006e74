"""
JSON over HTTP in, a gRPC call out, JSON back: what a gRPC route leads to.

What a request means stands in its ``Binding``, what the answer looks like in its ``Responder``; here
the body is gathered, the call is made with identity, deadline and trace, and the way back is
chosen. It holds at most one request message and, of a stream, one message at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.config.expressions import Denied, Expression
from gateway.core.deadline import parse_timeout
from gateway.core.identity import Identity
from gateway.core.message import CHUNKED, values_of
from gateway.core.problems import Problem, problem_body
from gateway.core.streamed import Form, form_for
from gateway.core.transcoding.binding import Binding
from gateway.core.transcoding.encode import Encoders
from gateway.core.transcoding.respond import Responder
from gateway.core.transcoding.status import problem_of
from gateway.ports.calls import Call, CallFailed, CallUpstream, Metadata
from gateway.ports.http import Exchange, Gathering

__all__ = ["Crash", "Transcoder"]

Crash = Callable[[Exchange, Failure], None]
"""The node's way to report and answer a failure of our own."""

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE"))
_NOT_CACHED: Final = b"Cache-Control: no-store\r\n"
_LEAST_TIMEOUT_S: Final = 0.001


class Transcoder:
    """
    One rule of one route (``ports.http.RouteHandler``).

    Args:
        identity_block: The header lines that tell the upstream who calls; they become metadata.
        metadata_in: Lower-case request headers that are passed on as metadata.
        metadata_out: Lower-case keys of the call's metadata that are passed back as headers.
        values: Field to expression, for what the client can never set.
        context: Builds what the expressions are evaluated on.
        encoders: Of the backend's types, for details of its failures.
        refuse: The node's way to answer with a problem.
        crashed: The node's way to report a failure of our own.
    """

    def __init__(
        self,
        upstream: CallUpstream,
        binding: Binding,
        responder: Responder,
        *,
        name: str,
        identity_block: Callable[[Identity], bytes],
        metadata_in: frozenset[bytes],
        metadata_out: frozenset[str],
        values: Mapping[str, Expression],
        context: Callable[[Exchange, frozenset[str]], Mapping[str, Any]],
        encoders: Encoders,
        refuse: Callable[[Exchange, Problem], None],
        crashed: Crash,
        clock: IReactorTime,
    ) -> None:
        self.binding = binding
        self._upstream = upstream
        self._responder = responder
        self._name = name
        self._identity_block = identity_block
        self._metadata_in = metadata_in
        self._metadata_out = metadata_out
        self._values = values
        self._roots = frozenset(root for expression in values.values() for root in expression.roots)
        self._context = context
        self._encoders = encoders
        self._refuse = refuse
        self._crashed = crashed
        self._clock = clock
        self._streams = binding.method.server_streaming
        self._reply_class = GetMessageClass(binding.method.output_type)

    def handle(self, exchange: Exchange) -> None:
        """
        Gather the body, then call.
        """
        exchange.upstream = self._name
        asked = exchange.head.fields.get(b"grpc-timeout")
        if asked is not None:
            seconds = parse_timeout(asked)
            if seconds is None:
                raise Problem("bad_request", "grpc-timeout is one to eight digits and one of H M S m u n.")
            exchange.deadline = min(exchange.deadline, exchange.started_at + seconds)
        if exchange.head.body_length == 0:
            self._go(exchange, b"")
        else:
            exchange.downstream.receive(Gathering(exchange, self._gathered))

    def _gathered(self, exchange: Exchange, body: bytes) -> None:
        try:
            self._go(exchange, body)
        except Problem as problem:
            self._refuse(exchange, problem)
        except Exception:  # The body came in its own turn: nobody above us would answer.
            self._crashed(exchange, Failure())

    def _go(self, exchange: Exchange, body: bytes) -> None:
        call = self._call(exchange, body)
        run = self._stream(exchange, call) if self._streams else self._unary(exchange, call)
        running: Deferred[None] = Deferred.fromCoroutine(run)
        if not running.called:
            exchange.on_gone = running.cancel
        running.addErrback(self._failed, exchange)

    def _call(self, exchange: Exchange, body: bytes) -> Call:
        fields = exchange.head.fields
        values = self._set_values(exchange)
        message = self.binding.message(exchange.params, exchange.query, body, fields.get(b"content-type", b""), values)
        now = self._clock.seconds()
        exchange.upstream_started_at = now
        exchange.attempts = 1
        return Call(
            self.binding.call,
            message,
            self._metadata(exchange),
            max(_LEAST_TIMEOUT_S, exchange.deadline - now),
            exchange.head.method in _IDEMPOTENT or b"idempotency-key" in fields,
            self._reply_class,
            exchange.trace,
        )

    def _set_values(self, exchange: Exchange) -> dict[str, Any]:
        if not self._values:
            return {}
        try:
            context = self._context(exchange, self._roots)
            return {name: expression.value(context) for name, expression in self._values.items()}
        except Denied as denied:
            # A field that the gateway vouches for cannot be made: nothing may be sent without it.
            raise Problem("forbidden", reason=f"set: {denied.reason} {denied.detail}".rstrip()) from denied

    def _metadata(self, exchange: Exchange) -> Metadata:
        pairs: list[tuple[str, str | bytes]] = []
        block = exchange.outbound_block
        if exchange.identity is not None:
            block += self._identity_block(exchange.identity)
        for line in block.split(b"\r\n"):
            name, colon, value = line.partition(b": ")
            if colon:
                pairs.append((name.decode("ascii").lower(), value.decode("latin-1")))
        for name in self._metadata_in:
            if name in exchange.head.fields:
                pairs += [
                    (name.decode("ascii"), value.decode("latin-1")) for value in values_of(exchange.head.headers, name)
                ]
        return pairs

    async def _unary(self, exchange: Exchange, call: Call) -> None:
        reply = await self._upstream.call(call)
        now = self._clock.seconds()
        exchange.attempts = reply.attempts
        exchange.upstream_target = reply.target
        exchange.upstream_ttfb_s = now - exchange.upstream_started_at
        answer = self._responder.answer(reply.message)
        block = self._reply_block(reply.initial_metadata, reply.trailing_metadata)
        if answer.content_type:
            block += b"Content-Type: %b\r\n" % answer.content_type
        exchange.start(answer.status, b"", block, len(answer.body), answer.body, ended=True)

    def _reply_block(self, *metadata: Metadata) -> bytes:
        lines = [_NOT_CACHED]
        for key, value in (pair for pairs in metadata for pair in pairs):
            if key in self._metadata_out and isinstance(value, str) and value.isprintable() and value.isascii():
                lines.append(b"%b: %b\r\n" % (key.encode("ascii"), value.encode("ascii")))
        return b"".join(lines)

    async def _stream(self, exchange: Exchange, call: Call) -> None:
        form = form_for(exchange.head.fields.get(b"accept", b""))
        downstream = exchange.downstream
        gate = _Gate()
        messages = self._upstream.stream(call)
        first = True
        try:
            async for message in messages:
                data = form.item(self._responder.encode(message), first)
                if first:
                    self._begin(exchange, form, data)
                    downstream.register(gate)
                    first = False
                else:
                    downstream.write(data)
                await gate.opened()
        except (CallFailed, Problem) as failed:
            if first:
                raise
            self._break_off(exchange, form, self._problem(failed, exchange))
            return
        finally:
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()
        if first:
            self._begin(exchange, form, form.end(first=True))
        else:
            downstream.write(form.end(first=False))
        exchange.on_gone = None
        downstream.finish()

    def _begin(self, exchange: Exchange, form: Form, data: bytes) -> None:
        exchange.upstream_ttfb_s = self._clock.seconds() - exchange.upstream_started_at
        block = b"Content-Type: %b\r\n%bX-Accel-Buffering: no\r\n" % (form.content_type, _NOT_CACHED)
        exchange.start(200, b"", block, CHUNKED, data, ended=False)

    def _break_off(self, exchange: Exchange, form: Form, problem: Problem) -> None:
        """The head is gone: say it within the body where the form can, else cut the body short."""
        exchange.flag = problem.kind.flag
        exchange.reason = problem.reason
        exchange.on_gone = None
        if not form.ends_in_band:
            exchange.downstream.abort()
            return
        exchange.downstream.write(form.failure(problem_body(problem, request_id=exchange.request_id)))
        exchange.downstream.finish()

    def _problem(self, failed: CallFailed | Problem, exchange: Exchange) -> Problem:
        if isinstance(failed, Problem):
            return failed
        exchange.attempts = failed.attempts
        exchange.upstream_target = failed.target
        problem = problem_of(
            failed.code,
            failed.message,
            local=failed.local,
            kind=failed.kind,
            details=failed.details,
            retry_after_s=failed.retry_after_s,
            verified=exchange.identity is not None,
            encoders=self._encoders,
        )
        problem.reason = f"grpc {failed.code} {failed.kind or failed.message}"[:512].rstrip()
        return problem

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        exchange.on_gone = None
        error = failure.value
        if exchange.ended or isinstance(error, CancelledError):
            return
        if isinstance(error, (CallFailed, Problem)):
            self._refuse(exchange, self._problem(error, exchange))
        else:
            self._crashed(exchange, failure)


class _Gate:
    """
    Holds a stream back while the client is slower than it (``ports.http.Producer``).
    """

    __slots__ = ("_closed", "_waiting")

    def __init__(self) -> None:
        self._closed = False
        self._waiting: Deferred[None] | None = None

    def pauseProducing(self) -> None:
        """The client is slower."""
        self._closed = True

    def resumeProducing(self) -> None:
        """The client takes more."""
        self._closed = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The client is gone; the exchange's end cancels the stream."""

    async def opened(self) -> None:
        """Wait while the gate is closed."""
        while self._closed:
            self._waiting = Deferred()
            await self._waiting
