"""
Lines about what happens often.
"""

from gateway.telemetry.seldom import EVERY_S, Seldom


def test_the_first_is_told_and_the_others_are_counted() -> None:
    """
    However often something happens, there is one line for it in ten seconds, which says for how many it stands.
    """
    now = 0.0
    told: list[tuple[str, int]] = []
    seldom = Seldom(lambda: now)
    for step in range(1000):
        now = step * EVERY_S / 400
        told.append(("time", seldom.times("on_disconnect", "time")))
        if step == 1:
            told.append(("room", seldom.times("on_disconnect", "room")))
    assert [each for each in told if each[1]] == [("time", 1), ("room", 1), ("time", 400), ("time", 400)]
