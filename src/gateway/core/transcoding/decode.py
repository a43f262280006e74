"""
JSON to messages, strictly: nothing that was sent is dropped, guessed or taken twice.

One ``fill`` function per message type, put together when it is first needed. The rules are
ProtoJSON's (https://protobuf.dev/programming-guides/json); where readers differ, the answer is no:

- a field under both of its names, ``big_id`` and ``bigId``;
- two members of one oneof;
- ``[]`` where an object belongs, and null as an element;
- bytes that are not base64, integers that are no JSON number, names that an enum does not have;
- fields that the message does not have, unless they are to be ignored.

All faults are told, each with its path.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.core.transcoding.fields import NULL_VALUE, WELL_KNOWN, WRAPPERS, choice_of, entry_of, is_map, spellings
from gateway.core.transcoding.json_text import read_json
from gateway.core.transcoding.known import KNOWN, Fill
from gateway.core.transcoding.rejection import Findings, Key, Place, Unfit, UnknownName, shorten
from gateway.core.transcoding.scalars import Read, map_key, reader

__all__ = ["Decoders", "Put", "check_required", "nullable"]

Put = Callable[[Any, Any, "Place | None", Findings], None]
"""Set one field of a message (first) from a JSON value (second)."""

_UNKNOWN: Final = "is no field of this message"
_VALUE: Final = "google.protobuf.Value"


class _Field:
    """
    A field as a member of an object meets it.

    ``read`` is there for a plain scalar, ``put`` for all else; ``rivals`` is the oneof it stands in;
    ``takes_null`` where null is a value and not the field's absence.
    """

    __slots__ = ("name", "put", "read", "rivals", "takes_null")

    def __init__(self, name: str, read: Read | None, put: Put, rivals: str | None, takes_null: bool) -> None:
        self.name = name
        self.read = read
        self.put = put
        self.rivals = rivals
        self.takes_null = takes_null


class Decoders:
    """
    The decoders of one pool's messages. Made once per pool and option: types are shared.

    Args:
        pool: Where the type of an ``Any`` and extensions are looked for.
        ignore_unknown: Members that are no field are dropped, and names that an enum does not have,
            as protobuf's parsers do it.
    """

    def __init__(self, pool: DescriptorPool, *, ignore_unknown: bool = False) -> None:
        self._pool = pool
        self._ignore_unknown = ignore_unknown
        self._fills: dict[str, Fill] = {}

    def decoder(self, descriptor: Descriptor) -> Callable[[bytes], Message]:
        """
        Return the function that makes a message of *descriptor* from JSON text; it raises ``Rejected``.
        """
        kind = GetMessageClass(descriptor)
        fill = self.fill(descriptor)

        def decode(text: bytes) -> Message:
            findings = Findings()
            message = kind()
            fill(read_json(text), message, None, findings)
            check_required(message, findings)
            findings.close()
            return message

        return decode

    def fill(self, descriptor: Descriptor) -> Fill:
        """
        Return the function that fills an empty message of *descriptor* from a JSON value.
        """
        name = descriptor.full_name
        fill = self._fills.get(name)
        if fill is None:
            if name in WRAPPERS:
                fill = _wrapper(reader(descriptor.fields_by_name["value"]))
            elif name == "google.protobuf.Any":
                fill = self._fill_any
            else:
                fill = KNOWN.get(name) or self._regular(descriptor)
            self._fills[name] = fill
        return fill

    def put(self, field: FieldDescriptor) -> Put:
        """
        Return the function that sets *field*, whatever it holds, from a JSON value that is not null.
        """
        name = field.name

        def assign(message: Any, value: Any) -> None:
            setattr(message, name, value)

        return self._put(field, attrgetter(name), assign)

    def _put(self, field: FieldDescriptor, get: Callable[[Any], Any], assign: Callable[[Any, Any], None]) -> Put:
        if is_map(field):
            key, value = entry_of(field)
            if value.message_type is not None:
                return self._put_map_of_messages(map_key(key), value.message_type, get)
            return self._put_map(map_key(key), reader(value), get)
        if field.message_type is not None:
            return (self._put_messages if field.is_repeated else self._put_message)(field.message_type, get)
        read = reader(field)
        return self._put_list(read, get) if field.is_repeated else self._put_scalar(read, assign)

    def _regular(self, descriptor: Descriptor) -> Fill:
        """Fill a message that has no JSON form of its own."""
        ignore = self._ignore_unknown
        lookup: dict[str, tuple[_Field | None, str | None]] = {}
        for name, field in spellings(descriptor).items():
            # Made when it is first met: messages contain themselves, and most fields are never sent.
            lookup[name] = None, field.json_name if name != field.json_name else None
        by_name = spellings(descriptor)

        def resolve(name: str, other: str | None) -> _Field:
            made = self._field(by_name[name])
            lookup[name] = made, other
            return made

        extension = self._extension_of(descriptor) if descriptor.is_extendable else None

        def fill(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
            if type(value) is not dict:
                findings.add(place, "must be an object")
                return
            for name, item in value.items():
                known = lookup.get(name)
                if known is not None:
                    field, other = known
                    if field is None:
                        field = resolve(name, other)
                    if other is not None and other in value:
                        findings.add((place, name), f"is the same field as {other}; only one may be given")
                        continue
                elif extension is not None and name[:1] == "[" and (found := extension(name)) is not None:
                    field = found
                else:
                    if not ignore:
                        findings.add((place, name), _UNKNOWN)
                    continue
                if item is None and not field.takes_null:
                    continue
                if field.rivals is not None:
                    rival = message.WhichOneof(field.rivals)
                    if rival is not None:
                        findings.add((place, name), f"excludes {rival}, which is given, too")
                        continue
                if field.read is None:
                    field.put(message, item, (place, name), findings)
                else:
                    try:
                        setattr(message, field.name, field.read(item))
                    except UnknownName as unfit:
                        if not ignore:
                            findings.add((place, name), str(unfit))
                    except Unfit as unfit:
                        findings.add((place, name), str(unfit))

        return fill

    def _field(self, field: FieldDescriptor) -> _Field:
        plain = field.message_type is None and not field.is_repeated
        return _Field(field.name, reader(field) if plain else None, self.put(field), choice_of(field), nullable(field))

    def _extension_of(self, descriptor: Descriptor) -> Callable[[str], _Field | None]:
        known: dict[str, _Field] = {}

        def find(name: str) -> _Field | None:
            if name in known:
                return known[name]
            try:
                field = self._pool.FindExtensionByName(name[1:-1])
            except KeyError:
                return None
            owner = field.containing_type
            if owner is None or owner.full_name != descriptor.full_name or name != f"[{field.full_name}]":
                return None

            def get(message: Any) -> Any:
                return message.Extensions[field]

            def assign(message: Any, value: Any) -> None:
                message.Extensions[field] = value

            known[name] = _Field(field.name, None, self._put(field, get, assign), None, nullable(field))
            return known[name]

        return find

    def _put_scalar(self, read: Read, assign: Callable[[Any, Any], None]) -> Put:
        ignore = self._ignore_unknown

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            try:
                assign(message, read(value))
            except Unfit as unfit:
                if not (ignore and isinstance(unfit, UnknownName)):
                    findings.add(place, str(unfit))

        return put

    def _put_message(self, descriptor: Descriptor, get: Callable[[Any], Any]) -> Put:
        fill = self.fill(descriptor)

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            inner = get(message)
            inner.SetInParent()
            findings.enter(place, 1)
            fill(value, inner, place, findings)
            findings.depth -= 1

        return put

    def _put_messages(self, descriptor: Descriptor, get: Callable[[Any], Any]) -> Put:
        fill = self.fill(descriptor)

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            if type(value) is not list:
                findings.add(place, "must be an array")
                return
            add = get(message).add
            findings.enter(place, 1)
            for index, item in enumerate(value):
                fill(item, add(), (place, index), findings)
            findings.depth -= 1

        return put

    def _put_list(self, read: Read, get: Callable[[Any], Any]) -> Put:
        ignore = self._ignore_unknown

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            if type(value) is not list:
                findings.add(place, "must be an array")
                return
            try:
                get(message).extend([read(item) for item in value])
            except Unfit:
                kept = []
                for index, item in enumerate(value):
                    try:
                        kept.append(read(item))
                    except Unfit as unfit:
                        if not (ignore and isinstance(unfit, UnknownName)):
                            findings.add((place, index), str(unfit))
                get(message).extend(kept)

        return put

    def _put_map(self, read_key: Read, read: Read, get: Callable[[Any], Any]) -> Put:
        ignore = self._ignore_unknown

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            if type(value) is not dict:
                findings.add(place, "must be an object")
                return
            target = get(message)
            for name, item in value.items():
                try:
                    target[read_key(name)] = read(item)
                except Unfit as unfit:
                    if not (ignore and isinstance(unfit, UnknownName)):
                        findings.add((place, Key(name)), str(unfit))

        return put

    def _put_map_of_messages(self, read_key: Read, descriptor: Descriptor, get: Callable[[Any], Any]) -> Put:
        fill = self.fill(descriptor)

        def put(message: Any, value: Any, place: Place | None, findings: Findings) -> None:
            if type(value) is not dict:
                findings.add(place, "must be an object")
                return
            target = get(message)
            findings.enter(place, 2)  # An entry, and the message in it.
            for name, item in value.items():
                here: Place = (place, Key(name))
                try:
                    key = read_key(name)
                except Unfit as unfit:
                    findings.add(here, str(unfit))
                else:
                    fill(item, target[key], here, findings)
            findings.depth -= 2

        return put

    def _fill_any(self, value: Any, message: Any, place: Place | None, findings: Findings) -> None:
        if type(value) is not dict:
            findings.add(place, "must be an object with @type")
            return
        if not value:
            return
        url = value.get("@type")
        if type(url) is not str:
            findings.add((place, "@type"), "must be a string that names the type")
            return
        _, slash, name = url.rpartition("/")
        try:
            descriptor = self._pool.FindMessageTypeByName(name) if slash else None
        except KeyError:
            descriptor = None
        if descriptor is None:
            findings.add((place, "@type"), f"{shorten(url)!r} is no type that is known here")
            return
        inner = GetMessageClass(descriptor)()
        depth, findings.depth = findings.depth, 0
        rest = {member: item for member, item in value.items() if member != "@type"}
        if descriptor.full_name in WELL_KNOWN:
            for member in rest:
                if member != "value" and not self._ignore_unknown:
                    findings.add((place, member), _UNKNOWN)
            if "value" in rest:
                self.fill(descriptor)(rest["value"], inner, (place, "value"), findings)
            else:
                findings.add((place, "value"), "is missing")
        else:
            self.fill(descriptor)(rest, inner, place, findings)
        findings.depth = depth
        before = len(findings.found)
        check_required(inner, findings, place)
        if len(findings.found) == before:
            message.type_url = url
            message.value = inner.SerializeToString()


def check_required(message: Message, findings: Findings, place: Place | None = None) -> None:
    """
    See that a message of proto2 has the fields that it requires, without which it cannot be sent.
    """
    # Not by FindInitializationErrors: upb crashes the process there, and in SerializeToString, when a
    # message that lacks a field has a map of scalars as well.
    if not message.IsInitialized():
        _missing(message, findings, place)


def _missing(message: Any, findings: Findings, place: Place | None) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.is_required and not message.HasField(field.name):
            findings.add((place, field.json_name), "is required")
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        here: Place = (place, f"[{field.full_name}]" if field.is_extension else field.json_name)
        if is_map(field):
            if entry_of(field)[1].message_type is not None:
                for key, item in value.items():
                    _missing(item, findings, (here, Key(key)))
        elif field.is_repeated:
            for index, item in enumerate(value):
                _missing(item, findings, (here, index))
        else:
            _missing(value, findings, here)


def nullable(field: FieldDescriptor) -> bool:
    """
    Tell whether null is a value of *field*: elsewhere it stands for its absence.
    """
    if field.is_repeated:
        return False
    if field.message_type is not None:
        return bool(field.message_type.full_name == _VALUE)
    return field.enum_type is not None and field.enum_type.full_name == NULL_VALUE


def _wrapper(read: Read) -> Fill:
    def fill(value: Any, message: Any, place: Place | None, findings: Findings) -> None:
        try:
            message.value = read(value)
        except Unfit as unfit:
            findings.add(place, str(unfit))

    return fill
