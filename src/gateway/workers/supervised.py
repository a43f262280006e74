"""
One worker as its parent sees it: started, watched, started again when it dies, ended when all end.

A worker is always in one state::

    WAITING --start--> STARTING --says so--> SERVING --ends--> WAITING (longer each time)
       |                  |  |                  |
       |                  |  +--ends-->WAITING  +--replace--> REPLACING --ends--> STARTING
       +------end---------+---------end---------+--> ENDING --ends--> ENDED
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from signal import Signals
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from gateway.core.backoff import backoff
from gateway.workers.line import Begin, Gone, Line, attach

__all__ = ["CannotServe", "House", "Spawn", "State", "Worker"]

START_S: Final = 60.0

STEADY_S: Final = 60.0
"""Who has lived this long was well: the next wait is a short one again."""

LAST_WORDS_S: Final = 1.0
"""How long what a process said before it ended is waited for; the kernel has it already."""

BACKOFF_BASE_S: Final = 0.25
BACKOFF_MOST_S: Final = 30.0

Spawn = Callable[[int, ProcessProtocol, int], Any]
"""Starts worker *number*, which finds its end of the line at the descriptor; returns its process transport."""


class CannotServe(OSError):
    """
    A worker could not start; the text says which, and why.
    """


class State(Enum):
    """See the module."""

    WAITING = "waiting"
    STARTING = "starting"
    SERVING = "serving"
    REPLACING = "replacing"
    ENDING = "ending"
    ENDED = "ended"


class House(Protocol):
    """
    What a worker needs of its parent.

    Attributes:
        reactor: For timers and lines.
        log: A structlog logger.
        end_s: How long a worker may take to end when it is asked to; then it is killed.
    """

    reactor: Any
    log: Any

    @property
    def end_s(self) -> float:
        """See above."""

    def random(self) -> float:
        """A number, evenly from 0 to 1."""

    def begin(self, number: int) -> Begin:
        """What worker *number* is told first."""

    def died(self, number: int, how: str, instance: str) -> None:
        """Worker *number*, as *instance* if it ever served, has ended unasked: *how* is ``exit`` or ``signal``."""

    def crashed(self, name: str, failure: Failure) -> None:
        """A fault of our own."""


class _Process(ProcessProtocol):
    """One process; its worker outlives it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def processEnded(self, reason: Failure) -> None:
        self._worker.process_ended(reason)


