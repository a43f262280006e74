"""
No request without a valid token reaches a backend.
"""

from __future__ import annotations

from bench import cuts, openings
from bench.refusals import measure


def test_backend_sees_no_request_without_a_valid_token() -> None:
    """
    Over every route, method and fault of a token tried, a recording backend sees none; on the open route no identity.
    """
    counted = measure()
    assert counted.seen == 0, counted.seen_of[:5]
    assert counted.tried > 5000
    assert counted.open_seen > 0
    assert counted.open_identified == 0
    # Every refusal is an answer, and one that blames the caller.
    assert set(counted.answers) <= {"400", "401", "405", "431", "501"}


def test_backend_sees_nothing_of_clients_without_a_valid_token() -> None:
    """
    By every way that real-time clients come, and with every fault of a token, nothing of what they say reaches a backend.
    """
    opened = openings.measure(400)
    assert opened.seen == 0
    assert opened.tried == 400
    assert set(opened.outcomes) <= {"3500", "3501", "400", "401", "404", "431", "414", "not sent", "200 True"}, (
        opened.outcomes
    )


def test_cut_connections_miss_nothing() -> None:
    """
    Clients that are cut at random and come back with their position get everything, in order and once.
    """
    seen = cuts.measure(75)
    assert seen.cuts == 75
    assert (seen.wrong, seen.unrecovered) == (0, 0)
    assert seen.received > seen.published
