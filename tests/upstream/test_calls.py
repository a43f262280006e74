"""
Calls to gRPC backends that behave, and to those that do not. None hangs: each has a deadline.
"""

import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_twisted
from google.protobuf.wrappers_pb2 import StringValue
from tests.upstream.grpc_backends import HEAD, frame, grpc_backend, header, raw_backend
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from gateway.config.sections import Retry, Upstream
from gateway.ports.calls import Call, CallFailed, CallReply
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import Spans
from gateway.upstream.calls import GrpcUpstream

pytestmark = pytest.mark.timeout(60)
CLIENT: list[Any] = ["lean"]
METHOD = "/test.Service/Method"
STREAM = "/test.Service/Stream"


@pytest.fixture(autouse=True, params=["lean", "grpcio"])
def client(request: pytest.FixtureRequest) -> Any:
    """Every promise holds for both of those who make calls."""
    CLIENT[0] = request.param
    return request.param


def echo(request: bytes, context: Any) -> bytes:
    return request


@asynccontextmanager
async def upstream(*ports: int, **options: Any) -> AsyncIterator[GrpcUpstream]:
    targets = tuple(f"127.0.0.1:{port}" for port in ports)
    section = replace(Upstream(name="test", grpc=targets, client=CLIENT[0]), **options)
    made = GrpcUpstream(section, reactor, random.random, Metrics(), Spans.off())
    made.start()
    try:
        yield made
    finally:
        await made.stop()


def asking(text: str = "hello", **options: Any) -> Call:
    return replace(Call(METHOD, StringValue(value=text), timeout_s=5.0, reply_class=StringValue), **options)


async def failure(made: GrpcUpstream, call: Call) -> CallFailed:
    try:
        reply = await made.call(call)
    except CallFailed as failed:
        return failed
    raise AssertionError(f"answered: {reply}")


@pytest_twisted.ensureDeferred
async def test_a_call_is_answered() -> None:
    """
    A message goes out with its metadata and a deadline, and another comes back with its own.
    """

    def answer(request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "2"),))
        return request

    with grpc_backend(answer) as (port, served):
        async with upstream(port) as made:
            reply = await made.call(asking(metadata=[("x-user-id", "alice")], timeout_s=3.0))
    assert reply.message.value == "hello"
    assert reply.attempts == 1
    assert ("x-initial", "1") in [tuple(pair) for pair in reply.initial_metadata]
    assert ("x-trailing", "2") in [tuple(pair) for pair in reply.trailing_metadata]
    assert served.metadata[0]["x-user-id"] == "alice"
    assert 1.0 < served.remaining[0] <= 3.5  # gRPC rounds the time up for its way


@pytest_twisted.ensureDeferred
async def test_many_at_once() -> None:
    """
    Calls overlap, and each gets its own answer.
    """

    def slowly(request: bytes, context: Any) -> bytes:
        time.sleep(0.05)
        return request

    with grpc_backend(slowly) as (port, _):
        async with upstream(port) as made:
            replies = await gatherResults([ensureDeferred(made.call(asking(str(number)))) for number in range(60)])
    assert [reply.message.value for reply in replies] == [str(number) for number in range(60)]


