"""
No request without a valid token reaches a backend.
"""

from __future__ import annotations

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
