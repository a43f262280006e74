"""
Configured calls to backends of a test: upstreams of both kinds, and what makes calls to them.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message_factory import GetMessageClass
from twisted.internet import reactor as installed

from gateway.auth.identity_block import identity_block
from gateway.auth.minted import Minter
from gateway.config.sections import Upstream
from gateway.core.identity import Identity
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.asking import Asking, Maker
from gateway.upstream.backends import Backends
from gateway.upstream.call_backends import CallBackends
from gateway.upstream.descriptors import Schema, schema_from_files

reactor: Any = installed

ROOTS = frozenset(("claims", "command", "data"))
ALICE = Identity("alice", "https://id.example", time.time() + 3600, 0, None, None, frozenset(), {"sub": "alice"})
TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=False)
FACTS: dict[str, dict[str, Any]] = {
    "claims": {"sub": "alice"},
    "command": {"id": "7", "idempotency_key": "c-7", "own_key": False},
    "data": {"text": "hi"},
}


def schema() -> Schema:
    """A service ``t.Rules/Ask``: Question(user, text, n, inner.deep) to Answer(said, big)."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="deep", number=1, type=9, label=1)
    question = file.message_type.add(name="Question")
    for number, (name, kind) in enumerate((("user", 9), ("text", 9), ("n", 5)), 1):
        question.field.add(name=name, number=number, type=kind, label=1)
    question.field.add(name="inner", number=4, type=11, label=1, type_name=".t.Inner")
    answer = file.message_type.add(name="Answer")
    answer.field.add(name="said", number=1, type=9, label=1)
    service = file.service.add(name="Rules")
    service.method.add(name="Ask", input_type=".t.Question", output_type=".t.Answer")
    service.method.add(name="AskStream", input_type=".t.Question", output_type=".t.Answer", server_streaming=True)
    return schema_from_files([file.SerializeToString()])


SCHEMA = schema()
METHOD = SCHEMA.method("t.Rules/Ask").descriptor
Question: Any = GetMessageClass(METHOD.input_type)
Answer: Any = GetMessageClass(METHOD.output_type)


@dataclass
class Running:
    """Upstreams of both kinds, as an instance has them."""

    asking: Asking
    backends: Backends
    calls: CallBackends

    def maker(self, *sections: Upstream) -> Maker:
        """What makes calls to *sections*, in force or not."""
        return self.asking.maker(sections, {"grpc": SCHEMA})


@asynccontextmanager
async def running(*sections: Upstream) -> AsyncIterator[Running]:
    """
    Start the upstreams of *sections*.
    """
    metrics = Metrics()
    backends = Backends(reactor, random.random, metrics, lambda *_: None)
    calls = CallBackends(reactor, random.random, metrics, Spans.off(), lambda *_: None)
    backends.prepare(sections)()
    await calls.start(sections)
    minter = Minter("gateway", time.time)
    made = Asking(
        reactor, backends, calls, lambda one: identity_block(one, minter), random.random, metrics, Spans.off()
    )
    try:
        yield Running(made, backends, calls)
    finally:
        await backends.stop()
        await calls.stop()


@asynccontextmanager
async def asking(*sections: Upstream) -> AsyncIterator[Maker]:
    """
    Start the upstreams of *sections*, and make calls to them.
    """
    async with running(*sections) as started:
        yield started.maker(*sections)


def over_grpc(*ports: int, **more: Any) -> Upstream:
    """An upstream named ``grpc``."""
    return replace(Upstream(name="grpc", grpc=tuple(f"127.0.0.1:{port}" for port in ports), timeout_s=5.0), **more)


def over_http(*ports: int, **more: Any) -> Upstream:
    """An upstream named ``http``."""
    return replace(
        Upstream(name="http", http=tuple(f"http://127.0.0.1:{port}" for port in ports), timeout_s=5.0), **more
    )


def said(text: str) -> Any:
    """What a gRPC backend answers with."""
    return lambda *_: Answer(said=text).SerializeToString()


def keyed(key: str) -> dict[str, dict[str, Any]]:
    """The facts of a command with a key of the client's own."""
    return {**FACTS, "command": {"id": "7", "idempotency_key": key, "own_key": True}}


async def failure(asked: Any, data: bytes = b"", facts: Any = FACTS, who: Identity | None = ALICE) -> ClientError:
    """Ask what must fail."""
    try:
        answer = await asked.ask(facts, data, who)
    except ClientError as error:
        return error
    raise AssertionError(f"answered: {answer}")
