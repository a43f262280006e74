"""
Messages to JSON: one plain function per message type, compiled when it is first needed.

``json_format`` asks each field of each message what it is; here that was asked once. What is
written equals ``google.protobuf.json_format.MessageToDict`` with the same options; a property
test holds the two together.

The functions are generated as source. Only field names that are plain identifiers get into it as
names; all other text from a descriptor gets there as a literal (``repr``), and builtins are out of reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from keyword import iskeyword
from typing import Any, Final, Literal

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.core.transcoding.encode_values import VALUES
from gateway.core.transcoding.fields import (
    INT64_TYPES,
    NULL_VALUE,
    WELL_KNOWN,
    WRAPPERS,
    choice_of,
    entry_of,
    enum_names,
    enum_of,
    is_map,
)

__all__ = ["Encoders", "JsonStyle", "ToBuiltins", "ToJson", "Unwritable"]

ToBuiltins = Callable[[Message], Any]
ToJson = Callable[[Message], bytes]

_dumps: Final = msgspec.json.Encoder().encode
_FAILURES: Final = (ValueError, TypeError, KeyError, AttributeError, DecodeError, RecursionError)


class Unwritable(ValueError):
    """
    A message has no JSON form: a Timestamp out of range, NaN in a Value, an Any of an unknown type.
    """


@dataclass(frozen=True, slots=True)
class JsonStyle:
    """
    How JSON is written.

    Attributes:
        proto_names: Fields are called as in the proto, not in lowerCamelCase.
        defaults: Fields without presence are written when they have their default: ``0``, ``""``, ``[]``, ``{}``.
        nulls: Fields with presence that are not set are written as null, except members of a oneof.
        int64: 64-bit integers as strings; as numbers; as numbers where a double holds them exactly, else strings.
        enum_numbers: Enums are written as numbers.
    """

    proto_names: bool = False
    defaults: bool = False
    nulls: bool = False
    int64: Literal["string", "number", "safe"] = "string"
    enum_numbers: bool = False


class Encoders:
    """
    The encoders of one pool's messages in one style. Made once per pool and style: types are shared.

    Args:
        pool: Where the type of an ``Any`` is looked for.
    """

    def __init__(self, pool: DescriptorPool, style: JsonStyle | None = None) -> None:
        self.style = style or JsonStyle()
        self._pool = pool
        self._names: dict[str, str] = {}
        self._pending: list[tuple[str, Descriptor]] = []
        self._numbers = count()
        self._anys: dict[str, tuple[type[Message], Any]] = {}
        self._extensions: dict[str, Callable[[Any], Any]] = {}
        self._scope: dict[str, Any] = {
            "__builtins__": {},
            **{kind.__name__: kind for kind in (dict, float, getattr, str)},
            **VALUES,
            "any_": self._any,
            "extension": self._extension,
        }

    def builtins(self, descriptor: Descriptor) -> ToBuiltins:
        """
        Return the function that makes dicts, lists and scalars of a message of *descriptor*.

        It raises ``Unwritable``.
        """
        encode = self._compiled(descriptor)

        def checked(message: Message) -> Any:
            try:
                return encode(message)
            except _FAILURES as error:
                raise Unwritable(f"{descriptor.full_name}: {error}") from error

        return checked

    def json(self, descriptor: Descriptor) -> ToJson:
        """
        Return the function that makes JSON of a message of *descriptor*: compact, UTF-8.

        It raises ``Unwritable``.
        """
        encode = self._compiled(descriptor)

        def checked(message: Message) -> bytes:
            try:
                return _dumps(encode(message))
            except _FAILURES as error:
                raise Unwritable(f"{descriptor.full_name}: {error}") from error

        return checked

    def field(self, field: FieldDescriptor) -> Callable[[Any], Any]:
        """
        Return the function that makes builtins of the whole value of *field*, lists and maps included.

        The value is what the attribute has, also when it is not set. It raises like ``builtins``' functions, unwrapped.
        """
        source = f"def f(v):\n return {self._whole(field, 'v')}\n"
        return self._run(source)

    def _compiled(self, descriptor: Descriptor) -> ToBuiltins:
        source = f"def f(m):\n return {self._message(descriptor, 'm')}\n"
        return self._run(source)

    def _run(self, source: str) -> Callable[[Any], Any]:
        """Execute *source*, which defines ``f``, and compile what it calls."""
        # The source is made of identifiers and literals only, see above.
        exec(source, self._scope)  # noqa: S102
        made: Callable[[Any], Any] = self._scope.pop("f")
        while self._pending:
            function, descriptor = self._pending.pop()
            exec(self._source(function, descriptor), self._scope)  # noqa: S102
        return made

    def _constant(self, value: Any) -> str:
        name = f"c{next(self._numbers)}"
        self._scope[name] = value
        return name

    def _message(self, descriptor: Descriptor, v: str) -> str:
        """An expression for the JSON form of the message in *v*."""
        name = descriptor.full_name
        if name in WRAPPERS:
            return self._one(descriptor.fields_by_name["value"], f"{v}.value")
        if name in WELL_KNOWN:
            return f"{name.rpartition('.')[2].lower()}_({v})"
        function = self._names.get(name)
        if function is None:
            function = self._names[name] = f"e{len(self._names)}"
            self._pending.append((function, descriptor))
        return f"{function}({v})"

    def _one(self, field: FieldDescriptor, v: str) -> str:
        """An expression for the JSON form of one value of *field*; *v* itself if it is that already."""
        if field.message_type is not None:
            return self._message(field.message_type, v)
        kind = field.type
        if kind in INT64_TYPES:
            return {"string": f"str({v})", "number": v, "safe": f"safe({v})"}[self.style.int64]
        if kind == FieldDescriptor.TYPE_ENUM:
            if self.style.enum_numbers:
                return v
            enum = enum_of(field)
            if enum.full_name == NULL_VALUE:
                return "None"
            names = self._constant(enum_names(enum)[0])
            return f"{names}.get({v}, {v})"
        helper = {
            FieldDescriptor.TYPE_BYTES: "base64",
            FieldDescriptor.TYPE_DOUBLE: "double",
            FieldDescriptor.TYPE_FLOAT: "single",
        }.get(kind)
        return f"{helper}({v})" if helper else v

    def _whole(self, field: FieldDescriptor, v: str) -> str:
        """An expression for all that is in *field*."""
        if is_map(field):
            key, value = entry_of(field)
            item = self._one(value, "x")
            named = {FieldDescriptor.TYPE_STRING: "k", FieldDescriptor.TYPE_BOOL: "('true' if k else 'false')"}.get(
                key.type, "str(k)"
            )
            return f"dict({v})" if (named, item) == ("k", "x") else f"{{{named}: {item} for k, x in {v}.items()}}"
        if field.is_repeated:
            item = self._one(field, "x")
            return f"{v}[:]" if item == "x" else f"[{item} for x in {v}]"
        return self._one(field, v)

    def _source(self, function: str, descriptor: Descriptor) -> str:
        style = self.style
        lines = [f"def {function}(m):", " o = {}"]
        for field in sorted(descriptor.fields, key=lambda field: int(field.number)):
            name = field.name
            plain = name.isidentifier() and name.isascii() and not iskeyword(name)
            value = f"m.{name}" if plain else f"getattr(m, {name!r})"
            key = repr(name if style.proto_names else field.json_name)
            if field.has_presence:
                lines.append(f" if m.HasField({name!r}):\n  v = {value}; o[{key}] = {self._whole(field, 'v')}")
                if style.nulls and choice_of(field) is None:
                    lines.append(f" else: o[{key}] = None")
                continue
            write = f"o[{key}] = {self._whole(field, 'v')}"
            if style.defaults:
                lines.append(f" v = {value}; {write}")
            elif field.is_repeated or field.cpp_type not in (
                FieldDescriptor.CPPTYPE_DOUBLE,
                FieldDescriptor.CPPTYPE_FLOAT,
            ):
                lines.append(f" v = {value}\n if v: {write}")
            else:  # -0.0 is false, and not the default.
                lines.append(f" v = {value}\n if v or negative(v): {write}")
        if descriptor.is_extendable:
            lines.append(
                " for f, v in m.ListFields():\n  if f.is_extension: o['[' + f.full_name + ']'] = extension(f)(v)"
            )
        lines.append(" return o\n")
        return "\n".join(lines)

    def _extension(self, field: FieldDescriptor) -> Callable[[Any], Any]:
        known = self._extensions.get(field.full_name)
        if known is None:
            known = self._extensions[field.full_name] = self.field(field)
        return known

    def _any(self, message: Any) -> dict[str, Any]:
        url = message.type_url
        if not url and not message.value:
            return {}
        known = self._anys.get(url)
        if known is None:
            known = self._any_type(url)
        kind, encode = known
        inner = kind.FromString(message.value)
        if kind.DESCRIPTOR.full_name in WELL_KNOWN:
            return {"@type": url, "value": encode(inner)}
        return {"@type": url, **encode(inner)}

    def _any_type(self, url: str) -> tuple[type[Message], Any]:
        name = url.rpartition("/")[2]
        try:
            descriptor = self._pool.FindMessageTypeByName(name)
        except KeyError:
            raise Unwritable("an Any holds a type that is not known here") from None
        known = GetMessageClass(descriptor), self._compiled(descriptor)
        # The prefix of a URL is the sender's choice, so the table of URLs is not let grow for ever.
        if len(self._anys) < 1024:
            self._anys[url] = known
        return known
