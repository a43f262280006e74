"""
Single values to their JSON form, as ``json_format`` writes them.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Callable
from datetime import datetime, timedelta
from math import copysign, isnan
from typing import Any, Final

__all__ = ["VALUES"]

_EPOCH: Final = datetime(1970, 1, 1)
_DAY_S: Final = 86400
_FIRST_S: Final = -62135596800
_LAST_S: Final = 253402300799
_EXACT: Final = 2**53

_single = struct.Struct("<f")


def base64(value: bytes) -> str:
    """Encode bytes, in the standard alphabet with padding."""
    return b2a_base64(value, newline=False).decode("ascii")


def negative(value: float) -> bool:
    """Tell -0.0 from 0.0."""
    return copysign(1.0, value) < 0


def double(value: float) -> float | str:
    """Write what JSON has no number for as a string."""
    if value - value == 0:
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def single(value: float) -> float | str:
    """Find the shortest decimal that is this 32-bit float: 0.1, not 0.10000000149011612."""
    if value - value != 0:
        return double(value)
    if -16777216 <= value <= 16777216 and value.is_integer():
        return value
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if _single.unpack(_single.pack(short))[0] == value:
            return short
    return float(f"{value:.9g}")


def safe(value: int) -> int | str:
    """Write an integer as a number where a double holds it."""
    return value if -_EXACT <= value <= _EXACT or float(value) == value else str(value)


def timestamp(message: Any) -> str:
    """Write a Timestamp: UTC, with 0, 3, 6 or 9 digits after the point."""
    seconds, nanos = message.seconds, message.nanos
    if not (_FIRST_S <= seconds <= _LAST_S and 0 <= nanos < 1_000_000_000):
        raise ValueError("a Timestamp is out of range")
    days, second = divmod(seconds, _DAY_S)
    text = (_EPOCH + timedelta(days, second)).isoformat()
    if not nanos:
        return text + "Z"
    if nanos % 1_000_000 == 0:
        return f"{text}.{nanos // 1_000_000:03}Z"
    if nanos % 1000 == 0:
        return f"{text}.{nanos // 1000:06}Z"
    return f"{text}.{nanos:09}Z"


def _text(message: Any) -> str:
    """Write a Duration or FieldMask as the library does."""
    return str(message.ToJsonString())


def any_value(message: Any) -> Any:
    """Write a Value: one that is not set is null, as it is for the library."""
    kind = message.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    value = getattr(message, kind)
    if kind == "struct_value":
        return struct_value(value)
    if kind == "list_value":
        return list_value(value)
    if kind == "number_value" and value - value != 0:
        raise ValueError("a Value holds a number that JSON does not have")
    return value


def struct_value(message: Any) -> dict[str, Any]:
    """Write a Struct."""
    return {name: any_value(value) for name, value in message.fields.items()}


def list_value(message: Any) -> list[Any]:
    """Write a ListValue."""
    return [any_value(value) for value in message.values]


VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "base64": base64,
    "double": double,
    "duration_": _text,
    "fieldmask_": _text,
    "listvalue_": list_value,
    "negative": negative,
    "safe": safe,
    "single": single,
    "struct_": struct_value,
    "timestamp_": timestamp,
    "value_": any_value,
}
"""What generated encoders call; the well-known types by their lower-case name."""
