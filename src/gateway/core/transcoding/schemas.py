"""
JSON Schema (2020-12, as OpenAPI 3.1 has it) of protobuf messages in their JSON form.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.core.transcoding.encode import JsonStyle
from gateway.core.transcoding.fields import (
    INT64_TYPES,
    NULL_VALUE,
    WRAPPERS,
    choice_of,
    entry_of,
    enum_names,
    enum_of,
    is_map,
    message_of,
)

__all__ = ["Schemas", "field_schema", "leaf_schema"]

Schema = dict[str, Any]

_F: Final = FieldDescriptor
_INT32: Final = {_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32}
_UINT32: Final = {_F.TYPE_UINT32, _F.TYPE_FIXED32}
_UNSIGNED_64: Final = {_F.TYPE_UINT64, _F.TYPE_FIXED64}
_FLOATS: Final = {_F.TYPE_DOUBLE, _F.TYPE_FLOAT}
_PREFIX: Final = "google.protobuf."
_KNOWN: Final[dict[str, Schema]] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {"type": "string", "pattern": r"^-?[0-9]{1,9}(\.[0-9]{1,9})?s$"},
    "FieldMask": {"type": "string", "pattern": r"^([a-z][a-zA-Z0-9]*(\.[a-z][a-zA-Z0-9]*)*(,[a-z][a-zA-Z0-9]*)*)?$"},
    "Struct": {"type": "object"},
    "Value": {},
    "ListValue": {"type": "array"},
    "Any": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
    "Empty": {"type": "object", "additionalProperties": False},
}


class Schemas:
    """
    The schemas of messages, each made once for each way it is used.

    Attributes:
        made: By component name, for ``#/components/schemas``.
    """

    def __init__(self) -> None:
        self.made: dict[str, Schema] = {}

    def response(self, descriptor: Descriptor, style: JsonStyle) -> Schema:
        """
        Refer to *descriptor* as it is written in *style*.
        """
        return self._refer(descriptor, style, request=False, strict=False)

    def request(self, descriptor: Descriptor, closed: frozenset[str], *, strict: bool) -> Schema:
        """
        Describe a request's body: *descriptor* without the *closed* fields; *strict* allows no others.
        """
        if not closed and strict:
            return self._refer(descriptor, JsonStyle(), request=True, strict=True)
        return self._object(descriptor, JsonStyle(), request=True, strict=strict, closed=closed)

    def inner(self, descriptor: Descriptor, style: JsonStyle, *, request: bool) -> Schema:
        """
        Refer to a message within another.
        """
        return self._refer(descriptor, style, request=request, strict=request)

    def _refer(self, descriptor: Descriptor, style: JsonStyle, *, request: bool, strict: bool) -> Schema:
        known = _KNOWN.get(descriptor.full_name.removeprefix(_PREFIX)) if _is_known(descriptor) else None
        if known is not None:
            return known
        if descriptor.full_name in WRAPPERS:
            return leaf_schema(descriptor.fields_by_name["value"], self, style=style, nullable=request)
        name = str(descriptor.full_name) + _suffix(style, request=request)
        if name not in self.made:
            self.made[name] = {}  # A recursive message refers to itself while it is made.
            self.made[name] = self._object(descriptor, style, request=request, strict=strict, closed=frozenset())
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(
        self, descriptor: Descriptor, style: JsonStyle, *, request: bool, strict: bool, closed: frozenset[str]
    ) -> Schema:
        properties = {
            str(field.name if style.proto_names else field.json_name): field_schema(field, self, style, request=request)
            for field in descriptor.fields
            if field.name not in closed
        }
        schema: Schema = {"type": "object", "properties": properties}
        if strict:
            schema["additionalProperties"] = False
        rivals = [
            [{"required": [str(field.json_name)]} for field in oneof.fields if field.name not in closed]
            for oneof in descriptor.oneofs
            if any(choice_of(field) is not None for field in oneof.fields)
        ]
        if request and rivals:
            # At most one member of each oneof: never two of them together.
            schema["allOf"] = [
                {"not": {"allOf": [one, other]}}
                for members in rivals
                for number, one in enumerate(members)
                for other in members[number + 1 :]
            ] or [{}]
        return schema


def _is_known(descriptor: Descriptor) -> bool:
    return str(descriptor.full_name).startswith(_PREFIX)


def _suffix(style: JsonStyle, *, request: bool) -> str:
    if request:
        return ".Request"
    marks = [
        mark
        for mark, on in (
            ("protoNames", style.proto_names),
            ("nulls", style.nulls),
            (f"int64_{style.int64}", style.int64 != "string"),
            ("enumNumbers", style.enum_numbers),
        )
        if on
    ]
    return "".join(f".{mark}" for mark in marks)


def field_schema(field: FieldDescriptor, schemas: Schemas, style: JsonStyle, *, request: bool) -> Schema:
    """
    Describe the whole value of *field*: a map, a list, or one.
    """
    if is_map(field):
        _, value = entry_of(field)
        return {"type": "object", "additionalProperties": _one(value, schemas, style, request=request)}
    one = _one(field, schemas, style, request=request)
    if field.is_repeated:
        return {"type": "array", "items": one}
    if style.nulls and not request and field.has_presence and choice_of(field) is None:
        return {"anyOf": [one, {"type": "null"}]}
    return one


def _one(field: FieldDescriptor, schemas: Schemas, style: JsonStyle, *, request: bool) -> Schema:
    if field.message_type is not None:
        return schemas.inner(message_of(field), style, request=request)
    return leaf_schema(field, schemas, style=style)


def leaf_schema(
    field: FieldDescriptor,
    schemas: Schemas,
    *,
    style: JsonStyle | None = None,
    text: bool = False,
    nullable: bool = False,
) -> Schema:
    """
    Describe one scalar, enum or message that is one text.

    Args:
        text: It stands in a path or query, as a text.
        nullable: Null is allowed.
    """
    if field.message_type is not None:
        inner = message_of(field)
        if inner.full_name in WRAPPERS:
            return leaf_schema(inner.fields_by_name["value"], schemas, text=text)
        return _KNOWN[str(inner.full_name).removeprefix(_PREFIX)]
    schema = _scalar(field, style or JsonStyle(), text=text)
    if nullable:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _scalar(field: FieldDescriptor, style: JsonStyle, *, text: bool) -> Schema:
    kind = field.type
    if kind == _F.TYPE_BOOL:
        return {"type": "boolean"}
    if kind == _F.TYPE_STRING:
        return {"type": "string"}
    if kind == _F.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64", "pattern": "^(?:[A-Za-z0-9+/]{4})*$"}
    if kind == _F.TYPE_ENUM:
        enum = enum_of(field)
        if enum.full_name == NULL_VALUE:
            return {"type": "null"}
        if style.enum_numbers:
            return {"type": "integer"}
        return {"type": "string", "enum": sorted(enum_names(enum)[1])}
    if kind in _FLOATS:
        return (
            {"type": "number"} if text else {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
        )
    if kind in INT64_TYPES:
        if style.int64 == "number":
            return {"type": "integer", "format": "int64"}
        least = "0" if kind in _UNSIGNED_64 else "-?"
        pattern = "^[0-9]{1,18}$" if least == "0" else "^-?[0-9]{1,18}$"
        return {"type": "string", "pattern": pattern, "format": "int64"}
    if kind in _UINT32:
        return {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
    return {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
