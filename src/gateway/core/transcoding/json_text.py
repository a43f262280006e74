"""
Bytes to JSON values, strictly (RFC 8259, and I-JSON where RFC 8259 leaves a choice).

Refused beside what is malformed: a member that stands twice in its object, lone surrogates, text
that is not UTF-8, numbers that no double holds, nesting deeper than ``DEEPEST``. What is accepted
is read by one fast parser and by nothing else; a second, slow one only finds words for what is wrong.

That no member stands twice is known by counting: an object that lost a member to its namesake has
fewer members than the text has colons outside strings.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from gateway.core.transcoding.rejection import Findings, Place, Unfit

__all__ = ["DEEPEST", "MOST_VALUES", "read_json"]

DEEPEST: Final = 100
"""Objects and arrays within each other."""

MOST_VALUES: Final = 50_000
"""Values in one text, if nothing else is said: they cost some microseconds each, whatever their length."""

_MOST_DIGITS: Final = 400  # More is outside every type, and slow to convert.

_decode = msgspec.json.Decoder().decode
_strings = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_lone_surrogate = re.compile("[\ud800-\udfff]").search


class _TooDeep(Exception):
    pass


def read_json(text: bytes, most: int = MOST_VALUES) -> Any:
    """
    Read one JSON value. Integers are ``int`` of any size, other numbers finite floats.

    Args:
        most: Values taken, counted by commas and brackets.

    Raises:
        Rejected: with the path of the first faults, as far as they have one.
    """
    if len(text) > most and _marks(text) > most and _marks(_strings.sub(b"", text)) > most:
        Findings().refuse(None, f"holds more than {most} values")
    try:
        value = _decode(text)
        members = _members(value, 0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _TooDeep):
        value, members = None, -1
    if members != text.count(b":") and members != _strings.sub(b"", text).count(b":"):
        _explain(text)
    return value


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _members(value: Any, depth: int) -> int:
    """Count the members of all objects in *value*."""
    kind = type(value)
    if kind is dict:
        count = len(value)
        within = value.values()
    elif kind is list:
        count = 0
        within = value
    else:
        return 0
    if depth >= DEEPEST:
        raise _TooDeep
    for item in within:
        if type(item) is dict or type(item) is list:
            count += _members(item, depth + 1)
    return count


class _Object(list[tuple[str, Any]]):
    """An object as it was written, so that namesakes are seen."""


def _explain(text: bytes) -> None:
    findings = Findings()
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_Object, parse_int=_integer, parse_constant=Unfit)
        _look(value, None, 0, findings)
    except UnicodeDecodeError as error:
        findings.refuse(None, f"is not UTF-8, at byte {error.start}")
    except json.JSONDecodeError as error:
        if not text.strip():
            findings.refuse(None, "is empty where JSON is expected")
        findings.refuse(None, f"is not JSON, at character {error.pos}")
    except RecursionError:
        findings.refuse(None, f"is nested deeper than {DEEPEST}")
    findings.close()
    findings.refuse(None, "is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


def _look(value: Any, place: Place | None, depth: int, findings: Findings) -> None:
    if isinstance(value, Unfit):
        findings.add(place, f"{value} is written as a string")
    elif isinstance(value, str):
        if _lone_surrogate(value):
            findings.add(place, "holds half of a surrogate pair")
    elif isinstance(value, float):
        if value - value != 0:
            findings.add(place, "is out of range")
    elif isinstance(value, list):
        if depth >= DEEPEST:
            findings.refuse(None, f"is nested deeper than {DEEPEST}")
        if not isinstance(value, _Object):
            for index, item in enumerate(value):
                _look(item, (place, index), depth + 1, findings)
            return
        names: set[str] = set()
        for name, item in value:
            here: Place = (place, name)
            if name in names:
                findings.add(here, "stands twice")
            names.add(name)
            if _lone_surrogate(name):
                findings.add(here, "holds half of a surrogate pair")
            _look(item, here, depth + 1, findings)
