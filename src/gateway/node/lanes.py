"""
When a client's commands run: in order where order matters, side by side where it does not, within bounds.

Commands on one channel or method are a lane, and run one after the other. At most so many run at
once; what waits is bounded in bytes, and beyond that the client is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gateway.core import commands as c
from gateway.core.verdicts import ClientError, ErrorCode, Refused
from gateway.node.commands import HANDLERS, lane_of
from gateway.node.realtime_spans import begun
from gateway.node.together import rest
from gateway.ports.realtime import StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["Lanes"]

_COMMAND_BYTES = 200
_UNANSWERED = 4  # Of those that run when their client goes; more would drive out what it did before.
_EXPECTED = (CancelledError, ClientError, Refused, StoreUnavailable)


First = Callable[["RealtimeNode", "Client", c.Command], Coroutine[Any, Any, None]]


class Lanes:
    """
    The commands of one client that run or wait.
    """

    __slots__ = ("_calls", "_client", "_held", "_lanes", "_paused", "_running", "_waiting_bytes")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: dict[Deferred[Any], None] = {}
        self._held: deque[c.Command] | None = None
        self._lanes: dict[str, deque[c.Command]] = {}
        self._paused = False
        self._running = 0
        self._waiting_bytes = 0

    def take(self, command: c.Command) -> None:
        """
        Run *command*, now or when it is its turn.
        """
        if self._held is not None:
            self._wait(self._held, command)
        elif self._running >= self._client.settings.max_in_flight:
            self._held = deque()
            self._wait(self._held, command)
        else:
            self._start(command)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._running and not self._held

    @property
    def running(self) -> list[str]:
        """The lanes whose commands are not answered yet."""
        return list(self._lanes)

    def first(self, run: First, command: c.Command) -> None:
        """
        Run the command that all others wait for.
        """
        self._held = deque()
        self._client.flight.append((self._client.node.seconds(), type(command.request), ""))
        command = begun(self._client, command)
        self._run(run(self._client.node, self._client, command), command, "")

    def end(self) -> None:
        """
        Forget what waits and cancel what runs.
        """
        self._forget()
        for lane in self.running[:_UNANSWERED]:
            self._client.flight.append((self._client.node.seconds(), "unanswered", lane))
        self._lanes.clear()
        for call in list(self._calls):
            call.cancel()

    def _wait(self, queue: deque[c.Command], command: c.Command) -> None:
        queue.append(command)
        self._waiting_bytes += _COMMAND_BYTES + len(getattr(command.request, "data", b""))
        if self._waiting_bytes > self._client.settings.max_waiting_bytes and not self._paused:
            self._paused = True
            self._client.transport.pause()

    def _waited(self, queue: deque[c.Command]) -> c.Command:
        command = queue.popleft()
        self._waiting_bytes -= _COMMAND_BYTES + len(getattr(command.request, "data", b""))
        if self._paused and self._waiting_bytes < self._client.settings.max_waiting_bytes // 2:
            self._paused = False
            self._client.transport.resume()
        return command

    def _forget(self) -> None:
        if self._held is not None:
            while self._held:
                self._waited(self._held)
            self._held = None

    def _start(self, command: c.Command) -> None:
        client = self._client
        lane = lane_of(command.request)
        waiting = self._lanes.get(lane)
        if waiting is not None:
            self._wait(waiting, command)
            return
        if not client.may_go_on():
            return
        kind = type(command.request)
        client.flight.append((client.node.seconds(), kind, lane))
        command = begun(client, command)
        try:
            rates = client.node.rates
            allowed = rates.command(client, command.request) if rates.commands else None
            if allowed is not None:
                self._run(_when(allowed, client, command), command, lane)
                return
            result = HANDLERS[kind](client.node, client, command)
        except ClientError as error:
            client.fail(command, error)
        except Refused as refused:
            client.close(refused.closing)
            _end(command, refused)
        else:
            if isinstance(result, CoroutineType):  # Faster than the abstract Coroutine, which mypy would know.
                self._run(result, command, lane)
            elif result is not None:
                client.answer(command, cast("c.Result", result))

    def _run(self, running: Coroutine[Any, Any, c.Result | None], command: c.Command, lane: str) -> None:
        if lane:
            self._lanes[lane] = deque()
        self._running += 1
        # Most commands wait for nothing, on memory stores none: they are done without a Deferred.
        try:
            waited = running.send(None)
        except StopIteration as ended:
            self._done(ended.value, command, lane)
            return
        except Exception:
            self._done(Failure(), command, lane)
            return
        call: Deferred[Any] = Deferred.fromCoroutine(rest(running, waited))
        if call.called:
            call.addBoth(self._done, command, lane)
            return
        self._calls[call] = None
        call.addBoth(self._returned, call, command, lane)

    def _returned(self, result: Any, call: Deferred[Any], command: c.Command, lane: str) -> None:
        self._calls.pop(call, None)
        self._done(result, command, lane)

    def _done(self, result: Any, command: c.Command, lane: str) -> None:
        client = self._client
        self._running -= 1
        if command.span is not None and (client.closing is not None or result is None):
            # Answered it has ended before; there is no answer to every command.
            command.span.end("closed" if client.closing is not None else "ok")
        if client.closing is not None:
            if isinstance(result, Failure) and not result.check(*_EXPECTED):
                client.node.crashed(client, result)
            return
        if isinstance(result, Failure):
            self._failed(result, command)
        elif result is not None:
            client.answer(command, result)
        if client.connection_refused():
            self._forget()
        self._next(lane)

    def _failed(self, failure: Failure, command: c.Command) -> None:
        client = self._client
        error = failure.value
        if isinstance(error, ClientError):
            client.fail(command, error)
        elif isinstance(error, Refused):
            client.close(error.closing)
            _end(command, error)
        elif isinstance(error, StoreUnavailable):
            client.fail(command, ClientError(ErrorCode.INTERNAL, "a store is not available", temporary=True))
        else:
            if not failure.check(CancelledError):
                client.node.crashed(client, failure)
            client.fail(command, ClientError(ErrorCode.INTERNAL))

    def _next(self, lane: str) -> None:
        """Run what waited for *lane*, and what waited for its turn."""
        client = self._client
        waiting = self._lanes.pop(lane, None)
        while waiting and client.closing is None:
            self._start(self._waited(waiting))
            if lane in self._lanes:
                self._lanes[lane].extend(waiting)
                break
        held = self._held
        while held and client.closing is None and self._running < client.settings.max_in_flight:
            self._start(self._waited(held))
        if held is not None and not held and held is self._held:
            self._held = None


async def _when(allowed: Deferred[None], client: Client, command: c.Command) -> c.Result | None:
    """Run a command once its limits have let it pass."""
    await allowed
    if client.closing is not None:
        return None
    result = HANDLERS[type(command.request)](client.node, client, command)
    return await result if isinstance(result, CoroutineType) else cast("c.Result | None", result)


def _end(command: c.Command, refused: Refused) -> None:
    if command.span is not None:
        command.span.end(str(refused.closing.code))
