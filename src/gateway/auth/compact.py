"""
A compact JWS read strictly, before anything is believed (RFC 7515, RFC 7519, RFC 8725).

PyJWT takes padding and the last of duplicate members. A deny-list, a cache and a backend that each read a token differently can be played
against one another; here a token has one spelling and one meaning or is refused.
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Any, Final, NamedTuple

from gateway.auth.reasons import refused

__all__ = ["Compact", "parse_object", "read"]

MAX_DEPTH: Final = 16
"""Deepest nesting of claims; what evaluates them later recurses."""

_part = re.compile(rb"[A-Za-z0-9_-]+").fullmatch
_surrogate = re.compile(rb"\\u[dD][89a-fA-F]").search
_standard = bytes.maketrans(b"-_", b"+/")
# The last sign of an incomplete group has bits that mean nothing; only one value is canonical.
_LAST_OF_TWO: Final = frozenset(b"AQgw")
_LAST_OF_THREE: Final = frozenset(b"AEIMQUYcgkosw048")


class Compact(NamedTuple):
    """
    The parts of a token, decoded, nothing verified.
    """

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read(token: bytes, max_bytes: int) -> Compact:
    """
    Take *token* apart.

    Raises:
        Problem: ``token_invalid``: ``too_long``, ``encrypted``, ``malformed`` or ``duplicate_member``.
    """
    if len(token) > max_bytes:
        raise refused("too_long")
    parts = token.split(b".", 5)
    if len(parts) != 3:
        raise refused("encrypted" if len(parts) == 5 else "malformed")
    header, claims, signature = parts
    try:
        return Compact(
            parse_object(_decoded(header)),
            parse_object(_decoded(claims)),
            token[: -len(signature) - 1],
            _decoded(signature),
        )
    except _DuplicateError:
        raise refused("duplicate_member") from None
    except (ValueError, RecursionError):
        raise refused("malformed") from None


def parse_object(data: bytes) -> dict[str, Any]:
    """
    Parse a JSON object: UTF-8, no duplicate members, finite numbers, whole characters, at most 16 deep.

    Raises:
        ValueError: it is not that.
        RecursionError: it is nested absurdly.
    """
    parsed = _decode(data.decode("utf-8"))
    if not isinstance(parsed, dict):
        raise ValueError("not an object")  # noqa: TRY004
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(parsed) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if _surrogate(data):
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # Half a surrogate pair cannot be encoded.
    return parsed


class _DuplicateError(ValueError):
    pass


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateError("a member stands there twice")
    return made


def _constant(name: str) -> float:
    raise ValueError(name)


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant, parse_float=_number).decode


def _depth(value: Any) -> int:
    """How deep *value* is nested; recursion is bounded by that of the parser, which ran before."""
    level, depth = [value], 0
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _decoded(part: bytes) -> bytes:
    """Decode base64url without padding, of which exactly one spelling is taken (RFC 7515, section 2)."""
    if not _part(part):
        raise ValueError("not base64url")
    over = len(part) % 4
    if over == 1 or (over == 2 and part[-1] not in _LAST_OF_TWO) or (over == 3 and part[-1] not in _LAST_OF_THREE):
        raise ValueError("not canonical")
    return binascii.a2b_base64(part.translate(_standard) + b"=" * (-over % 4))
