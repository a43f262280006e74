"""
The access line: one per request, whatever became of it.

It is written for every request, so it is one encoder call over one struct, with the field
names structlog would give; nothing secret can be in it because only these fields are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.telemetry.logs import Logs

__all__ = ["AccessLine", "AccessLog"]

MAX_PATH = 1024


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
    notes: dict[str, Any] | None = None


class AccessLog:
    """
    Writes access lines to *logs*, in its form.

    Args:
        wall: Seconds since the epoch.
    """

    def __init__(self, logs: Logs, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._encode = msgspec.json.Encoder().encode
        self._sink = logs.sink
        self._pretty = logs.logger() if logs.pretty else None
        self._second = 0
        self._prefix = ""

    def stamp(self) -> str:
        """Return the time in ISO 8601 with milliseconds, UTC."""
        now = self._wall()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._prefix}{int((now - second) * 1000):03d}Z"

    def write(self, line: AccessLine) -> None:
        """Write *line*."""
        if self._pretty is None:
            self._sink.write(self._encode(line) + b"\n")
            return
        fields = {
            name: value
            for name in line.__struct_fields__
            if (value := getattr(line, name)) and name not in {"event", "level", "ts"}
        }
        self._pretty.info(line.event, **fields)
