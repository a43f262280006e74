"""
Fields that the gateway fills itself (``set``), which no client may touch.

A claim, a header, a constant or a generated key becomes the value of a field after everything that
a client sent was applied; that a client mentioned such a field at all is refused before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.core.transcoding.decode import Decoders
from gateway.core.transcoding.fields import field_at, is_leaf, is_map, message_of, spellings
from gateway.core.transcoding.query import Leaf
from gateway.core.transcoding.rejection import Findings, Unfit

__all__ = ["Assigned", "Mention", "mention_of"]

UNFIT: Final = "cannot take the value that the gateway has for it"

_SECOND: Final = timedelta(seconds=1)


class Mention:
    """
    Finds out whether a JSON object names a field, in any spelling, at any of its parents' spellings.
    """

    __slots__ = ("_steps",)

    def __init__(self, descriptor: Descriptor, fields: Iterable[FieldDescriptor]) -> None:
        steps = []
        here: Descriptor | None = descriptor
        for field in fields:
            assert here is not None
            steps.append(tuple(name for name, other in spellings(here).items() if other.name == field.name))
            here = field.message_type
        self._steps = tuple(steps)

    def find(self, value: Any) -> str | None:
        """
        Return the path by which *value* names the field, or None.
        """
        found = ""
        for names in self._steps:
            if type(value) is not dict:
                return None
            for name in names:
                if name in value:
                    value = value[name]
                    found = f"{found}.{name}" if found else name
                    break
            else:
                return None
        return found


def mention_of(descriptor: Descriptor, path: str, body: str) -> Mention | None:
    """
    Make what looks for the field at *path* in a body that fills the field *body*, or ``*``; None if it cannot be there.
    """
    parents, field = field_at(descriptor, path)
    steps = [*parents, field]
    if body != "*":
        if steps[0].name != body or len(steps) == 1:
            return None
        descriptor = message_of(steps.pop(0))
    return Mention(descriptor, steps)


class Assigned:
    """
    The fields of ``set`` of one call.

    Args:
        paths: Field paths, checked.
    """

    def __init__(self, descriptor: Descriptor, paths: Iterable[str], decoders: Decoders) -> None:
        self.paths = tuple(paths)
        self._setters = tuple((path, _setter(descriptor, path, decoders)) for path in self.paths)

    def apply(self, message: Any, values: Mapping[str, Any], findings: Findings) -> None:
        """
        Set every field from *values*; None leaves a field unset.

        Raises:
            KeyError: *values* lacks a field, which must not pass for an empty one.
        """
        findings.source = "gateway"
        for path, setter in self._setters:
            value = values[path]
            if value is not None:
                try:
                    setter(message, value)
                except (ValueError, TypeError, OverflowError):
                    findings.add(path, UNFIT)


def _setter(descriptor: Descriptor, path: str, decoders: Decoders) -> Callable[[Any, Any], None]:
    parents, field = field_at(descriptor, path)
    names = tuple(str(parent.name) for parent in parents)
    name = str(field.name)
    put = decoders.put(field)
    text = Leaf((), field) if is_leaf(field) and not is_map(field) and not field.is_repeated else None
    wants_text = field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
    takes_bytes = field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated

    def set_value(message: Any, value: Any) -> None:
        for step in names:
            message = getattr(message, step)
        if names:
            message.SetInParent()
        if wants_text and type(value) is str:
            setattr(message, name, value)
            return
        message.ClearField(name)
        if wants_text:
            setattr(message, name, _as_text(value))
        elif text is not None and type(value) is str:
            text.set(message, value)
        elif takes_bytes and type(value) is bytes:
            setattr(message, name, value)
        else:
            inner = Findings()
            inner.depth = len(names)
            put(message, _plain(value), None, inner)
            if inner.found:
                raise Unfit(UNFIT)

    return set_value


def _as_text(value: Any) -> str:
    """A number of a claim where a string is wanted: ids are written both ways."""
    if type(value) is int:
        return str(value)
    if isinstance(value, datetime):
        return str(_plain(value))
    raise Unfit(UNFIT)


def _plain(value: Any) -> Any:
    """Values of expressions as JSON would have them."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Unfit(UNFIT)
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        whole, rest = divmod(abs(value), _SECOND)
        return f"{'-' if value < timedelta(0) else ''}{whole}.{rest.microseconds:06}s"
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
