"""
Which fields a partial update names, from the members of its JSON (AIP-134, grpc-gateway's patch feature).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import Descriptor

from gateway.core.transcoding.fields import FIELD_MASK, WELL_KNOWN, spellings

__all__ = ["mask_field", "mask_paths"]


def mask_field(descriptor: Descriptor) -> str | None:
    """
    Name the one FieldMask of a request; None when there is none, or more than one to choose from.
    """
    masks = [
        field.name
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.full_name == FIELD_MASK and not field.is_repeated
    ]
    return str(masks[0]) if len(masks) == 1 else None


def mask_paths(descriptor: Descriptor, value: dict[str, Any], without: Collection[str] = ()) -> list[str]:
    """
    List the proto paths that *value*, JSON of *descriptor*, names.

    A message with members is gone into; one that is null or empty, a list, a map and a well-known
    type are named as a whole. Members that are no field are left out.

    Args:
        without: Paths to leave out: those that were bound elsewhere.
    """
    paths: list[str] = []
    _collect(descriptor, value, "", paths)
    return [path for path in paths if path not in without]


def _collect(descriptor: Descriptor, value: dict[str, Any], before: str, paths: list[str]) -> None:
    known = spellings(descriptor)
    for name, item in value.items():
        field = known.get(name)
        if field is None:
            continue
        path = before + field.name
        message = field.message_type
        whole = message is None or field.is_repeated or message.full_name in WELL_KNOWN
        if message is not None and not whole and isinstance(item, dict) and item:
            _collect(message, item, f"{path}.", paths)
        else:
            paths.append(path)
