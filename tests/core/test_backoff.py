"""
How long an attempt waits.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.backoff import backoff, retry_after_s

CHANCE = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "most"), [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.25), (6, 0.25), (10_000, 0.25)]
)
def test_the_bound_doubles_up_to_its_cap(attempt: int, most: float) -> None:
    """
    The wait is drawn between nothing and the base doubled per attempt, at most the cap.
    """
    assert backoff(attempt, 0.025, 0.25, lambda: 0.0) == 0
    assert backoff(attempt, 0.025, 0.25, lambda: 1.0) == pytest.approx(most)


@given(st.integers(1, 100), st.floats(0, 10), st.floats(0, 60), CHANCE, st.floats(0, 120))
def test_never_beyond_the_cap_nor_before_what_was_asked(
    attempt: int, base: float, most: float, chance: float, asked: float
) -> None:
    """
    However often it failed, the wait keeps its cap; only the backend's own word makes it longer.
    """
    assert 0 <= backoff(attempt, base, most, lambda: chance) <= most
    waited = backoff(attempt, base, most, lambda: chance, at_least_s=asked)
    assert asked <= waited <= max(asked, most)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        (b"0", 0.0),
        (b"1", 1.0),
        (b"120", 120.0),
        (b"-1", None),
        (b"+1", None),
        (b"1.5", None),
        (b"1 ", None),
        (b"", None),
        (b"\xb2", None),
        (b"9" * 5000, None),
        (b"Fri, 31 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_retry_after(value: bytes | None, seconds: float | None) -> None:
    """
    A whole number of seconds is understood; dates and nonsense are not, which is told apart from nothing said.
    """
    assert retry_after_s(value) == seconds
