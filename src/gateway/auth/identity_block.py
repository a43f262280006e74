"""
How a backend is told who calls: the header lines that the gateway alone writes.

What a header cannot hold is percent-encoded from its UTF-8, the percent sign itself too, so that a
backend which decodes gets exactly the claim and one which does not gets no control byte. Elements
of a list are joined by commas, and a comma within an element is encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from gateway.auth.minted import LIFETIME_S, Minter
from gateway.config.expressions import compile_expression
from gateway.config.sections import Upstream
from gateway.core.identity import Identity

__all__ = ["header_value", "identity_block"]

REMEMBERED: Final = 4096
"""Callers whose lines are kept, per upstream and route."""

Block = Callable[[Identity], bytes]

_ROOT = frozenset(("claims",))
_encode_in_text = re.compile(rb"[^!-$&-~ ]|^ | $").sub
_encode_in_list = re.compile(rb"[^!-$&-+\--~ ]|^ | $").sub


def identity_block(section: Upstream, minter: Minter) -> Block:
    """
    Make the builder of the header lines for *section*.

    The builder's result is one look-up for a caller who was here before. A minted token is used
    again for half its life, so that one that leaves is good for 30 s more.

    Raises:
        ExpressionError: ``identity_headers`` has something that is no path to a claim.
    """
    if section.identity == "headers":
        return _Kept(_headers(section))
    if section.identity == "token":
        return _token
    if section.identity == "minted":
        name, carried = section.name, section.minted_claims
        return _Minted(
            lambda identity: b"Authorization: Bearer %b\r\n" % minter.mint(identity, name, carried), minter.wall
        )
    return lambda _: b""


def header_value(value: Any) -> bytes:
    """
    Write a claim so that it can stand in a header; empty for what is absent.
    """
    if isinstance(value, list):
        return b",".join([_encode_in_list(_escaped, _plain(element)) for element in value])
    return _encode_in_text(_escaped, _plain(value))


def _headers(section: Upstream) -> Block:
    fields = [
        (name.encode("ascii"), (compile_expression(source, _ROOT).path or ())[1:])
        for name, source in section.identity_headers
    ]
    own = any(name.lower() == b"x-user-id" for name, _ in fields)

    def build(identity: Identity) -> bytes:
        lines = [] if own else [b"X-User-Id: %b\r\n" % header_value(identity.subject)]
        for name, path in fields:
            value = header_value(_claim(identity, path))
            if value:
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)

    return build


def _token(identity: Identity) -> bytes:
    return b"Authorization: Bearer %b\r\n" % identity.credential if identity.credential else b""


class _Kept:
    """
    Lines kept by credential: one token says one thing, and its bytes have been hashed before.
    """

    __slots__ = ("_build", "_get", "_lines")

    def __init__(self, build: Block) -> None:
        self._build = build
        self._lines: dict[bytes, bytes] = {}
        self._get = self._lines.get

    def __call__(self, identity: Identity) -> bytes:
        credential = identity.credential
        lines = self._get(credential)
        if lines is None:
            lines = self._build(identity)
            if credential:  # Without one, all who have none would be the same caller.
                if len(self._lines) >= REMEMBERED:
                    self._lines.clear()
                self._lines[credential] = lines
        return lines


class _Minted:
    """
    Lines kept by credential for half the life of the token in them.
    """

    __slots__ = ("_build", "_lines", "_wall")

    def __init__(self, build: Block, wall: Callable[[], float]) -> None:
        self._build = build
        self._wall = wall
        self._lines: dict[bytes, tuple[float, bytes]] = {}

    def __call__(self, identity: Identity) -> bytes:
        credential = identity.credential
        now = self._wall()
        known = self._lines.get(credential)
        # A clock that was set back must not keep a token from the future.
        if known is not None and 0 <= known[0] - now <= LIFETIME_S / 2:
            return known[1]
        lines = self._build(identity)
        if credential:
            if len(self._lines) >= REMEMBERED:
                self._lines.clear()
            self._lines[credential] = (now + LIFETIME_S / 2, lines)
        return lines


def _claim(identity: Identity, path: tuple[str, ...]) -> Any:
    value: Any = identity.claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _plain(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"".join([b"%%%02X" % byte for byte in found[0]])
