"""
A configuration as the file could have said it, with nothing in it that must not be shown.

For the admin port and the log: secrets are ``***``, and so is what stands before the ``@`` of a URL.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.config.sections import Config, Secret
from gateway.config.shape import Group, Key, ListOf, NamedOf, Scalar, Section, Shape, TableOf, section
from gateway.config.units import format_duration, format_rate, format_size

__all__ = ["describe", "written"]

HIDDEN = "***"

_credentials = re.compile(r"(?<=://)[^/@\s]*@")


def describe(config: Config) -> dict[str, Any]:
    """
    Write *config* as plain JSON values by TOML key, defaults included; what is not set is left out.
    """
    result: dict[str, Any] = written(section(Config), config)
    return result


def written(shape: Shape | Group, value: Any) -> Any:
    """
    Write *value*, which *shape* made, as TOML would have it.
    """
    if isinstance(shape, Section | Group):
        return _table(shape, value)
    if isinstance(shape, NamedOf):
        return {getattr(item, shape.name_field): written(shape.item, item) for item in value}
    if isinstance(shape, ListOf):
        return [written(shape.item, item) for item in value]
    if isinstance(shape, TableOf):
        return {name: written(shape.item, item) for name, item in value}
    return _scalar(shape, value)


def _table(shape: Section | Group, value: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, key in shape.keys.items():
        if isinstance(key, Key):
            inner = getattr(value, key.field)
            if inner is not None:
                table[name] = written(key.shape, inner)
        else:
            table[name] = written(key, value)
    return table


def _scalar(shape: Scalar, value: Any) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if shape.kind == "duration":
        return format_duration(value)
    if shape.kind == "size":
        return format_size(value) if value >= 1024 else value
    if shape.kind == "rate":
        return format_rate(value)
    if isinstance(value, bool | int | float):
        return value
    return _credentials.sub(f"{HIDDEN}@", str(value))
