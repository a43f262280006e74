"""
What browsers are told beside an answer: security headers, and which pages may read it.

Everything that can be is made when the configuration is read; an answer then takes one look at its head.
The gateway's own answers get all of it; a backend's answer what the backend did not say itself, or,
with ``override``, all of it instead of what the backend says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.core.cors import NAMES, Cors
from gateway.core.headers import response_block
from gateway.core.message import Header, ResponseHead, block_of, values_of

__all__ = ["BrowserRules", "SecurityHeaders"]

_CACHE: Final = b"cache-control"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_POLICY: Final = b"content-security-policy"
_REMEMBERED: Final = 256
"""Heads of backends' answers, which differ little within a second."""
_FRAMES: Final = frozenset((b"x-frame-options", _POLICY))


@dataclass(frozen=True, slots=True)
class SecurityHeaders:
    """
    Attributes:
        lines: Name to value, as they are sent.
        hsts: Value of ``Strict-Transport-Security``, sent to who came by TLS; empty: not sent.
        frame_ancestors: Sources of the directive; empty: not sent.
        no_store: Answers to callers who proved who they are are not to be stored, unless the backend says how.
        override: A backend's own are replaced.
    """

    lines: Mapping[str, str]
    hsts: str = ""
    frame_ancestors: str = ""
    no_store: bool = True
    override: bool = False

    def all(self, *, secure: bool) -> list[Header]:
        """
        List them; *secure*: the client came by TLS.
        """
        found = [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.lines.items()]
        if self.frame_ancestors:
            found.append((b"Content-Security-Policy", b"frame-ancestors " + self.frame_ancestors.encode("ascii")))
        if secure and self.hsts:
            found.append((b"Strict-Transport-Security", self.hsts.encode("ascii")))
        return found


class BrowserRules:
    """
    The rules of one route.

    Args:
        cors: None: pages of other origins may read nothing.
    """

    __slots__ = ("_decided", "_made", "_no_store", "_override", "_security", "_sets", "cors")

    def __init__(self, security: SecurityHeaders, cors: Cors | None) -> None:
        self.cors = cors
        self._security = (security.all(secure=False), security.all(secure=True))
        self._sets = (block_of(self._security[0]), block_of(self._security[1]))
        self._made: dict[tuple[bytes, bool, bool], bytes] = {}
        self._no_store = security.no_store
        self._override = security.override
        decided = {name.lower() for name, _ in self._security[1]} | {_CACHE}
        if security.frame_ancestors:
            decided |= _FRAMES
        self._decided = frozenset(decided | NAMES if cors is not None else decided)

    def own(self, origin: bytes | None, *, secure: bool) -> bytes:
        """
        Make the lines for an answer of the gateway's own.

        Args:
            origin: The request's ``Origin``; None if it has none.
            secure: The client came by TLS.
        """
        cors = self.cors
        return self._sets[secure] if cors is None else self._sets[secure] + cors.lines(origin)

    def security(self, *, secure: bool) -> bytes:
        """
        Make the same lines without those of CORS: a preflight's answer has its own.
        """
        return self._sets[secure]

    def relayed(self, head: ResponseHead, origin: bytes | None, *, secure: bool, authenticated: bool) -> bytes:
        """
        Make the whole block of a backend's answer: what of *head* goes to the client, and what is added.

        Args:
            authenticated: The caller proved who it is.
        """
        shared = head.block
        block = self._made.get((shared, secure, authenticated)) if shared is not None else None
        if block is None:
            block = self._relayed(head, secure=secure, authenticated=authenticated)
            if shared is not None:
                if len(self._made) >= _REMEMBERED:
                    self._made.clear()
                self._made[shared, secure, authenticated] = block
        cors = self.cors
        return block if cors is None else block + cors.lines(origin)

    def _relayed(self, head: ResponseHead, *, secure: bool, authenticated: bool) -> bytes:
        if not self._decided.isdisjoint(head.fields):
            return self._beside(head, secure=secure, authenticated=authenticated)
        block = response_block(head) + self._sets[secure]
        return block + _NO_STORE if authenticated and self._no_store else block

    def _beside(self, head: ResponseHead, *, secure: bool, authenticated: bool) -> bytes:
        """The same for a backend that says some of it itself."""
        fields = head.fields
        security = self._security[secure]
        drop = NAMES if self.cors is not None else frozenset()
        if self._override:
            drop |= {name.lower() for name, _ in security if name.lower() != _POLICY}
            if any(name.lower() == _POLICY for name, _ in security):
                # Its own policy may say much more than who may frame it, and of several each holds.
                drop |= {b"x-frame-options"}
        else:
            security = [header for header in security if not _says(head, header[0].lower())]
        block = response_block(head, drop if not drop.isdisjoint(fields) else frozenset()) + block_of(security)
        return block + _NO_STORE if authenticated and self._no_store and _CACHE not in fields else block


def _says(head: ResponseHead, name: bytes) -> bool:
    """Whether a backend has said what the header *name* would say; another policy may stand beside its own."""
    if name != _POLICY:
        return name in head.fields
    return b"x-frame-options" in head.fields or any(
        b"frame-ancestors" in value.lower() for value in values_of(head.headers, _POLICY)
    )
