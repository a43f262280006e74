"""
Query parameters to fields (google/api/http.proto, "Rules for HTTP mapping").

A parameter's name is a path of proto or JSON names with dots between; its value is one text. A
repeated field takes a parameter many times, any other once. Messages are not values, except those
that are one text in JSON: Timestamp, Duration, FieldMask and the wrappers. The encoding is that of
HTML forms: ``&`` between, ``+`` is a blank, escapes are UTF-8; what is spelled otherwise is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.core.transcoding.fields import LEAVES, WELL_KNOWN, choice_of, is_leaf, is_map, spellings
from gateway.core.transcoding.known import FROM_TEXT
from gateway.core.transcoding.rejection import Findings, Unfit
from gateway.core.transcoding.scalars import from_text

__all__ = ["Ignored", "Leaf", "QueryReader", "leaf", "pairs"]

_REMEMBERED: Final = 512  # Names of recursive messages are endless, and clients choose them.
_DEEPEST: Final = 32

_bad_escape = re.compile(rb"%(?![0-9A-Fa-f]{2})").search


class Leaf:
    """
    A field that takes text, and the way to it.

    Attributes:
        path: Proto names with dots between.
        repeated: It takes many.
    """

    __slots__ = ("_choices", "_fill", "_names", "_read", "name", "path", "repeated")

    def __init__(self, parents: tuple[FieldDescriptor, ...], field: FieldDescriptor) -> None:
        self.path = ".".join([*(parent.name for parent in parents), field.name])
        self.name = str(field.name)
        self.repeated = bool(field.is_repeated)
        self._names = tuple(str(parent.name) for parent in parents)
        self._choices = tuple(
            (depth, choice, str(step.name))
            for depth, step in enumerate((*parents, field))
            if (choice := choice_of(step)) is not None
        )
        self._fill: Callable[[str, Any], None] | None = None
        self._read = None if field.message_type is not None else from_text(field)
        if field.message_type is not None:
            self._fill = FROM_TEXT.get(field.message_type.full_name) or _wrapper(field.message_type)

    def rival(self, message: Any) -> str | None:
        """
        Name the other member of a oneof that is set in *message* where this would be set.
        """
        for depth, choice, name in self._choices:
            target = message
            for step in self._names[:depth]:
                target = getattr(target, step)
            rival: str | None = target.WhichOneof(choice)
            if rival is not None and rival != name:
                return rival
        return None

    def set(self, message: Any, text: str) -> None:
        """
        Set the field below *message*, or append to it.

        Raises:
            Unfit: the text is no value of it.
        """
        target = message
        for name in self._names:
            target = getattr(target, name)
        if self._read is not None:
            value = self._read(text)
            if self.repeated:
                getattr(target, self.name).append(value)
            else:
                setattr(target, self.name, value)
            return
        assert self._fill is not None
        inner = getattr(target, self.name)
        if self.repeated:
            inner = inner.add()
        else:
            inner.SetInParent()
        self._fill(text, inner)

    def value(self, message: Any) -> Any:
        """
        Return what the field below *message* holds.
        """
        for name in self._names:
            message = getattr(message, name)
        return getattr(message, self.name)


def leaf(parents: tuple[FieldDescriptor, ...], field: FieldDescriptor) -> Leaf | str:
    """
    Make the leaf of *field*, or say why text cannot fill it.
    """
    if is_map(field):
        return "is a map, which text cannot fill"
    if not is_leaf(field):
        return "is a message; only its fields can be given"
    return Leaf(parents, field)


def _wrapper(descriptor: Descriptor) -> Callable[[str, Any], None]:
    read = from_text(descriptor.fields_by_name["value"])

    def fill(text: str, message: Any) -> None:
        message.value = read(text)

    return fill


class Ignored:
    """
    Names of parameters that are dropped unread: exact, or with ``*`` at the end.
    """

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, names: Iterable[str]) -> None:
        listed = tuple(names)
        self._exact = frozenset(name for name in listed if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in listed if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


class QueryReader:
    """
    Reads the query of one call.

    Args:
        closed: Field paths that a query cannot fill, with the reason; what is below them is closed as well.
            The empty path closes all.
        ignored: Dropped before anything else is asked.
        ignore_unknown: Parameters that name no field are dropped instead of refused.
        most: Parameters of one query.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        closed: Mapping[str, str],
        ignored: Ignored,
        ignore_unknown: bool,
        most: int,
    ) -> None:
        self._descriptor = descriptor
        self._closed = dict(closed)
        self._ignored = ignored
        self._ignore_unknown = ignore_unknown
        self._most = most
        self._known: dict[str, Leaf | str | None] = {}

    def read(self, query: bytes, message: Any, findings: Findings) -> None:
        """
        Fill *message* from *query*, as it stands in the target after ``?``.
        """
        findings.source = "query"
        taken: set[str] = set()
        for name, text in pairs(query, self._most, findings):
            known = self._known[name] if name in self._known else self._resolve(name)
            if known is None:
                continue
            if isinstance(known, str):
                findings.add(name, known)
                continue
            if not known.repeated:
                if known.path in taken:
                    findings.add(name, "is given twice, and takes one value")
                    continue
                taken.add(known.path)
            rival = known.rival(message)
            if rival is not None:
                findings.add(name, f"excludes {rival}, which is given, too")
                continue
            try:
                known.set(message, text)
            except Unfit as unfit:
                findings.add(name, str(unfit))

    def _resolve(self, name: str) -> Leaf | str | None:
        """Find the field of *name*: why not as a text, None to drop it."""
        found = None if name in self._ignored else self._find(name)
        if len(self._known) < _REMEMBERED:
            self._known[name] = found
        return found

    def _find(self, name: str) -> Leaf | str | None:
        steps = name.split(".")
        parents: list[FieldDescriptor] = []
        here: Descriptor | None = self._descriptor
        path = ""
        for depth, step in enumerate(steps):
            field = None
            if here is not None and here.full_name not in WELL_KNOWN and depth < _DEEPEST:
                field = spellings(here).get(step)
            if field is None:
                if self._ignore_unknown:
                    return None
                if parents and parents[-1].message_type is not None and parents[-1].message_type.full_name in LEAVES:
                    return "is filled as a whole, without fields of its own"
                return self._closed.get("", "is no parameter of this call")
            path = f"{path}.{field.name}" if path else field.name
            if path in self._closed:
                return self._closed[path]
            if "" in self._closed:
                return None if self._ignore_unknown else self._closed[""]
            if depth < len(steps) - 1 and field.is_repeated:
                return "crosses a repeated field or map, which a parameter cannot"
            parents.append(field)
            here = field.message_type
        return leaf(tuple(parents[:-1]), parents[-1])


def pairs(query: bytes, most: int, findings: Findings) -> Iterator[tuple[str, str]]:
    """
    Split *query* into names and values; what cannot be decoded goes to *findings*.

    Raises:
        Rejected: there are more than *most*.
    """
    parts = query.split(b"&")
    if len(parts) > most:
        findings.refuse(None, f"has more than {most} parameters")
    for part in parts:
        if part:
            name, _, value = part.partition(b"=")
            try:
                yield _decoded(name), _decoded(value)
            except ValueError:
                findings.add(_shown(name), "is not percent-encoded UTF-8")


def _decoded(text: bytes) -> str:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    if b"%" in text:
        if _bad_escape(text):
            raise ValueError
        text = unquote_to_bytes(text)
    return text.decode("utf-8")


def _shown(name: bytes) -> str:
    return name[:80].decode("ascii", "replace")
