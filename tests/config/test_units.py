"""
Durations, sizes and rates: what is written can be read, and what cannot be read says why.
"""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.units import (
    Rate,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("2s", 2), ("5m", 300), ("1h", 3600), ("7d", 604800), ("1.5h", 5400), ("0s", 0), ("10 s", 10)],
)
def test_durations(text: str, seconds: float) -> None:
    """
    A duration is a number and one unit.
    """
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("1MiB", 1048576),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("512", 512),
        ("0.5KiB", 512),
        ("7 B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """
    KiB counts by 1024, KB by 1000, nothing is bytes.
    """
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"), [("30/s", (30, 1)), ("100 / m", (100, 60)), ("5/10s", (5, 10)), ("1/500ms", (1, 0.5))]
)
def test_rates(text: str, rate: tuple[int, float]) -> None:
    """
    A rate is a number in a span.
    """
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2", 'with a unit ("2s" or "2ms"?)'),
        ("2sec", "'sec' is no unit of time"),
        ("2S", "'S' is no unit of time"),
        ("-2s", "expected a duration"),
        ("1h30m", "expected a duration"),
        ("s", "expected a duration"),
        ("", "expected a duration"),
        ("٣s", "expected a duration"),
        ("1e3s", "expected a duration"),
        ("inf", "expected a duration"),
    ],
)
def test_what_is_no_duration(text: str, says: str) -> None:
    """
    Signs, compounds, exponents, foreign digits and bare numbers are refused.
    """
    with pytest.raises(ValueError) as wrong:
        parse_duration(text)
    assert says in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("64K", 'did you mean "64KiB"?'),
        ("1mb", 'did you mean "1MB"?'),
        ("1mib", 'did you mean "1MiB"?'),
        ("1x", "'x' is no unit of size"),
        ("0.3B", "whole number of bytes"),
        ("-1", "expected a size"),
        ("", "expected a size"),
    ],
)
def test_what_is_no_size(text: str, says: str) -> None:
    """
    Ambiguous and unknown units are refused with what was probably meant.
    """
    with pytest.raises(ValueError) as wrong:
        parse_size(text)
    assert says in str(wrong.value)


@pytest.mark.parametrize("text", ["30", "0/s", "30/", "30/0s", "30/00s", "/s", "-1/s", "1.5/s", "30/sec"])
def test_what_is_no_rate(text: str) -> None:
    """
    A rate has a number of at least 1 and a span that is not 0.
    """
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


@given(st.integers(0, 10**9))
def test_a_written_duration_is_read_as_itself(milliseconds: int) -> None:
    """
    Writing and reading gives the same number of seconds, to the millisecond.
    """
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.integers(0, 10**15 - 1))
def test_a_written_size_is_read_as_itself(size: int) -> None:
    """
    Writing and reading gives the same number of bytes.
    """
    assert parse_size(format_size(size)) == size


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_a_written_rate_is_read_as_itself(number: int, seconds: int) -> None:
    """
    Writing and reading gives the same rate.
    """
    rate = Rate(number, float(seconds))
    assert parse_rate(format_rate(rate)) == rate


@given(st.text(max_size=12))
def test_nothing_but_a_value_error_comes_of_any_text(text: str) -> None:
    """
    Whatever is written, reading gives a number that is not negative, or says why not.
    """
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0
