"""
Which target a request goes to.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balance import candidates, least_requests, round_robin


@dataclass(eq=False)
class Target:
    in_flight: int = 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_busiest_of_many_is_never_chosen(loads: list[int], random: Random) -> None:
    """
    A target with more requests under way than every other is chosen only where there is no other.
    """
    targets = [Target(load) for load in loads]
    chosen = least_requests(targets, random.random)
    others = [target.in_flight for target in targets if target is not chosen]
    assert not others or chosen.in_flight <= max(others)


def test_chance_spreads_evenly() -> None:
    """
    Among equals everyone gets a fair share, and the order in the configuration does not matter.
    """
    targets = [Target() for _ in range(4)]
    random = Random(7)
    counts = Counter(id(least_requests(targets, random.random)) for _ in range(4000))
    assert len(counts) == 4
    assert all(800 < count < 1200 for count in counts.values())


def test_load_evens_out() -> None:
    """
    Requests that stay are spread so that no target has many more than another.
    """
    targets = [Target() for _ in range(5)]
    random = Random(7)
    for _ in range(1000):
        least_requests(targets, random.random).in_flight += 1
    loads = [target.in_flight for target in targets]
    assert max(loads) - min(loads) <= 5


def test_turns_are_taken() -> None:
    """
    Round robin gives each target its turn.
    """
    targets = ["a", "b", "c"]
    assert [round_robin(targets, turn) for turn in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_candidates(out: set[int], tried: set[int]) -> None:
    """
    There is always somebody to ask; one that is out only when all are, one tried only when nobody else is left.
    """
    everyone = [0, 1, 2, 3, 4, 5]
    chosen = candidates(everyone, out.__contains__, tried)
    assert chosen
    used = set(everyone) - out or set(everyone)
    assert set(chosen) == (used - tried or used)


def test_no_target_at_all() -> None:
    """
    Of nothing there is nothing to choose.
    """
    assert list(candidates([], lambda _: False)) == []
