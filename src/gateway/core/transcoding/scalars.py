"""
One JSON value, or one text of a path or query, to the Python value of a scalar field.

Both are strict. A number in text is a JSON number: no ``+5``, no ``007``, no ``1_000``, no blanks,
no digits of other scripts, all of which ``int()`` takes. ``1.0`` and ``1e3`` are integers, as
ProtoJSON has it; ``1.5`` is not. An integer that came through a double which cannot tell it from
its neighbours is refused rather than guessed.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from gateway.core.transcoding.fields import NULL_VALUE, enum_names, enum_of
from gateway.core.transcoding.rejection import Unfit, UnknownName, shorten

__all__ = ["FromText", "Read", "from_text", "map_key", "reader"]

Read = Callable[[Any], Any]
"""A JSON value to the field's; raises ``Unfit``."""

FromText = Callable[[str], Any]
"""Text of a path or query to the field's value; raises ``Unfit``."""

_LONGEST_NUMBER: Final = 400
_EXACT: Final = 2.0**53
_TOO_LARGE_SINGLE: Final = float.fromhex("0x1.ffffffp+127")  # From here on it would be rounded to infinity.
_WORDS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

_whole = re.compile(r"-?(?:0|[1-9][0-9]{0,19})").fullmatch
_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?").fullmatch
_key = re.compile(r"0|-?[1-9][0-9]{0,19}").fullmatch

_F = FieldDescriptor
_RANGES: Final = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32), (-(2**31), 2**31 - 1, "a 32-bit integer")),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), (-(2**63), 2**63 - 1, "a 64-bit integer")),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32), (0, 2**32 - 1, "an unsigned 32-bit integer")),
    **dict.fromkeys((_F.TYPE_UINT64, _F.TYPE_FIXED64), (0, 2**64 - 1, "an unsigned 64-bit integer")),
}


def reader(field: FieldDescriptor) -> Read:
    """
    Return what reads JSON values for the scalar *field*.
    """
    bounds = _RANGES.get(field.type)
    if bounds is not None:
        return _integer(*bounds)
    if field.type == _F.TYPE_ENUM:
        return _enum(enum_of(field))
    return {
        _F.TYPE_BOOL: _boolean,
        _F.TYPE_STRING: _string,
        _F.TYPE_BYTES: _bytes,
        _F.TYPE_DOUBLE: _double,
        _F.TYPE_FLOAT: _single,
    }[field.type]


def from_text(field: FieldDescriptor) -> FromText:
    """
    Return what reads a text of a path or query for the scalar *field*.
    """
    if field.type == _F.TYPE_BOOL:
        return _boolean_text
    if field.type == _F.TYPE_ENUM:
        return _enum_text(enum_of(field))
    return reader(field)


def map_key(field: FieldDescriptor) -> FromText:
    """
    Return what reads a member's name for the key *field* of a map: one spelling for each key.
    """
    if field.type == _F.TYPE_STRING:
        return _string
    if field.type == _F.TYPE_BOOL:
        return _boolean_text
    read = reader(field)

    def integer_key(text: str) -> Any:
        if not _key(text):
            raise Unfit("is no integer, as the keys of this map are")
        return read(text)

    return integer_key


def _integer(least: int, most: int, what: str) -> Read:
    expected = f"must be {what}"

    def read(value: Any) -> int:
        kind = type(value)
        if kind is int:
            number: int = value
        elif kind is str:
            number = _integer_text(value, expected)
        elif kind is float and value.is_integer() and abs(value) < _EXACT:
            number = int(value)
        elif kind is float and abs(value) >= _EXACT:
            raise Unfit("is not exact in this notation; write all digits, without point or exponent")
        else:
            raise Unfit(expected)
        if least <= number <= most:
            return number
        raise Unfit(f"is out of range, {expected}")

    return read


def _integer_text(text: str, expected: str) -> int:
    if _whole(text):
        return int(text)
    if len(text) > _LONGEST_NUMBER or not _number(text):
        raise Unfit(expected)
    number = Decimal(text)
    if number.adjusted() > 30:
        raise Unfit(f"is out of range, {expected}")
    if (number.adjusted() < -1 and number) or number != number.to_integral_value():
        raise Unfit(expected)
    return int(number)


def _double(value: Any) -> float:
    kind = type(value)
    if kind is float:
        number: float = value
    elif kind is int:
        try:
            return float(value)
        except OverflowError:
            raise Unfit("is out of range") from None
    elif kind is str:
        word = _WORDS.get(value)
        if word is not None:
            return word
        if len(value) > _LONGEST_NUMBER or not _number(value):
            raise Unfit('must be a number, or "NaN", "Infinity", "-Infinity"')
        number = float(value)
        if number - number != 0:
            raise Unfit("is out of range")
    else:
        raise Unfit("must be a number")
    return number


def _single(value: Any) -> float:
    number = _double(value)
    if abs(number) >= _TOO_LARGE_SINGLE and number - number == 0:
        raise Unfit("is out of range, must be a 32-bit float")
    return number


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Unfit("must be true or false")


def _boolean_text(text: str) -> bool:
    if text == "true":
        return True
    if text == "false":
        return False
    raise Unfit("must be true or false")


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    raise Unfit("must be a string")


def _bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise Unfit("must be a string of base64")
    if "-" in value or "_" in value:
        if "+" in value or "/" in value:
            raise Unfit("mixes the two alphabets of base64")
        value = value.replace("-", "+").replace("_", "/")
    if len(value) % 4 and not value.endswith("="):
        value += "=" * (-len(value) % 4)
    try:
        return a2b_base64(value.encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise Unfit("is not base64") from None


def _enum(enum: EnumDescriptor) -> Read:
    names = enum_names(enum)[1]
    number_of = _enum_number(enum)
    nullable = enum.full_name == NULL_VALUE

    def read(value: Any) -> int:
        kind = type(value)
        if kind is str:
            number = names.get(value)
            if number is not None:
                return number
            # A number in quotes is never taken for a name that is new, which may be dropped.
            raise (UnknownName if value.isidentifier() else Unfit)(f"{shorten(value)!r} is no value of this enum")
        if kind is int or kind is float:
            return number_of(value)
        if value is None and nullable:
            return 0
        raise Unfit("must be the name or number of an enum's value")

    return read


def _enum_text(enum: EnumDescriptor) -> FromText:
    names = enum_names(enum)[1]
    number_of = _enum_number(enum)

    def read(text: str) -> int:
        number = names.get(text)
        if number is not None:
            return number
        if _whole(text):
            return number_of(text)
        raise UnknownName(f"{shorten(text)!r} is no value of this enum")

    return read


def _enum_number(enum: EnumDescriptor) -> Callable[[Any], int]:
    integer = _integer(-(2**31), 2**31 - 1, "the name or number of an enum's value")
    closed = enum.is_closed
    numbers = frozenset(enum.values_by_number)

    def read(value: Any) -> int:
        number: int = integer(value)
        if closed and number not in numbers:
            raise Unfit(f"{number} is no value of this enum")
        return number

    return read
