"""
What travels on a channel's topic, and what a stream keeps of a publication.

A message is a letter and its body: ``pOFFSET:EPOCH:BLOB`` a publication (offset 0 without history), ``jINFO`` and ``lINFO``
somebody who came or went. A blob is one byte that says how the rest is written: 0 the payload alone,
1 MessagePack with what else there is. Written by scripts and by instances of other releases: only ever add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.publications import ClientInfo, Publication

__all__ = ["info_of", "packed", "packed_info", "unpacked"]

_PLAIN: Final = b"\x00"
_MORE: Final = b"\x01"


class _Info(Struct, array_like=True):
    user: str
    client: str
    conn_info: bytes = b""
    chan_info: bytes = b""


class _More(Struct, array_like=True):
    data: bytes
    info: _Info | None = None
    tags: dict[str, str] | None = None
    time_ms: int = 0
    version: int = 0
    trace: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_more: Final = msgspec.msgpack.Decoder(_More).decode
_info: Final = msgspec.msgpack.Decoder(_Info).decode


def packed(
    data: bytes, info: ClientInfo | None, tags: Mapping[str, str] | None, time_ms: int, version: int, trace: str
) -> bytes:
    """
    Write a publication; its offset is the store's to give.
    """
    if info is None and not tags and not time_ms and not version and not trace:
        return _PLAIN + data
    who = _Info(info.user, info.client, info.conn_info, info.chan_info) if info is not None else None
    return _MORE + _encode(_More(data, who, dict(tags) if tags else None, time_ms, version, trace))


def unpacked(blob: bytes, offset: int) -> Publication:
    """
    Read a publication.

    Raises:
        ValueError: it is none of ours.
    """
    if blob[:1] == _PLAIN:
        return Publication(blob[1:], offset)
    if blob[:1] != _MORE:
        raise ValueError("a publication of a form that this release does not know")
    more = _more(blob[1:])
    who = more.info
    info = ClientInfo(who.user, who.client, who.conn_info, who.chan_info) if who is not None else None
    return Publication(more.data, offset, info, more.tags, more.time_ms, more.version, more.trace)


def packed_info(info: ClientInfo) -> bytes:
    """
    Write who a connection is.
    """
    return _encode(_Info(info.user, info.client, info.conn_info, info.chan_info))


def info_of(packed: bytes) -> ClientInfo:
    """
    Read who a connection is.

    Raises:
        ValueError: it is none of ours.
    """
    read = _info(packed)
    return ClientInfo(read.user, read.client, read.conn_info, read.chan_info)
