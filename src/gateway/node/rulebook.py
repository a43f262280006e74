"""
What every channel and every method may do, compiled from the configuration. Immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.config.checks.realtime import CHANNEL_ROOTS, CLIENT_ROOTS, COMMAND_ROOTS, WORDS, variables_from
from gateway.config.expressions import Denied, Expression, compile_expression
from gateway.config.realtime_sections import BackendCall, Channel, Decision, Publishing, Rpc, Snapshot
from gateway.config.units import Rate
from gateway.core.channels import ChannelTable, variables_of
from gateway.core.publications import PublishOptions
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.ports.backends import Backend, Facts

__all__ = ["ChannelRule", "Decider", "MakeBackend", "Method", "Personal", "Rulebook", "encoded", "field_of", "json_of"]

MakeBackend = Callable[[BackendCall, frozenset[str]], Backend]
"""Makes a configured call callable, given what its expressions may name; raises ValueError if it cannot be."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def json_of(data: bytes) -> Any:
    """
    Read JSON text that a client or a backend sent; None for no text.

    Raises:
        ClientError: it is no JSON.
    """
    if not data:
        return None
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ClientError(ErrorCode.BAD_REQUEST, "the data is not JSON") from None


def encoded(value: Any) -> bytes:
    """
    Write *value* as JSON text on one line.
    """
    return _encode(value)


def field_of(answer: bytes, path: str) -> bytes:
    """
    Take the field at *path* (dotted; empty is the whole) out of JSON text; empty if it is not there.
    """
    if not path or not answer:
        return answer
    value = json_of(answer)
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return b""
        value = value[name]
    return _encode(value)


class Decider:
    """
    Who may do something with a channel.
    """

    __slots__ = ("_allowed", "_backend", "_expression", "anonymous", "data", "roots", "token")

    def __init__(self, section: Decision, roots: frozenset[str], backend: MakeBackend) -> None:
        word = section.rule in WORDS
        self.token = section.rule == "token"
        self._expression: Expression | None = None
        if section.rule and not word:
            self._expression = compile_expression(section.rule, roots, rule=True)
        self._backend = backend(section, roots) if section.upstream else None
        self._allowed = section.allowed
        self.anonymous = section.rule == "anybody" or (self._expression is not None and self._backend is None)
        self.data = section.data if isinstance(section, Publishing) else ""
        self.roots = frozenset(("data",)) if self._expression and "data" in self._expression.roots else frozenset()

    @property
    def asks(self) -> bool:
        """Whether a backend is asked."""
        return self._backend is not None

    @property
    def plain(self) -> bool:
        """Whether nothing but who it is matters."""
        return self._backend is None and self._expression is None

    def allow(self, facts: Facts, *, anonymous: bool) -> None:
        """
        Decide what can be decided here and now.

        Raises:
            ClientError: it may not.
        """
        if anonymous and not self.anonymous:
            raise ClientError(ErrorCode.UNAUTHORIZED)
        if self._expression is not None:
            try:
                self._expression.allows(facts)
            except Denied as denied:
                raise ClientError(ErrorCode.PERMISSION_DENIED) from denied

    async def ask(self, facts: Facts, data: bytes, identity: Any, trace: TraceContext | None = None) -> bytes:
        """
        Ask the backend; empty at once without one.

        Raises:
            ClientError: it said no, or could not be asked.
        """
        if self._backend is None:
            return b""
        answer = await self._backend.ask(facts, data, identity, trace)
        if self._allowed and field_of(answer, self._allowed) != b"true":
            raise ClientError(ErrorCode.PERMISSION_DENIED)
        return answer


class Snapshooter:
    """
    Asks for the state of a channel.
    """

    __slots__ = ("_backend", "_data", "_version")

    def __init__(self, section: Snapshot, backend: MakeBackend) -> None:
        self._backend = backend(section, CHANNEL_ROOTS)
        self._data = section.data
        self._version = section.version

    async def take(self, facts: Facts, identity: Any, trace: TraceContext | None = None) -> tuple[bytes, int]:
        """
        Return the state as JSON text, and its version (0 if it has none).

        Raises:
            ClientError: it cannot be had.
        """
        answer = await self._backend.ask(facts, b"", identity, trace)
        version = 0
        if self._version:
            told = field_of(answer, self._version).strip(b'"')
            version = int(told) if told.isdigit() else 0
        return field_of(answer, self._data), version


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """
    A pattern's rule, see ``config.sections.Channel``.
    """

    pattern: str
    subscribe: Decider
    publish: Decider | None
    snapshot: Snapshooter | None
    options: PublishOptions
    presence: bool
    join_leave: bool
    join_leave_most: int
    hold_s: float | None
    overflow: str
    max_message_bytes: int
    rate: Rate | None
    info: Expression | None
    coalesce_s: float

    @property
    def history(self) -> PublishOptions | None:
        """What is kept; None if nothing is."""
        return self.options if self.options.history_size else None


