"""
Three instances restarted one after another, behind haproxy and under load.
"""

from __future__ import annotations

from bench.rolling import measure


def test_a_rolling_restart_is_noticed_by_nobody() -> None:
    """
    R37: no request fails, no client misses a publication or gets one twice, each goes on with its session, nobody sees
    another leave, and every absence is short. The instances end with 0.
    """
    seen = measure(clients=45, instances=3, window="2s")
    assert seen.failed == []
    assert seen.requests > 100
    assert seen.published > 50
    assert (seen.wrong, seen.unrecovered, seen.odd) == (0, 0, [])
    assert seen.sessions == 45
    assert set(seen.codes) == {3001}
    assert seen.codes[3001] >= 45
    assert max(seen.away) < 5
    assert seen.exits == [0, 0, 0]
    assert max(seen.took) < 20
