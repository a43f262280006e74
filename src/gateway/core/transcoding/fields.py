"""
Asking descriptors: kinds of fields, the spellings of their names, paths through messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default

try:  # Registers the option that renames an enum's values in JSON; older releases do not have it.
    from google.protobuf import json_enumvalue_options_pb2  # type: ignore[attr-defined]  # noqa: F401  # Not in the stubs.
except ImportError:  # pragma: no cover
    pass

__all__ = [
    "FIELD_MASK",
    "HTTP_BODY",
    "INT64_TYPES",
    "LEAVES",
    "NULL_VALUE",
    "WELL_KNOWN",
    "WRAPPERS",
    "BadPath",
    "choice_of",
    "entry_of",
    "enum_names",
    "enum_of",
    "field_at",
    "is_leaf",
    "is_map",
    "message_of",
    "spellings",
]

_PREFIX: Final = "google.protobuf."
WRAPPERS: Final = frozenset(
    _PREFIX + name + "Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
FIELD_MASK: Final = _PREFIX + "FieldMask"
NULL_VALUE: Final = _PREFIX + "NullValue"
HTTP_BODY: Final = "google.api.HttpBody"
LEAVES: Final = WRAPPERS | {_PREFIX + "Timestamp", _PREFIX + "Duration", FIELD_MASK}
"""Messages that are written as one text, so that a path or a parameter can hold them."""

WELL_KNOWN: Final = LEAVES | {_PREFIX + name for name in ("Any", "Struct", "Value", "ListValue")}
"""Messages with a JSON form of their own."""

INT64_TYPES: Final = frozenset(
    (
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    )
)


class BadPath(ValueError):
    """A field path leads nowhere; the text says at which step and why."""


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether *field* is a map."""
    message = field.message_type
    return field.is_repeated and message is not None and bool(message.GetOptions().map_entry)


def is_leaf(field: FieldDescriptor) -> bool:
    """Tell whether one value of *field* can be written as plain text."""
    return field.message_type is None or field.message_type.full_name in LEAVES


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the message type of a *field* that has one."""
    assert field.message_type is not None
    return field.message_type


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """Return the enum of a *field* that has one."""
    assert field.enum_type is not None
    return field.enum_type


def entry_of(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Return the key and the value of the map *field*."""
    members = message_of(field).fields_by_name
    return members["key"], members["value"]


def choice_of(field: FieldDescriptor) -> str | None:
    """
    Name the oneof in which *field* has rivals. ``optional`` makes a oneof of one member, which is none.
    """
    oneof = field.containing_oneof
    return str(oneof.name) if oneof is not None and len(oneof.fields) > 1 else None


def spellings(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """
    Map every name by which JSON may call a field of *descriptor* to it: JSON names win over proto names.
    """
    found = {field.name: field for field in descriptor.fields}
    found.update({field.json_name: field for field in descriptor.fields})
    return found


def enum_names(enum: EnumDescriptor) -> tuple[dict[int, str], dict[str, int]]:
    """
    List the names of *enum* in JSON, for writing and for reading.

    Of several names for a number the first is written. A value may be renamed for JSON
    (``pb.enumvalue.json``); both names are read then.
    """
    # Asked number by number: items() of some implementations gives the last of several names.
    written = {int(value.number): str(enum.values_by_number[value.number].name) for value in enum.values}
    read = {str(value.name): int(value.number) for value in enum.values}
    try:
        option: Any = Default().FindExtensionByName("pb.enumvalue.json")
    except KeyError:
        return written, read
    for value in enum.values:
        options = value.GetOptions()
        if options.HasExtension(option):
            name: str = options.Extensions[option].string
            if written[value.number] == value.name:
                written[value.number] = name
            read.setdefault(name, value.number)
    return written, read


def field_at(descriptor: Descriptor, path: str) -> tuple[tuple[FieldDescriptor, ...], FieldDescriptor]:
    """
    Follow *path*, proto names with dots between.

    Returns:
        The messages on the way, and the field.

    Raises:
        BadPath: a step is unknown, or one before the last is not a single plain message.
    """
    parents: list[FieldDescriptor] = []
    here = descriptor
    *outer, last = path.split(".")
    for name in outer:
        field = _member(here, name)
        if is_map(field):
            raise BadPath(f"{name} is a map, which a path cannot cross")
        if field.is_repeated:
            raise BadPath(f"{name} is repeated, which a path cannot cross")
        if field.message_type is None:
            raise BadPath(f"{name} is no message, so it has no field {last!r}")
        if field.message_type.full_name in WELL_KNOWN:
            raise BadPath(f"{name} is a {field.message_type.full_name}, which is filled as a whole")
        parents.append(field)
        here = field.message_type
    return tuple(parents), _member(here, last)


def _member(descriptor: Descriptor, name: str) -> FieldDescriptor:
    field: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    if field is not None:
        return field
    for other in descriptor.fields:
        if other.json_name == name:
            raise BadPath(f"{descriptor.full_name} has no field {name!r}; did you mean {other.name!r}?")
    raise BadPath(f"{descriptor.full_name} has no field {name!r}{_nearest(name, list(descriptor.fields_by_name))}")


def _nearest(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
