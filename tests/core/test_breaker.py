"""
When an upstream is given a rest, and when it is asked again.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.breaker import Breaker, BreakerState

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def breaker(**changes: Any) -> Breaker:
    settings: dict[str, Any] = {
        "failure_percent": 50,
        "min_requests": 4,
        "window_s": 10.0,
        "open_s": 10.0,
        "max_open_s": 60.0,
        "probes": 2,
        "random": lambda: 0.0,
    }
    return Breaker(**(settings | changes))


def run(subject: Breaker, outcomes: str, now: float = 100.0) -> None:
    """Let one request pass for each of *outcomes*: ``.`` succeeds, ``x`` fails, ``-`` is abandoned."""
    for outcome in outcomes:
        assert subject.admit(now) == 0
        if outcome == ".":
            subject.succeeded(now, subject.epoch)
        elif outcome == "x":
            subject.failed(now, subject.epoch)
        else:
            subject.abandoned(subject.epoch)


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("xxx", CLOSED),
        ("xxxx", OPEN),
        ("....", CLOSED),
        ("...x", CLOSED),
        ("..xx", OPEN),
        ("...xx", CLOSED),
        ("...xxx", OPEN),
        ("--xx--x", CLOSED),
        ("....................x", CLOSED),
    ],
)
def test_opens_on_a_share_of_enough_requests(outcomes: str, state: BreakerState) -> None:
    """
    Half of at least four requests must fail; what was abandoned counts for nothing.
    """
    subject = breaker()
    run(subject, outcomes)
    assert subject.state is state


def test_forgets_what_is_older_than_the_window() -> None:
    """
    Failures of long ago do not open it.
    """
    subject = breaker()
    run(subject, "xxx", now=100.0)
    run(subject, "x", now=111.0)
    assert subject.state is CLOSED
    run(subject, "xxx", now=111.5)
    assert subject.state is OPEN


def test_open_refuses_and_says_for_how_long() -> None:
    """
    Nothing passes until the time is over, and everybody is told when that is.
    """
    subject = breaker()
    run(subject, "xxxx", now=100.0)
    assert subject.admit(100.0) == 10
    assert subject.admit(109.0) == 1
    assert subject.state is OPEN
    assert subject.admit(110.0) == 0
    assert subject.state is HALF_OPEN


def test_half_open_lets_few_through() -> None:
    """
    Only the probes pass; when all of them succeeded it is closed, and its past forgotten.
    """
    subject = breaker()
    run(subject, "xxxx")
    assert [subject.admit(110.0) for _ in range(4)] == [0, 0, 1, 1]
    epoch = subject.epoch
    subject.succeeded(110.5, epoch)
    assert subject.state is HALF_OPEN
    assert subject.admit(110.5) == 1
    subject.succeeded(110.6, epoch)
    assert subject.state is CLOSED
    run(subject, "xxx", now=110.7)
    assert subject.state is CLOSED


def test_a_failed_probe_opens_for_twice_as_long() -> None:
    """
    The rest doubles with each failed probe, up to the bound, and begins small again after a recovery.
    """
    subject = breaker()
    run(subject, "xxxx", now=0.0)
    now = 0.0
    for lasts in (10, 20, 40, 60, 60):
        assert subject.admit(now) == lasts
        now += lasts
        assert subject.admit(now) == 0
        subject.failed(now, subject.epoch)
        assert subject.state is OPEN
    now += 60
    run(subject, "..", now)
    assert subject.state is CLOSED
    run(subject, "xxxx", now)
    assert subject.admit(now) == 10


def test_an_abandoned_probe_is_given_again() -> None:
    """
    A probe whose client left says nothing; another request takes its place.
    """
    subject = breaker(probes=1)
    run(subject, "xxxx")
    assert subject.admit(110.0) == 0
    assert subject.admit(110.0) == 1
    subject.abandoned(subject.epoch)
    assert subject.admit(110.0) == 0
    subject.succeeded(110.0, subject.epoch)
    assert subject.state is CLOSED


def test_stragglers_say_nothing() -> None:
    """
    Requests that passed before a change neither close, nor open, nor add probes after it.
    """
    subject = breaker(probes=1)
    old = subject.epoch
    run(subject, "xxxx")
    assert subject.admit(110.0) == 0
    subject.succeeded(110.1, old)
    assert subject.state is HALF_OPEN
    subject.abandoned(old)
    assert subject.admit(110.1) == 1
    subject.failed(110.1, old)
    assert subject.state is HALF_OPEN
    subject.succeeded(110.2, subject.epoch)
    subject.failed(110.3, old)
    assert subject.state is CLOSED


def test_jitter_only_shortens() -> None:
    """
    Breakers of many instances do not end their rest at the same moment.
    """
    subject = breaker(random=lambda: 1.0)
    run(subject, "xxxx", now=100.0)
    assert subject.admit(100.0) == pytest.approx(9)


class AnyHistory(RuleBasedStateMachine):
    """
    Requests that come and end in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 1000.0
        self.under_way: list[tuple[int, BreakerState]] = []

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        wait = self.breaker.admit(self.now)
        assert wait >= 0
        if wait == 0:
            self.under_way.append((self.breaker.epoch, self.breaker.state))

    @rule(which=st.integers(0, 50), outcome=st.sampled_from(["ok", "bad", "gone"]))
    def end(self, which: int, outcome: str) -> None:
        if not self.under_way:
            return
        epoch, _ = self.under_way.pop(which % len(self.under_way))
        if outcome == "ok":
            self.breaker.succeeded(self.now, epoch)
        elif outcome == "bad":
            self.breaker.failed(self.now, epoch)
        else:
            self.breaker.abandoned(epoch)

    @invariant()
    def probes_are_bounded(self) -> None:
        """No more probes are out than may be."""
        probes = [epoch for epoch, state in self.under_way if state is HALF_OPEN and epoch == self.breaker.epoch]
        assert len(probes) <= 2

    @invariant()
    def never_shut_for_good(self) -> None:
        """Whatever happened: after the longest rest, with every probe back, somebody passes."""
        if self.breaker.state is OPEN:
            assert self.breaker._open_until <= self.now + 60
        elif self.breaker.state is HALF_OPEN:
            out = sum(epoch == self.breaker.epoch for epoch, _ in self.under_way)
            assert self.breaker._probes_left + out == self.breaker._probes_missing


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
