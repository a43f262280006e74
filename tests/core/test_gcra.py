"""
The arithmetic of rate limits.
"""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.gcra import spend


def test_a_burst_passes_and_the_next_one_waits_one_interval() -> None:
    """
    Five in a second: five at once, the sixth after a fifth of a second.
    """
    at = 0.0
    for _ in range(5):
        verdict = spend(at, 100.0, 5, 1.0)
        assert verdict.allowed
        at = verdict.at
    refused = spend(at, 100.0, 5, 1.0)
    assert not refused.allowed
    assert refused.at == at
    assert abs(refused.retry_after_s - 0.2) < 1e-6
    assert spend(at, 100.0 + refused.retry_after_s, 5, 1.0).allowed


@given(
    st.integers(1, 50),
    st.floats(0.1, 60),
    st.lists(st.floats(0, 5), max_size=200),
)
def test_never_more_than_the_rate_and_one_burst(number: int, per_s: float, gaps: list[float]) -> None:
    """
    In any span no more pass than its share of the rate and one burst.
    """
    at, now, passed = 0.0, 1000.0, 0
    for gap in gaps:
        now += gap
        verdict = spend(at, now, number, per_s)
        at = verdict.at
        passed += verdict.allowed
    span = now - 1000.0
    assert passed <= number + span * number / per_s + 1
