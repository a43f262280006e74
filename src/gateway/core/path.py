r"""
One canonical path, made once: the same bytes are matched, authorised and forwarded.

A gateway that decides on one spelling and forwards another lets a caller walk around the
decision. So every spelling is either brought to one form or refused; nothing is left for a
backend to understand differently. The rules follow RFC 3986 (sections 5.2.4 and 6.2.2); where
servers disagree about what a spelling means, it is refused (``Problem``, with this *reason*):

===============================  ===============================================================
seen                             done
===============================  ===============================================================
not beginning with ``/``         refused ``target_form``: absolute, authority and asterisk form
byte outside 0x21..0x7E          refused ``not_ascii``, in path and query
``#``                            refused ``fragment``, in path and query
``%`` without two hex digits     refused ``bad_escape`` (path)
``%41`` of an unreserved byte    decoded: ``A``
any other ``%xx``                kept, with upper-case digits
``" < > [ ] ^ ` { | }``          percent-encoded: no URL holds them plain
``.`` and ``..`` segments        removed; ``..`` above the root refused ``above_root``
``..`` after an empty segment    refused ``above_empty``: servers remove different segments
dot segment with an escape       refused ``encoded_dot``: ``%2e%2e``, ``.%2E``, ``..%2f``, ``..%3b``
``//``                           merged into one ``/``
``;``                            refused ``path_parameter``; ``%3B`` is data and kept
``\`` and ``%5C``                refused ``backslash``
``%2F``                          kept and flagged; a route must allow it (see ``core.routes``)
``%00``..``%1F``, ``%7F``, C1    refused ``control``
``%80``.. that is not UTF-8      refused ``not_utf8``: overlong forms, surrogates, Latin-1
escape of an escape, ``%252e``   refused ``double_encoding``: a second decoding would change it
``%EF%BC%8F`` and its like       refused ``lookalike``: NFKC folds it into ``/ \ ; % ? #`` or dots
===============================  ===============================================================

The query is data: it is passed on as it came. A trailing slash is significant: ``/a/`` is not
``/a``. ``OPTIONS *`` has no path; the caller answers it before it asks for one.
"""

from __future__ import annotations

import re
from typing import Final
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from gateway.core.problems import Problem

__all__ = ["REFUSALS", "Target", "canonical", "encode_segment"]

REFUSALS: Final = {
    "target_form": "The request target must begin with a slash.",
    "not_ascii": "The request target holds a byte that is not visible ASCII.",
    "fragment": "The request target holds a fragment.",
    "bad_escape": "A percent sign in the path is not followed by two hexadecimal digits.",
    "above_root": "The path climbs above the root.",
    "above_empty": "The path climbs out of an empty segment.",
    "encoded_dot": "The path holds an encoded dot segment.",
    "path_parameter": "The path holds a semicolon.",
    "backslash": "The path holds a backslash.",
    "control": "The path holds an encoded control character.",
    "not_utf8": "The path does not decode to UTF-8.",
    "double_encoding": "The path is encoded twice.",
    "lookalike": "The path holds a character that some servers fold into a delimiter.",
    "encoded_slash": "The path holds an encoded slash, which this route does not take.",
}
"""Reason (for the log and counters) to what the caller is told. ``docs/paths.md`` lists the same."""

_CACHE_SIZE = 2048
_CACHE_LONGEST = 192  # Bytes; with _CACHE_SIZE it bounds the memory an attacker can fill to some 2 MB.

# What needs no work: no escape, no semicolon, no backslash. Dots and double slashes are looked for after.
_plain = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*").fullmatch
_bad_in_query = re.compile(rb"[^!\"$-~]").search
_visible = re.compile(rb"[!-~]*").fullmatch
_escape_missing = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_escape_inside = re.compile(r"%[0-9A-Fa-f]{2}").search
_control_inside = re.compile("[\x00-\x1f\x7f-\x9f]").search
_folds_into_delimiter = re.compile(r"[/\\;%?#\x00-\x1f]").search
_escape = re.compile(rb"%[0-9A-Fa-f]{2}|[\"<>\[\]^`{|}]")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLAIN_IN_SEGMENT: Final = _UNRESERVED | frozenset(b"!$&'()*+,=:@")
_DOTS: Final = frozenset((".", ".."))


