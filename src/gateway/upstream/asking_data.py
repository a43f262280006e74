"""
What a backend is sent over HTTP: the client's data under what the configuration sets, as a body or a query.

Backends read one text in more than one way: Go takes a member in any case, PHP and others take ``who[user]``
in a query for an object. Whatever may be read as a field that is set is left out of what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from gateway.core.verdicts import ClientError, ErrorCode

__all__ = ["body_of", "given_by", "key_text", "query_of"]

_steps = re.compile(r"[.\[\]\s]+").sub


def given_by(data: bytes) -> bytes:
    """
    Take JSON text as it is; ``null``, which SDKs send for nothing, is nothing.
    """
    return b"" if data == b"null" else data


def key_text(key: str) -> str:
    """
    Write an idempotency key so that it can stand in a header; what cannot is percent-encoded from its UTF-8.
    """
    return quote(key, safe=" !#$&'()*+,/:;=?@[]~", errors="replace").strip()


def body_of(data: bytes, values: Mapping[str, Any]) -> bytes:
    """
    Make a body: *data* as it is where nothing is set, else one object of both.

    Args:
        values: By path, with dots.

    Raises:
        ClientError: something is set, and *data* is no object.
    """
    if not values:
        return data or b"{}"
    given = _object(data)
    for path, value in values.items():
        _put(given, path.split("."), value)
    return msgspec.json.encode(given)


def query_of(data: bytes, values: Mapping[str, Any], fixed: str) -> str:
    """
    Make a query: what the configured path has already, the members of *data*, and what is set.

    Raises:
        ClientError: *data* is no object, or too deep.
    """
    given = _object(data)
    ours = {_plain(name) for name, _ in parse_qsl(fixed, keep_blank_values=True)} | {_plain(path) for path in values}
    try:
        pairs = [(name, text) for name, text in _pairs(given, "") if not _is_of(_plain(name), ours)]
    except RecursionError:
        raise ClientError(ErrorCode.BAD_REQUEST, "the data is nested too deep") from None
    for path, value in values.items():
        pairs += _pairs(value, path)
    return "&".join(part for part in (fixed, urlencode(pairs)) if part)


def _object(data: bytes) -> dict[str, Any]:
    try:
        given: Any = msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ClientError(ErrorCode.BAD_REQUEST, "the data is not JSON") from None
    if not isinstance(given, dict):
        raise ClientError(ErrorCode.BAD_REQUEST, "the data is no JSON object")
    return given


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    *outer, last = path
    for name in outer:
        inner = _taken(into, name)
        if not isinstance(inner, dict):
            inner = {}
        into[name] = inner
        into = inner
    _taken(into, last)
    into[last] = value


def _taken(members: dict[str, Any], name: str) -> Any:
    """Take the member *name* out, and with it what differs from it only in case."""
    kept = members.get(name)
    folded = name.casefold()
    for other in [other for other in members if other.casefold() == folded]:
        del members[other]
    return kept


def _plain(name: str) -> str:
    """One spelling for the names in a query that may be read as the same."""
    return _steps(".", name.casefold()).strip(".")


def _is_of(name: str, ours: Iterable[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in ours)


def _pairs(value: Any, name: str) -> list[tuple[str, str]]:
    """Flatten a value into a query: members by dots, elements by saying the name again."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _pairs(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        return [pair for element in value for pair in _pairs(element, name)]
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, str(value))]
