"""
Active checks: when they are made, and what they change.
"""

from itertools import pairwise

import pytest
import pytest_twisted
from tests.upstream.conftest import Lies
from tests.upstream.gate import Gate, route, upstream
from tests.web.harness import eventually
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gateway.config.sections import Health
from gateway.upstream.cluster import Cluster
from gateway.upstream.health import HealthChecks


class Checked:
    """
    Two targets, checks of them on a clock in memory, and what the probe shall say.

    Attributes:
        well: Targets that are well.
        asked: Times at which a target was asked.
    """

    def __init__(self, chance: float = 0.5, **health: float) -> None:
        self.clock = Clock()
        self.well = {"A", "B"}
        self.asked: dict[str, list[float]] = {"A": [], "B": []}
        self.hang = False
        self.cancelled = 0
        section = upstream("a", "b", outlier__consecutive_failures=1)
        self.cluster = Cluster(section, [("a", "A"), ("b", "B")], lambda: chance)
        self.checks = HealthChecks(self.cluster, Health(**health), self.probe, self.clock, lambda: chance)  # type: ignore[arg-type]
        self.checks.start()

    async def probe(self, target: str) -> bool:
        self.asked[target].append(self.clock.seconds())
        if self.hang:
            waiting: Deferred[bool] = Deferred(lambda _: setattr(self, "cancelled", self.cancelled + 1))
            return await waiting
        if target == "B" and "!" in self.well:
            raise RuntimeError("the probe itself is broken")
        return target in self.well

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    @property
    def healthy(self) -> list[bool]:
        return [member.healthy for member in self.cluster.members]

    def intervals(self, target: str) -> list[float]:
        times = self.asked[target]
        return [round(later - sooner, 1) for sooner, later in pairwise(times)]


def test_a_target_is_used_until_checks_say_otherwise() -> None:
    """
    Before the first answer a target counts as usable, and one bad answer is not enough.
    """
    subject = Checked()
    subject.well = {"A"}
    assert subject.healthy == [True, True]
    subject.pass_time(0.6)
    assert len(subject.asked["B"]) == 1
    assert subject.healthy == [True, True]
    subject.pass_time(2)
    assert len(subject.asked["B"]) == 3
    assert subject.healthy == [True, False]


def test_it_comes_back_after_two_good_ones() -> None:
    """
    Twice well is enough to be used again, and checks are quick while the verdict is in doubt.
    """
    subject = Checked()
    subject.well = {"A"}
    subject.pass_time(3)
    subject.well = {"A", "B"}
    subject.pass_time(1)
    assert subject.healthy == [True, False]
    subject.pass_time(20)
    assert subject.healthy == [True, True]
    *quick, usual = subject.intervals("B")
    assert all(wait < 1.2 for wait in quick)
    assert usual > 9


@pytest.mark.parametrize(("chance", "interval"), [(0.0, 9.0), (0.5, 10.0), (0.999, 11.0)])
def test_intervals_have_jitter(chance: float, interval: float) -> None:
    """
    Checks of many instances do not fall together: each wait is a tenth shorter to a tenth longer.
    """
    subject = Checked(chance)
    subject.pass_time(40)
    assert subject.intervals("A")
    assert all(abs(wait - interval) < 0.15 for wait in subject.intervals("A"))


def test_one_bad_answer_among_good_ones() -> None:
    """
    It is asked again soon, and forgiven.
    """
    subject = Checked()
    subject.pass_time(5)
    subject.well = {"A"}
    subject.pass_time(6)
    subject.well = {"A", "B"}
    subject.pass_time(30)
    assert subject.healthy == [True, True]


def test_a_good_check_readmits_an_ejected_target() -> None:
    """
    Who failed requests but passes its checks is used again before its time.
    """
    subject = Checked()
    subject.pass_time(1)
    member = subject.cluster.members[0]
    subject.cluster.began(member)
    subject.cluster.ended(member, subject.clock.seconds(), ok=False)
    assert member.is_out(subject.clock.seconds())
    subject.pass_time(12)
    assert not member.is_out(subject.clock.seconds())


def test_a_bad_check_leaves_an_ejection_alone_and_counts() -> None:
    """
    A target that fails requests and checks is out by both.
    """
    subject = Checked()
    subject.pass_time(1)
    subject.well = {"B"}
    member = subject.cluster.members[0]
    subject.cluster.began(member)
    subject.cluster.ended(member, subject.clock.seconds(), ok=False)
    subject.pass_time(15)
    assert not member.healthy


def test_a_broken_probe_is_not_well() -> None:
    """
    A probe that raises says no, and the checks go on.
    """
    subject = Checked()
    subject.well = {"A", "B", "!"}
    subject.pass_time(5)
    assert subject.healthy == [True, False]
    subject.well = {"A", "B"}
    subject.pass_time(20)
    assert subject.healthy == [True, True]


def test_stopping() -> None:
    """
    Stopped checks ask nothing more, cancel what they were asking and leave no timer.
    """
    subject = Checked()
    subject.hang = True
    subject.pass_time(0.6)
    done = Deferred.fromCoroutine(subject.checks.stop())
    assert done.called
    assert subject.cancelled == 2
    assert subject.clock.getDelayedCalls() == []
    subject = Checked()
    assert Deferred.fromCoroutine(subject.checks.stop()).called
    assert subject.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_checks_of_real_targets(lying: Lies) -> None:
    """
    A target that does not answer well is asked by no client until it does again.
    """
    bad, good = lying(), lying()
    section = upstream(bad.target, good.target, health=Health("/lie/busy?status=204", 0.1, 0.3, 2, 1))
    async with Gate([section], [route()]) as subject:
        first, second = subject.cluster().members
        await eventually(lambda: bad.seen() and good.seen())
        assert first.healthy
        bad.refuse()
        try:
            await eventually(lambda: not first.healthy)
            assert second.healthy
            good.forget()
            for _ in range(10):
                assert (await subject.ask("/asked")).status == 200
            assert sum(asked["target"] == "/asked" for asked in good.seen()) == 10
        finally:
            bad.listen()
        await eventually(lambda: first.healthy)
        assert [event for event, _ in subject.events] == ["upstream.unhealthy", "upstream.healthy"]


@pytest.mark.parametrize("lie", ["stall", "busy", "cut_length", "two_lengths", "reset", "stall_body", "pour"])
@pytest_twisted.ensureDeferred
async def test_what_is_not_well(lie: str, lying: Lies) -> None:
    """
    Only a whole 2xx in time is well; what never ends is judged by its head.
    """
    backend = lying()
    section = upstream(backend.target, health=Health(f"/lie/{lie}", 0.05, 0.2, 1, 1))
    async with Gate([section], [route()]) as subject:
        [member] = subject.cluster().members
        await eventually(lambda: len(backend.seen()) >= 3)
        assert member.healthy is (lie == "pour")
