"""
What a connection did last.
"""

from __future__ import annotations

import tracemalloc

from gateway.core.commands import Rpc
from gateway.core.flight import KEPT, Flight


def test_it_tells_when_what_and_about_what() -> None:
    """
    The oldest comes first, with the seconds since the connection came; a lane is told by its channel or method.
    """
    flight = Flight(10.0)
    flight.append((10.25, Rpc, "m:game.move"))
    flight.append((11.0, "error 103", ""))
    flight.append((12.5, "unsubscribed 2500", "table:7"))
    flight.append((13.0, Rpc, "."))
    flight.append((14.0, "x", "c:" + "y" * 300))
    assert flight.told() == [
        "0.250 rpc game.move",
        "1.000 error 103",
        "2.500 unsubscribed 2500 table:7",
        "3.000 rpc",
        f"4.000 x {'y' * 96}…",
    ]


def test_it_is_bounded() -> None:
    """
    However long a connection lasts, its last operations are there, in a few KiB.
    """
    flight = Flight(0.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000):
        flight.append((number + 0.5, Rpc, f"m:method.number.{number}"))
        assert len(flight.told()) == min(number + 1, KEPT)
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert flight.told()[-1] == "999.500 rpc method.number.999"
    assert took < 5 * 1024
