"""
A single instance killed with -9 while sessions begin and end: each is counted once.
"""

from __future__ import annotations

from bench.crashes import measure


def test_every_session_is_counted_once() -> None:
    """
    Three kills with -9, in some of them with the Event Service away: whoever was told to be connected began once and ended once.
    """
    seen = measure(3, seed=3)
    assert seen.trials == 3
    assert 0 < seen.away < 3
    assert seen.sessions > 10
    assert (seen.missing, seen.doubled, seen.disordered, seen.wrong) == (0, 0, 0, 0), seen.details