class Target:
    """
    A request target that has been read once. Shared and cached: never changed.

    Attributes:
        path: Canonical and percent-encoded, beginning with ``/``: what is matched and forwarded.
        segments: *path* split at its slashes and decoded; ``/`` is ``("",)``, ``/a/`` is ``("a", "")``.
        query: As received, without ``?``; empty also when there was none.
        raw: The target as received.
        encoded_slash: A segment holds ``%2F``, which a route must allow.
    """

    __slots__ = ("encoded_slash", "path", "query", "raw", "segments")

    def __init__(
        self, path: bytes, segments: tuple[str, ...], query: bytes, raw: bytes, encoded_slash: bool = False
    ) -> None:
        self.path = path
        self.segments = segments
        self.query = query
        self.raw = raw
        self.encoded_slash = encoded_slash

    def __repr__(self) -> str:
        return f"Target({self.path!r})"  # The query may hold a token.


_cache: dict[bytes, Target] = {}


def canonical(target: bytes) -> Target:
    """
    Read a request *target* in origin form.

    Idempotent: ``canonical(t.path).path == t.path``.

    Raises:
        Problem: ``bad_request`` when it is no origin form or not visible ASCII; ``bad_path``
            when it is spelled in a way the table above refuses. ``reason`` is a key of ``REFUSALS``.
    """
    known = _cache.get(target)
    if known is not None:
        return known
    if b"?" in target:
        path, _, query = target.partition(b"?")
        known = canonical(path)  # Remembered without the query, which differs more often and may hold a token.
        if _bad_in_query(query):
            raise _refuse("fragment" if b"#" in query else "not_ascii", "bad_request")
        return Target(known.path, known.segments, query, target, known.encoded_slash)
    if _plain(target) and b"/." not in target and b"//" not in target:
        made = Target(target, tuple(target.decode("ascii").split("/")[1:]), b"", target)
    else:
        made = _read(target)
    if len(target) <= _CACHE_LONGEST:
        if len(_cache) >= _CACHE_SIZE:
            _cache.clear()
        _cache[target] = made
    return made


def encode_segment(text: str) -> bytes:
    """
    Encode decoded *text* as one canonical segment.
    """
    return b"".join([b"%c" % byte if byte in _PLAIN_IN_SEGMENT else b"%%%02X" % byte for byte in text.encode()])


def _refuse(reason: str, code: str = "bad_path") -> Problem:
    return Problem(code, REFUSALS[reason], reason=reason)


def _read(path: bytes) -> Target:
    if path[:1] != b"/":
        raise _refuse("target_form", "bad_request")
    if _visible(path) is None:
        raise _refuse("not_ascii", "bad_request")
    if b"#" in path:
        raise _refuse("fragment", "bad_request")
    if b"\\" in path:
        raise _refuse("backslash")
    if b";" in path:
        raise _refuse("path_parameter")
    if _escape_missing(path):
        raise _refuse("bad_escape")
    encoded: list[bytes] = []
    decoded: list[str] = []
    before = b"/"
    last = b""
    for last in path.split(b"/")[1:]:
        if last == b"..":
            if before == b"":
                raise _refuse("above_empty")
            if not encoded:
                raise _refuse("above_root")
            encoded.pop()
            decoded.pop()
        elif last not in (b"", b"."):
            text = _decode(last)
            decoded.append(text)
            encoded.append(_escape.sub(_normal_escape, last))
        before = last
    if last in (b"", b".", b".."):
        encoded.append(b"")
        decoded.append("")
    slashed = any("/" in text for text in decoded)
    return Target(b"/" + b"/".join(encoded), tuple(decoded), b"", path, slashed)


def _decode(segment: bytes) -> str:
    """
    Decode one segment, neither empty nor a plain dot segment, and judge what comes out.
    """
    if b"%" not in segment:
        return segment.decode("ascii")
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise _refuse("not_utf8") from None
    if _control_inside(text):
        raise _refuse("control")
    if "\\" in text:
        raise _refuse("backslash")
    if _escape_inside(text):
        raise _refuse("double_encoding")
    if _has_dots(text):
        raise _refuse("encoded_dot")
    if not text.isascii():
        strange = "".join([character for character in text if character > "\x7f"])
        if _folds_into_delimiter(normalize("NFKC", strange)) or _has_dots(normalize("NFKC", text)):
            raise _refuse("lookalike")
    return text


def _has_dots(text: str) -> bool:
    """Whether a server that splits *text* again, or cuts parameters off, finds a dot segment."""
    return any(part.partition(";")[0] in _DOTS for part in text.split("/"))


def _normal_escape(found: re.Match[bytes]) -> bytes:
    text = found[0]
    if len(text) == 1:
        return b"%%%02X" % text[0]
    byte = int(text[1:], 16)
    return b"%c" % byte if byte in _UNRESERVED else text.upper()
