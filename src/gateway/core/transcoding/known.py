"""
The well-known types from JSON and from text: Timestamp, Duration, FieldMask, Struct and its kin.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from gateway.core.transcoding.rejection import Findings, Key, Place, Unfit

__all__ = ["FROM_TEXT", "KNOWN", "Fill"]

Fill = Callable[[Any, Any, "Place | None", Findings], None]
"""Fill a message (second) from a JSON value (first) that stands at a place; faults go to the findings."""

_EPOCH: Final = datetime(1970, 1, 1)
_FIRST_S: Final = -62135596800
_LAST_S: Final = 253402300799
_LONGEST_S: Final = 315576000000

_timestamp = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-5][0-9]))"
).fullmatch
_duration = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s").fullmatch
_json_path = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][A-Za-z0-9]*)*").fullmatch
_any_path = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_capital = re.compile(r"[A-Z]")


def read_timestamp(value: Any, message: Any) -> None:
    """
    Fill a Timestamp (RFC 3339; upper-case T and Z, at most nine digits, years 1 to 9999 in UTC).

    Raises:
        Unfit: it is none.
    """
    if type(value) is not str:
        raise Unfit("must be a string with a time, like 2026-01-31T12:00:00Z")
    found = _timestamp(value)
    if found is None:
        raise Unfit("is no time of RFC 3339, like 2026-01-31T12:00:00Z")
    moment, fraction, sign, hours, minutes = found.groups()
    try:
        past = datetime.fromisoformat(moment) - _EPOCH
    except ValueError:
        raise Unfit("is no time that exists") from None
    seconds = past.days * 86400 + past.seconds
    if sign is not None:
        if int(hours) > 23:
            raise Unfit("has an offset of more than a day")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += offset if sign == "-" else -offset
    if not _FIRST_S <= seconds <= _LAST_S:
        raise Unfit("is out of range, years 1 to 9999")
    message.seconds = seconds
    message.nanos = int(fraction.ljust(9, "0")) if fraction else 0


def read_duration(value: Any, message: Any) -> None:
    """
    Fill a Duration: ``3s``, ``-1.5s``, at most nine digits after the point, some 10,000 years.

    Raises:
        Unfit: it is none.
    """
    found = _duration(value) if type(value) is str else None
    if found is None:
        raise Unfit("must be a string with seconds, like 1.5s")
    sign, whole, fraction = found.groups()
    seconds = int(whole)
    nanos = int(fraction.ljust(9, "0")) if fraction else 0
    if seconds > _LONGEST_S or (seconds == _LONGEST_S and nanos):
        raise Unfit("is out of range")
    message.seconds = -seconds if sign else seconds
    message.nanos = -nanos if sign else nanos


def read_field_mask(value: Any, message: Any) -> None:
    """
    Fill a FieldMask from JSON: paths in lowerCamelCase with commas between; the empty string is no path.

    Raises:
        Unfit: it is none.
    """
    if type(value) is not str:
        raise Unfit("must be a string with field paths, commas between")
    for path in value.split(",") if value else ():
        if not _json_path(path):
            raise Unfit("holds what is no field path in lowerCamelCase")
        message.paths.append(_capital.sub(_to_snake, path))


def read_field_mask_text(value: str, message: Any) -> None:
    """
    Fill a FieldMask from a parameter, where proto names are as common as JSON names: ``title,pageCount,page_no``.

    Raises:
        Unfit: it is none.
    """
    for path in value.split(",") if value else ():
        if not _any_path(path):
            raise Unfit("holds what is no field path")
        message.paths.append(path if "_" in path else _capital.sub(_to_snake, path))


def _to_snake(found: re.Match[str]) -> str:
    return "_" + found[0].lower()


def _filling(read: Callable[[Any, Any], None]) -> Fill:
    def fill(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
        try:
            read(value, message)
        except Unfit as unfit:
            findings.add(place, str(unfit))

    return fill


def fill_any_value(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
    """Fill a Value from any JSON value."""
    kind = type(value)
    if kind is str:
        message.string_value = value
    elif value is None:
        message.null_value = 0
    elif kind is bool:
        message.bool_value = value
    elif kind is int or kind is float:
        try:
            message.number_value = value
        except OverflowError:
            findings.add(place, "is out of range")
    else:
        findings.enter(place, 1)
        if kind is dict:
            message.struct_value.SetInParent()
            fill_struct(value, message.struct_value, place, findings)
        elif kind is list:
            message.list_value.SetInParent()
            fill_list(value, message.list_value, place, findings)
        else:
            findings.add(place, "has no form in JSON")
        findings.depth -= 1


def fill_struct(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
    """Fill a Struct from an object."""
    if type(value) is not dict:
        findings.add(place, "must be an object")
        return
    fields = message.fields
    findings.enter(place, 2)  # On the wire a member is an entry that holds a Value.
    for name, item in value.items():
        fill_any_value(item, fields[name], (place, Key(name)), findings)
    findings.depth -= 2


def fill_list(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
    """Fill a ListValue from an array."""
    if type(value) is not list:
        findings.add(place, "must be an array")
        return
    add = message.values.add
    findings.enter(place, 1)
    for index, item in enumerate(value):
        fill_any_value(item, add(), (place, index), findings)
    findings.depth -= 1


KNOWN: Final[dict[str, Fill]] = {
    "google.protobuf.Timestamp": _filling(read_timestamp),
    "google.protobuf.Duration": _filling(read_duration),
    "google.protobuf.FieldMask": _filling(read_field_mask),
    "google.protobuf.Struct": fill_struct,
    "google.protobuf.Value": fill_any_value,
    "google.protobuf.ListValue": fill_list,
}
"""By full name; wrappers and Any need their descriptors, see ``decode``."""

FROM_TEXT: Final[dict[str, Callable[[str, Any], None]]] = {
    "google.protobuf.Timestamp": read_timestamp,
    "google.protobuf.Duration": read_duration,
    "google.protobuf.FieldMask": read_field_mask_text,
}
"""Text of a path or query into a message that is one text in JSON, too."""
