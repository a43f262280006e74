"""
What the sections look like in TOML, read once from their type hints and field metadata.

The walker, the JSON Schema, the reference and the redacted dump all go by these shapes, so none
of them can know a key that the others do not.

==============================================  ===============================================
in ``sections``                                 in TOML
==============================================  ===============================================
``timeout_s: float``                            ``timeout = "2s"``
``max_body_bytes: int``                         ``max_body = "1MiB"``, or a number of bytes
``str | None``, with or without a default       the key may be left out
``tuple[str, ...]``                             an array; one string stands for an array of one
``tuple[Route, ...]``                           ``[[route]]``
``tuple[Upstream, ...]``, with a *key* field    ``[upstream.NAME]``
``tuple[tuple[str, str], ...]``, *table*        ``{ name = "value" }``
a section with a *short* field                  a table, or a bare string for that field
``at="admin.key"``                              ``[[admin.key]]``, wherever the field is
==============================================  ===============================================
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gateway.config.sections import Secret
from gateway.config.units import Rate

__all__ = ["Group", "Key", "ListOf", "NamedOf", "Scalar", "Section", "Shape", "TableOf"]
__all__ += ["keys_of", "section", "takes_text"]

Kind = Literal[
    "text", "secret", "integer", "number", "boolean", "duration", "size", "rate", "file", "folder", "network"
]


@dataclass(frozen=True, slots=True)
class Scalar:
    """
    One value.

    Attributes:
        choices: The only texts allowed; empty allows all.
        least: For numbers: the smallest, inclusive; for durations and numbers None is "more than 0".
        most: The largest, inclusive.
        lines: A text may hold line ends.
    """

    kind: Kind
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    lines: bool = False


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array. ``least``: how many at least."""

    item: Shape
    least: int = 0


@dataclass(frozen=True, slots=True)
class TableOf:
    """Any keys, each with a value; becomes pairs in the order of the file."""

    item: Shape


@dataclass(frozen=True, slots=True)
class NamedOf:
    """Tables by name; the name becomes the item's *name_field*."""

    item: Section
    name_field: str


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key of a table.

    Attributes:
        field: The dataclass field it fills.
        required: There is no default.
        default: What the field is without it.
        doc: Its line in the reference.
    """

    name: str
    field: str
    shape: Shape
    required: bool
    default: Any
    doc: str


@dataclass(frozen=True, slots=True)
class Group:
    """A table that is no section of its own: its keys fill fields of the section around it."""

    keys: dict[str, Key | Group] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Section:
    """
    A table that becomes a dataclass.

    Attributes:
        make: The dataclass.
        doc: Its docstring's text.
        keys: By TOML name, in order.
        short: The key that a bare string stands for, if any.
    """

    make: Callable[..., Any]
    doc: str
    keys: Mapping[str, Key | Group]
    short: str | None


Shape = Scalar | ListOf | TableOf | NamedOf | Section


@cache
def section(cls: type) -> Section:
    """
    Read the dataclass *cls*.

    Raises:
        TypeError: a field has a type that has no form in TOML. A fault of the program.
    """
    hints = get_type_hints(cls)
    top = Group()
    short = None
    for each in fields(cls):
        if "doc" not in each.metadata or each.metadata.get("key"):
            continue
        name = _toml_name(each)
        *tables, last = each.metadata.get("at", name).split(".")
        group = top
        for table in tables:
            inner = group.keys.setdefault(table, Group())
            assert isinstance(inner, Group), f"{cls.__name__}: {table} is a key and a table"
            group = inner
        required = each.default is MISSING and each.default_factory is MISSING
        shape = _shape(hints[each.name], each, f"{cls.__name__}.{each.name}")
        group.keys[last] = Key(last, each.name, shape, required, _default(each), each.metadata["doc"])
        if each.metadata.get("short"):
            short = name
    return Section(cls, (cls.__doc__ or "").strip(), top.keys, short)


def _default(each: Field[Any]) -> Any:
    if each.default is not MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not MISSING else None


def _toml_name(each: Field[Any]) -> str:
    return each.name.removesuffix("_s").removesuffix("_bytes")


def _shape(hint: Any, each: Field[Any], where: str) -> Shape:
    meta = each.metadata
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        if set(arguments) == {IPv4Network, IPv6Network}:
            return Scalar("network")
        kept = [argument for argument in arguments if argument is not types.NoneType]
        if len(kept) == 1:
            return _shape(kept[0], each, where)
        if set(kept) == {IPv4Network, IPv6Network}:
            return Scalar("network")
    elif get_origin(hint) is Literal:
        return Scalar("text", choices=arguments)
    elif get_origin(hint) is tuple:
        return _several(arguments, each, where)
    elif hasattr(hint, "__dataclass_fields__"):
        return section(hint)
    elif hint in _PLAIN:
        return _PLAIN[hint](each.name, meta)
    raise TypeError(f"{where}: {hint} has no form in TOML")


def _several(arguments: tuple[Any, ...], each: Field[Any], where: str) -> Shape:
    inner = arguments[0]
    if each.metadata.get("table"):
        return TableOf(_shape(get_args(inner)[1], each, where))
    item = _shape(inner, each, where)
    if isinstance(item, Section):
        names = [known.name for known in fields(inner) if known.metadata.get("key")]
        if names:
            return NamedOf(item, names[0])
    return ListOf(item, each.metadata.get("least", 0))


def _number(kind: Kind, least: float | None) -> Callable[[str, Mapping[str, Any]], Scalar]:
    return lambda _, meta: Scalar(kind, least=meta.get("least", least), most=meta.get("most"))


def _integer(name: str, meta: Mapping[str, Any]) -> Scalar:
    kind: Kind = "size" if name.endswith("_bytes") else "integer"
    return _number(kind, 1)(name, meta)


def _float(name: str, meta: Mapping[str, Any]) -> Scalar:
    kind: Kind = "duration" if name.endswith("_s") else "number"
    return _number(kind, None)(name, meta)


_PLAIN: Mapping[Any, Callable[[str, Mapping[str, Any]], Scalar]] = {
    str: lambda _, meta: Scalar("text", lines=bool(meta.get("cel"))),
    Secret: lambda *_: Scalar("secret"),
    bool: lambda *_: Scalar("boolean"),
    int: _integer,
    float: _float,
    Path: lambda _, meta: Scalar("folder" if meta.get("folder") else "file"),
    Rate: lambda *_: Scalar("rate"),
}


def keys_of(group: Group | Section) -> Iterator[tuple[str, Key]]:
    """
    List the keys of *group* with their dotted name within it, groups inside it included.
    """
    for name, key in group.keys.items():
        if isinstance(key, Group):
            for inner, found in keys_of(key):
                yield f"{name}.{inner}", found
        else:
            yield name, key


def takes_text(shape: Shape) -> bool:
    """
    Tell whether a string can stand for a whole value of *shape*.
    """
    if isinstance(shape, Section):
        return shape.short is not None
    return isinstance(shape, Scalar) and shape.kind not in ("integer", "number", "boolean")
