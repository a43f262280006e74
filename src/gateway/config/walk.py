"""
From parsed TOML to sections, by their shapes. Goes on after a fault, so that all are found at once.

Where a value is faulty a harmless one takes its place and its path is *broken*; what is built
then only serves to find more faults, and a check that depends on a broken path says nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

from gateway.config import scalars
from gateway.config.environment import Expansion, expand
from gateway.config.faults import Fault, KeyPath, dotted
from gateway.config.positions import Positions
from gateway.config.shape import Group, Key, ListOf, NamedOf, Scalar, Section, Shape, TableOf, keys_of, takes_text

__all__ = ["Walk", "suggest"]

_LONGEST_QUOTE = 60


class Walk:
    """
    One reading of one file.

    Attributes:
        faults: What was found.
        broken: Paths whose value is not what the file says.
    """

    def __init__(self, positions: Positions, environ: Mapping[str, str], folder: Path) -> None:
        self.faults: list[Fault] = []
        self.broken: set[KeyPath] = set()
        self._expanded: dict[KeyPath, tuple[str, str]] = {}
        self._positions = positions
        self._environ = environ
        self._folder = folder

    def fault(self, path: KeyPath, message: str, *about: KeyPath) -> None:
        """
        Report *message* at *path*, unless it, or a path it is *about*, is broken: then it may not be true.

        Where *message* quotes what came from the environment, the file's own text takes its place.
        """
        for bad in self.broken:
            if path[: len(bad)] == bad or any(_touches(each, bad) for each in about):
                return
        for here, (value, raw) in self._expanded.items():
            if any(here[: len(each)] == each for each in (path[:-1], *about)):
                message = message.replace(repr(value)[1:-1], raw)
        self._report(path, message)

    def given(self, path: KeyPath) -> bool:
        """Whether the file has this key."""
        return path in self._positions.offsets

    def _report(self, path: KeyPath, message: str) -> None:
        while path and isinstance(path[-1], int) and path not in self._positions.offsets:
            path = path[:-1]  # One string stands for an array of one.
        self.faults.append(Fault(*self._positions.of(path), dotted(path), message))

    def _fail(self, path: KeyPath, message: str) -> None:
        self._report(path, message)
        self.broken.add(path)

    def section(self, shape: Section, raw: Mapping[str, Any], path: KeyPath, **more: Any) -> Any:
        """
        Build the section of *shape* from the table *raw*.
        """
        values: dict[str, Any] = more
        self._keys(shape.keys, raw, path, values)
        return shape.make(**values)

    def _keys(
        self, keys: Mapping[str, Key | Group], raw: Mapping[str, Any], path: KeyPath, values: dict[str, Any]
    ) -> None:
        meant = self._unknown(keys, raw, path)
        for name, key in keys.items():
            here = (*path, name)
            if isinstance(key, Group):
                inner = raw.get(name, {})
                if not isinstance(inner, dict):
                    self._fail(here, f"expected a table, got {_kind(inner)}")
                    inner = {}
                self._keys(key.keys, inner, here, values)
            elif name in raw:
                values[key.field] = self.value(key.shape, raw[name], here)
            elif key.required:
                if name not in meant:
                    self._fail(here, f"is missing: {_first_sentence(key.doc)}")
                values[key.field] = _stand_in(key.shape)

    def _unknown(self, keys: Mapping[str, Key | Group], raw: Mapping[str, Any], path: KeyPath) -> set[str]:
        """Report unknown keys; returns those that were probably meant."""
        meant = set()
        for name in raw:
            if name in keys:
                continue
            near = [word for word in suggestions(name, keys) if word not in raw]
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(keys)}"
            self._fail((*path, name), f"unknown key; {hint}")
            if near:
                meant.add(near[0])
                self.broken.add((*path, near[0]))
        return meant

    def value(self, shape: Shape, raw: Any, path: KeyPath) -> Any:
        """
        Turn *raw* into what *shape* says.
        """
        if isinstance(shape, Scalar):
            return self._scalar(shape, raw, path)
        if isinstance(shape, ListOf):
            return self._list(shape, raw, path)
        if isinstance(shape, Section) and shape.short is not None and isinstance(raw, str):
            return self._short(shape, raw, path)
        if not isinstance(raw, dict):
            hint = f" (write [{dotted(path)}])" if isinstance(raw, list) else ""
            self._fail(path, f"expected {_expected(shape)}, got {_kind(raw)}{hint}")
            return _stand_in(shape)
        if isinstance(shape, Section):
            return self.section(shape, raw, path)
        if isinstance(shape, TableOf):
            return tuple((name, self.value(shape.item, value, (*path, name))) for name, value in raw.items())
        return self._named(shape, raw, path)

    def _list(self, shape: ListOf, raw: Any, path: KeyPath) -> tuple[Any, ...]:
        if isinstance(raw, str) and takes_text(shape.item):
            return (self.value(shape.item, raw, path),)
        if not isinstance(raw, list):
            opened = isinstance(raw, dict) and isinstance(shape.item, Section)
            hint = f" (write [[{dotted(path)}]])" if opened else ""
            self._fail(path, f"expected {_expected(shape)}, got {_kind(raw)}{hint}")
            return ()
        if len(raw) < shape.least:
            self._fail(path, "must not be empty")
        return tuple(self.value(shape.item, value, (*path, index)) for index, value in enumerate(raw))

    def _named(self, shape: NamedOf, raw: Mapping[str, Any], path: KeyPath) -> tuple[Any, ...]:
        made = []
        for name, value in raw.items():
            here = (*path, name)
            table = value
            if not isinstance(value, dict):
                self._fail(here, f"expected a table, [{dotted(here)}], got {_kind(value)}")
                table = {}
                self.broken.add(here)
            made.append(self.section(shape.item, table, here, **{shape.name_field: name}))
        return tuple(made)

    def _short(self, shape: Section, raw: str, path: KeyPath) -> Any:
        assert shape.short is not None
        key = shape.keys[shape.short]
        assert isinstance(key, Key)
        return shape.make(**{key.field: self.value(key.shape, raw, path)})

    def _scalar(self, shape: Scalar, raw: Any, path: KeyPath) -> Any:
        value = raw
        from_environment = False
        try:
            if isinstance(raw, str):
                value, from_environment = expand(raw, self._environ)
                if from_environment and value:
                    self._expanded[path] = value, raw
            return scalars.convert(shape, value, from_environment, self._folder)
        except Expansion as wrong:
            self._fail(path, str(wrong))
        except scalars.Wrong as wrong:
            self._fail(path, _complaint(shape, raw, wrong, from_environment=from_environment))
        return scalars.stand_in(shape)


def suggestions(word: str, known: Iterable[str]) -> list[str]:
    """
    List those of *known* that *word* may have been meant to be, the likeliest first.
    """
    choices = {word.lower(): word for word in known}
    plain = word.lower().replace("-", "_")
    for ending in ("", "_s", "_ms", "_seconds", "_bytes", "s"):
        if plain.removesuffix(ending) in choices:
            return [choices[plain.removesuffix(ending)]]
    return [choices[near] for near in difflib.get_close_matches(plain, choices, 3, 0.6)]


def suggest(word: str, known: Iterable[str]) -> str:
    """
    Write ``; did you mean 'x'?``, or else what there is, or nothing.
    """
    choices = list(known)
    near = suggestions(word, choices)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(choices)}" if choices else ""


def _complaint(shape: Scalar, raw: Any, wrong: scalars.Wrong, *, from_environment: bool) -> str:
    text = str(wrong)
    if wrong.quotes and from_environment:
        text = f"expected {_expected(shape)}"
    if shape.kind == "secret" or raw == "":
        return text if isinstance(raw, str) else f"{text}, got {_kind(raw)}"
    return f"{text}, got {_got(raw)}" if text.startswith(("expected", "must")) else f"{_got(raw)}: {text}"


def _touches(one: KeyPath, other: KeyPath) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _first_sentence(doc: str) -> str:
    return doc[0].lower() + doc[1:].rstrip(".") if not doc.startswith(("`", "PEM", "HTTP")) else doc.rstrip(".")


def _got(raw: Any) -> str:
    """Quote *raw*, or name its kind where it is no single value."""
    if isinstance(raw, str):
        return repr(raw if len(raw) <= _LONGEST_QUOTE else raw[:_LONGEST_QUOTE] + "…")
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return f"the number {raw}" if isinstance(raw, int | float) else _kind(raw)


def _kind(raw: Any) -> str:
    """Name what kind of value *raw* is, for where it may be a secret in the wrong place."""
    for kinds, name in _KINDS:
        if isinstance(raw, kinds):
            return name
    raise AssertionError(raw)


_KINDS: Final[tuple[tuple[Any, str], ...]] = (
    (str, "a string"),
    (bool, "a boolean"),
    ((int, float), "a number"),
    (dict, "a table"),
    (list, "an array"),
    ((datetime, date, time), "a date or time"),
)


def _expected(shape: Shape) -> str:
    if isinstance(shape, Scalar):
        return scalars.expected(shape)
    if isinstance(shape, ListOf):
        return "an array of tables" if isinstance(shape.item, Section) else f"an array, each {_expected(shape.item)}"
    if isinstance(shape, Section) and shape.short is not None:
        return "a table or a string"
    return "a table"


def _stand_in(shape: Shape) -> Any:
    """A value of the right type that means nothing."""
    if isinstance(shape, Section):
        values: dict[str, Any] = {}
        for _, key in keys_of(shape):
            if key.required:
                values[key.field] = _stand_in(key.shape)
        return shape.make(**values)
    return scalars.stand_in(shape) if isinstance(shape, Scalar) else ()
