"""
One gRPC upstream: unary calls over connections of our own or through grpcio (``client``), streams through grpcio in a
bounded number of threads. Retries, targets, budget and breaker are the cluster's, as for HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from gateway.config.sections import Upstream
from gateway.core.backoff import backoff
from gateway.core.problems import Problem
from gateway.core.trace import TraceContext
from gateway.core.transcoding.status import NAMES as STATUS_NAMES
from gateway.ports.calls import Call, CallFailed, CallReply
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.attempt_spans import tell_call
from gateway.upstream.call_failures import CANCELLED, INTERNAL, TARGET_FAULTS, UNAVAILABLE, clean_metadata
from gateway.upstream.call_streams import Streams
from gateway.upstream.cluster import Cluster, Member
from gateway.upstream.descriptors import SchemaError
from gateway.upstream.grpc_target import GrpcTarget, open_channel, read_target
from gateway.upstream.grpcio_unary import GrpcioUnary
from gateway.upstream.health import HealthChecks
from gateway.upstream.lean_unary import LeanUnary
from gateway.upstream.reflection import reflect
from gateway.upstream.tls import client_options
from gateway.upstream.unary import Unary

__all__ = ["GrpcUpstream"]

HEALTH: Final = "/grpc.health.v1.Health/Check"
NOT_FOUND: Final = 5
UNIMPLEMENTED: Final = 12
_ADMISSION: Final = {
    "upstream_open": "open",
    "upstream_overload": "overload",
    "upstream_no_target": "no_target",
}


class _Target:
    """
    One target: who makes unary calls, and grpcio's channel for what else there is, opened at the start.
    """

    __slots__ = ("channel", "unary")

    def __init__(self, unary: Unary) -> None:
        self.channel: Any = None
        self.unary = unary


class GrpcUpstream:
    """
    A backend that takes calls (``ports.calls.CallUpstream``).

    Args:
        random: Evenly from 0 to 1.
        changed: Told of ejections, checks and breakers, for the log.
    """

    def __init__(
        self,
        section: Upstream,
        reactor: Any,
        random: Callable[[], float],
        metrics: Metrics,
        spans: Spans,
        changed: Callable[[str, dict[str, Any]], None] = lambda _event, _fields: None,
    ) -> None:
        self.section = section
        self._reactor = reactor
        self._random = random
        self._metrics = metrics
        self._spans = spans
        self._read = [read_target(text) for text in section.grpc]
        self.cluster: Cluster[_Target] = Cluster(
            section, [(target.name, _Target(self._unary(target))) for target in self._read], random, changed
        )
        self._streams = Streams(reactor, section.max_streams)
        self._checks: HealthChecks[_Target] | None = None

    def _unary(self, target: GrpcTarget) -> Unary:
        section = self.section
        if section.client == "grpcio":
            return GrpcioUnary(self._reactor)
        where = target.plainly()
        return LeanUnary(
            self._reactor,
            where,
            client_options(section.tls, where.host, (b"h2",)) if target.tls else None,
            authority=section.tls.server_name.encode("ascii") if target.tls and section.tls.server_name else b"",
            connect_timeout_s=section.connect_timeout_s,
            random=self._random,
        )

    def start(self) -> None:
        """
        Open the channels and begin the checks; twistd has forked.
        """
        for target, member in zip(self._read, self.cluster.members, strict=True):
            member.value.channel = open_channel(target, self.section)
            if isinstance(member.value.unary, GrpcioUnary):
                member.value.unary.channel = member.value.channel
        health = self.section.health
        if health is not None:
            timeout_s = health.timeout_s

            async def probe(target: _Target) -> bool:
                return await self._well(target, timeout_s)

            self._checks = HealthChecks(self.cluster, health, probe, self._reactor, self._random)
            self._checks.start()

    async def stop(self) -> None:
        """
        End the checks, the streams and the channels; calls under way fail.
        """
        if self._checks is not None:
            await self._checks.stop()
        self._streams.stop()
        for member in self.cluster.members:
            await member.value.unary.stop()
            if member.value.channel is not None:
                # Closing waits for grpcio's own threads.
                await deferToThread(member.value.channel.close)

    def describe(self) -> dict[str, Any]:
        """
        Tell the state, for the admin port.
        """
        return {**self.cluster.describe(self._reactor.seconds()), "streams": self._streams.open}

    async def call(self, call: Call) -> CallReply:
        """
        Make a unary call.
        """
        started = self._reactor.seconds()
        deadline = started + call.timeout_s
        metadata = clean_metadata(call.metadata)
        data = call.message.SerializeToString()
        admission = self._admit(started)
        ok: bool | None = None
        retrying = False
        tried: list[Member[_Target]] = []
        try:
            while True:
                try:
                    reply = await self._attempt(call, data, metadata, deadline, tried)
                except CallFailed as failed:
                    ok = failed.code not in TARGET_FAULTS if failed.code != CANCELLED else None
                    wait = self._retry_after(call, failed, len(tried), deadline)
                    if wait is None or (not retrying and not self.cluster.budget.take(self.cluster.active)):
                        raise
                    retrying = True
                    self._metrics.upstream_retries.inc(self.cluster.name, "tried")
                    await deferLater(self._reactor, wait)
                else:
                    ok = True
                    return reply
        finally:
            if retrying:
                self.cluster.budget.give_back()
            self.cluster.finished(admission, self._reactor.seconds(), ok=ok)

    def _admit(self, now: float) -> int:
        try:
            return self.cluster.admit(now)
        except Problem as problem:
            kind = _ADMISSION[problem.kind.code]
            raise CallFailed(UNAVAILABLE, local=True, kind=kind, retry_after_s=1.0, attempts=0) from problem

    async def _attempt(
        self,
        call: Call,
        data: bytes,
        metadata: list[tuple[str, str | bytes]],
        deadline: float,
        tried: list[Member[_Target]],
    ) -> CallReply:
        cluster = self.cluster
        now = self._reactor.seconds()
        member = cluster.pick(now, tried)
        tried.append(member)
        attempts = len(tried)
        cluster.began(member)
        ok: bool | None = None
        outcome = "cancelled"
        code = CANCELLED
        place, metadata = self._place(call, metadata)
        try:
            reply = await member.value.unary.call(call.method, data, metadata, max(0.001, deadline - now))
            message = _message(reply.data, call.reply_class)
            ok, outcome, code = True, "ok", 0
            return CallReply(message, reply.initial, reply.trailing, attempts, member.name)
        except CallFailed as failed:
            failed.attempts, failed.target = attempts, member.name
            code = failed.code
            if failed.kind in ("no_message", "malformed"):
                ok = False
            elif failed.code != CANCELLED:
                ok = failed.code not in TARGET_FAULTS
            outcome = failed.kind or "error"
            raise
        finally:
            ended = self._reactor.seconds()
            cluster.ended(member, ended, ok=ok)
            self._metrics.upstream_attempts.inc(cluster.name, outcome)
            self._metrics.grpc_calls.inc(cluster.name, STATUS_NAMES[code])
            if place is not None:
                self._tell(call, place, now, ended, member, code, outcome, attempts - 1)

    def _place(
        self, call: Call, metadata: list[tuple[str, str | bytes]]
    ) -> tuple[TraceContext | None, list[tuple[str, str | bytes]]]:
        """Give an attempt its place if its trace is recorded, and the metadata that tells the backend of the trace."""
        trace = call.trace
        if trace is None:
            return None, metadata
        place = self._spans.child(trace) if trace.sampled else None
        told = place or trace
        pairs: list[tuple[str, str | bytes]] = [("traceparent", told.header().decode("ascii"))]
        if told.state:
            pairs.append(("tracestate", told.state.decode("ascii")))
        return place, metadata + pairs

    def _tell(
        self,
        call: Call,
        place: TraceContext,
        began: float,
        ended: float,
        member: Member[_Target],
        code: int,
        outcome: str,
        resends: int,
    ) -> None:
        assert call.trace is not None, "it has a place"
        tell_call(
            self._spans,
            place,
            call.trace,
            began,
            ended,
            method=call.method,
            target=member.name,
            upstream=self.cluster.name,
            code=code,
            outcome=outcome,
            resends=resends,
        )

    def _retry_after(self, call: Call, failed: CallFailed, attempts: int, deadline: float) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        retry = self.section.retry
        if failed.code != UNAVAILABLE or attempts >= retry.attempts:
            return None
        if not (failed.kind == "connect" or call.idempotent):
            return None
        wait = backoff(attempts, retry.backoff_base_s, retry.backoff_max_s, self._random)
        if failed.retry_after_s is not None:
            wait = max(wait, failed.retry_after_s)
        return wait if self._reactor.seconds() + wait < deadline else None

    def stream(self, call: Call) -> AsyncIterator[Any]:
        """
        Make a server-streaming call.
        """
        return self._streamed(call)

    async def _streamed(self, call: Call) -> AsyncIterator[Any]:
        now = self._reactor.seconds()
        metadata = clean_metadata(call.metadata)
        admission = self._admit(now)
        cluster = self.cluster
        member = cluster.pick(now)
        cluster.began(member)
        ok: bool | None = None
        outcome = "cancelled"
        code = CANCELLED
        began = False
        place, metadata = self._place(call, metadata)
        try:
            stream = self._streams.begin(
                member.value.channel,
                call.method,
                call.message.SerializeToString(),
                metadata,
                call.timeout_s,
                member.name,
            )
            try:
                while True:
                    data = await stream.next()
                    if place is not None and not began:
                        # A stream may last for hours: its span is the time until something came.
                        told, place = place, None
                        self._tell(call, told, now, self._reactor.seconds(), member, 0, "ok", 0)
                    if data is None:
                        ok, outcome = True, "ok"
                        return
                    began = True
                    yield call.reply_class.FromString(data) if call.reply_class is not None else data
            finally:
                stream.cancel()
        except CallFailed as failed:
            failed.target = member.name
            # A stream that is ended by its deadline did what it was asked as long as it was asked.
            cut_off = began and failed.kind == "deadline"
            ok = failed.code not in TARGET_FAULTS if failed.code != CANCELLED and not cut_off else None
            outcome = failed.kind or "error"
            code = failed.code
            raise
        finally:
            ended = self._reactor.seconds()
            cluster.ended(member, ended, ok=ok)
            cluster.finished(admission, ended, ok=ok)
            self._metrics.upstream_attempts.inc(cluster.name, outcome)
            self._metrics.grpc_calls.inc(cluster.name, STATUS_NAMES[code])
            if place is not None:
                self._tell(call, place, now, ended, member, code, outcome, 0)

    async def _well(self, target: _Target, timeout_s: float) -> bool:
        try:
            reply = await target.unary.call(HEALTH, b"", [], timeout_s)
            answer = _message(reply.data, health_pb2.HealthCheckResponse)
        except CallFailed as failed:
            # A backend without the health service, or without the name, serves all the same.
            return not failed.local and failed.code in (UNIMPLEMENTED, NOT_FOUND)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def reflect(self, timeout_s: float) -> list[bytes]:
        """
        Ask the backend for its file descriptors, serialised.

        Raises:
            SchemaError: no target tells them in time.
        """
        reason = "no target"
        for member in self.cluster.members:
            try:
                return await deferToThread(reflect, member.value.channel, timeout_s)
            except grpc.RpcError as error:
                reason = f"{member.name}: {Failure(error).getErrorMessage()[:200]}"
                if isinstance(error, grpc.Call):
                    reason = f"{member.name}: {error.code().name}"
        raise SchemaError(f"descriptors cannot be had by reflection ({reason})")


def _message(data: bytes, reply_class: Any) -> Any:
    if reply_class is None:
        return data
    try:
        return reply_class.FromString(data)
    except Exception as error:  # protobuf's implementations raise different ones.
        raise CallFailed(INTERNAL, "the reply is no such message", local=True, kind="malformed") from error