@pytest.mark.parametrize("code", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
@pytest_twisted.ensureDeferred
async def test_each_status_comes_through(code: grpc.StatusCode) -> None:
    """
    Every status that a backend sends is told with its number and words, as the backend's and not ours.
    """

    def refuse(request: bytes, context: Any) -> None:
        context.abort(code, "because")

    with grpc_backend(refuse) as (port, _):
        async with upstream(port, retry=Retry(attempts=1)) as made:
            failed = await failure(made, asking())
    assert failed.code == code.value[0]
    assert failed.message == "because"
    assert not failed.local


@pytest_twisted.ensureDeferred
async def test_metadata_can_never_break_a_call() -> None:
    """
    Values that gRPC does not take are written so that it does; keys that are none, or gRPC's own, are left out.
    """
    sent = [
        ("x-line", "a\r\nb: c"),
        ("x-name", "Jürgen"),
        ("X-Upper", "no"),
        ("grpc-timeout", "1H"),
        ("bad key", "no"),
        ("x-bytes-bin", b"\x00\xff"),
        ("x-space", " padded "),
    ]
    with grpc_backend(echo) as (port, served):
        async with upstream(port) as made:
            await made.call(asking(metadata=sent))
            too_much = await failure(made, asking(metadata=[("x-big", "x" * 9000)]))
    seen = served.metadata[0]
    assert seen["x-line"] == "a%0D%0Ab: c"
    assert seen["x-name"] == "J%C3%BCrgen"
    assert seen["x-bytes-bin"] == b"\x00\xff"
    assert {"X-Upper", "x-upper", "bad key"}.isdisjoint(seen)
    assert (too_much.local, too_much.kind) == (True, "too_large_request")
    assert len(served.metadata) == 1


@pytest_twisted.ensureDeferred
async def test_deadline_is_ours_and_cancels_there() -> None:
    """
    A backend that takes too long is given up at the deadline, and sees that.
    """

    def slowly(request: bytes, context: Any) -> bytes:
        time.sleep(3)
        return request

    with grpc_backend(slowly) as (port, served):
        async with upstream(port) as made:
            failed = await failure(made, asking(timeout_s=0.3))
            assert (failed.code, failed.local, failed.kind) == (4, True, "deadline"), failed.message
            assert served.cancelled.wait(5)


@pytest_twisted.ensureDeferred
async def test_cancelling_reaches_the_backend() -> None:
    """
    A caller that leaves cancels the call at the backend (row 34).
    """
    asked = threading.Event()

    def wait(request: bytes, context: Any) -> bytes:
        asked.set()
        time.sleep(2)
        return request

    with grpc_backend(wait) as (port, served):
        async with upstream(port) as made:
            calling: Deferred[CallReply] = Deferred.fromCoroutine(made.call(asking()))
            while not asked.is_set():
                await deferLater(reactor, 0.01)
            calling.cancel()
            with pytest.raises(CancelledError):
                await calling
            assert served.cancelled.wait(5)
            assert made.cluster.active == 0


@pytest_twisted.ensureDeferred
async def test_nobody_listens() -> None:
    """
    A target that cannot be reached is told as such, before the deadline, after every allowed attempt.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with upstream(port) as made:
        failed = await failure(made, asking())
    assert (failed.code, failed.local, failed.kind) == (14, True, "connect")
    assert failed.attempts == 2


@pytest_twisted.ensureDeferred
async def test_another_target_takes_over() -> None:
    """
    Where one of two targets is away, every call succeeds at the other, whatever its method.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = taken.getsockname()[1]
    with grpc_backend(echo) as (port, _):
        async with upstream(away, port) as made:
            replies = [await made.call(asking(str(number))) for number in range(20)]
    assert {reply.target for reply in replies} == {f"127.0.0.1:{port}"}
    assert {reply.attempts for reply in replies} == {1, 2}


@pytest_twisted.ensureDeferred
async def test_unavailable_is_repeated_only_where_that_is_safe() -> None:
    """
    UNAVAILABLE of a backend is tried again for idempotent calls alone; other statuses never.
    """

    def unavailable(request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")

    with grpc_backend(unavailable) as (port, served):
        async with upstream(port) as made:
            assert (await failure(made, asking())).attempts == 1
            assert (await failure(made, asking(idempotent=True))).attempts == 2
    assert len(served.metadata) == 3


@pytest_twisted.ensureDeferred
async def test_large_messages_both_ways() -> None:
    """
    Nearly the largest messages pass, several at once, whatever the windows are.
    """
    with grpc_backend(echo, options=(("grpc.max_receive_message_length", -1),)) as (port, _):
        async with upstream(port) as made:
            texts = [letter * 4_000_000 for letter in "abc"]
            replies = await gatherResults([ensureDeferred(made.call(asking(text, timeout_s=20.0))) for text in texts])
    assert [reply.message.value == text for reply, text in zip(replies, texts, strict=True)] == [True] * 3


@pytest_twisted.ensureDeferred
async def test_a_reply_larger_than_allowed_is_our_refusal() -> None:
    """
    RESOURCE_EXHAUSTED made here is told apart from the backend's (Z24).
    """
    big = StringValue(value="x" * (5 * 1024 * 1024)).SerializeToString()
    with grpc_backend(lambda request, context: big) as (port, _):
        async with upstream(port) as made:
            failed = await failure(made, asking())
    assert (failed.code, failed.local, failed.kind) == (8, True, "too_large_reply")


@pytest_twisted.ensureDeferred
async def test_a_reply_that_is_no_message() -> None:
    """
    Bytes that are not the method's message are the backend's fault, not an exception.
    """
    with grpc_backend(lambda request, context: b"\xff\xff\xff") as (port, _):
        async with upstream(port) as made:
            failed = await failure(made, asking())
    assert (failed.local, failed.kind) == (True, "malformed")


def message(data: bytes, *, length: int | None = None) -> bytes:
    return b"\x00" + struct.pack("!I", len(data) if length is None else length) + data


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


TRAILERS = header(b"grpc-status", b"0")
BROKEN: dict[str, Callable[[socket.socket], None]] = {
    "no answer": lambda connection: None,
    "reset of the connection": reset,
    "reset of the stream": lambda connection: connection.sendall(frame(3, 0, 1, struct.pack("!I", 2))),
    "goaway": lambda connection: connection.sendall(frame(7, 0, 0, struct.pack("!II", 0, 2))),
    "OK without a message": lambda connection: connection.sendall(frame(1, 5, 1, HEAD + TRAILERS)),
    "no trailers": lambda connection: connection.sendall(frame(1, 4, 1, HEAD) + frame(0, 1, 1, message(b""))),
    "a length that lies": lambda connection: connection.sendall(
        frame(1, 4, 1, HEAD) + frame(0, 0, 1, message(b"\n\x01a", length=99)) + frame(1, 5, 1, TRAILERS)
    ),
    "two messages": lambda connection: connection.sendall(
        frame(1, 4, 1, HEAD) + frame(0, 0, 1, message(b"") + message(b"")) + frame(1, 5, 1, TRAILERS)
    ),
    "an unknown status": lambda connection: connection.sendall(frame(1, 5, 1, HEAD + header(b"grpc-status", b"77"))),
    "an HTTP status": lambda connection: connection.sendall(frame(1, 5, 1, header(b":status", b"503"))),
    "garbage": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest_twisted.ensureDeferred
async def test_broken_backends_are_failures_in_time(name: str) -> None:
    """
    Whatever a backend does wrong, the call ends as a failure by its deadline, and never as an answer (row 32).
    """
    with raw_backend(BROKEN[name]) as port:
        async with upstream(port, retry=Retry(attempts=1)) as made:
            started = time.monotonic()
            failed = await failure(made, asking(timeout_s=1.5))
            assert time.monotonic() - started < 6
            assert 1 <= failed.code <= 16
            assert made.cluster.active == 0
            assert all(member.in_flight == 0 for member in made.cluster.members)


@pytest_twisted.ensureDeferred
async def test_a_restarted_backend_is_used_again() -> None:
    """
    After a backend comes back on its port, calls succeed again soon (row 33).
    """
    with grpc_backend(echo) as (port, _):
        async with upstream(port) as made:
            await made.call(asking())
    async with upstream(port) as made:
        assert (await failure(made, asking())).code == 14
        with grpc_backend(echo, port=port):
            deadline = time.monotonic() + 10
            while True:
                try:
                    await made.call(asking())
                    break
                except CallFailed:
                    assert time.monotonic() < deadline
                    await deferLater(reactor, 0.1)


def counting(request: bytes, context: Any) -> Any:
    for number in range(5):
        yield StringValue(value=str(number)).SerializeToString()


async def collected(made: GrpcUpstream, call: Call) -> list[str]:
    return [message.value async for message in made.stream(call)]


@pytest_twisted.ensureDeferred
async def test_a_backend_that_sends_its_callers_away_loses_no_call() -> None:
    """
    GOAWAY after GOAWAY, as behind a balancer that renews connections: every call is answered all the same.
    """
    ages = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 1000))
    with grpc_backend(echo, options=ages) as (port, served):
        async with upstream(port) as made:
            began = reactor.seconds()
            calls = 0
            while reactor.seconds() - began < 1.5:
                reply = await made.call(asking(str(calls)))
                assert reply.message.value == str(calls)
                calls += 1
                await deferLater(reactor, 0.005)
            assert calls == len(served.metadata)
            assert calls > 20


@pytest_twisted.ensureDeferred
async def test_a_stream_comes_in_order() -> None:
    """
    A stream's messages come one by one, then a clean end; its thread is free afterwards.
    """
    with grpc_backend(counting) as (port, _):
        async with upstream(port) as made:
            assert await collected(made, asking(method=STREAM)) == ["0", "1", "2", "3", "4"]
            await deferLater(reactor, 0.1)
            assert made.describe()["streams"] == 0


@pytest_twisted.ensureDeferred
async def test_a_stream_that_fails() -> None:
    """
    A stream's failure is told after the messages before it, with the backend's status.
    """

    def failing(request: bytes, context: Any) -> Any:
        yield StringValue(value="one").SerializeToString()
        context.abort(grpc.StatusCode.ABORTED, "stop")

    with grpc_backend(failing) as (port, _):
        async with upstream(port) as made:
            seen: list[str] = []
            with pytest.raises(CallFailed) as caught:
                async for message in made.stream(asking(method=STREAM)):
                    seen.append(message.value)  # noqa: PERF401  # what came before the failure counts
    assert seen == ["one"]
    assert (caught.value.code, caught.value.local) == (10, False)


@pytest_twisted.ensureDeferred
async def test_a_slow_consumer_holds_the_backend_back() -> None:
    """
    While nobody takes messages the backend cannot produce without end.
    """
    produced = 0
    block = StringValue(value="x" * 100_000).SerializeToString()

    def endless(request: bytes, context: Any) -> Any:
        nonlocal produced
        while context.is_active():
            produced += 1
            yield block

    with grpc_backend(endless) as (port, _):
        async with upstream(port) as made:
            messages = made.stream(asking(method=STREAM, timeout_s=20.0))
            await messages.__anext__()
            await deferLater(reactor, 1.0)
            assert produced < 500
            await messages.aclose()  # type: ignore[attr-defined]  # an async generator


@pytest_twisted.ensureDeferred
async def test_hung_streams_are_bounded_and_hinder_no_calls() -> None:
    """
    As many streams as may be can hang; one more is refused with a wait, unary calls go on, and cancelling frees all.
    """
    most = 64

    def answer(request: bytes, context: Any) -> Any:
        return request

    def hang(request: bytes, context: Any) -> Any:
        yield StringValue(value="here").SerializeToString()
        while context.is_active():
            time.sleep(0.05)

    with grpc_backend(hang) as (port, _), grpc_backend(answer) as (other, _):
        async with upstream(port, max_streams=most) as made, upstream(other) as unary:
            hanging = [made.stream(asking(method=STREAM, timeout_s=30.0)) for _ in range(most)]
            for messages in hanging:
                assert (await messages.__anext__()).value == "here"
            with pytest.raises(CallFailed) as caught:
                await made.stream(asking(method=STREAM)).__anext__()
            assert (caught.value.kind, caught.value.retry_after_s) == ("overload", 1.0)
            assert (await unary.call(asking())).message.value == "hello"
            for messages in hanging:
                await messages.aclose()  # type: ignore[attr-defined]  # an async generator
            deadline = time.monotonic() + 5
            while made.describe()["streams"]:
                assert time.monotonic() < deadline
                await deferLater(reactor, 0.02)
