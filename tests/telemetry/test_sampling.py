"""
Which traces are recorded.
"""

from __future__ import annotations

import math
import random

import pytest
from twisted.internet.task import Clock

from gateway.core.trace import below_of, new
from gateway.telemetry.sampling import MOST_CHOSEN, Sampling


@pytest.mark.parametrize("ratio", [0.0, 1e-30, 0.01, 0.5, 0.99, 1 - 1e-16, 1.0])
def test_a_share_of_all_traces_is_recorded(ratio: float) -> None:
    """
    As many traces as the share says are sampled, the same ones that OpenTelemetry's own rule takes.
    """
    bits = random.Random(3).getrandbits
    below = below_of(ratio)
    made = [new(bits, below=below) for _ in range(20_000)]
    assert sum(trace.sampled for trace in made) == pytest.approx(20_000 * ratio, abs=400)
    bound = round(ratio * 2**64)
    assert all(trace.sampled == (int(trace.trace_id[16:], 16) < bound) for trace in made)


def test_a_chosen_user_is_recorded_for_a_while() -> None:
    """
    Who is chosen is for as long as was said, and no longer.
    """
    clock = Clock()
    sampling = Sampling(clock.seconds)
    sampling.configure(0.0)
    assert not sampling.users
    assert sampling.choose("alice", 60)
    assert sampling.wants("alice")
    assert not sampling.wants("bob")
    assert sampling.chosen() == {"alice": 60.0}
    clock.advance(60)
    assert not sampling.wants("alice")
    assert not sampling.users
    sampling.choose("bob", 60)
    assert sampling.let_go("bob")
    assert not sampling.let_go("bob")
    assert not sampling.wants("bob")


def test_users_of_the_configuration_are_always_recorded() -> None:
    """
    A reload takes other users of the configuration; those who were chosen meanwhile stay chosen.
    """
    clock = Clock()
    sampling = Sampling(clock.seconds)
    sampling.configure(0.5, ["alice", "bob"])
    sampling.choose("alice", 1)
    sampling.choose("carol", 100)
    assert not sampling.let_go("alice")
    clock.advance(10)
    assert sampling.wants("alice")
    sampling.configure(0.25, ["bob"])
    assert sampling.chosen() == {"bob": math.inf, "carol": 90.0}
    assert sampling.ratio == 0.25


def test_the_chosen_are_bounded() -> None:
    """
    Beyond the bound nobody more is chosen, until somebody's time is over.
    """
    clock = Clock()
    sampling = Sampling(clock.seconds)
    assert all(sampling.choose(f"u{number}", 1) for number in range(MOST_CHOSEN))
    assert not sampling.choose("one more", 1)
    assert sampling.choose("u5", 2)
    clock.advance(1)
    assert sampling.choose("one more", 1)
    assert set(sampling.chosen()) == {"u5", "one more"}
