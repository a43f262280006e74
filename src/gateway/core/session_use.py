"""
What a session's connections did: counted for each, added up from one to the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

__all__ = ["SessionUse"]

MOST_PATTERNS = 100
"""Patterns of channels that are remembered of a session."""


class SessionUse(Struct, array_like=True):
    """
    Counters of a connection, or of a whole session.

    Attributes:
        frames_in: From the client; ``frames_out`` to it, as far as they were given to its connection.
        patterns: Of the channels that it was subscribed to, each once.
        code: With which its newest connection was closed; 0 while it is open.
        late_s: So much later than its end was noticed it may have been alive: only silence told of it.
        request_id: Of its newest connection's opening request; ``trace_id`` likewise.
        operations: What that one did last, if it ended badly.
    """

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    subscriptions: int = 0
    patterns: tuple[str, ...] = ()
    code: int = 0
    late_s: float = 0.0
    request_id: str = ""
    trace_id: str = ""
    operations: tuple[str, ...] = ()

    def gave(self, frames: int, size: int) -> None:
        """
        Count frames to it, of *size* bytes together.
        """
        self.frames_out += frames
        self.bytes_out += size

    def subscribed(self, pattern: str) -> None:
        """
        Count a subscription.
        """
        self.subscriptions += 1
        self.patterns = _joined(self.patterns, (pattern,))

    def after(self, past: bytes) -> SessionUse:
        """
        Add this connection to what went before, as ``encode`` wrote it.
        """
        before = self.decode(past)
        return SessionUse(
            before.frames_in + self.frames_in,
            before.frames_out + self.frames_out,
            before.bytes_in + self.bytes_in,
            before.bytes_out + self.bytes_out,
            before.subscriptions + self.subscriptions,
            _joined(before.patterns, self.patterns),
            self.code,
            self.late_s,
            self.request_id,
            self.trace_id,
            self.operations,
        )

    def encode(self) -> bytes:
        """
        Write it on one line.
        """
        return _encode(self)

    @staticmethod
    def decode(past: bytes) -> SessionUse:
        """
        Read what ``encode`` wrote; nothing was done where it is empty, or of a release that wrote it otherwise.
        """
        try:
            return _decode(past) if past else SessionUse()
        except msgspec.DecodeError:
            return SessionUse()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SessionUse).decode


def _joined(some: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    for pattern in more:
        if pattern not in some and len(some) < MOST_PATTERNS:
            some = (*some, pattern)
    return some
