"""
The reference part of ``docs/configuration.md``: a table of keys for each table of the file.

``python -m gateway.config.reference docs/configuration.md`` writes it below the mark in that file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.config.describe import written
from gateway.config.sections import Config
from gateway.config.shape import Group, Key, ListOf, NamedOf, Scalar, Section, Shape, TableOf, section

__all__ = ["MARK", "reference", "with_reference"]

MARK: Final = "<!-- Below this line: made by `python -m gateway.config.reference docs/configuration.md`. -->"

_KINDS: Final = {
    "text": "string",
    "secret": "string",
    "integer": "whole number",
    "number": "number",
    "boolean": "boolean",
    "duration": "duration",
    "size": "size",
    "rate": "rate",
    "file": "file",
    "folder": "folder",
    "network": "network",
}


def reference() -> str:
    """
    Write the reference as Markdown.
    """
    return "\n".join(line for heading, shape in _tables("", section(Config)) for line in _lines(heading, shape))


def with_reference(document: str) -> str:
    """
    Replace what stands below ``MARK`` in *document*.

    Raises:
        ValueError: there is no mark.
    """
    above, mark, _ = document.partition(MARK)
    if not mark:
        raise ValueError(f"no line {MARK}")
    return f"{above}{MARK}\n\n{reference()}"


def _tables(name: str, shape: Section | Group) -> Iterator[tuple[str, Section | Group]]:
    """List every table that can be written, with its header, in the order of the sections."""
    for key_name, key in shape.keys.items():
        path = f"{name}.{key_name}" if name else key_name
        inner = key if isinstance(key, Group) else key.shape
        heading = f"[{path}]"
        if isinstance(inner, NamedOf):
            path, inner = f"{path}.NAME", inner.item
            heading = f"[{path}]"
        elif isinstance(inner, ListOf):
            heading, inner = f"[[{path}]]", inner.item
        if isinstance(inner, Section | Group):
            if any(_is_plain(each) for each in inner.keys.values()):
                yield heading, inner
            yield from _tables(path, inner)


def _is_plain(key: Key | Group) -> bool:
    return isinstance(key, Key) and not isinstance(_innermost(key.shape), Section)


def _innermost(shape: Shape) -> Shape:
    return shape.item if isinstance(shape, ListOf | NamedOf) else shape


def _lines(heading: str, shape: Section | Group) -> Iterator[str]:
    yield f"### `{heading}`"
    yield ""
    if isinstance(shape, Section):
        yield shape.doc
        yield ""
    yield "| key | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, key in shape.keys.items():
        if isinstance(key, Key):
            yield f"| `{name}` | {_kind(key.shape)} | {_default(key)} | {_cell(key.doc)} |"
    yield ""


def _kind(shape: Shape) -> str:
    if isinstance(shape, Scalar):
        if shape.choices:
            return ", ".join(f"`{json.dumps(choice)}`" for choice in shape.choices)
        return _KINDS[shape.kind] + _range(shape)
    if isinstance(shape, ListOf):
        return (
            "tables" if isinstance(shape.item, Section) and shape.item.short is None else f"array: {_kind(shape.item)}"
        )
    if isinstance(shape, TableOf):
        return "table of strings"
    if isinstance(shape, NamedOf):
        return "tables by name"
    return f"table, or a string for `{shape.short}`" if shape.short is not None else "table"


def _range(shape: Scalar) -> str:
    if shape.most is None:
        return ""
    most = shape.most if shape.kind != "duration" else f"{shape.most:g}s"
    return f", {shape.least or 0:g} to {most}" if shape.kind != "duration" else f", at most {most}"


def _default(key: Key) -> str:
    if key.required:
        return "*required*"
    if key.default is None or key.default == "" or isinstance(key.shape, Section):
        return ""
    value: Any = written(key.shape, key.default)
    if value in ([], {}):
        return ""
    if isinstance(key.shape, ListOf) and isinstance(key.shape.item, Section):
        short = key.shape.item.short
        value = [item[short] for item in value] if short is not None else value
    return f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        document = Path(argument)
        document.write_text(with_reference(document.read_text("utf-8")), "utf-8")
