"""
Header fields of limits.
"""

from math import inf

import pytest

from gateway.core.gcra import spend
from gateway.core.rate_headers import limit_item, policy_item, retry_after, wait_s


@pytest.mark.parametrize(
    ("number", "per_s", "written"),
    [
        (100, 1.0, b'"p";q=100;w=1'),
        (5, 10.0, b'"p";q=5;w=10'),
        (1000, 3600.0, b'"p";q=1000;w=3600'),
        (1, 0.1, b'"p";q=10;w=1'),
        (1, 1.5, b'"p";q=1;w=2'),
    ],
)
def test_policies(number: int, per_s: float, written: bytes) -> None:
    """
    A policy is told in whole seconds, never as more than it is by much.
    """
    assert policy_item("p", number, per_s) == written


def test_limits() -> None:
    """
    What is left, and whole seconds rounded up, at least one.
    """
    assert limit_item("a b", 0, 1.2) == b'"a b";r=0;t=2'
    assert limit_item("p", 7, 0.0) == b'"p";r=7;t=1'
    assert retry_after([0.1, 59.2, 3]) == 60
    assert retry_after([inf]) == retry_after([1e12]) == 7 * 86400
    assert retry_after([]) == 1


def test_waiting() -> None:
    """
    A budget that can be spent now makes nobody wait, one that is used up as long as the rate says.
    """
    at, now = 0.0, 100.0
    for _ in range(5):
        assert wait_s(max(0.0, at - now), 1, 2.0, 5) == 0
        at = spend(at, now, 1, 2.0, 5).at
    assert wait_s(at - now, 1, 2.0, 5) == pytest.approx(2.0)
    assert wait_s(at - now - 0.5, 1, 2.0, 5) == pytest.approx(1.5)
