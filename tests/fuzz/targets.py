"""
What is fuzzed: one function for each reader of strangers' bytes, which raises when something is wrong.

Refusing is right, and so is reading; any other exception, an answer that depends on how bytes are split, a second
reading that differs from the first, an identity without a signature, are faults.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.auth.making import authenticator, token
from tests.core.transcoding.support import schema
from tests.web.test_fuzz import outcome

from gateway.core.cors import Cors
from gateway.core.identity import Identity
from gateway.core.message import RequestHead
from gateway.core.origins import Origins
from gateway.core.path import canonical
from gateway.core.problems import Problem
from gateway.core.template import BadTemplate, parse
from gateway.core.trace import read
from gateway.core.transcoding.rejection import Rejected
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.dialects.centrifuge_protobuf import CentrifugeProtobuf
from gateway.ports.dialect import BadFrame, Dialect
from gateway.upstream.response import PlainHeads
from gateway.web.proxied import BadHeader, read_header

__all__ = ["TARGETS"]

NOW: Final = 1_800_000_000.0


def http(data: bytes) -> None:
    """Requests on a connection: what is understood does not depend on how the bytes are split."""
    at = data[0] * len(data) // 256 if data else 0
    assert outcome([data[:at], data[at:]]) == outcome([data])


def path(data: bytes) -> None:
    """A request target has one form, which is its own."""
    try:
        target = canonical(data)
    except Problem:
        return
    assert canonical(target.path).path == target.path
    assert not {".", ".."}.intersection(target.segments)


@cache
def _judge() -> tuple[Any, bytes]:
    return authenticator(), token()


def jwt(data: bytes) -> None:
    """Nothing is a token but what was signed."""
    judge, good = _judge()
    for presented in (data, good.rpartition(b".")[0] + b"." + data, data + good):
        try:
            found = judge.authenticate(presented, NOW)
        except Problem as problem:
            assert problem.kind.code == "token_invalid", problem.kind.code  # noqa: PT017
        else:
            assert not isinstance(found, Identity) or presented == good


def _dialect(dialect: Dialect) -> Callable[[bytes], None]:
    def commands(data: bytes) -> None:
        try:
            dialect.commands(data)
        except BadFrame:
            return

    return commands


@cache
def _codec() -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        made = schema(Path(folder))
    descriptor = made.pool.FindMessageTypeByName("test.v1.Everything")
    return made.codecs.decoders().decoder(descriptor), made.codecs.encoders().json(descriptor)


def transcoding(data: bytes) -> None:
    """JSON becomes a message or is refused; the message's own JSON becomes the same message."""
    decode, encode = _codec()
    try:
        message = decode(data)
    except Rejected:
        return
    assert decode(encode(message)).SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )


def proxied(data: bytes) -> None:
    """A PROXY header is complete, or not yet, or none; what follows it is not touched."""
    try:
        found = read_header(data)
    except BadHeader:
        return
    if found is not None:
        assert data.endswith(found[1])


def response(data: bytes) -> None:
    """A backend's head that needs no parser has one length, of digits."""
    head = PlainHeads(8192).read(data, len(data))
    if head is not None:
        assert 200 <= head.status < 600
        assert head.body_length >= 0
        assert head.block is not None
        assert b"\r\n\r\n" not in head.block


def trace(data: bytes) -> None:
    """A trace context is well formed, or none is taken."""
    parent, _, state = data.partition(b"\n")
    fields = {b"traceparent": parent, b"tracestate": state}
    context = read(RequestHead(b"GET", b"/", list(fields.items()), fields))
    if context is not None:
        assert b"\n" not in context.block().replace(b"\r\n", b"")


def origin(data: bytes) -> None:
    """A page is on the list only by being on it, and no origin writes a line of an answer."""
    rules = Cors(Origins(["https://play.example", "https://*.play.example"]), headers=["*"], credentials=True)
    lines = rules.lines(data)
    if b"Allow-Origin" in lines:
        assert data.lower().endswith(b"play.example")
    asked, _, names = data.partition(b"\n")
    answer = rules.preflight(b"https://play.example", [b"GET"], names) or b""
    assert lines.count(b"\r\n") <= 3
    assert answer.count(b"\r\n") <= 6
    assert b"\r" not in asked or b"Allow-Origin" not in rules.lines(asked)


def template(data: bytes) -> None:
    """A route's template is one, or its fault has a place."""
    text = data.decode("latin-1")
    try:
        parse(text)
    except BadTemplate as bad:
        assert 1 <= bad.column <= len(text) + 1  # noqa: PT017


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http": http,
    "path": path,
    "jwt": jwt,
    "dialect_json": _dialect(CentrifugeJson()),
    "dialect_protobuf": _dialect(CentrifugeProtobuf()),
    "transcoding": transcoding,
    "proxied": proxied,
    "response": response,
    "trace": trace,
    "origin": origin,
    "template": template,
}
"""By the name of its folder in ``corpus``."""
