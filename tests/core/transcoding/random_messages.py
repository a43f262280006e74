"""
Messages of any type by chance, from a seed: each kind of value, with its edges.
"""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

F = FieldDescriptor

INTEGERS = {
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), (0, 2**64 - 1)),
}
DOUBLES = [0.0, -0.0, 1.0, -1.5, 0.1, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 2.0**53, float("inf"), -float("inf")]
SINGLES = [0.0, -0.0, 0.1, 3.0e38, 1.401298464324817e-45, 16777216.0, 123456.789, float("-inf")]
STRINGS = ["", "a", "héllo", "日本", "\U0001f600", 'q"\\/\b\n\x00\x7f', "a:b,{}[]", "\u2028", "null", "1"]
BYTESS = [b"", b"\x00", b"\xff\xfe", b"ab", b"abc", bytes(range(256))]
PATHS = ["a", "snake_case_name", "scalars.an_int32", "x1"]
IN_ANY = ["test.v1.Scalars", "test.v1.Choice", "google.protobuf.Duration", "google.protobuf.Int64Value"]
IN_ANY += ["google.protobuf.ListValue", "google.protobuf.Any", "google.protobuf.Empty", "test.legacy.Legacy"]


class RandomMessages:
    """
    A source of messages of *pool*'s types.

    ``nan`` lets NaN in, which does not equal itself.
    """

    def __init__(self, seed: int, pool: DescriptorPool, *, nan: bool = False, depth: int = 3) -> None:
        self.random = Random(seed)
        self.pool = pool
        self.depth = depth
        self.doubles = [*DOUBLES, float("nan")] if nan else DOUBLES
        self.singles = [*SINGLES, float("nan")] if nan else SINGLES

    def message(self, descriptor: Descriptor) -> Message:
        """Make one message."""
        message = GetMessageClass(descriptor)()
        self.fill(message, self.depth)
        return message

    def fill(self, message: Any, depth: int) -> None:
        """Fill *message*, with messages inside it at most *depth* deep."""
        descriptor = message.DESCRIPTOR
        known = getattr(self, f"fill_{descriptor.name.lower()}", None)
        if descriptor.full_name.startswith("google.protobuf.") and known is not None:
            known(message, depth)
            return
        share = self.random.choice((0.1, 0.5, 1.0))
        for field in descriptor.fields:
            required = descriptor.full_name != "google.protobuf.Value" and field.is_required
            if required or self.random.random() < share:
                self.set(field, message, getattr(message, field.name), depth, None)
        if descriptor.is_extendable:
            for extension in self.pool.FindAllExtensions(descriptor):
                if self.random.random() < share:
                    self.set(extension, message, message.Extensions[extension], depth, extension)

    def set(self, field: FieldDescriptor, message: Any, value: Any, depth: int, extension: Any) -> None:
        """Set one field; *value* is what it holds now."""
        entry = field.message_type
        if field.is_repeated and entry is not None and entry.GetOptions().map_entry:
            key, item = entry.fields_by_name["key"], entry.fields_by_name["value"]
            for _ in range(self.random.randrange(3)):
                if item.message_type is None:
                    value[self.scalar(key)] = self.scalar(item)
                elif depth > 0:
                    self.fill(value[self.scalar(key)], depth - 1)
        elif field.message_type is not None:
            if depth > 0 and field.is_repeated:
                for _ in range(self.random.randrange(3)):
                    self.fill(value.add(), depth - 1)
            elif depth > 0 or field.is_required:
                value.SetInParent()
                self.fill(value, depth - 1)
        elif field.is_repeated:
            value.extend(self.scalar(field) for _ in range(self.random.randrange(4)))
        elif extension is not None:
            message.Extensions[extension] = self.scalar(field)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        """Make a value of a scalar field."""
        choose = self.random.choice
        if field.type in INTEGERS:
            low, high = INTEGERS[field.type]
            chosen: int = choose([low, high, 0, 1, self.random.randint(low, high), max(low, -1), min(high, 2**53 + 1)])
            return chosen
        if field.type == F.TYPE_ENUM:
            assert field.enum_type is not None
            numbers = [value.number for value in field.enum_type.values]
            only = field.enum_type.is_closed or field.enum_type.name == "NullValue"  # Whose every number is null.
            return choose(numbers if only else [*numbers, 77, -9])
        if field.type == F.TYPE_BOOL:
            return choose((True, False))
        if field.type == F.TYPE_STRING:
            return choose(STRINGS)
        if field.type == F.TYPE_BYTES:
            return choose(BYTESS)
        return choose(self.doubles if field.type == F.TYPE_DOUBLE else self.singles)

    def fill_timestamp(self, message: Any, depth: int) -> None:
        """Fill a Timestamp within its range."""
        message.seconds = self.random.choice([0, -1, -62135596800, 253402300799, self.random.randrange(4 * 10**9)])
        message.nanos = self.random.choice([0, 1, 1000, 1_000_000, 999_999_999, 120_000_000])

    def fill_duration(self, message: Any, depth: int) -> None:
        """Fill a Duration whose parts have one sign."""
        sign = self.random.choice((1, -1))
        message.seconds = sign * self.random.choice([0, 1, 3600, 315_576_000_000 - 1])
        message.nanos = sign * self.random.choice([0, 1, 1000, 5_000_000, 999_999_999])

    def fill_fieldmask(self, message: Any, depth: int) -> None:
        """Fill a FieldMask with paths that have a JSON form."""
        message.paths.extend(self.random.sample(PATHS, self.random.randrange(3)))

    def fill_value(self, message: Any, depth: int) -> None:
        """Fill a Value; there is no JSON for one that is not set."""
        kind = self.random.randrange(6 if depth > 0 else 4)
        if kind == 0:
            message.null_value = 0
        elif kind == 1:
            message.number_value = self.random.choice([0.0, 1.5, -2.0, 1e300])
        elif kind == 2:
            message.string_value = self.random.choice(STRINGS)
        elif kind == 3:
            message.bool_value = self.random.choice((True, False))
        elif kind == 4:
            message.struct_value.SetInParent()
            for _ in range(self.random.randrange(3)):
                self.fill_value(message.struct_value.fields[self.random.choice(STRINGS)], depth - 1)
        else:
            message.list_value.SetInParent()
            for _ in range(self.random.randrange(3)):
                self.fill_value(message.list_value.values.add(), depth - 1)

    def fill_any(self, message: Any, depth: int) -> None:
        """Fill an Any with a message of some type, or leave it empty."""
        if depth > 0 and self.random.random() < 0.8:
            inner = GetMessageClass(self.pool.FindMessageTypeByName(self.random.choice(IN_ANY)))()
            self.fill(inner, depth - 1)
            message.type_url = f"type.googleapis.com/{inner.DESCRIPTOR.full_name}"
            message.value = inner.SerializeToString()
