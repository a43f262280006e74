"""
Configured calls in trouble: dead targets, resets, busy backends, time, reloads, callers who are gone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_twisted
from tests.upstream.asked import (
    ALICE,
    FACTS,
    ROOTS,
    asking,
    failure,
    keyed,
    over_grpc,
    over_http,
    reactor,
    running,
    said,
)
from tests.upstream.grpc_backends import grpc_backend
from tests.upstream.raw import answering, backend, read_head
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from demo.ports import free_port
from gateway.config.realtime_sections import Rpc
from gateway.config.upstream_sections import Breaker, Retry
from gateway.core.verdicts import ErrorCode

pytestmark = pytest.mark.timeout(60)

CALL = Rpc(method="m", upstream="grpc", call="t.Rules/Ask")
POST = Rpc(method="m", upstream="http", http="POST /ask")
GET = Rpc(method="m", upstream="http", http="GET /ask")
QUICK = Retry(backoff_base_s=0.001, backoff_max_s=0.01)
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def answer(status: int, body: bytes = b"{}", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d So\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), more, body)


class Counting:
    """
    Answers each request with the next of *answers*, the last one over and over; None is a reset.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = answers
        self.asked = 0

    def __call__(self, connection: Any) -> None:
        while head := read_head(connection):
            if b"content-length: " in head.lower():
                connection.recv(100)
            chosen = self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 1
            if chosen is None:
                return
            connection.sendall(chosen)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await deferLater(reactor, 0.01)


@pytest_twisted.ensureDeferred
async def test_a_dead_target_is_passed_over() -> None:
    """
    Where a request cannot have arrived it goes to another target, and nothing is left under way.
    """
    with backend(answering(DONE)) as http, grpc_backend(said("ok")) as (port, _):
        sections = (over_http(free_port(), http.port, retry=QUICK), over_grpc(free_port(), port, retry=QUICK))
        async with running(*sections) as started:
            make = started.maker(*sections)
            for _ in range(6):
                assert await make(POST, ROOTS).ask(FACTS, b"{}", ALICE) == b"{}"
                assert await make(CALL, ROOTS).ask(FACTS, b"{}", ALICE) == b'{"said":"ok"}'
            for cluster in (started.backends.cluster("http"), started.calls.upstream("grpc").cluster):
                dead, live = cluster.members
                assert (cluster.active, dead.in_flight, live.in_flight) == (0, 0, 0)
                assert (live.attempts, live.failures) == (6, 0)
                assert dead.failures == dead.attempts > 0