class Worker:
    """
    One of the workers.

    Args:
        number: From 1.
        spawn: Starts a process.
        start_s: A process that does not say by then that it serves is ended.

    Attributes:
        state: See the module.
        facts: What it told last of itself; empty unless it serves.
        text: The configuration that it has.
        ends: How often it has ended unasked.
        last_end: How it ended the last time; empty if it never did.
    """

    def __init__(self, number: int, house: House, spawn: Spawn, *, start_s: float = START_S) -> None:
        self.number = number
        self.state = State.WAITING
        self.facts: dict[str, Any] = {}
        self.text = ""
        self.pid = 0
        self.ends = 0
        self.last_end = ""
        self._house = house
        self._spawn = spawn
        self._start_s = start_s
        self._line: Line | None = None
        self._transport: Any = None
        self._started_at = 0.0
        self._answered_at = 0.0
        self._attempts = 0
        self._reason = ""
        self._timer: IDelayedCall | None = None
        self._exit: Failure | None = None
        self._first: Deferred[None] | None = None
        self._over: list[Deferred[None]] = []

    # What its parent does with it.

    def start(self) -> Deferred[None]:
        """
        Start it for the first time.

        The Deferred fires when it serves, and fails with ``CannotServe`` if it ends before; then it is not tried again.
        """
        self._first = Deferred()
        first = self._first
        self._begin()
        return first

    def end(self) -> Deferred[None]:
        """
        Have it drain and end, and start it no more; fires when it has ended, which takes ``House.end_s`` at most.
        """
        over: Deferred[None] = Deferred()
        if self.state is State.ENDED:
            over.callback(None)
            return over
        self._over.append(over)
        if self.state is State.WAITING:
            self._cancel_timer()
            self._ended()
        elif self.state is not State.ENDING:
            self.state = State.ENDING
            self._ask_to_end()
        return over

    def replace(self) -> None:
        """
        Have it drain and end, and start another in its place, which has what all have.
        """
        if self.state in (State.STARTING, State.SERVING):
            self.state = State.REPLACING
            self._ask_to_end()

    def kill(self) -> None:
        """
        End its process now, whatever it does.
        """
        if self._transport is not None:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess("KILL")

    def tell(self, name: str, body: Any = None) -> None:
        """
        Order something, if there is a process.
        """
        if self._line is not None:
            self._line.tell(name, body)

    def ask(self, name: str, body: Any = None, *, deadline_s: float) -> Deferred[Any]:
        """
        Ask something; fails as ``Line.ask`` does.
        """
        if self._line is None:
            nobody: Deferred[Any] = Deferred()
            nobody.errback(Gone(f"{name}: worker {self.number} does not run"))
            return nobody
        return self._line.ask(name, body, deadline_s=deadline_s)

    def heard(self, facts: dict[str, Any]) -> None:
        """
        Keep what it told of itself.
        """
        if self.state is State.SERVING:
            self.facts = facts
            self._answered_at = self._house.reactor.seconds()

    def ready(self, within_s: float) -> bool:
        """
        Whether clients are served there: it said so, and no longer ago than *within_s*.
        """
        fresh = self._house.reactor.seconds() - self._answered_at <= within_s
        return self.state is State.SERVING and fresh and bool(self.facts.get("ready"))

    def describe(self) -> dict[str, Any]:
        """
        Tell its state, for operators.
        """
        now = self._house.reactor.seconds()
        runs = self.pid != 0
        return {
            "worker": str(self.number),
            "state": self.state.value,
            "pid": self.pid,
            "up_s": round(now - self._started_at, 1) if runs else 0.0,
            **self.facts,
            **({"answered_s_ago": round(now - self._answered_at, 1)} if self.facts else {}),
            "ends": self.ends,
            "last_end": self.last_end,
        }

    # Its processes.

    def _begin(self) -> None:
        self._timer = None
        self.state = State.STARTING
        self._reason = ""
        house = self._house
        begin = house.begin(self.number)
        self.text = begin.text
        ours, theirs = socket.socketpair()
        self._exit = None
        line = Line(house.reactor, _nothing, self._told, lambda: self._line_lost(line), house.crashed)
        self._line = line
        self._started_at = house.reactor.seconds()
        attach(house.reactor, ours, line)
        line.begin(begin)
        try:
            self._transport = self._spawn(self.number, _Process(self), theirs.fileno())
        except OSError as error:
            self._reason = f"it cannot be started: {error}"
            self._died("exit", "no process")
            return
        finally:
            theirs.close()
        self.pid = self._transport.pid
        self._timer = house.reactor.callLater(self._start_s, self._too_slow)

    def _told(self, name: str, body: Any) -> None:
        if name == "cannot_start":
            self._reason = str(body)
        elif name == "started" and self.state is State.STARTING:
            if self._exit is None:
                self._cancel_timer()
            self.state = State.SERVING
            self.heard(body)
            took_s = round(self._house.reactor.seconds() - self._started_at, 3)
            self._house.log.info(
                "worker.started", number=self.number, pid=self.pid, serves_as=body.get("instance"), took_s=took_s
            )
            first, self._first = self._first, None
            if first is not None:
                first.callback(None)

    def _too_slow(self) -> None:
        self._timer = None
        self._reason = f"it did not start within {self._start_s:g} s"
        self.kill()

    def _ask_to_end(self) -> None:
        self.facts = {}
        if self._exit is not None:
            return  # It has ended already; what it said last is being read.
        self._cancel_timer()
        self.tell("drain")
        self._timer = self._house.reactor.callLater(self._house.end_s, self._kill_late)

    def _kill_late(self) -> None:
        self._timer = None
        self._house.log.error("worker.killed", number=self.number, pid=self.pid, asked_s=self._house.end_s)
        self.kill()

    def process_ended(self, reason: Failure) -> None:
        """
        Its process has ended, and was waited for. What it said last may still have to be read.
        """
        self._exit = reason
        self._cancel_timer()
        if self._line is None or self._line.ended:
            self._settle()
        else:
            self._timer = self._house.reactor.callLater(LAST_WORDS_S, self._settle)

    def _line_lost(self, line: Line) -> None:
        # While its process is there it will end by itself; and it may be the line of the one before.
        if line is self._line and self._exit is not None:
            self._settle()

    def _settle(self) -> None:
        """The process has ended, and said what it had to say."""
        assert self._exit is not None
        how, status = _status(self._exit)
        if self.state not in (State.ENDING, State.REPLACING):
            self._died(how, status)
            return
        self._house.log.info("worker.ended", **self._account(status))
        self._gone()
        if self.state is State.ENDING:
            self._ended()
        else:
            self._begin()

    def _died(self, how: str, status: str) -> None:
        """Nobody asked it to end: it is started again, later each time."""
        house = self._house
        account = self._account(status)
        instance = str(self.facts.get("instance", ""))
        lived_s = house.reactor.seconds() - self._started_at
        self._gone()
        self.ends += 1
        self.last_end = f"{status}: {self._reason}" if self._reason else status
        house.died(self.number, how, instance)
        first, self._first = self._first, None
        if first is not None:
            self.state = State.ENDED
            first.errback(CannotServe(f"worker {self.number}: {self._reason or f'it ended at once, {status}'}"))
            return
        self._attempts = 1 if lived_s >= STEADY_S else self._attempts + 1
        wait_s = backoff(self._attempts, BACKOFF_BASE_S, BACKOFF_MOST_S, house.random)
        house.log.error("worker.died", **account, reason=self._reason, again_in_s=round(wait_s, 3))
        self.state = State.WAITING
        self._timer = house.reactor.callLater(wait_s, self._begin)

    def _account(self, status: str) -> dict[str, Any]:
        lasted_s = round(self._house.reactor.seconds() - self._started_at, 3)
        return {"number": self.number, "pid": self.pid, "status": status, "lasted_s": lasted_s}

    def _gone(self) -> None:
        self._cancel_timer()
        if self._line is not None:
            self._line.hang_up()
        self._line = None
        self._exit = None
        self._transport = None
        self.pid = 0
        self.facts = {}

    def _ended(self) -> None:
        self.state = State.ENDED
        first, self._first = self._first, None
        if first is not None:
            first.errback(CannotServe(f"worker {self.number}: it was asked to end"))
        over, self._over = self._over, []
        for each in over:
            each.callback(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


async def _nothing(name: str, _: Any) -> Any:
    raise LookupError(f"a parent is asked nothing: {name}")


def _status(reason: Failure) -> tuple[str, str]:
    """How a process ended, for counting and for people."""
    value: Any = reason.value
    if isinstance(value, ProcessDone):
        return "exit", "exit 0"
    if value.signal is not None:
        return "signal", Signals(value.signal).name
    return "exit", f"exit {value.exitCode}"
