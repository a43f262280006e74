"""
One exchange on its way through the proxy: its attempts, its bodies, its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.backoff import backoff
from gateway.core.headers import response_block, trailer_block
from gateway.core.message import Header, ResponseHead, block_of
from gateway.core.problems import Problem
from gateway.ports.http import Exchange, Fault
from gateway.upstream.cluster import Member
from gateway.upstream.connection import Call
from gateway.upstream.pool import Pool

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
_SERVER_ERROR = 500
_LONGEST_RETRY_AFTER_S = 1


class Passing:
    """
    The receiver of each attempt's response (``ports.http.ResponseReceiver``).
    """

    __slots__ = (
        "_block",
        "_body",
        "_call",
        "_exchange",
        "_member",
        "_over",
        "_proxy",
        "_response",
        "_retrying",
        "_started_at",
        "_target",
        "_tried",
        "_waiting",
    )

    def __init__(self, proxy: Proxy, exchange: Exchange, target: bytes, block: bytes) -> None:
        self._proxy = proxy
        self._exchange = exchange
        self._target = target
        self._block = block
        self._body = _Body(exchange, proxy.retry.max_body_bytes) if exchange.head.body_length else None
        self._call: Call | None = None
        self._member: Member[Pool] | None = None
        self._tried: tuple[Member[Pool], ...] = ()
        self._response: ResponseHead | None = None
        self._retrying = False
        self._waiting: Any = None
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
        proxy.cluster.admit(now)
        exchange.upstream = proxy.cluster.name
        exchange.upstream_started_at = now
        exchange.on_gone = self._gone
        self._attempt(now)

    def _attempt(self, now: float) -> None:
        proxy, exchange, body = self._proxy, self._exchange, self._body
        cluster = proxy.cluster
        try:
            member = cluster.pick(now, self._tried)
        except Problem as problem:
            self._finish(ok=None)
            proxy.refuse(exchange, problem)
            return
        if body is not None:
            # What came together with the head goes out together with ours, in one write.
            body.ask()
            if self._over:
                return
        head = exchange.head
        pool = member.value
        self._member = member
        self._tried = (*self._tried, member)
        self._started_at = now
        exchange.attempts += 1
        exchange.upstream_target = member.name
        cluster.began(member)
        lead = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
            head.method,
            self._target,
            proxy.authority(pool, head),
            self._block,
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
        section = proxy.section
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
        proxy, exchange = self._proxy, self._exchange
        now = proxy.clock.seconds()
        status = head.status
        exchange.upstream_ttfb_s = now - self._started_at
        if (
            status >= _SERVER_ERROR
            and status in proxy.statuses
            and self._may_repeat(head)
            and self._retry(now, f"{status}")
        ):
            if not ended and self._call is not None:
                self._call.cancel()
            return
        ok = status < _SERVER_ERROR
        self._end_attempt(now, ok=ok, outcome="ok" if ok else "error")
        self._response = head
        block = response_block(head) + proxy.response_lines
        if ended:
            self._finish(ok=ok)
            trailers = trailer_block(head.trailers, proxy.drop) if head.trailers else b""
            if not trailers:
                exchange.start(
                    status,
                    head.reason,
                    block,
                    head.body_length if head.body_length >= 0 else len(data),
                    data,
                    ended=True,
                )
                return
            exchange.start(status, head.reason, block, head.body_length, data, ended=False)
            exchange.downstream.finish(trailers)
            return
        exchange.start(status, head.reason, block, head.body_length, data, ended=False)
        if self._call is not None and not self._over:
            exchange.downstream.register(self._call)

    def received(self, data: bytes, ended: bool) -> None:
        """
        Relay more of the body.
        """
        exchange, response = self._exchange, self._response
        if data:
            exchange.downstream.write(data)
        if ended and response is not None:
            self._finish(ok=response.status < _SERVER_ERROR)
            exchange.on_gone = None
            trailers = trailer_block(response.trailers, self._proxy.drop) if response.trailers else b""
            exchange.downstream.finish(trailers)

    def informed(self, status: int, headers: list[Header]) -> None:
        """
        Relay an interim response.
        """
        head = ResponseHead(status, b"", headers, {name.lower(): value for name, value in headers}, 0)
        self._exchange.downstream.inform(status, response_block(head) or block_of(()))

    def failed(self, fault: Fault) -> None:
        """
        Try again where that is safe; else answer, or cut an answer that has begun.
        """
        proxy, exchange = self._proxy, self._exchange
        now = proxy.clock.seconds()
        exchange.reason = f"{fault.kind}: {fault.detail}" if fault.detail else fault.kind
        ours = fault.kind == "overflow"
        if self._response is not None:
            # The head was relayed: nothing can be taken back. The client must see that it is not whole.
            self._finish(ok=False)
            exchange.flag = "UT" if fault.kind == "timeout" else "UR"
            exchange.downstream.abort()
            return
        if (not fault.sent or self._may_repeat(None)) and self._retry(now, fault.kind):
            return
        self._end_attempt(now, ok=None if ours else False, outcome=fault.kind)
        self._finish(ok=None if ours else False)
        reason = exchange.reason
        kind = _PROBLEMS.get(fault.kind, "upstream_reset")
        retry_after = ((b"Retry-After", b"1"),) if kind in {"upstream_unreachable", "upstream_overload"} else ()
        proxy.refuse(exchange, Problem(kind, headers=retry_after, reason=reason))

    # Trying again.

    def _may_repeat(self, answer: ResponseHead | None) -> bool:
        """Whether a second attempt is safe although the backend may have seen the first."""
        head = self._exchange.head
        if answer is not None:
            asked = answer.fields.get(b"retry-after")
            if asked is not None and not (asked.isdigit() and int(asked) <= _LONGEST_RETRY_AFTER_S):
                return False
        return head.method in self._proxy.methods or b"idempotency-key" in head.fields

    def _retry(self, now: float, why: str) -> bool:
        proxy, exchange = self._proxy, self._exchange
        cluster, retry = proxy.cluster, proxy.retry
        if exchange.attempts >= retry.attempts:
            return False
        if self._body is not None and not self._body.replayable:
            proxy.metrics.upstream_retries.inc(cluster.name, "body_gone")
            return False
        wait = backoff(exchange.attempts, retry.backoff_base_s, retry.backoff_max_s, proxy.random)
        if now + wait >= exchange.deadline:
            proxy.metrics.upstream_retries.inc(cluster.name, "deadline")
            return False
        if not self._retrying and not cluster.budget.take(cluster.active):
            proxy.metrics.upstream_retries.inc(cluster.name, "budget")
            return False
        self._retrying = True
        proxy.metrics.upstream_retries.inc(cluster.name, "tried")
        self._end_attempt(now, ok=False, outcome=why)
        if self._body is not None:
            self._body.detach()
        self._waiting = proxy.clock.callLater(wait, self._again)
        return True

    def _again(self) -> None:
        self._waiting = None
        if not self._over:
            self._attempt(self._proxy.clock.seconds())

    # Ends.

    def _end_attempt(self, now: float, *, ok: bool | None, outcome: str) -> None:
        member, self._member = self._member, None
        if member is not None:
            self._proxy.cluster.ended(member, now, ok=ok)
            self._proxy.metrics.upstream_attempts.inc(self._proxy.cluster.name, outcome)

    def _finish(self, *, ok: bool | None) -> None:
        if self._over:
            return
        self._over = True
        proxy = self._proxy
        if self._retrying:
            proxy.cluster.budget.give_back()
        proxy.cluster.finished(proxy.clock.seconds(), ok=ok)

    def _gone(self) -> None:
        """The client left, or the node gave up: nothing may go on running for it."""
        if self._over:
            return
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        now = self._proxy.clock.seconds()
        self._end_attempt(now, ok=None, outcome="cancelled")
        if self._call is not None:
            self._call.cancel()
        self._finish(ok=None)


class _Body:
    """
    The request's body on its way up (``ports.http.BodyReceiver``), and what holds it back.

    Small bodies are kept until the response head, for a second attempt; a body that has outgrown
    that is gone once it was sent.
    """

    __slots__ = ("_asked", "_call", "_ended", "_exchange", "_kept", "_kept_bytes", "_max_kept", "replayable")

    def __init__(self, exchange: Exchange, max_kept: int) -> None:
        self._exchange = exchange
        self._call: Call | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._max_kept = max_kept
        self._asked = False
        self._ended = False
        self.replayable = True

    def ask(self) -> None:
        """
        Let the client send it; what is here already comes at once.
        """
        if not self._asked:
            self._asked = True
            self._exchange.downstream.receive(self)

    def so_far(self) -> tuple[bytes, bool]:
        """
        What there is to send with the head, and whether it is all.
        """
        return b"".join(self._kept), self._ended

    def attach(self, call: Call) -> None:
        """
        Send what comes from now on over *call*.
        """
        self._call = call
        if not self._ended:
            call.register(self)
        if not self.replayable:
            self._kept.clear()

    def detach(self) -> None:
        """
        The attempt failed; keep what comes for the next one, which takes it from the beginning.
        """
        self._call = None
        if not self._ended:
            self._exchange.downstream.pause_body()

    def received(self, data: bytes, ended: bool) -> None:
        """
        Take more of the body.
        """
        self._ended = ended
        call = self._call
        if data and (self.replayable or call is None):
            self._kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes > self._max_kept:
                self.replayable = False
                if call is not None:
                    self._kept.clear()
        if call is None:
            return
        if data:
            call.write(data)
        if ended:
            trailers = self._exchange.downstream.trailers
            call.finish(trailer_block(trailers, frozenset()) if trailers else b"")

    # Held back by the backend's transport, under Twisted's names.

    def pauseProducing(self) -> None:
        """
        The backend is slower than the client.
        """
        self._exchange.downstream.pause_body()

    def resumeProducing(self) -> None:
        """
        The backend takes more.
        """
        self._exchange.downstream.resume_body()

    def stopProducing(self) -> None:
        """
        The attempt is over; its end is told elsewhere.
        """
