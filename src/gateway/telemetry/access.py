"""
The access line: one per request, whatever became of it.

It is written for every request, with the field names structlog would give; nothing secret can
be in it because only these fields are. A line is one encoder call over one struct; for the usual
ones its writer joins text that was encoded before (``AccessLog.quoted``), which costs a third.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from gateway.telemetry.logs import Logs

__all__ = ["MAX_METHOD", "MAX_PATH", "MAX_WORD", "AccessLine", "AccessLog"]

MAX_PATH = 1024
MAX_METHOD = 32
MAX_WORD = 256
_REMEMBERED = 2048
_LONGEST = MAX_WORD


class AccessLine(msgspec.Struct, omit_defaults=True):
    """
    The fields of an access line. Durations are milliseconds, sizes are body bytes.

    ``flag`` is empty when nothing went wrong; ``docs/errors.md`` lists its values.
    """

    event: str
    level: str
    ts: str
    method: str
    path: str
    status: int
    duration_ms: float
    route: str = ""
    flag: str = ""
    reason: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    client: str = ""
    peer: str = ""
    sub: str = ""
    request_id: str = ""
    trace_id: str = ""
    upstream: str = ""
    target: str = ""
    attempts: int = 0
    ttfb_ms: float = 0.0
    ua: str = ""
    protocol: str = ""
    tls: bool = False
    whole: bool = True


class _Quoted(dict[str | bytes, str]):
    """Text, or bytes as Latin-1, to its JSON form with the quotes; encodes at first sight, and forgets in time."""

    def __init__(self, written: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._written = written

    def __missing__(self, text: str | bytes) -> str:
        plain = text[:_LONGEST].decode("latin-1") if isinstance(text, bytes) else text[:_LONGEST]
        if self._written is not None:
            plain = self._written(text if isinstance(text, str) else plain)[:_LONGEST]
        quoted = msgspec.json.encode(plain.encode("utf-8", "backslashreplace").decode()).decode()
        if len(text) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[text] = quoted
        return quoted


class AccessLog:
    """
    Writes access lines to *logs*, in its form.

    Args:
        wall: Seconds since the epoch.

    Attributes:
        json: Lines are JSON, so that ``put`` may be used.
        quoted: Text to its JSON form, the first 256 signs of it; bytes are Latin-1.
        addresses: The same of an address as it may be told; ``users`` of a user's id.
        privacy: How those are written.
    """

    def __init__(self, logs: Logs, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._encode = msgspec.json.Encoder().encode
        self._logs = logs
        self._sink = logs.sink
        self._pretty = logs.logger() if logs.pretty else None
        self._millisecond = 0
        self._stamp = ""
        self._second = 0
        self._prefix = ""
        self.json = not logs.pretty
        self.quoted = _Quoted()
        self.privacy = privacy = logs.privacy
        self.addresses = self.quoted if privacy.whole else _Quoted(privacy.address)
        self.users = self.quoted if privacy.whole else _Quoted(privacy.user)

    def stamp(self) -> str:
        """Return the time in ISO 8601 with milliseconds, UTC."""
        now = int(self._wall() * 1000)
        if now != self._millisecond:
            self._millisecond = now
            second, rest = divmod(now, 1000)
            if second != self._second:
                self._second = second
                self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._stamp = f"{self._prefix}{rest:03d}Z"
        return self._stamp

    def put(self, line: str) -> None:
        """Write *line*, a JSON object but for its last ``}``, which the caller has made as ``AccessLine`` would be."""
        self._sink.write(line.encode() + self._logs.tail)

    def write(self, line: AccessLine) -> None:
        """Write *line*."""
        if self._pretty is None:
            try:
                encoded = self._encode(line)
            except UnicodeEncodeError:  # Lone surrogates, as a token's JSON may have them.
                encoded = self._encode(_encodable(line))
            self._sink.write(encoded[:-1] + self._logs.tail)
            return
        fields = {
            name: value
            for name in line.__struct_fields__
            if (value := getattr(line, name)) and name not in {"event", "level", "ts"}
        }
        self._pretty.info(line.event, **fields)


def _encodable(line: AccessLine) -> AccessLine:
    values = {name: getattr(line, name) for name in line.__struct_fields__}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    escaped = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}
    return AccessLine(**{**values, **escaped})
