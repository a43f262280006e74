"""
Queries as they may be shown.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.redacted import shown_query


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"", ""),
        (b"page=2&sort=name", "page=2&sort=name"),
        (b"access_token=abc&page=2", "access_token=REDACTED&page=2"),
        (b"AccessToken=abc", "AccessToken=REDACTED"),
        (b"q=eyJhbGciOi", "q=REDACTED"),
        (b"t=abc", "t=REDACTED"),
        (
            b"X-Amz-Signature=1&X-Goog-Signature=2&sig=3",
            "X-Amz-Signature=REDACTED&X-Goog-Signature=REDACTED&sig=REDACTED",
        ),
        (b'cf_connect={"connect":{}}', "cf_connect=REDACTED"),
        (b"a=" + b"x" * 65, "a=REDACTED"),
        (b"a=" + b"x" * 64, "a=" + "x" * 64),
        (b"x" * 65, "REDACTED"),
        (b"=x&&a", "=x&&a"),
        (b"bearer-token", "REDACTED"),
        (b"n" * 100 + b"=1", "n" * 64 + "=1"),
        (b"&".join(b"a=%d" % number for number in range(40)), "&".join(f"a={n}" for n in range(32)) + "&…"),
    ],
)
def test_values_that_may_be_secret_are_not_shown(query: bytes, shown: str) -> None:
    """
    Names are shown, and values that are short and look like nothing secret.
    """
    assert shown_query(query, {"t"}) == shown


@given(st.binary(max_size=300))
def test_what_is_shown_is_bounded(query: bytes) -> None:
    """
    Any bytes give text of a bounded length.
    """
    assert len(shown_query(query * 40)) <= 33 * 140
