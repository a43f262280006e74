"""
Durations, sizes and rates as people write them.

A number without a unit is refused where a duration is meant, because seconds and milliseconds
have been mistaken for each other before; a size may be a plain number of bytes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Rate", "format_duration", "format_rate", "format_size", "parse_duration", "parse_rate", "parse_size"]

_DURATIONS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_quantity = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", re.ASCII).fullmatch
_rate = re.compile(r"([0-9]{1,12})\s*/\s*([0-9]{0,9})(ms|s|m|h|d)", re.ASCII).fullmatch


class Rate(NamedTuple):
    """
    So many in a span.

    Attributes:
        number: At least 1.
        per_s: The span in seconds.
    """

    number: int
    per_s: float


def parse_duration(text: str) -> float:
    """
    Read ``250ms``, ``2s``, ``5m``, ``1h``, ``7d`` or ``1.5h`` as seconds.

    Raises:
        ValueError: with what was expected.
    """
    found = _quantity(text)
    if found is None:
        raise ValueError('expected a duration such as "250ms", "2s", "5m", "1h" or "7d"')
    number, unit = found.groups()
    if not unit:
        raise ValueError(f'expected a duration with a unit ("{number}s" or "{number}ms"?)')
    if unit not in _DURATIONS:
        raise ValueError(f"{unit!r} is no unit of time; the units are ms, s, m, h and d")
    if unit == "ms":
        return float(number) / 1000  # Not times 0.001, which is not exact.
    return float(number) * _DURATIONS[unit]


def parse_size(text: str) -> int:
    """
    Read ``64KiB``, ``10MB``, ``1.5GiB`` or ``512`` as bytes.

    Raises:
        ValueError: with what was expected.
    """
    found = _quantity(text)
    if found is None:
        raise ValueError('expected a size, such as "64KiB", "1MiB", "10MB" or a number of bytes')
    number, unit = found.groups()
    if unit and unit not in _SIZES:
        meant = next((known for known in _SIZES if known.lower() == unit.lower()), f"{unit[0].upper()}iB")
        hint = f'; did you mean "{number}{meant}"?' if meant in _SIZES else ""
        raise ValueError(f"{unit!r} is no unit of size: KiB, MiB, GiB count by 1024, kB, MB, GB by 1000{hint}")
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) * _SIZES[unit or "B"], scale)
    if rest:
        raise ValueError("a size is a whole number of bytes")
    return size


def parse_rate(text: str) -> Rate:
    """
    Read ``30/s``, ``1000/h`` or ``5/10s``.

    Raises:
        ValueError: with what was expected.
    """
    found = _rate(text)
    if found is None:
        raise ValueError('expected a rate, such as "30/s", "1000/h" or "5/10s"')
    count, times, unit = found.groups()
    if int(count) < 1 or times.strip("0") == "" != times:
        raise ValueError("a rate is at least 1, in a span that is not 0")
    return Rate(int(count), parse_duration(f"{times or 1}{unit}"))


def format_duration(seconds: float) -> str:
    """
    Write *seconds* in the largest unit that gives a whole number, else in milliseconds.
    """
    for unit in ("d", "h", "m", "s"):
        number = seconds / _DURATIONS[unit]
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    return f"{seconds * 1000:.9g}ms" if seconds else "0s"


def format_size(size: int) -> str:
    """
    Write *size* in the largest unit that gives a whole number.
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return str(size)


def format_rate(rate: Rate) -> str:
    """
    Write *rate* as ``parse_rate`` reads it.
    """
    span = format_duration(rate.per_s)
    return f"{rate.number}/{span[1:] if span[0] == '1' and not span[1].isdigit() else span}"
