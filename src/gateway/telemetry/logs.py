"""
Logs as events: structlog for everything but the access line, one JSON object a line.

twisted.logger events (twistd's own, Autobahn's, tracebacks of unhandled failures) and the
standard library's ``logging`` (grpcio's) pass through the same processors, so in JSON mode
every line is JSON, and no value can break out of its line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from itertools import islice
from typing import Any

import msgspec
import structlog
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from gateway.core.privacy import WHOLE, Privacy
from gateway.telemetry.sink import Sink

__all__ = ["Logs", "LogsBridge", "tell"]

MAX_TEXT = 4096
"""Longest text value in a line; longer ones are cut and marked."""

MAX_ITEMS = 100
"""Members of a list or table in a line; those beyond are left out."""

MAX_SIGNS = 8192
"""Of all texts in a line together. Encoded one takes six bytes at most, so no line is longer than 64 KiB."""

_NUMBER = 8
_LARGE = 1 << 63
_NAME = 64
_DEEPEST = 3

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_TWISTED_LEVELS = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "critical",
}
_PEOPLE = {"address": "address", "peer": "address", "user": "user", "subject": "user"}
_WELL = frozenset(
    (
        "limits.together",
        "spool.in_time",
        "spool.mended",
        "spool.taken_back",
        "store.connected",
        "tracing.resumed",
        "upstream.healthy",
        "upstream.readmitted",
    )
)
# twistd finds its plugins without their cache too; a read-only installation is nothing to report.
_NOISE = ("Starting factory", "Stopping factory", "Unable to write to plugin cache")


def tell(log: Any, event: str, fields: Mapping[str, Any]) -> None:
    """
    Write to *log*, a structlog logger, that a state has changed: at ``info`` if all is well again, else at ``warning``.
    """
    (log.info if event in _WELL or fields.get("state") == "closed" else log.warning)(event, **fields)


def _bounded(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    room = _Room()
    for key, value in event.items():
        event[key] = room.cut(value)
    return event


class _Room:
    """What is left of a line's length."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_SIGNS

    def cut(self, value: Any, depth: int = 0) -> Any:
        """Make *value* what a line can hold; a long text keeps its beginning and, because tracebacks tell it there, its end."""
        if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < _LARGE):
            self._left -= _NUMBER
            return value
        if depth < _DEEPEST and isinstance(value, Mapping):
            some = islice(value.items(), MAX_ITEMS)
            return {self._text(str(key), _NAME): self.cut(each, depth + 1) for key, each in some if self._left > 0}
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self.cut(each, depth + 1) for each in islice(value, MAX_ITEMS) if self._left > 0]
        return self._text(value if isinstance(value, str) else repr(value), MAX_TEXT)

    def _text(self, text: str, most: int) -> str:
        most = max(0, min(most, self._left))
        if len(text) > most:
            head = most // 4
            text = f"{text[:head]}…{text[len(text) - (most - head) :]}"
        self._left -= len(text) + _NUMBER
        return text


def _neutral(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # The pretty form writes values as they are; control bytes could forge lines or colours.
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event


class Logs:
    """
    The log of one instance.

    Args:
        sink: Where lines go.
        pretty: For a person at a terminal; else JSON.
        level: The least severe level shown.
        privacy: How people are written, in the fields ``address``, ``peer``, ``user`` and ``subject``.

    Attributes:
        privacy: As given; access lines are written by it, too.
        tail: How each JSON line ends that structlog does not make: who writes it, ``}`` and a line end.
    """

    def __init__(self, sink: Sink, *, pretty: bool, level: str = "info", privacy: Privacy = WHOLE) -> None:
        self.sink = sink
        self.privacy = privacy
        self.pretty = pretty
        self.tail = b"}\n"
        self._level = _LEVELS[level]
        self._writer: dict[str, str] = {}
        render: Any
        if pretty:
            render = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        else:
            render = structlog.processors.JSONRenderer(serializer=_json)
        sink.account = self._account
        self._processors: list[Any] = [
            self._filter,
            self._sign,
            *([] if privacy.whole else [self._private]),
            structlog.processors.format_exc_info,
            _bounded,
            # Behind what may use up the room of a line.
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            *([_neutral] if pretty else []),
            render,
        ]

    def _filter(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if _LEVELS.get(method, 20) < self._level:
            raise structlog.DropEvent
        return event

    def _sign(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # A line about another instance names that one.
        return {**self._writer, **event}

    def _private(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, written in _PEOPLE.items():
            value = event.get(key)
            if isinstance(value, str):
                event[key] = getattr(self.privacy, written)(value)
        return event

    def sign(self, **writer: str) -> None:
        """
        Have each line from now on say who writes it, where several do: ``worker``, ``instance``.
        """
        self._writer.update(writer)
        more = b"".join(
            b",%b:%b" % (msgspec.json.encode(name), msgspec.json.encode(value)) for name, value in self._writer.items()
        )
        self.tail = more + b"}\n"

    def set_level(self, level: str) -> None:
        """Show lines of *level* and above from now on."""
        self._level = _LEVELS[level]

    def logger(self, **context: Any) -> Any:
        """Return a structlog logger bound to *context*; its methods are ``debug`` to ``error``."""
        return self._logger(self.sink.write, **context)

    def _account(self, lost: int) -> bytes:
        lines: list[bytes] = []
        self._logger(lines.append).warning("log.dropped", lines=lost)
        return b"".join(lines)

    def _logger(self, write: Callable[[bytes], object], **context: Any) -> Any:
        return structlog.wrap_logger(
            _Lines(write), processors=self._processors, wrapper_class=structlog.BoundLogger, **context
        )


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except UnicodeEncodeError:  # Lone surrogates: from a file's name, or a client's JSON.
        return msgspec.json.encode(_encodable(event)).decode()


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, list) else value


class _Lines:
    """What structlog calls at the end of its chain."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line.encode("utf-8", "backslashreplace") + b"\n")

    debug = info = warning = error = critical = exception = msg


@implementer(ILogObserver)
class LogsBridge(logging.Handler):
    """
    Brings twisted.logger and the standard library's logging into *logs*.
    """

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._write: Callable[..., Any] = logs.logger()

    def __call__(self, event: LogEvent) -> None:
        """Take a twisted.logger event."""
        level = _TWISTED_LEVELS.get(event.get("log_level"), "info")
        text = formatEvent(event)
        if text.startswith(_NOISE) or (level == "info" and event.get("log_namespace") == "log_legacy"):
            return  # Twisted's own account of ports and factories; ours says which and why.
        failure = event.get("log_failure")
        fields: dict[str, Any] = {"source": event.get("log_namespace", "")}
        if failure is not None:
            fields["exception"] = failure.getTraceback()
        getattr(self._write, level)(text or "failure", **fields)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a standard library record."""
        level = record.levelname.lower()
        fields: dict[str, Any] = {"source": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        getattr(self._write, level if level in _LEVELS else "info")(record.getMessage(), **fields)
