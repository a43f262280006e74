"""
Every HTTP request of this instance, from the end of its headers to its access line.

The edge runs the filters in the order it was given them, hands the exchange to its route's
handler, turns problems into answers, and counts and logs each exchange exactly once. What is
decided stands in an immutable ``Plan``; a reload swaps the plan, and an exchange keeps the one
it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gateway.core.problems import CATALOGUE, Problem, problem_body
from gateway.node.plan import Filter, Pause, Plan
from gateway.ports.http import Downstream, Exchange, Peer

__all__ = ["Edge", "Journal"]

PROBLEM_TYPE = b"Content-Type: application/problem+json\r\nCache-Control: no-store\r\nX-Gateway-Error: "


class Journal(Protocol):
    """
    Who counts and logs; handed in, because this room knows neither metrics nor logs.
    """

    def request(self, exchange: Exchange, ended_at: float, *, whole: bool) -> None:
        """One exchange is over."""

    def malformed(self, peer: Peer, status: int, code: str, head: bytes) -> None:
        """One request could not be read."""

    def refused(self, problem: Problem) -> None:
        """The gateway itself is about to answer with *problem*."""

    def crashed(self, exchange: Exchange, failure: Failure) -> None:
        """Our own code failed; told with its traceback, once."""


class Edge:
    """
    The node's ``ports.http.HttpHandler``.

    Args:
        plan: What holds now; assign ``plan`` to change it.
        seconds: The monotonic clock.
        journal: Who counts and logs.
        distrusted: Told the address of whoever presented a credential that was refused.
    """

    def __init__(
        self,
        plan: Plan,
        seconds: Callable[[], float],
        journal: Journal,
        distrusted: Callable[[str], None] = lambda _host: None,
    ) -> None:
        self.plan = plan
        self.open: set[Exchange] = set()
        self._seconds = seconds
        self._journal = journal
        self._distrusted = distrusted

    def begin(self, downstream: Downstream) -> Exchange:
        """
        Take a request whose headers have arrived.
        """
        exchange = Exchange(downstream, self._seconds())
        self.open.add(exchange)
        plan = self.plan
        exchange.browsers = plan.browsers
        self._run(exchange, plan.filters, 0)
        return exchange

    def _run(self, exchange: Exchange, filters: Sequence[Filter], at: int) -> None:
        try:
            for step in filters[at:] if at else filters:
                at += 1
                waiting = step(exchange)
                if waiting is not None:
                    if isinstance(waiting, Pause):
                        waiting.exchange, waiting.filters, waiting.at = exchange, filters, at
                        waiting.go_on, waiting.refuse = self._run, self.refuse
                    else:
                        self._wait(exchange, waiting, filters, at)
                    return
            exchange.route.handler.handle(exchange)
        except Problem as problem:
            self.refuse(exchange, problem)
        except Exception:  # The edge that catches everything: whatever failed, the client gets an answer.
            self.crash(exchange, Failure())

    def _wait(
        self,
        exchange: Exchange,
        waiting: Deferred[Any],
        filters: Sequence[Filter],
        at: int,
    ) -> None:
        exchange.on_gone = waiting.cancel

        def go_on(_: Any) -> None:
            exchange.on_gone = None
            if not exchange.ended:
                self._run(exchange, filters, at)

        def fail(failure: Failure) -> None:
            exchange.on_gone = None
            if exchange.ended or exchange.downstream.started:
                return
            if isinstance(failure.value, Problem):
                self.refuse(exchange, failure.value)
            elif isinstance(failure.value, CancelledError):
                self.refuse(exchange, Problem("internal", reason="cancelled"))
            else:
                self.crash(exchange, failure)

        waiting.addCallbacks(go_on, fail)

    def crash(self, exchange: Exchange, failure: Failure) -> None:
        """
        Report a failure of our own once, and answer 500.
        """
        self._journal.crashed(exchange, failure)
        self.refuse(exchange, Problem("internal", f"Reported as {exchange.request_id}.", reason="crashed"))

    def refuse(self, exchange: Exchange, problem: Problem) -> None:
        """
        Answer *exchange* with *problem*; where an answer has begun, cut it short visibly.
        """
        if exchange.ended:
            return
        kind = problem.kind
        exchange.flag = kind.flag
        exchange.reason = problem.reason
        self._journal.refused(problem)
        if kind.code == "token_invalid" and problem.reason != "expired":
            self._distrusted(exchange.client_host)
        downstream = exchange.downstream
        if downstream.started:
            downstream.abort()
            return
        trace = exchange.trace
        body = problem_body(
            problem,
            request_id=exchange.request_id,
            trace_id=trace.trace_id if trace is not None else "",
            instance=exchange.target.path.decode("ascii") if exchange.target is not None else "",
        )
        extra = b"".join([b"%b: %b\r\n" % header for header in problem.headers])
        block = b"%b%b\r\n%b" % (PROBLEM_TYPE, kind.flag.encode("ascii"), extra)
        exchange.start(kind.status, b"", block, len(body), body, ended=True)

    def ended(self, exchange: Exchange, *, whole: bool) -> None:
        """
        Count and log *exchange*; cancel whatever still runs for it.
        """
        if exchange.ended:
            return
        exchange.ended = True
        self.open.discard(exchange)
        gone, exchange.on_gone = exchange.on_gone, None
        if gone is not None and not whole:
            try:
                gone()
            except Exception:  # A handler's cancel must not keep the access line from being written.
                self._journal.crashed(exchange, Failure())
        if not whole:
            if exchange.status == 0:
                exchange.status = 499
            exchange.flag = exchange.flag or "DC"
        self._journal.request(exchange, self._seconds(), whole=whole)

    def refused(self, peer: Peer, status: int, code: str, head: bytes) -> bytes:
        """
        Count and log a request that the channel could not read.
        """
        self._journal.malformed(peer, status, code, head)
        return problem_body(Problem(code if code in CATALOGUE else "bad_request"))

    def give_up(self, exchange: Exchange, problem: Problem) -> None:
        """
        Cancel what runs for *exchange* and answer with *problem* (a drain's end, a deadline).
        """
        gone, exchange.on_gone = exchange.on_gone, None
        # Answered first: what is cancelled may report its own end, and the first answer counts.
        self.refuse(exchange, problem)
        if gone is not None:
            gone()
