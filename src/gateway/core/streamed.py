"""
Many JSON messages in one answer: lines, server-sent events, or an array, as the client accepts.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["ARRAY", "EVENTS", "LINES", "Form", "form_for"]


class Form(Protocol):
    """
    How messages stand in a body.

    Attributes:
        content_type: Of the body.
        ends_in_band: A failure can be told within the body; else the body must be cut.
    """

    content_type: bytes
    ends_in_band: bool

    def item(self, message: bytes, first: bool) -> bytes:
        """Write one message."""

    def end(self, first: bool) -> bytes:
        """Write what follows the last message; *first* if there was none."""

    def failure(self, problem: bytes) -> bytes:
        """Write that the stream failed; only where ``ends_in_band``."""


class _Lines:
    content_type = b"application/x-ndjson"
    ends_in_band = True

    def item(self, message: bytes, first: bool) -> bytes:
        return message + b"\n"

    def end(self, first: bool) -> bytes:
        return b""

    def failure(self, problem: bytes) -> bytes:
        return b'{"error":%b}\n' % problem


class _Events:
    content_type = b"text/event-stream"
    ends_in_band = True

    def item(self, message: bytes, first: bool) -> bytes:
        return b"data: %b\n\n" % message

    def end(self, first: bool) -> bytes:
        # Without it an EventSource would take the end for a lost connection and begin anew.
        return b"event: end\ndata: {}\n\n"

    def failure(self, problem: bytes) -> bytes:
        return b"event: error\ndata: %b\n\n" % problem


class _Array:
    content_type = b"application/json"
    ends_in_band = False

    def item(self, message: bytes, first: bool) -> bytes:
        return (b"[" if first else b",") + message

    def end(self, first: bool) -> bytes:
        return b"[]" if first else b"]"

    def failure(self, problem: bytes) -> bytes:
        raise NotImplementedError("an array that failed is cut short")


LINES: Final[Form] = _Lines()
EVENTS: Final[Form] = _Events()
ARRAY: Final[Form] = _Array()


def form_for(accept: bytes) -> Form:
    """
    Choose by ``Accept``: lines where they are asked for, events likewise, else an array.
    """
    asked = [part.partition(b";")[0].strip().lower() for part in accept.split(b",")]
    for kind in asked:
        if kind in (b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines"):
            return LINES
        if kind == b"text/event-stream":
            return EVENTS
        if kind in (b"application/json", b"*/*"):
            return ARRAY
    return ARRAY
