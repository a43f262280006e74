"""
How many retries there may be.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budget import RetryBudget


@pytest.mark.parametrize(
    ("percent", "minimum", "active", "allowed"),
    [(20, 3, 0, 3), (20, 3, 10, 3), (20, 3, 20, 4), (20, 0, 4, 0), (0, 0, 100, 0), (0, 1, 100, 1)],
)
def test_at_once(percent: int, minimum: int, active: int, allowed: int) -> None:
    """
    Under way at once are at most the share of active requests, or the minimum if that is more.
    """
    budget = RetryBudget(percent=percent, minimum=minimum)
    assert [budget.take(active) for _ in range(allowed + 1)] == [True] * allowed + [False]
    assert budget.retrying == allowed


def test_what_is_given_back_can_be_taken_again() -> None:
    """
    The end of a retry makes room for another.
    """
    budget = RetryBudget(percent=0, minimum=1)
    assert budget.take(1)
    assert not budget.take(1)
    budget.give_back()
    assert budget.take(1)


@given(st.lists(st.sampled_from("fs"), max_size=500))
def test_over_time_a_tenth(history: list[str]) -> None:
    """
    However failures and successes follow each other, retries are at most five and one for each ten successes.
    """
    budget = RetryBudget(percent=100, minimum=10)
    retries = successes = 0
    for event in history:
        if event == "s":
            successes += 1
            budget.earn()
        elif budget.take(10):
            retries += 1
            budget.give_back()
        assert retries <= 5 + successes / 10
        assert 0 <= budget.tokens <= 100


def test_a_dead_backend_ends_the_retries() -> None:
    """
    When everything fails the retries stop, and come back after it has worked again for a while.
    """
    budget = RetryBudget(percent=100, minimum=10)

    def fails() -> bool:
        taken = budget.take(10)
        if taken:
            budget.give_back()
        return taken

    assert [fails() for _ in range(20)].count(True) == 5
    for _ in range(60):
        budget.earn()
    assert fails()
