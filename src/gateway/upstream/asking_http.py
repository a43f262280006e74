"""
A configured HTTP request: JSON out, JSON back, by treq on the upstream's own connections.

Targets, breaker and budget are the cluster's, as for every other request. A request is sent again
where it cannot have arrived, or where it may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from gateway.config.expressions import Expression
from gateway.config.sections import Upstream
from gateway.core.backoff import backoff, retry_after_s
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.backends import Facts
from gateway.ports.upstream import Fault
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.agent import PoolAgent
from gateway.upstream.asking_data import body_of, given_by, key_text, query_of
from gateway.upstream.asking_errors import of_status
from gateway.upstream.asking_grpc import evaluated, own_key
from gateway.upstream.attempt_spans import tell_attempt
from gateway.upstream.cluster import Cluster, Member
from gateway.upstream.fetch import Fetched, TooLarge, send
from gateway.upstream.pool import Pool

__all__ = ["MOST_ANSWER", "HttpAsked"]

MOST_ANSWER = 1024 * 1024
"""Bytes of an answer; it is held whole."""

_IN_QUERY: Final = frozenset(("GET", "DELETE"))
_BROKEN: Final = 500
_NOT_BROKEN: Final = frozenset((501, 505))
_LONGEST_RETRY_AFTER_S: Final = 1.0


class HttpAsked:
    """
    One request (``ports.backends.Backend``).

    Args:
        cluster: Finds the upstream's targets, which a reload may have replaced.
        random: Evenly from 0 to 1.
    """

    def __init__(
        self,
        cluster: Callable[[], Cluster[Pool]],
        section: Upstream,
        request: str,
        values: Mapping[str, Expression],
        *,
        tell: Callable[[Identity], bytes],
        timeout_s: float,
        codes: Mapping[str, int],
        reactor: Any,
        random: Callable[[], float],
        metrics: Metrics,
        spans: Spans,
    ) -> None:
        self._cluster = cluster
        self._section = section
        self._method, _, asked = request.partition(" ")
        self._path, _, self._query = asked.partition("?")
        self._values = values
        self._tell = tell
        self._timeout_s = timeout_s
        self._codes = codes
        self._reactor = reactor
        self._random = random
        self._metrics = metrics
        self._spans = spans

    async def ask(
        self, facts: Facts, data: bytes, identity: Identity | None, trace: TraceContext | None = None
    ) -> bytes:
        """
        Send the request (``Backend.ask``).
        """
        values = evaluated(self._values, facts)
        data = given_by(data)
        body, query = None, self._query
        if self._method in _IN_QUERY:
            query = query_of(data, values, query)
        else:
            body = body_of(data, values)
        key = own_key(facts)
        headers = self._headers(identity, key, has_body=body is not None)
        try:
            fetched = await self._asked(
                query, headers, body, trace, may_repeat=bool(key) or self._method in self._section.retry.methods
            )
        except (Problem, Fault, TookTooLong, TooLarge) as error:
            raise ClientError(ErrorCode.INTERNAL) from error
        if not 200 <= fetched.status < 300:  # noqa: PLR2004
            raise of_status(fetched.status, fetched.body, self._codes, verified=identity is not None)
        if not fetched.body:
            return b""
        try:
            # Checked whole, and on one line: clients are sent it as it is.
            answer = msgspec.json.format(fetched.body, indent=-1)
            if not answer.isascii():
                answer.decode()
            return answer
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ClientError(ErrorCode.INTERNAL) from error

    def _headers(self, identity: Identity | None, key: str, *, has_body: bool) -> Headers:
        headers = Headers({b"accept": [b"application/json"]})
        if has_body:
            headers.setRawHeaders(b"content-type", [b"application/json"])
        if identity is not None:
            for line in self._tell(identity).split(b"\r\n"):
                name, colon, value = line.partition(b": ")
                if colon:
                    headers.addRawHeader(name, value)
        if key:
            headers.setRawHeaders(b"idempotency-key", [key_text(key).encode("ascii")])
        return headers

    async def _asked(
        self, query: str, headers: Headers, body: bytes | None, trace: TraceContext | None, *, may_repeat: bool
    ) -> Fetched:
        cluster = self._cluster()
        clock = self._reactor
        deadline = clock.seconds() + self._timeout_s
        admission = cluster.admit(clock.seconds())
        ok: bool | None = None
        retrying = False
        tried: list[Member[Pool]] = []
        try:
            while True:
                try:
                    fetched = await self._attempt(cluster, tried, deadline, query, headers, body, trace)
                except Fault as fault:
                    ok = None if fault.kind == "overflow" else False
                    wait = self._retry_after(fault, len(tried), deadline, may_repeat=may_repeat)
                    if wait is None or (not retrying and not cluster.budget.take(cluster.active)):
                        raise
                except (TookTooLong, TooLarge):
                    ok = False
                    raise
                else:
                    ok = _is_well(fetched.status)
                    wait = self._answer_after(fetched, len(tried), deadline, may_repeat=may_repeat)
                    if wait is None or (not retrying and not cluster.budget.take(cluster.active)):
                        return fetched
                retrying = True
                self._metrics.upstream_retries.inc(cluster.name, "tried")
                await deferLater(clock, wait)
        finally:
            if retrying:
                cluster.budget.give_back()
            cluster.finished(admission, clock.seconds(), ok=ok)

    async def _attempt(
        self,
        cluster: Cluster[Pool],
        tried: list[Member[Pool]],
        deadline: float,
        query: str,
        headers: Headers,
        body: bytes | None,
        trace: TraceContext | None,
    ) -> Fetched:
        clock = self._reactor
        now = clock.seconds()
        member = cluster.pick(now, tried)
        tried.append(member)
        cluster.began(member)
        ok: bool | None = None
        outcome = "cancelled"
        status = 0
        place = self._spans.child(trace) if trace is not None and trace.sampled else None
        _tell_of(place or trace, headers)
        left = max(0.001, deadline - now)
        pool = member.value
        host = self._section.host.encode("ascii") if self._section.host not in {None, "client"} else b""
        agent = PoolAgent(clock, pool, host=host, timeout_s=left)
        url = f"http://gateway{self._path}" + (f"?{query}" if query else "")
        try:
            sending = Deferred.fromCoroutine(send(clock, agent, self._method, url, headers, body, MOST_ANSWER))
            fetched = await sending.addTimeout(left, clock)
            status = fetched.status
            ok = _is_well(status)
            outcome = "ok" if ok else "error"
            return fetched
        except ResponseFailed as failed:
            fault = _fault_of(failed)
            # As many connections as there may be: the bound is the gateway's, not the target's fault.
            ok, outcome = None if fault.kind == "overflow" else False, fault.kind
            raise fault from failed
        except TookTooLong:
            ok, outcome = False, "timeout"
            raise
        except TooLarge:
            ok, outcome = False, "malformed"
            raise
        finally:
            ended = clock.seconds()
            cluster.ended(member, ended, ok=ok)
            self._metrics.upstream_attempts.inc(cluster.name, outcome)
            if place is not None and trace is not None:
                tell_attempt(
                    self._spans,
                    place,
                    trace,
                    now,
                    ended,
                    method=self._method.encode("ascii"),
                    target=pool.target,
                    path=(self._path + (f"?{query}" if query else "")).encode("latin-1", "replace"),
                    upstream=cluster.name,
                    status=status,
                    outcome=outcome,
                    resends=len(tried) - 1,
                )

    def _retry_after(self, fault: Fault, attempts: int, deadline: float, *, may_repeat: bool) -> float | None:
        retry = self._section.retry
        if attempts >= retry.attempts or fault.kind not in ("connect", "reset", "overflow"):
            return None
        if fault.kind == "reset" and fault.sent and not may_repeat:
            return None
        return self._wait(attempts, deadline)

    def _answer_after(self, fetched: Fetched, attempts: int, deadline: float, *, may_repeat: bool) -> float | None:
        retry = self._section.retry
        if fetched.status not in retry.statuses or attempts >= retry.attempts or not may_repeat:
            return None
        said = next((value for name, value in fetched.headers if name.lower() == b"retry-after"), None)
        asked_s = retry_after_s(said)
        if asked_s is None or asked_s > _LONGEST_RETRY_AFTER_S:
            return None
        return self._wait(attempts, deadline, asked_s)

    def _wait(self, attempts: int, deadline: float, at_least_s: float = 0.0) -> float | None:
        """Seconds until the next attempt; None if it would come too late."""
        retry = self._section.retry
        wait = backoff(attempts, retry.backoff_base_s, retry.backoff_max_s, self._random, at_least_s=at_least_s)
        return wait if self._reactor.seconds() + wait < deadline else None


def _tell_of(place: TraceContext | None, headers: Headers) -> None:
    if place is None:
        return
    headers.setRawHeaders(b"traceparent", [place.header()])
    if place.state:
        headers.setRawHeaders(b"tracestate", [place.state])


def _is_well(status: int) -> bool:
    return status < _BROKEN or status in _NOT_BROKEN


def _fault_of(failed: ResponseFailed) -> Fault:
    for reason in failed.reasons:
        if isinstance(reason.value, Fault):
            return reason.value
    return Fault("malformed", str(failed))
