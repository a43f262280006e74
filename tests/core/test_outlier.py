"""
Which targets are left out, and for how long.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.outlier import Record, room_to_eject


@pytest.mark.parametrize(
    ("out", "targets", "percent", "room"),
    [
        (0, 1, 100, False),
        (0, 2, 50, True),
        (1, 2, 50, False),
        (1, 2, 100, False),
        (0, 3, 10, True),
        (1, 3, 50, False),
        (2, 4, 50, False),
        (1, 4, 50, True),
        (9, 10, 100, False),
        (0, 10, 0, False),
    ],
)
def test_how_many_may_be_out(out: int, targets: int, percent: int, room: bool) -> None:
    """
    A share of the targets, one at least, and never the last; none at all where the share is nothing.
    """
    assert room_to_eject(out, targets, percent) is room


@given(st.integers(1, 50), st.integers(0, 100))
def test_somebody_is_always_left(targets: int, percent: int) -> None:
    """
    Whatever the share, ejecting ends before the last target.
    """
    out = 0
    while room_to_eject(out, targets, percent):
        out += 1
    assert out < targets
    assert out <= max(1, targets * percent / 100)


def test_only_failures_in_a_row_count() -> None:
    """
    One good answer begins the count anew.
    """
    record = Record()
    assert [record.failed(0.0, 3) for _ in range(2)] == [False, False]
    record.failures = 0
    assert [record.failed(0.0, 3) for _ in range(3)] == [False, False, True]


def test_what_fails_while_it_is_out_is_not_counted() -> None:
    """
    Requests sent before the ejection, or because all were out, do not eject it again at once.
    """
    record = Record()
    record.eject(0.0, 30, 300)
    assert [record.failed(10.0, 1) for _ in range(9)] == [False] * 9
    assert record.failures == 0
    assert record.failed(30.0, 1)


def test_ejections_grow_and_are_forgiven() -> None:
    """
    Each ejection lasts longer than the one before, up to the bound; time in use takes that back.
    """
    record = Record()
    now = 1000.0
    lasted = []
    for _ in range(6):
        record.eject(now, 30, 120)
        lasted.append(record.ejected_until - now)
        now = record.ejected_until + 1
    assert lasted == [30, 60, 90, 120, 120, 120]
    record.eject(record.ejected_until + 95, 30, 1000)
    assert record.ejections == 4
    record.eject(record.ejected_until + 10_000, 30, 1000)
    assert record.ejections == 1


def test_readmitted() -> None:
    """
    A target that is used again at once is clean, but how often it was ejected is remembered.
    """
    record = Record()
    record.eject(0.0, 30, 300)
    record.readmit(5.0)
    assert not record.failed(5.0, 2)
    record.eject(6.0, 30, 300)
    assert record.ejected_until == 66.0