@dataclass(frozen=True, slots=True)
class Personal:
    """
    A pattern whose channel every connection is subscribed to: its variables are those of the connection.
    """

    pattern: str
    variables: Mapping[str, tuple[str, ...]]

    def name(self, facts: Facts) -> str | None:
        """
        Name the connection's own channel; None where it has none.
        """
        values = {}
        for variable, path in self.variables.items():
            value: Any = facts
            for step in path:
                if not isinstance(value, Mapping) or step not in value:
                    return None
                value = value[step]
            if not isinstance(value, str) or not value:
                return None
            values[variable] = value
        name = self.pattern
        for variable, text in values.items():
            name = name.replace("{" + variable + "}", text).replace("{" + variable + "*}", text)
        return name


class Method:
    """
    A method that clients can call.
    """

    __slots__ = ("_backend", "_data", "_errors", "_when", "anonymous", "echo", "name", "needs_data")

    def __init__(self, section: Rpc, backend: MakeBackend) -> None:
        roots = CLIENT_ROOTS | COMMAND_ROOTS
        self.name = section.method
        self.echo = section.echo
        self.anonymous = section.anonymous
        self._when = compile_expression(section.when, roots, rule=True) if section.when is not None else None
        self._backend = None if section.echo else backend(section, roots)
        self._data = section.data
        sources = [source for _, source in section.set]
        if section.when is not None:
            sources.append(section.when)
        self.needs_data = any("data" in source for source in sources)

    def allow(self, facts: Facts, *, anonymous: bool) -> None:
        """
        Raise ``ClientError`` unless the connection may call it.
        """
        if anonymous and not self.anonymous:
            raise ClientError(ErrorCode.UNAUTHORIZED)
        if self._when is not None:
            try:
                self._when.allows(facts)
            except Denied as denied:
                raise ClientError(ErrorCode.PERMISSION_DENIED) from denied

    @property
    def plain(self) -> bool:
        """Whether there is nothing to decide about it."""
        return self._when is None

    async def call(self, facts: Facts, data: bytes, identity: Any, trace: TraceContext | None) -> bytes:
        """
        Call the backend.

        Raises:
            ClientError: what the client is told.
        """
        assert self._backend is not None, "an echo calls nobody"
        return field_of(await self._backend.ask(facts, data, identity, trace), self._data)


class Rulebook:
    """
    All channels and methods.

    Raises:
        ValueError: something cannot be compiled; the text says what and where.
    """

    def __init__(self, channels: Sequence[Channel], methods: Sequence[Rpc], backend: MakeBackend) -> None:
        self.channels = ChannelTable([(section.pattern, _channel(section, backend)) for section in channels])
        self.personal = tuple(_personal(section) for section in channels if section.server_side)
        self._methods = {section.method: Method(section, backend) for section in methods}
        self._beginnings = sorted(
            ((name[:-1], method) for name, method in self._methods.items() if name.endswith("*")),
            key=lambda pair: -len(pair[0]),
        )

    def method(self, name: str) -> Method | None:
        """
        Find the rule of a method: its own, else the longest beginning.
        """
        found = self._methods.get(name)
        if found is not None:
            return found
        for beginning, method in self._beginnings:
            if name.startswith(beginning):
                return method
        return None


def _channel(section: Channel, backend: MakeBackend) -> ChannelRule:
    history = section.history
    return ChannelRule(
        pattern=section.pattern,
        subscribe=Decider(section.subscribe, CHANNEL_ROOTS, backend),
        publish=Decider(section.publish, CHANNEL_ROOTS | COMMAND_ROOTS, backend) if section.publish else None,
        snapshot=Snapshooter(section.snapshot, backend) if section.snapshot else None,
        options=PublishOptions(history.size if history else 0, history.ttl_s if history else 0.0, timed=section.times),
        presence=section.presence,
        join_leave=section.join_leave,
        join_leave_most=section.join_leave_most,
        hold_s=section.hold_s,
        overflow=section.overflow,
        max_message_bytes=section.max_message_bytes,
        rate=section.rate,
        info=compile_expression(section.info, CHANNEL_ROOTS) if section.info else None,
        coalesce_s=section.coalesce_s,
    )


def _personal(section: Channel) -> Personal:
    sources = variables_from(section.subscribe.rule)
    return Personal(section.pattern, {name: sources[name] for name in variables_of(section.pattern)})
