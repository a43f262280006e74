"""
Redis and an instance killed while numbered publications go through three instances: nothing is lost silently.
"""

from __future__ import annotations

import pytest

from bench.chaos import Plan, measure


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_nothing_is_lost_silently(fsync: str) -> None:
    """
    With `appendfsync always` everybody gets every acknowledged publication once and in order; else whoever did not is told.
    """
    plan = Plan(1000, redis_kills=1, pubsub_cuts=3, instance_kills=1, fsync=fsync, channels=4, followers=6)
    seen = measure(plan)
    assert seen.acknowledged == 1000
    assert (seen.kills, seen.instances_killed) == (1, 1)
    assert seen.cuts > 0
    assert (seen.faults, seen.reused, seen.silent) == (0, 0, 0), seen.details
    if fsync == "always":
        assert (seen.lost, seen.unrecovered) == (0, 0)
