"""
A configured HTTP request: JSON out, JSON back, by treq on the upstream's own connections.

Targets, breaker and budget are the cluster's, as for every other request. A request is sent again
where it cannot have arrived, or where it may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers

from gateway.config.expressions import Expression
from gateway.config.sections import Upstream
from gateway.core.backoff import backoff
from gateway.core.identity import Identity
from gateway.core.problems import Problem
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.backends import Facts
from gateway.ports.upstream import Fault
from gateway.telemetry.metrics import Metrics
from gateway.upstream.agent import PoolAgent
from gateway.upstream.asking_errors import of_status
from gateway.upstream.asking_grpc import evaluated, own_key
from gateway.upstream.cluster import Cluster, Member
from gateway.upstream.fetch import Fetched, TooLarge, send
from gateway.upstream.pool import Pool

__all__ = ["MOST_ANSWER", "HttpAsked"]

MOST_ANSWER = 1024 * 1024
"""Bytes of an answer; it is held whole."""

_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "PUT", "DELETE"))
_IN_QUERY: Final = frozenset(("GET", "HEAD", "DELETE"))


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
    ) -> None:
        self._cluster = cluster
        self._section = section
        self._method, _, self._path = request.partition(" ")
        self._values = values
        self._tell = tell
        self._timeout_s = timeout_s
        self._codes = codes
        self._reactor = reactor
        self._random = random
        self._metrics = metrics

    async def ask(self, facts: Facts, data: bytes, identity: Identity | None, trace: str = "") -> bytes:
        """
        Send the request (``Backend.ask``).
        """
        body, query = self._body(data, evaluated(self._values, facts))
        key = own_key(facts)
        headers = self._headers(identity, trace, key, has_body=body is not None)
        try:
            fetched = await self._asked(query, headers, body, may_repeat=bool(key) or self._method in _IDEMPOTENT)
        except (Problem, Fault, TookTooLong, TooLarge) as error:
            raise ClientError(ErrorCode.INTERNAL) from error
        if not 200 <= fetched.status < 300:  # noqa: PLR2004
            raise of_status(fetched.status, fetched.body, self._codes)
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

    def _body(self, data: bytes, values: Mapping[str, Any]) -> tuple[bytes | None, str]:
        if not values and self._method not in _IN_QUERY:
            return data or b"{}", ""
        given: Any = {}
        if data:
            try:
                given = msgspec.json.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise ClientError(ErrorCode.BAD_REQUEST, "the data is not JSON") from None
        if not isinstance(given, dict):
            raise ClientError(ErrorCode.BAD_REQUEST, "the data is no JSON object")
        for path, value in values.items():
            _put(given, path.split("."), value)
        if self._method in _IN_QUERY:
            return None, urlencode(list(_pairs(given, "")))
        return msgspec.json.encode(given), ""

    def _headers(self, identity: Identity | None, trace: str, key: str, *, has_body: bool) -> Headers:
        headers = Headers({b"accept": [b"application/json"]})
        if has_body:
            headers.setRawHeaders(b"content-type", [b"application/json"])
        if identity is not None:
            for line in self._tell(identity).split(b"\r\n"):
                name, colon, value = line.partition(b": ")
                if colon:
                    headers.addRawHeader(name, value)
        if trace:
            headers.setRawHeaders(b"traceparent", [trace.encode("ascii")])
        if key:
            headers.setRawHeaders(b"idempotency-key", [key.encode()])
        return headers

    async def _asked(self, query: str, headers: Headers, body: bytes | None, *, may_repeat: bool) -> Fetched:
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
                    fetched = await self._attempt(cluster, tried, deadline, query, headers, body)
                except Fault as fault:
                    ok = False
                    wait = self._retry_after(fault, len(tried), deadline, may_repeat=may_repeat)
                    if wait is None or (not retrying and not cluster.budget.take(cluster.active)):
                        raise
                    retrying = True
                    self._metrics.upstream_retries.inc(cluster.name, "tried")
                    await deferLater(clock, wait)
                except (TookTooLong, TooLarge):
                    ok = False
                    raise
                else:
                    ok = fetched.status < 500  # noqa: PLR2004
                    return fetched
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
    ) -> Fetched:
        clock = self._reactor
        now = clock.seconds()
        member = cluster.pick(now, tried)
        tried.append(member)
        cluster.began(member)
        ok: bool | None = None
        outcome = "cancelled"
        left = max(0.001, deadline - now)
        pool = member.value
        host = self._section.host.encode("ascii") if self._section.host not in {None, "client"} else b""
        agent = PoolAgent(clock, pool, host=host, timeout_s=left)
        url = f"http://gateway{self._path}" + (f"?{query}" if query else "")
        try:
            sending = Deferred.fromCoroutine(send(clock, agent, self._method, url, headers, body, MOST_ANSWER))
            fetched = await sending.addTimeout(left, clock)
            ok, outcome = fetched.status < 500, "ok"  # noqa: PLR2004
            return fetched
        except ResponseFailed as failed:
            fault = _fault_of(failed)
            ok, outcome = False, fault.kind
            raise fault from failed
        except CancelledError:
            raise
        except TookTooLong:
            ok, outcome = False, "timeout"
            raise
        except TooLarge:
            ok, outcome = False, "malformed"
            raise
        finally:
            cluster.ended(member, clock.seconds(), ok=ok)
            self._metrics.upstream_attempts.inc(cluster.name, outcome)

    def _retry_after(self, fault: Fault, attempts: int, deadline: float, *, may_repeat: bool) -> float | None:
        retry = self._section.retry
        if attempts >= retry.attempts or fault.kind not in ("connect", "reset", "overflow"):
            return None
        if fault.kind == "reset" and fault.sent and not may_repeat:
            return None
        wait = backoff(attempts, retry.backoff_base_s, retry.backoff_max_s, self._random)
        return wait if self._reactor.seconds() + wait < deadline else None


def _fault_of(failed: ResponseFailed) -> Fault:
    for reason in failed.reasons:
        if isinstance(reason.value, Fault):
            return reason.value
    return Fault("malformed", str(failed))


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    *outer, last = path
    for name in outer:
        inner = into.get(name)
        if not isinstance(inner, dict):
            inner = into[name] = {}
        into = inner
    into[last] = value


def _pairs(value: Any, name: str) -> list[tuple[str, str]]:
    """Flatten a value into a query: members by dots, elements by saying the name again."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _pairs(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        return [pair for element in value for pair in _pairs(element, name)]
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, str(value))]
