"""
The message that came back to the body of an answer, or to the refusal that it is.

Some backends answer OK to everything and say in a field whether they did it. ``ok`` and ``error``
name those fields, so that clients see a status and a problem body like everybody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from gateway.core.problems import Problem
from gateway.core.transcoding.codecs import Codecs
from gateway.core.transcoding.encode import JsonStyle, Unwritable
from gateway.core.transcoding.fields import HTTP_BODY, BadPath, enum_names, enum_of, field_at
from gateway.core.transcoding.http_rule import BadRule

__all__ = ["Answer", "AnswerOptions", "Responder"]

_JSON: Final = b"application/json"
_dumps: Final = msgspec.json.Encoder().encode
_LONGEST_DETAIL: Final = 1024


class Answer(NamedTuple):
    """What to send."""

    status: int
    content_type: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """
    How a message becomes an answer.

    Attributes:
        unwrap: Path of the field that alone is sent, instead of the rule's ``response_body``.
        status: Of a success; 204 and 205 send no body.
        ok: Path of a boolean that is false when the backend refused.
        error: Path of the enum or string that says why; without ``ok`` anything but its default is a refusal.
        message: Path of a string for people, told as ``detail``.
        statuses: Status by error; ``*`` is any other, 422 without it.
    """

    unwrap: str = ""
    status: int = 200
    ok: str = ""
    error: str = ""
    message: str = ""
    statuses: Mapping[str, int] = field(default_factory=dict)


class Responder:
    """
    Makes the answers of one route.

    Attributes:
        raw: What is sent is a ``google.api.HttpBody``: bytes with a type of their own.

    Raises:
        BadRule: the options do not fit the method's response.
    """

    __slots__ = ("_error", "_get", "_message", "_ok", "_options", "_write", "raw")

    def __init__(
        self,
        method: MethodDescriptor,
        codecs: Codecs,
        style: JsonStyle | None = None,
        *,
        response_body: str = "",
        options: AnswerOptions | None = None,
        where: str = "",
    ) -> None:
        self._options = options = options or AnswerOptions()
        output = method.output_type
        for name, status in options.statuses.items():
            if not 400 <= status <= 599:
                raise BadRule(f"the status for {name!r} is {status}, and a refusal has one from 400 to 599", where)
        if not 200 <= options.status <= 299:
            raise BadRule(f"the status of a success is {options.status}, not one from 200 to 299", where)
        self._ok = _getter(output, options.ok, "ok", (FieldDescriptor.TYPE_BOOL,), where)
        self._error = _named(output, options.error, where)
        self._message = _getter(output, options.message, "message", (FieldDescriptor.TYPE_STRING,), where)
        encoders = codecs.encoders(style)
        path = options.unwrap or response_body
        if not path:
            self.raw = output.full_name == HTTP_BODY
            self._get: Callable[[Any], Any] | None = None
            self._write = encoders.json(output)
            return
        parents, sent = _field(output, path, "unwrap" if options.unwrap else "response_body", where)
        self.raw = not sent.is_repeated and sent.message_type is not None and sent.message_type.full_name == HTTP_BODY
        self._get = attrgetter(path)
        encode = encoders.field(sent)
        holder = attrgetter(".".join(parent.name for parent in parents)) if parents else None

        def write(message: Any) -> bytes:
            if sent.has_presence:
                inner = message if holder is None else holder(message)
                if not inner.HasField(sent.name):
                    return b"null"
            try:
                return _dumps(encode(attrgetter(path)(message)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise Unwritable(f"{sent.full_name}: {error}") from error

        self._write = write

    def answer(self, message: Message) -> Answer:
        """
        Make the answer.

        Raises:
            Problem: ``call_refused`` with the status of the error; ``upstream_malformed`` when the
                message has no JSON form.
        """
        options = self._options
        if options.ok or options.error:
            self._refuse(message)
        if options.status in (204, 205):
            return Answer(options.status, b"", b"")
        if self.raw:
            inner: Any = message if self._get is None else self._get(message)
            return Answer(options.status, _content_type(inner.content_type), inner.data)
        return Answer(options.status, _JSON, self.encode(message))

    def encode(self, message: Message) -> bytes:
        """
        Write one message as JSON: of a stream, or for a channel.

        Raises:
            Problem: ``upstream_malformed``.
        """
        try:
            return self._write(message)
        except Unwritable as error:
            raise Problem("upstream_malformed", reason="unwritable") from error

    def _refuse(self, message: Message) -> None:
        options = self._options
        error = self._error(message) if self._error is not None else ""
        refused = not self._ok(message) if self._ok is not None else bool(error)
        if not refused:
            return
        detail = str(self._message(message))[:_LONGEST_DETAIL] if self._message is not None else ""
        problem = Problem("call_refused", detail, extra={"error": error} if error else None)
        status = options.statuses.get(error) or options.statuses.get("*") or problem.kind.status
        problem.kind = replace(problem.kind, status=status)
        raise problem


def _field(
    descriptor: Descriptor, path: str, what: str, where: str
) -> tuple[tuple[FieldDescriptor, ...], FieldDescriptor]:
    try:
        return field_at(descriptor, path)
    except BadPath as bad:
        raise BadRule(f"{what} {path!r}: {bad}", where) from None


def _getter(
    descriptor: Descriptor, path: str, what: str, types: tuple[int, ...], where: str
) -> Callable[[Any], Any] | None:
    if not path:
        return None
    _, found = _field(descriptor, path, what, where)
    if found.is_repeated or found.type not in types:
        kinds = {FieldDescriptor.TYPE_BOOL: "boolean", FieldDescriptor.TYPE_STRING: "string"}
        raise BadRule(f"{what} {path!r} is no {kinds[types[0]]}", where)
    return attrgetter(path)


def _named(descriptor: Descriptor, path: str, where: str) -> Callable[[Any], str] | None:
    """The text of an error: its string, or its enum's name; empty for the default."""
    if not path:
        return None
    _, found = _field(descriptor, path, "error", where)
    if found.is_repeated or found.type not in (FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_STRING):
        raise BadRule(f"error {path!r} is neither an enum nor a string", where)
    get = attrgetter(path)
    if found.type == FieldDescriptor.TYPE_STRING:
        return get
    names = enum_names(enum_of(found))[0]

    def name(message: Any) -> str:
        number = get(message)
        return names.get(number, str(number)) if number else ""

    return name


def _content_type(text: str) -> bytes:
    """A content type that a header can hold; what is none is unknown bytes."""
    if text and text.isascii() and text.isprintable() and "/" in text:
        return text.encode()
    return b"application/octet-stream"
