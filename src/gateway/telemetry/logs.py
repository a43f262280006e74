"""
Logs as events: structlog for everything but the access line, one JSON object a line.

twisted.logger events (twistd's own, Autobahn's, tracebacks of unhandled failures) and the
standard library's ``logging`` (grpcio's) pass through the same processors, so in JSON mode
every line is JSON, and no value can break out of its line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import structlog
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from gateway.core.privacy import WHOLE, Privacy
from gateway.telemetry.sink import Sink

__all__ = ["Logs", "LogsBridge"]

MAX_TEXT = 4096
"""Longest text value in a line; longer ones are cut and marked."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_TWISTED_LEVELS = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "critical",
}
_PEOPLE = {"address": "address", "peer": "address", "user": "user", "subject": "user"}
# twistd finds its plugins without their cache too; a read-only installation is nothing to report.
_NOISE = ("Starting factory", "Stopping factory", "Unable to write to plugin cache")


def _bounded(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            event[key] = value[:MAX_TEXT] + "…"
    return event


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
        self._processors: list[Any] = [
            self._filter,
            self._sign,
            *([] if privacy.whole else [self._private]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _bounded,
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
        return structlog.wrap_logger(
            _Lines(self.sink), processors=self._processors, wrapper_class=structlog.BoundLogger, **context
        )


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except (TypeError, UnicodeEncodeError):
        return msgspec.json.encode({str(key): repr(value) for key, value in event.items()}).decode()


class _Lines:
    """What structlog calls at the end of its chain."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: str) -> None:
        self._sink.write(line.encode("utf-8", "backslashreplace") + b"\n")

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
