"""
Between the messages of ``gateway.v1`` and the plain values of operations.

Bytes in a message are JSON text, which the operations take in base64 and give as ``msgspec.Raw``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["fill", "plain"]


def plain(message: Message) -> dict[str, Any]:
    """
    Read a request: what was set, by name.
    """
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_BYTES:
            found[f"b64{field.name}"] = b64encode(value).decode("ascii")
        elif field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            found[field.name] = dict(value)
        elif field.is_repeated:
            found[field.name] = [plain(each) for each in value]
        else:
            found[field.name] = plain(value)
    return found


def fill(message: Any, values: Mapping[str, Any]) -> None:
    """
    Write an operation's values into *message*.
    """
    fields = message.DESCRIPTOR.fields_by_name
    message.SetInParent()
    for name, value in values.items():
        field = fields[name]
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, name, bytes(value))
        elif field.message_type is None:
            if field.is_repeated:
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        elif field.message_type.GetOptions().map_entry:
            into = getattr(message, name)
            for key, inner in value.items():
                if isinstance(inner, Mapping):
                    fill(into[key], inner)
                else:
                    into[key] = inner
        elif field.is_repeated:
            for each in value:
                fill(getattr(message, name).add(), each)
        else:
            fill(getattr(message, name), value)
