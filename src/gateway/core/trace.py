"""
W3C trace context, level 1 (https://www.w3.org/TR/trace-context/): read strictly, passed on.

Whether an inbound context is continued (a trusted peer's) or only linked to (anybody else's) is
the caller's decision. Pure: random bits are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.core.ids import Bits
from gateway.core.message import RequestHead, values_of

__all__ = ["TraceContext", "below_of", "new", "parse", "read"]

_LONGEST_STATE = 512
_MOST_MEMBERS = 32
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

_parent = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.DOTALL
).fullmatch
_member = re.compile(
    rb"([a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
).fullmatch


class TraceContext:
    """
    A place in a trace.

    Attributes:
        trace_id: 32 lower-case hexadecimal digits.
        parent_id: 16 of them: the span that whoever is asked next becomes a child of.
        sampled: The trace is recorded. Whoever began it may still decide so.
        state: ``tracestate``, one line, perhaps empty.
    """

    __slots__ = ("parent_id", "sampled", "state", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, *, sampled: bool, state: bytes = b"") -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.sampled = sampled
        self.state = state

    def __repr__(self) -> str:
        return f"TraceContext({self.header().decode()})"

    def child(self, bits: Bits) -> TraceContext:
        """
        Make the context of a new span in the same trace.
        """
        return TraceContext(self.trace_id, f"{bits(64) or 1:016x}", sampled=self.sampled, state=self.state)

    def header(self) -> bytes:
        """
        The value of ``traceparent``.
        """
        return f"00-{self.trace_id}-{self.parent_id}-{'01' if self.sampled else '00'}".encode()

    def block(self) -> bytes:
        """
        The header lines to pass on: ``traceparent``, and ``tracestate`` if there is any.
        """
        line = f"traceparent: 00-{self.trace_id}-{self.parent_id}-{'01' if self.sampled else '00'}\r\n".encode()
        return line + b"tracestate: %b\r\n" % self.state if self.state else line


def below_of(ratio: float) -> str:
    """
    Say which of all traces are a share of *ratio*: those whose ids' last 16 digits sort below what is returned.

    That is how OpenTelemetry's TraceIdRatioBased decides, so whoever else decides by the id decides the same.
    """
    if ratio >= 1:
        return "g"  # Sorts behind every digit.
    return f"{round(ratio * 2**64):016x}" if ratio > 0 else ""


def new(bits: Bits, *, sampled: bool = False, below: str = "") -> TraceContext:
    """
    Begin a trace.

    Args:
        sampled: It is recorded in any case.
        below: Else it is if its id is among these, see ``below_of``; empty: never.
    """
    digits = f"{bits(192):048x}"
    trace_id, parent_id = digits[:32], digits[32:]
    # No id is all noughts; by chance neither ever is.
    return TraceContext(
        trace_id if trace_id != _NO_TRACE else _NO_TRACE[:-1] + "1",
        parent_id if parent_id != _NO_SPAN else _NO_SPAN[:-1] + "1",
        sampled=sampled or trace_id[16:] < below,
    )


def read(head: RequestHead) -> TraceContext | None:
    """
    Read the context that came with *head*; None when there is none, or none that is valid.
    """
    parent = head.fields.get(b"traceparent")
    if parent is None:
        return None
    if len(head.fields) != len(head.headers) and len(values_of(head.headers, b"traceparent")) != 1:
        return None
    return parse(parent, values_of(head.headers, b"tracestate") if b"tracestate" in head.fields else ())


def parse(traceparent: bytes, tracestate: Iterable[bytes] = ()) -> TraceContext | None:
    """
    Read one ``traceparent`` and all lines of ``tracestate``.

    None when the parent is not valid: version ``ff``, upper case, an id of zeros, a length other
    than 55 in version 00, or anything but ``-`` after 55 in a later one. A state that is not
    valid (a bad member, a key twice, more than 32 members or 512 bytes) is dropped alone.
    """
    found = _parent(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, flags = found.groups()
    if version == b"00" and len(traceparent) != 55:
        return None
    return TraceContext(
        trace_id.decode(), parent_id.decode(), sampled=bool(int(flags, 16) & 1), state=_state(tracestate)
    )


def _state(lines: Iterable[bytes]) -> bytes:
    members = [member for line in lines for part in line.split(b",") if (member := part.strip(b" \t"))]
    joined = b",".join(members)
    if not members or len(members) > _MOST_MEMBERS or len(joined) > _LONGEST_STATE:
        return b""
    keys = set()
    for member in members:
        found = _member(member)
        if found is None or found[1] in keys:
            return b""
        keys.add(found[1])
    return joined
