"""
One exchange on its way through the proxy: its attempts and its end.

    ATTEMPT --head--> RELAYING --end of the body--> over
    ATTEMPT --failure that may be repeated--> WAITING --> ATTEMPT
    ATTEMPT, WAITING --any other failure--> over, with a problem
    RELAYING --failure--> over, and the client's connection is cut: nothing can be taken back
    any --client gone--> over, and the backend's connection is cut
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall

from gateway.core.backoff import backoff, retry_after_s
from gateway.core.headers import response_block, trailer_block
from gateway.core.message import Header, ResponseHead
from gateway.core.problems import CATALOGUE, Problem
from gateway.core.trace import TraceContext
from gateway.ports.http import Exchange
from gateway.ports.upstream import Fault
from gateway.upstream.attempt_spans import tell_attempt
from gateway.upstream.call import Call
from gateway.upstream.cluster import Member
from gateway.upstream.pool import Pool
from gateway.upstream.request_body import RequestBody

if TYPE_CHECKING:
    from gateway.upstream.proxy import Proxy

__all__ = ["Passing"]

_PROBLEMS = {
    "connect": "upstream_unreachable",
    "reset": "upstream_reset",
    "malformed": "upstream_malformed",
    "timeout": "upstream_timeout",
    "overflow": "upstream_overload",
}
_SAY_WHEN = frozenset(("upstream_unreachable", "upstream_overload"))
_BROKEN = 500
_NOT_BROKEN = frozenset((501, 505))
"""Answers from 500 on that speak of the request and not of the backend."""
_LONGEST_RETRY_AFTER_S = 1.0


class Passing:
    """
    The receiver of each attempt's response (``ports.http.ResponseReceiver``).
    """

    __slots__ = (
        "_admission",
        "_block",
        "_body",
        "_call",
        "_exchange",
        "_member",
        "_over",
        "_place",
        "_proxy",
        "_response",
        "_retrying",
        "_started_at",
        "_status",
        "_target",
        "_tried",
        "_waiting",
    )

    def __init__(self, proxy: Proxy, exchange: Exchange, target: bytes, block: bytes) -> None:
        self._proxy = proxy
        self._exchange = exchange
        self._target = target
        self._block = block
        self._body: RequestBody | None = None
        self._call: Call | None = None
        self._member: Member[Pool] | None = None
        self._tried: tuple[Member[Pool], ...] = ()
        self._response: ResponseHead | None = None
        self._place: TraceContext | None = None
        self._status = 0
        self._retrying = False
        self._waiting: IDelayedCall | None = None
        self._started_at = 0.0
        self._over = False

    def begin(self) -> None:
        """
        Be admitted, and make the first attempt.

        Raises:
            Problem: the upstream takes nothing now.
        """
        proxy, exchange = self._proxy, self._exchange
        now = proxy.clock.seconds()
        exchange.upstream = proxy.cluster.name
        self._admission = proxy.cluster.admit(now)
        exchange.upstream_started_at = now
        exchange.on_gone = self._gone
        if exchange.head.body_length:
            self._body = proxy.body(exchange)
        try:
            self._attempt(now)
        except BaseException:
            # Whoever is told of it answers; here it must not count as under way for ever.
            self._end(now, ok=None)
            raise

    def _attempt(self, now: float) -> None:
        proxy, exchange, body = self._proxy, self._exchange, self._body
        cluster, section = proxy.cluster, proxy.section
        member = cluster.pick(now, self._tried)
        if body is not None:
            # What came together with the head goes out together with ours, in one write.
            body.ask()
            if self._over:
                return
        head = exchange.head
        pool = member.value
        self._member = member
        self._started_at = now
        exchange.attempts += 1
        exchange.upstream_target = member.name
        cluster.began(member)
        block = self._block
        if exchange.trace.sampled:
            self._place = place = proxy.spans.child(exchange.trace)
            self._status = 0
            block += place.block()
        lead = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
            head.method,
            self._target,
            proxy.authority(pool, head),
            block,
        )
        try:
            if body is None:
                call = pool.request(head.method, lead, 0, b"", True, self)
            else:
                data, ended = body.so_far()
                call = pool.request(head.method, lead, head.body_length, data, ended, self)
        except Fault as fault:
            self.failed(fault)
            return
        self._call = call
        call.deadline = exchange.deadline
        if section.try_timeout_s is not None:
            call.deadline = min(exchange.deadline, now + section.try_timeout_s)
        call.idle_body_s = section.idle_body_timeout_s
        if body is not None:
            body.attach(call)

    # The attempt's response.

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        """
        Relay the head, unless it is a failure that may be tried again.
        """
        proxy, exchange, call = self._proxy, self._exchange, self._call
        now = proxy.clock.seconds()
        status = head.status
        exchange.upstream_ttfb_s = now - self._started_at
        self._status = status
        if status in proxy.statuses and self._retry_answer(now, head):
            if call is not None:
                call.cancel()
            return
        self._response = head
        if self._body is not None:
            self._body.forget()
        block = exchange.block_of(head) + proxy.response_lines
        if not ended:
            if _is_well(status):
                self._admission = proxy.cluster.answering(self._admission, now)
            if self._place is not None and self._member is not None:
                # The rest may take hours; how it ends is told by the request's span.
                self._tell(self._member, now, "ok" if _is_well(status) else "error")
            exchange.relay(status, head.reason, block, head.body_length, data, ended=False)
            if call is not None and not self._over:
                exchange.downstream.register(call)
            return
        self._end(now, ok=_is_well(status))
        if not head.trailers:
            exchange.relay(status, head.reason, block, head.body_length, data, ended=True)
            return
        exchange.relay(status, head.reason, block, head.body_length, data, ended=False)
        self._finish(head)

    def received(self, data: bytes, ended: bool) -> None:
        """
        Relay more of the body.
        """
        response = self._response
        if data:
            self._exchange.downstream.write(data)
        if ended and response is not None:
            self._end(self._proxy.clock.seconds(), ok=_is_well(response.status))
            self._finish(response)

    def _finish(self, response: ResponseHead) -> None:
        exchange = self._exchange
        exchange.on_gone = None
        trailers = response.trailers
        exchange.downstream.finish(trailer_block(trailers, self._proxy.drop) if trailers else b"")

    def informed(self, status: int, headers: list[Header]) -> None:
        """
        Relay an interim response.
        """
        head = ResponseHead(status, b"", headers, {name.lower(): value for name, value in headers}, 0)
        self._exchange.downstream.inform(status, response_block(head))

    def failed(self, fault: Fault) -> None:
        """
        Try again where that is safe; else answer, or cut an answer that has begun.
        """
        proxy, exchange, body = self._proxy, self._exchange, self._body
        kind = fault.kind
        now = proxy.clock.seconds()
        code = _PROBLEMS.get(kind, "upstream_reset")
        reason = f"{kind}: {fault.detail}" if fault.detail else kind
        if self._response is not None:
            # The head was relayed: nothing can be taken back, and the client must see that it is not whole.
            self._end(now, ok=False, outcome=kind)
            exchange.flag = CATALOGUE[code].flag
            exchange.reason = reason
            exchange.downstream.abort()
            return
        if kind == "timeout" and body is not None and body.awaited:
            self._end(now, ok=None, outcome="cancelled")
            proxy.refuse(exchange, Problem("request_timeout", reason=reason))
            return
        blamed: bool | None = False
        if kind == "overflow":
            blamed = None
        elif kind == "timeout" and now - self._started_at < proxy.fair_s:
            # It was tried with what another attempt had left of the time.
            blamed = None
        if (not fault.sent or self._is_repeatable()) and self._retry(now, kind, ok=blamed, free=not fault.sent):
            return
        self._end_attempt(now, ok=blamed, outcome=kind)
        self._end(now, ok=None if kind == "overflow" else False)
        headers = ((b"Retry-After", b"1"),) if code in _SAY_WHEN else ()
        proxy.refuse(exchange, Problem(code, headers=headers, reason=reason))

    # Trying again.

    def _is_repeatable(self) -> bool:
        """Whether a second attempt is safe although the backend may have seen the first."""
        head = self._exchange.head
        return head.method in self._proxy.methods or b"idempotency-key" in head.fields

    def _retry_answer(self, now: float, answer: ResponseHead) -> bool:
        asked = retry_after_s(answer.fields.get(b"retry-after"))
        if asked is None or asked > _LONGEST_RETRY_AFTER_S or not self._is_repeatable():
            return False
        return self._retry(now, "error", ok=_is_well(answer.status), free=False, at_least_s=asked)

    def _retry(self, now: float, outcome: str, *, ok: bool | None, free: bool, at_least_s: float = 0.0) -> bool:
        """Arrange another attempt. It is *free*, beside the budget, when no backend has seen this one."""
        proxy, exchange, body = self._proxy, self._exchange, self._body
        cluster, retry = proxy.cluster, proxy.section.retry
        if exchange.attempts >= retry.attempts:
            return False
        wait = backoff(
            exchange.attempts, retry.backoff_base_s, retry.backoff_max_s, proxy.random, at_least_s=at_least_s
        )
        refused = ""
        if body is not None and not body.replayable:
            refused = "body_gone"
        elif now + wait >= exchange.deadline:
            refused = "deadline"
        elif not free:
            self._give_back()
            self._retrying = cluster.budget.take(cluster.active)
            refused = "" if self._retrying else "budget"
        proxy.metrics.upstream_retries.inc(cluster.name, refused or "tried")
        if refused:
            return False
        if self._member is not None:
            self._tried = (*self._tried, self._member)
        self._end_attempt(now, ok=ok, outcome=outcome)
        if body is not None:
            body.detach()
        self._waiting = proxy.clock.callLater(wait, self._again)
        return True

    def _again(self) -> None:
        self._waiting = None
        now = self._proxy.clock.seconds()
        try:
            self._attempt(now)
        except Problem as problem:
            self._end(now, ok=None)
            self._proxy.refuse(self._exchange, problem)

    def _give_back(self) -> None:
        if self._retrying:
            self._retrying = False
            self._proxy.cluster.budget.give_back()

    # Ends.

    def _end_attempt(self, now: float, *, ok: bool | None, outcome: str) -> None:
        member, self._member = self._member, None
        # It knows this object: without a circle, both go when the request does.
        self._call = None
        if member is not None:
            cluster = self._proxy.cluster
            cluster.ended(member, now, ok=ok)
            self._proxy.metrics.upstream_attempts.inc(cluster.name, outcome)
            if self._place is not None:
                self._tell(member, now, outcome)

    def _tell(self, member: Member[Pool], now: float, outcome: str) -> None:
        """Tell the span of the attempt that is over."""
        exchange, place = self._exchange, self._place
        assert place is not None, "recorded"
        self._place = None
        tell_attempt(
            self._proxy.spans,
            place,
            exchange.trace,
            self._started_at,
            now,
            method=exchange.head.method,
            target=member.value.target,
            path=self._target,
            upstream=self._proxy.cluster.name,
            status=self._status,
            outcome=outcome,
            resends=exchange.attempts - 1,
        )

    def _end(self, now: float, *, ok: bool | None, outcome: str = "") -> None:
        """End the attempt, if one is under way, and the whole."""
        if self._over:
            return
        self._over = True
        self._end_attempt(now, ok=ok, outcome=outcome or ("ok" if ok else "error"))
        self._give_back()
        if self._body is not None:
            self._body.release()
            self._body = None
        self._proxy.cluster.finished(self._admission, now, ok=ok)

    def _gone(self) -> None:
        """The client left, or the node gave up: nothing may go on running for it."""
        if self._over:
            return
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._call is not None:
            self._call.cancel()
        self._end(self._proxy.clock.seconds(), ok=None, outcome="cancelled")


def _is_well(status: int) -> bool:
    return status < _BROKEN or status in _NOT_BROKEN
