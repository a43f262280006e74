"""
Configured calls to backends, gRPC and HTTP: what the backend is asked, and what the client is told.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
from tests.sdk.backend import serving
from tests.upstream.asked import (
    ALICE,
    FACTS,
    ROOTS,
    TRACE,
    Answer,
    Question,
    asking,
    failure,
    over_grpc,
    over_http,
    reactor,
    said,
)
from tests.upstream.grpc_backends import Served, grpc_backend
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from demo.ports import free_port
from gateway.config.realtime_sections import BackendCall, Decision, Publishing, Rpc

pytestmark = pytest.mark.timeout(60)


@pytest_twisted.ensureDeferred
async def test_grpc_asks_what_the_configuration_says() -> None:
    """
    Data is the request, set fields are the gateway's and refused from a client, and the caller goes along with trace and deadline.
    """
    asked: list[Any] = []

    def answer(request: bytes, _context: Any) -> bytes:
        asked.append(Question.FromString(request))
        return bytes(Answer(said="yes\nindeed").SerializeToString())

    with grpc_backend(answer) as (port, served):
        async with asking(over_grpc(port)) as make:
            call = make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask", set=(("user", "claims.sub"),)), ROOTS)
            reply = await call.ask(FACTS, b'{"text":"hi","n":3,"inner":{"deep":"x"}}', ALICE, TRACE)
            assert json.loads(reply) == {"said": "yes\nindeed"}
            assert b"\n" not in reply
            (question,) = asked
            assert (question.user, question.text, question.n, question.inner.deep) == ("alice", "hi", 3, "x")
            assert (await failure(call, b'{"user":"mallory"}')).code == 107
            assert len(asked) == 1
            metadata = served.metadata[0]
            assert (metadata["x-user-id"], metadata["traceparent"]) == ("alice", TRACE.header().decode())
            assert "idempotency-key" not in metadata
            assert 0 < served.remaining[0] <= 5
            keyed = {**FACTS, "command": {"id": "7", "idempotency_key": "once", "own_key": True}}
            await call.ask(keyed, b"", ALICE)
            assert served.metadata[1]["idempotency-key"] == "once"


@pytest_twisted.ensureDeferred
async def test_http_asks_what_the_configuration_says() -> None:
    """
    The same over HTTP: data and set fields as one JSON object, the caller in headers, the answer on one line.
    """
    with serving() as backend:
        backend.answers["/ask"] = lambda body, headers: (200, {"said": [1, {"a": "b\nc"}]})
        async with asking(over_http(backend.port)) as make:
            section = Rpc(
                method="m", upstream="http", http="POST /ask", set=(("who.user", "claims.sub"), ("n", "command.id"))
            )
            keyed = {**FACTS, "command": {"id": "7", "idempotency_key": "once", "own_key": True}}
            reply = await make(section, ROOTS).ask(keyed, b'{"text":"hi","who":{"user":"mallory","x":1}}', ALICE, TRACE)
            assert json.loads(reply) == {"said": [1, {"a": "b\nc"}]}
            assert b"\n" not in reply
            (asked,) = backend.asked
            assert asked.body == {"text": "hi", "who": {"user": "alice", "x": 1}, "n": "7"}
            assert (asked.headers["x-user-id"], asked.headers["traceparent"]) == ("alice", TRACE.header().decode())
            assert (asked.headers["idempotency-key"], asked.headers["content-type"]) == ("once", "application/json")
            for wrong in (b"[1]", b'"text"', b"{"):
                assert (await failure(make(section, ROOTS), wrong)).code == 107
            assert len(backend.asked) == 1


@pytest_twisted.ensureDeferred
async def test_data_that_makes_no_request() -> None:
    """
    Data of a wrong type, or a member that is no field, is told with its place and reaches no backend; where a publication
    is asked about, and for lifecycle facts, members that are no field are left out.
    """
    with grpc_backend(said("ok")) as (port, served):
        async with asking(over_grpc(port)) as make:
            plain: dict[str, Any] = {"upstream": "grpc", "call": "t.Rules/Ask"}
            for wrong in (b'{"n":"many"}', b'{"nothing":1}', b"[]", b"{"):
                error = await failure(make(Rpc(method="m", **plain), ROOTS), wrong)
                assert error.code == 107
            assert "n" in (await failure(make(Rpc(method="m", **plain), ROOTS), b'{"n":"many"}')).text
            assert served.metadata == []
            assert await make(Publishing(**plain), ROOTS).ask(FACTS, b'{"nothing":1,"text":"x"}', ALICE)
            assert await make(BackendCall(**plain), ROOTS, lenient=True).ask(FACTS, b'{"nothing":1}', ALICE)
            error = await failure(make(Rpc(method="m", set=(("user", "claims.nickname"),), **plain), ROOTS))
            assert error.code == 103
            assert len(served.metadata) == 2


@pytest.mark.parametrize(
    ("status", "code", "temporary"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400, False),
        (grpc.StatusCode.FAILED_PRECONDITION, 400, False),
        (grpc.StatusCode.PERMISSION_DENIED, 103, False),
        (grpc.StatusCode.NOT_FOUND, 404, False),
        (grpc.StatusCode.ALREADY_EXISTS, 409, True),
        (grpc.StatusCode.ABORTED, 409, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, True),
        (grpc.StatusCode.UNAUTHENTICATED, 100, True),
        (grpc.StatusCode.INTERNAL, 100, True),
        (grpc.StatusCode.UNKNOWN, 100, True),
        (grpc.StatusCode.UNIMPLEMENTED, 100, True),
        (grpc.StatusCode.UNAVAILABLE, 100, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 100, True),
        (grpc.StatusCode.CANCELLED, 100, True),
        (grpc.StatusCode.OUT_OF_RANGE, 400, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_grpc_failures(status: grpc.StatusCode, code: int, temporary: bool) -> None:
    """
    Each status has its code; the backend's words go along only where it speaks to its caller.
    """

    def answer(_request: bytes, context: Any) -> bytes:
        context.abort(status, "the words")
        raise AssertionError

    with grpc_backend(answer) as (port, _):
        async with asking(over_grpc(port)) as make:
            error = await failure(make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask"), ROOTS))
            assert (error.code, error.temporary) == (code, temporary)
            assert ("the words" in error.text) is (code != 100)


@pytest.mark.parametrize(
    ("status", "code", "temporary"),
    [(400, 400, False), (401, 100, True), (403, 103, False), (404, 404, False), (409, 409, True), (422, 422, False),
     (429, 429, True), (500, 100, True), (503, 100, True)],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_http_failures(status: int, code: int, temporary: bool) -> None:
    """
    The same over HTTP: the words of a problem document, or of a message, of a refusal.
    """
    with serving() as backend:
        backend.answers["/ask"] = lambda body, headers: (status, {"title": "no", "detail": "the words"})
        async with asking(over_http(backend.port)) as make:
            error = await failure(make(Rpc(method="m", upstream="http", http="POST /ask"), ROOTS))
            assert (error.code, error.temporary) == (code, temporary)
            assert ("the words" in error.text) is (code != 100)
            assert len(backend.asked) == 1


@pytest_twisted.ensureDeferred
async def test_codes_of_a_method() -> None:
    """
    A method names codes of its own, by the status's name, its number, or for all.
    """

    def answer(_request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such table")
        raise AssertionError

    with grpc_backend(answer) as (port, _), serving() as backend:
        backend.answers["/ask"] = lambda body, headers: (409, {"message": "taken"})
        async with asking(over_grpc(port), over_http(backend.port)) as make:
            for errors, code in (((("NOT_FOUND", "1404"),), 1404), ((("5", "1405"),), 1405), ((("*", "400"),), 400)):
                error = await failure(make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask", errors=errors), ROOTS))
                assert (error.code, error.text) == (code, "no such table")
            section = Rpc(method="m", upstream="http", http="POST /ask", errors=(("409", "1409"),))
            error = await failure(make(section, ROOTS))
            assert (error.code, error.text) == (1409, "taken")


@pytest_twisted.ensureDeferred
async def test_nobody_answers() -> None:
    """
    No connection and no time are failures of a moment, and take no longer than they may.
    """
    sections = (over_grpc(free_port(), timeout_s=1.0), over_http(free_port(), timeout_s=1.0))
    async with asking(*sections) as make:
        for section in (
            Decision(upstream="grpc", call="t.Rules/Ask", timeout_s=0.5),
            Decision(upstream="http", http="POST /ask", timeout_s=0.5),
        ):
            began = time.monotonic()
            error = await failure(make(section, ROOTS))
            assert (error.code, error.temporary) == (100, True)
            assert time.monotonic() - began < 10


@pytest_twisted.ensureDeferred
async def test_answers_that_are_none() -> None:
    """
    An HTTP answer that is no JSON, or is too large to be held, is a failure of the backend's; an empty one is an empty answer.
    """
    with serving() as backend:
        async with asking(over_http(backend.port)) as make:
            asked = make(Rpc(method="m", upstream="http", http="POST /ask"), ROOTS)
            backend.answers["/ask"] = lambda body, headers: (200, "x" * (1024 * 1024 + 1))
            assert (await failure(asked)).code == 100
            backend.answers["/ask"] = lambda body, headers: (204, None)
            assert await asked.ask(FACTS, b"", ALICE) == b""


@pytest_twisted.ensureDeferred
async def test_whoever_leaves_cancels() -> None:
    """
    Cancelling the call cancels it at the backend.
    """

    def slow(_request: bytes, context: Any) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    with grpc_backend(slow) as (port, served):
        async with asking(over_grpc(port)) as make:
            call = make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask"), ROOTS)
            asked = Deferred.fromCoroutine(call.ask(FACTS, b"", ALICE))
            while not served.metadata:
                await deferLater(reactor, 0.01)
            asked.cancel()
            with pytest.raises(CancelledError):
                await asked
            await until(served)


async def until(served: Served) -> None:
    while not served.cancelled.is_set():
        await deferLater(reactor, 0.01)


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (Rpc(method="m", upstream="grpc", call="t.Rules/Nothing"), "Nothing"),
        (Rpc(method="m", upstream="grpc", call="t.Rules/AskStream"), "stream"),
        (Rpc(method="m", upstream="grpc", call="t.Rules/Ask", set=(("nothing", "claims.sub"),)), "nothing"),
        (Rpc(method="m", upstream="elsewhere", call="t.Rules/Ask"), "elsewhere"),
        (Rpc(method="m", upstream="grpc", call="t.Rules/Ask", set=(("user", "nobody.sub"),)), "nobody"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_work_is_said_before(section: Rpc, text: str, tmp_path: Path) -> None:
    """
    A call that does not fit its upstream is refused when it is made, with what does not fit.
    """
    async with asking(over_grpc(free_port())) as make:
        with pytest.raises(ValueError, match=text):
            make(section, ROOTS)
