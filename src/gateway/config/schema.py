"""
The JSON Schema of the configuration, for editors; made from the same shapes that read it.

It states less than ``gateway check``: what it refuses is refused there, but not the other way round.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.config.describe import written
from gateway.config.sections import Config
from gateway.config.shape import Group, Key, ListOf, NamedOf, Scalar, Section, Shape, TableOf, section, takes_text

__all__ = ["json_schema"]

_FROM_ENVIRONMENT: Final = {"type": "string", "pattern": r"\$\{"}
_PATTERNS: Final = {
    "duration": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)$|\$\{",
    "rate": r"^[0-9]+\s*/\s*[0-9]*(ms|s|m|h|d)$|\$\{",
}
_SIZE: Final = r"^[0-9]+(\.[0-9]+)?\s*(B|[kKMGT]B|[KMGT]iB)?$|\$\{"


def json_schema() -> dict[str, Any]:
    """
    Build the schema (JSON Schema 2020-12).
    """
    definitions: dict[str, Any] = {}
    top = _table(section(Config), definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of twistd gateway",
        **top,
        "$defs": {"FromEnvironment": _FROM_ENVIRONMENT, **dict(sorted(definitions.items()))},
    }


def _table(shape: Section | Group, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, key in shape.keys.items():
        if isinstance(key, Group):
            properties[name] = _table(key, definitions)
            continue
        properties[name] = {"description": key.doc, **_value(key.shape, definitions)}
        if not key.required and key.default not in (None, ()) and not isinstance(key.shape, Section):
            properties[name]["default"] = written(key.shape, key.default)
    table: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name, key in shape.keys.items() if isinstance(key, Key) and key.required]
    if required:
        table["required"] = required
    return table


def _value(shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(shape, Scalar):
        return _scalar(shape)
    if isinstance(shape, NamedOf):
        return {"type": "object", "additionalProperties": _value(shape.item, definitions)}
    if isinstance(shape, TableOf):
        return {"type": "object", "additionalProperties": _value(shape.item, definitions)}
    if isinstance(shape, ListOf):
        item = _value(shape.item, definitions)
        array: dict[str, Any] = {"type": "array", "items": item}
        if shape.least:
            array["minItems"] = shape.least
        return {"anyOf": [array, {"type": "string"}]} if takes_text(shape.item) else array
    name = getattr(shape.make, "__name__", "")
    if name not in definitions:
        definitions[name] = {"description": shape.doc, **_table(shape, definitions)}
    reference = {"$ref": f"#/$defs/{name}"}
    return {"anyOf": [reference, {"type": "string"}]} if shape.short is not None else reference


def _scalar(shape: Scalar) -> dict[str, Any]:
    if shape.choices:
        return {"anyOf": [{"enum": list(shape.choices)}, {"$ref": "#/$defs/FromEnvironment"}]}
    if shape.kind in _PATTERNS:
        return {"type": "string", "pattern": _PATTERNS[shape.kind]}
    if shape.kind == "size":
        return {"anyOf": [_numbers("integer", shape), {"type": "string", "pattern": _SIZE}]}
    if shape.kind in ("integer", "number"):
        return {"anyOf": [_numbers(shape.kind, shape), {"$ref": "#/$defs/FromEnvironment"}]}
    if shape.kind == "boolean":
        return {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/FromEnvironment"}]}
    return {"type": "string", "minLength": 1}


def _numbers(kind: str, shape: Scalar) -> dict[str, Any]:
    numbers: dict[str, Any] = {"type": kind}
    if shape.least is not None:
        numbers["minimum"] = shape.least
    else:
        numbers["exclusiveMinimum"] = 0
    if shape.most is not None:
        numbers["maximum"] = shape.most
    return numbers
