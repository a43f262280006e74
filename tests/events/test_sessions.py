"""
What a real Event Service is told of real sessions on two instances, a small version of the figures in ``bench/RESULTS.md``.
"""

from bench.sessions import play
from bench.sessions_killed import kills


def test_sessions_are_told_once() -> None:
    """
    Though the Event Service is away in the middle, each session has one beginning and one end, in order, with its
    duration, its kind, its resumptions and its frames; what waited is told soon after the service is back.
    """
    seen = play(16, over_s=3.0, away_s=2.0, window_s=2.0)
    assert (seen.missing, seen.strange, seen.disordered, seen.wrong_frames) == (0, 0, 0, 0)
    assert seen.resumes[0] == seen.resumes[1] > 0
    assert seen.told["SESSION_STARTED"] == seen.told["SESSION_ENDED"] == seen.sessions == 18
    assert seen.worst_s <= 1.0


def test_killed_instances() -> None:
    """
    One instance of two is killed, then all and one started again: what began is ended once, as of when it was known alive.
    """
    seen = kills(2, people=12)
    assert (seen.unended, seen.twice, seen.unbegun, seen.disordered) == (0, 0, 0, 0)
    assert seen.lost > 0
    assert seen.early_s <= 1.0