@pytest.mark.parametrize(
    ("section", "facts", "first", "times"),
    [
        (POST, FACTS, None, 1),
        (POST, keyed("once"), None, 2),
        (GET, FACTS, None, 2),
        (POST, FACTS, answer(503), 1),
        (POST, keyed("once"), answer(503), 2),
        (POST, keyed("once"), answer(503, more=b"Retry-After: 600\r\n"), 1),
        (POST, keyed("once"), answer(500), 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_asked_twice(section: Rpc, facts: Any, first: bytes | None, times: int) -> None:
    """
    What a backend may have seen is sent again only with a key of the client's, or by a method that may be repeated.
    """
    counting = Counting(first, DONE)
    with backend(counting) as http:
        async with asking(over_http(http.port, retry=QUICK)) as make:
            if times == 2:  # noqa: PLR2004
                assert await make(section, ROOTS).ask(facts, b'{"a":1}' if section is POST else b"", ALICE) == b"{}"
            else:
                error = await failure(make(section, ROOTS), b'{"a":1}', facts)
                assert (error.code, error.temporary) == (100, True)
            assert counting.asked == times


@pytest_twisted.ensureDeferred
async def test_a_failing_backend_is_given_a_rest() -> None:
    """
    Failures open the upstream's breaker; refusals do not.
    """
    refusing, failing = Counting(answer(404)), Counting(answer(500))
    breaker = Breaker(min_requests=4, open_s=60.0)
    for counting, asked in ((refusing, 12), (failing, 4)):
        with backend(counting) as http:
            async with asking(over_http(http.port, breaker=breaker)) as make:
                for _ in range(12):
                    await failure(make(POST, ROOTS))
                assert counting.asked == asked


@pytest_twisted.ensureDeferred
async def test_no_more_connections_than_there_may_be() -> None:
    """
    The gateway's own bound refuses for a moment and blames no target.
    """
    seen, go_on = threading.Event(), threading.Event()

    def waiting(connection: Any) -> None:
        read_head(connection)
        seen.set()
        go_on.wait(20)
        connection.sendall(DONE)

    section = over_http(0, max_connections=1, retry=QUICK)
    with backend(waiting) as http:
        section = replace(section, http=(f"http://127.0.0.1:{http.port}",))
        async with running(section) as started:
            make = started.maker(section)
            first = Deferred.fromCoroutine(make(POST, ROOTS).ask(FACTS, b"", ALICE))
            await until(seen.is_set)
            error = await failure(make(POST, ROOTS))
            assert (error.code, error.temporary) == (100, True)
            (member,) = started.backends.cluster("http").members
            assert member.failures == 0
            go_on.set()
            assert await first == b"{}"


@pytest_twisted.ensureDeferred
async def test_whoever_leaves_cancels_over_http() -> None:
    """
    Cancelling a request cuts its connection: the backend learns of it, and no target is blamed.
    """
    seen, gone = threading.Event(), threading.Event()

    def waiting(connection: Any) -> None:
        read_head(connection)
        seen.set()
        try:
            while connection.recv(1000):
                pass
        finally:
            gone.set()

    with backend(waiting) as http:
        section = over_http(http.port)
        async with running(section) as started:
            asked = Deferred.fromCoroutine(started.maker(section)(POST, ROOTS).ask(FACTS, b"{}", ALICE))
            await until(seen.is_set)
            asked.cancel()
            with pytest.raises(CancelledError):
                await asked
            await until(gone.is_set)
            cluster = started.backends.cluster("http")
            assert (cluster.active, cluster.members[0].in_flight, cluster.members[0].failures) == (0, 0, 0)


@pytest_twisted.ensureDeferred
async def test_a_call_has_its_own_time() -> None:
    """
    A call's time-out stands in for the upstream's, and the backend is told of it; an answer that dribbles is no excuse.
    """

    def dribbling(connection: Any) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[")
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.05)

    def slow(_request: bytes, context: Any) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    with backend(dribbling) as http, grpc_backend(slow) as (port, served):
        async with asking(over_http(http.port, timeout_s=40.0), over_grpc(port, timeout_s=40.0)) as make:
            for section in (CALL, POST):
                began = time.monotonic()
                error = await failure(make(replace(section, timeout_s=0.4), ROOTS))
                assert (error.code, error.temporary) == (100, True)
                assert time.monotonic() - began < 15
            assert 0 < served.remaining[0] <= 0.5
            await until(served.cancelled.is_set)


@pytest.mark.parametrize(
    "body",
    [b"no", b'"a\nb"', b'{"a":1} {}', b'"\xff"', b"[" * 100_000 + b"]" * 100_000, b"\xef\xbb\xbf{}", b"NaN", b" "],
)
@pytest_twisted.ensureDeferred
async def test_answers_that_are_no_json(body: bytes) -> None:
    """
    Nothing that is not JSON through and through reaches a client.
    """
    with backend(answering(answer(200, body))) as http:
        async with asking(over_http(http.port)) as make:
            error = await failure(make(POST, ROOTS))
            assert (error.code, error.text) == (100, ErrorCode.INTERNAL.text)


@pytest_twisted.ensureDeferred
async def test_an_answer_is_one_line() -> None:
    """
    However it was written, and whatever text it holds.
    """
    body = json.dumps({"a": ["x\r\ny", {"b": "\u2028\u00fc"}]}, indent=4, ensure_ascii=False).encode() + b"\r\n"
    with backend(answering(answer(200, body))) as http:
        async with asking(over_http(http.port)) as make:
            reply = await make(POST, ROOTS).ask(FACTS, b"", ALICE)
            assert json.loads(reply) == json.loads(body)
            assert len(reply.splitlines()) == 1


@pytest_twisted.ensureDeferred
async def test_a_reload_is_seen_by_calls_that_were_made_before() -> None:
    """
    Calls are made for upstreams that are not in force yet, reach them once they are, and fail for a moment where they
    are no more.
    """
    with (
        backend(answering(answer(200, b"1"))) as before_http,
        backend(answering(answer(200, b"2"))) as after_http,
        grpc_backend(said("1")) as (before_grpc, _),
        grpc_backend(said("2")) as (after_grpc, _),
    ):
        old = (over_http(before_http.port), over_grpc(before_grpc))
        new = (over_http(after_http.port), over_grpc(after_grpc))
        async with running() as started:
            make = started.maker(*old)
            calls = (make(POST, ROOTS), make(CALL, ROOTS))
            for told in ("", "1", "2", ""):
                upstreams = {"": (), "1": old, "2": new}[told]
                change_calls, _ = started.calls.prepare(upstreams)
                started.backends.prepare(upstreams)()
                change_calls()
                for call in calls:
                    if told:
                        assert told.encode() in await call.ask(FACTS, b"", ALICE)
                    else:
                        error = await failure(call)
                        assert (error.code, error.temporary) == (100, True)


@pytest_twisted.ensureDeferred
async def test_a_channel_that_is_closed_meanwhile() -> None:
    """
    A call that waits to be tried again when a reload closes its upstream's channels fails for a moment.
    """
    refused = threading.Event()

    def unavailable(_request: bytes, context: Any) -> bytes:
        refused.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        raise AssertionError

    with grpc_backend(unavailable) as (port, _):
        section = over_grpc(port, retry=Retry(backoff_base_s=30.0, backoff_max_s=0.3))
        async with running(section) as started:
            waiting = Deferred.fromCoroutine(failure(started.maker(section)(CALL, ROOTS), b"", keyed("once")))
            await until(refused.is_set)
            await started.calls.upstream("grpc").stop()
            error = await waiting
            assert (error.code, error.temporary) == (100, True)
            error = await failure(started.maker(section)(CALL, ROOTS))
            assert (error.code, error.temporary) == (100, True)


@pytest_twisted.ensureDeferred
async def test_what_an_anonymous_caller_is_told() -> None:
    """
    That somebody must be known is told to whoever is not; to whoever is, it says that the gateway is not accepted.
    """

    def unauthenticated(_request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        raise AssertionError

    with backend(answering(answer(401))) as http, grpc_backend(unauthenticated) as (port, served):
        async with asking(over_http(http.port), over_grpc(port)) as make:
            for section in (POST, CALL):
                error = await failure(make(section, ROOTS), who=None)
                assert (error.code, error.temporary) == (101, False)
                assert (await failure(make(section, ROOTS))).code == 100
            assert "x-user-id" not in served.metadata[0]


@pytest_twisted.ensureDeferred
async def test_codes_for_backends_that_are_away() -> None:
    """
    A method's own code for UNAVAILABLE and DEADLINE_EXCEEDED holds whoever found it so; ``*`` is for answers alone.
    """

    def slow(_request: bytes, context: Any) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    errors = (("UNAVAILABLE", "1503"), ("4", "1504"), ("*", "400"))
    async with asking(over_grpc(free_port(), timeout_s=0.3), over_http(free_port())) as make:
        error = await failure(make(replace(CALL, errors=errors), ROOTS))
        assert (error.code, error.temporary, error.text) == (1503, True, ErrorCode.INTERNAL.text)
        assert (await failure(make(replace(CALL, errors=errors[2:]), ROOTS))).code == 100
        assert (await failure(make(replace(POST, errors=errors[2:]), ROOTS))).code == 100
    with grpc_backend(slow) as (port, _):
        async with asking(over_grpc(port, timeout_s=0.3)) as make:
            assert (await failure(make(replace(CALL, errors=errors), ROOTS))).code == 1504


@pytest.mark.parametrize(("status", "code"), [(301, 100), (407, 100), (418, 418), (499, 100), (501, 100)])
@pytest_twisted.ensureDeferred
async def test_statuses_that_are_no_answer(status: int, code: int) -> None:
    """
    What is about the gateway, or about nobody who waits for an answer, is not told.
    """
    with backend(answering(answer(status, b'{"detail":"inside"}'))) as http:
        async with asking(over_http(http.port)) as make:
            error = await failure(make(POST, ROOTS))
            assert (error.code, "inside" in error.text) == (code, code != 100)
