"""
A worker is started, watched, started again, and ended, by what its process does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gateway.workers.line import Begin, Gone, Silent
from gateway.workers.supervised import CannotServe, State, Worker

HERE: Any = reactor
PROGRAM = str(Path(__file__).with_name("program.py"))


class House:
    """A parent that keeps what it is told."""

    def __init__(self, *how: str, end_s: float = 5.0, start_s: float = 30.0) -> None:
        self.reactor = HERE
        self.log = self
        self.how = list(how)
        self.end_s = end_s
        self.text = "text"
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.ends: list[tuple[int, str, bool]] = []
        self.draws: list[float] = []
        self.worker = Worker(1, self, self.spawn, start_s=start_s)
        self.seen: list[int] = []

    def random(self) -> float:
        return self.draws.pop(0) if self.draws else 0.0

    def spawn(self, number: int, protocol: Any, line: int) -> Any:
        """The next of what processes are to do; the last one again and again."""
        how = self.how.pop(0) if len(self.how) > 1 else self.how[0]
        if how == "no process":
            raise BlockingIOError(11, "no more processes")
        made = HERE.spawnProcess(
            protocol,
            sys.executable,
            [sys.executable, PROGRAM, how],
            env=os.environ,
            childFDs={0: 0, 1: 1, 2: 2, 3: line},
        )
        self.seen.append(made.pid)
        return made

    def begin(self, number: int) -> Begin:
        return Begin(number, "gateway.toml", self.text, "", None, False, b"", {}, b"")

    def died(self, number: int, how: str, instance: str) -> None:
        self.ends.append((number, how, bool(self.seen) and instance == f"i-{self.seen[-1]}"))

    def crashed(self, name: str, failure: Failure) -> None:
        raise AssertionError(failure)

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = warning = info

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


async def eventually(look: Callable[[], Any], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline
        await deferLater(HERE, 0.01)


@pytest_twisted.ensureDeferred
async def test_a_life() -> None:
    """
    It is told what to serve, serves, tells of itself when asked, and ends when asked.
    """
    house = House("serves")
    worker = house.worker
    await worker.start()
    assert worker.ready(5.0)
    assert worker.facts["text"] == "text"
    assert await worker.ask("metrics", deadline_s=10) == b"metrics of 1"
    described = worker.describe()
    assert (described["worker"], described["state"], described["pid"]) == ("1", "serving", house.seen[0])
    await worker.end()
    assert (worker.state, worker.pid, worker.facts) == (State.ENDED, 0, {})
    assert not worker.ready(5.0)
    assert house.told("worker.ended")[0]["status"] == "exit 0"
    assert house.ends == []
    await worker.end()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cannot", "worker 1: the moon is in the way"),
        ("at once", "worker 1: it ended at once, exit 3"),
        ("no process", r"worker 1: it cannot be started: \[Errno 11\] no more processes"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_first_start_is_not_tried_again(how: str, said: str) -> None:
    """
    Who cannot serve at first says why, and stays away: the whole start fails of it.
    """
    house = House(how)
    with pytest.raises(CannotServe, match=said):
        await house.worker.start()
    assert house.worker.state is State.ENDED
    await house.worker.end()


@pytest_twisted.ensureDeferred
async def test_who_dies_again_and_again_is_waited_for_longer() -> None:
    """
    Each death in a row doubles what the wait is drawn from, up to a bound; each is counted, and told with its signal.
    """
    house = House("dies", "dies", "at once", "dies", "serves")
    house.draws = [0.04] * 4
    await house.worker.start()
    await eventually(lambda: house.worker.state is State.SERVING and len(house.seen) == 5)
    died = house.told("worker.died")
    assert [each["status"] for each in died] == ["SIGKILL", "SIGKILL", "exit 3", "SIGKILL"]
    assert [each["again_in_s"] for each in died] == [0.01, 0.02, 0.04, 0.08]
    assert house.ends == [(1, "signal", True), (1, "signal", True), (1, "exit", False), (1, "signal", True)]
    assert (house.worker.ends, house.worker.last_end) == (4, "SIGKILL")
    await house.worker.end()


@pytest_twisted.ensureDeferred
async def test_a_process_that_cannot_be_had_is_tried_again() -> None:
    """
    A machine without room for one more process delays a restart, and does not end it.
    """
    house = House("dies", "no process", "cannot", "serves")
    await house.worker.start()
    await eventually(lambda: house.worker.state is State.SERVING and len(house.seen) == 3)
    reasons = [each["reason"] for each in house.told("worker.died")]
    assert reasons == ["", "it cannot be started: [Errno 11] no more processes", "the moon is in the way"]
    assert house.worker.last_end == "exit 1: the moon is in the way"
    await house.worker.end()


@pytest_twisted.ensureDeferred
async def test_it_is_ended_while_it_waits() -> None:
    """
    A worker that is about to be started again is not, once it is to end.
    """
    house = House("dies")
    house.draws = [1.0]
    await house.worker.start()
    await eventually(lambda: house.worker.state is State.WAITING)
    await house.worker.end()
    await deferLater(HERE, 0.4)
    assert len(house.seen) == 1


@pytest_twisted.ensureDeferred
async def test_it_is_ended_while_it_starts() -> None:
    """
    The start is over, without success, when the worker is ended during it.
    """
    house = House("never", end_s=0.1)
    starting = house.worker.start()
    await house.worker.end()
    with pytest.raises(CannotServe, match="asked to end"):
        await starting
    assert house.told("worker.killed")


@pytest_twisted.ensureDeferred
async def test_who_does_not_end_is_killed() -> None:
    """
    The bound of the drain holds for workers that do not hear.
    """
    house = House("stubborn", end_s=0.2)
    await house.worker.start()
    before = time.monotonic()
    await house.worker.end()
    assert 0.2 <= time.monotonic() - before < 5
    assert house.told("worker.killed") == [{"number": 1, "pid": house.seen[0], "asked_s": 0.2}]
    assert house.told("worker.ended")[0]["status"] == "SIGKILL"
    assert house.ends == []


@pytest_twisted.ensureDeferred
async def test_one_is_replaced() -> None:
    """
    In place of one that is asked to make room another starts at once, with what is in force then.
    """
    house = House("serves")
    await house.worker.start()
    house.text = "another"
    house.worker.replace()
    await eventually(lambda: house.worker.state is State.SERVING and len(house.seen) == 2)
    assert house.worker.facts["text"] == house.worker.text == "another"
    assert house.ends == []
    await house.worker.end()


@pytest_twisted.ensureDeferred
async def test_one_that_takes_too_long_to_start() -> None:
    """
    A process that never says that it serves is ended, and counts as dead.
    """
    house = House("never", start_s=0.3)
    with pytest.raises(CannotServe, match=r"it did not start within 0\.3 s"):
        await house.worker.start()


@pytest_twisted.ensureDeferred
async def test_questions_nobody_answers() -> None:
    """
    A question ends with its deadline, with the process, or at once where there is none.
    """
    house = House("serves")
    await house.worker.start()
    with pytest.raises(Silent, match=r"silence: no answer within 0\.1 s"):
        await house.worker.ask("silence", deadline_s=0.1)
    waiting = house.worker.ask("silence", deadline_s=20)
    await house.worker.end()
    with pytest.raises(Gone):
        await waiting
    with pytest.raises(Gone, match="does not run"):
        await house.worker.ask("metrics", deadline_s=1)


@pytest_twisted.ensureDeferred
async def test_what_was_told_grows_old() -> None:
    """
    Ready is who said so, and not too long ago.
    """
    house = House("unready", "serves")
    await house.worker.start()
    assert not house.worker.ready(5.0)
    house.worker.replace()
    await eventually(lambda: house.worker.state is State.SERVING and len(house.seen) == 2)
    assert house.worker.ready(5.0)
    await deferLater(HERE, 0.1)
    assert not house.worker.ready(0.05)
    house.worker.heard({"ready": True})
    assert house.worker.ready(0.05)
    await house.worker.end()
