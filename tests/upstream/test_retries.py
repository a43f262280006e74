"""
Second attempts, counted where it matters: at the backend.
"""

from typing import Any

import pytest
import pytest_twisted
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Answer, Gate, head_of, route, upstream
from tests.web.harness import clock, eventually, pause
from twisted.internet.defer import Deferred, gatherResults

FAILURES = ["reset", "close", "busy"]


def gate(*backends: Lying, **changes: Any) -> Gate:
    quick: dict[str, Any] = {"retry__backoff_base_s": 0.001, "retry__backoff_max_s": 0.002}
    return Gate([upstream(*[backend.target for backend in backends], **quick | changes)], [route()])


def retries(subject: Gate) -> dict[str, float]:
    """How many there were, by what allowed or stopped them."""
    tally = subject.metrics.upstream_retries
    outcomes = ("tried", "body_gone", "deadline", "budget")
    return {outcome: count for outcome in outcomes if (count := tally.value("backend", outcome))}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest_twisted.ensureDeferred
async def test_idempotent_methods_are_tried_again(method: str, failure: str, lying: Lies) -> None:
    """
    One failure of an idempotent request is not seen by the client.
    """
    backend = lying()
    backend.script(failure)
    async with gate(backend) as subject:
        answer = await subject.ask("/", method=method)
        [(exchange, _)] = subject.journal.ended
        assert (answer.status, exchange.attempts, exchange.flag, exchange.reason) == (200, 2, "", "")
        assert retries(subject) == {"tried": 1}
    first, second = backend.seen()
    assert (first["method"], first["headers"]) == (second["method"], second["headers"])


@pytest.mark.parametrize("failure", [*FAILURES, "switch", "cut_head"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_others_are_never_sent_twice(method: str, failure: str, lying: Lies) -> None:
    """
    A request that a backend may have acted on is not repeated: the client decides.
    """
    backend = lying()
    backend.script(failure)
    async with gate(backend) as subject:
        answer = await subject.ask("/", method=method, body=b"pay 5")
        assert answer.status in {502, 503}
    assert len(backend.seen()) == 1


@pytest.mark.parametrize("failure", FAILURES)
@pytest_twisted.ensureDeferred
async def test_with_a_key_they_may_be(failure: str, lying: Lies) -> None:
    """
    A POST with an Idempotency-Key is repeated, whole and with its key: the backend can tell.
    """
    backend = lying()
    backend.script(failure)
    async with gate(backend) as subject:
        answer = await subject.ask("/", "Idempotency-Key: k1", method="POST", body=b"pay 5" * 1000)
        assert answer.status == 200
    first, second = backend.seen()
    assert first["body"] == second["body"] == "pay 5" * 1000
    assert ["Idempotency-Key", "k1"] in second["headers"]


@pytest_twisted.ensureDeferred
async def test_what_was_never_sent_is_tried_elsewhere(lying: Lies) -> None:
    """
    Where there is no connection nothing was sent: any method goes to another target, and no client notices.
    """
    dead, alive = lying(), lying()
    dead.refuse()
    try:
        async with gate(dead, alive, outlier__consecutive_failures=1000) as subject:
            asked = [
                Deferred.fromCoroutine(subject.ask("/", method="POST", body=b"%d" % number)) for number in range(40)
            ]
            answers = await gatherResults(asked)
            assert {answer.status for answer in answers} == {200}
            assert retries(subject)["tried"] > 5
    finally:
        dead.listen()
    assert sorted(int(asked["body"]) for asked in alive.seen()) == list(range(40))


@pytest_twisted.ensureDeferred
async def test_another_target_is_tried_first(lying: Lies) -> None:
    """
    The second attempt goes to a target that has not failed this request.
    """
    bad, good = lying(), lying()
    async with gate(bad, good, outlier__consecutive_failures=1000, breaker__min_requests=1000) as subject:
        bad.script(*["busy"] * 100)
        for _ in range(5):
            assert (await subject.ask("/")).status == 200
        assert retries(subject)["tried"] > 0
    assert len(good.seen()) == 5


@pytest_twisted.ensureDeferred
async def test_only_as_often_as_allowed(lying: Lies) -> None:
    """
    The last failure is what the client gets, after as many attempts as are set.
    """
    backend = lying()
    backend.script(*["busy"] * 9)
    async with gate(backend, retry__attempts=3) as subject:
        answer = await subject.ask("/")
        assert (answer.status, answer.body) == (503, b"sorry")
        assert len(backend.seen()) == 3
    async with gate(backend, retry__attempts=1) as subject:
        assert (await subject.ask("/")).status == 503
        assert len(backend.seen()) == 4


@pytest_twisted.ensureDeferred
async def test_only_what_is_listed(lying: Lies) -> None:
    """
    Other answers pass as they are: a 500 is not repeated, a 429 only where that is set.
    """
    backend = lying()
    async with gate(backend) as subject:
        for status in (500, 501, 429, 404):
            assert (await subject.ask(f"/lie/busy?status={status}")).status == status
        assert len(backend.seen()) == 4
    backend.forget()
    async with gate(backend, retry__statuses=(429,)) as subject:
        assert (await subject.ask("/lie/busy?status=429")).status == 429
        assert len(backend.seen()) == 2


@pytest.mark.parametrize("cut", ["cut_length", "cut_chunked", "stall_body"])
@pytest_twisted.ensureDeferred
async def test_never_after_a_byte_of_the_answer(cut: str, lying: Lies) -> None:
    """
    Once the answer has begun there is no second attempt, whatever the method.
    """
    backend = lying()
    backend.script(cut)
    async with gate(backend, idle_body_timeout_s=0.3) as subject:
        assert not (await subject.ask("/")).whole
    assert len(backend.seen()) == 1


@pytest_twisted.ensureDeferred
async def test_a_short_retry_after_is_waited_for(lying: Lies) -> None:
    """
    A backend that asks for a second is given it; one that asks for longer is not asked again.
    """
    backend = lying()
    backend.script("again_soon")
    async with gate(backend) as subject:
        assert (await subject.ask("/")).status == 200
        first, second = backend.seen()
        assert second["at"] - first["at"] >= 1
        for after in ("2", "60", "Fri,%2031%20Dec%202027%2023:59:59%20GMT", "soon"):
            backend.forget()
            answer = await subject.ask(f"/lie/busy?after={after}")
            assert (answer.status, answer.header("retry-after") is None) == (503, False)
            assert len(backend.seen()) == 1


@pytest_twisted.ensureDeferred
async def test_a_large_body_is_not_kept(lying: Lies) -> None:
    """
    A body beyond the bound is gone once it was sent: the request is not repeated even with a key.
    """
    backend = lying()
    backend.script("reset", "reset")
    async with gate(backend, retry__max_body_bytes=1000) as subject:
        answer = await subject.ask("/", "Idempotency-Key: k1", method="PUT", body=b"x" * 900)
        assert (answer.status, len(backend.seen())) == (502, 2)
        backend.forget()
        backend.script("reset")
        client = await subject.connect()
        client.send(head_of("/", "Idempotency-Key: k2", "Content-Length: 200000", "Connection: close", method="PUT"))
        await eventually(backend.seen)
        client.send(b"x" * 200_000)
        answer = Answer(await client.closed())
        assert (answer.status, answer.code) == (502, "upstream_reset")
        assert len(backend.seen()) == 1
        assert retries(subject)["body_gone"] == 1


@pytest_twisted.ensureDeferred
async def test_a_body_still_on_its_way_goes_to_the_second_attempt(lying: Lies) -> None:
    """
    A first attempt may fail while the client still sends; the second has the body from its beginning to its end.
    """
    backend = lying()
    async with gate(backend) as subject:
        # Kept connections, so that each attempt finds one.
        await gatherResults([Deferred.fromCoroutine(subject.ask("/lie/slow")) for _ in range(2)])
        backend.forget()
        backend.script("reset_early")
        client = await subject.connect()
        client.send(
            head_of("/", "Idempotency-Key: k", "Content-Length: 12", "Connection: close", method="PUT") + b"abcd"
        )
        await eventually(lambda: len(backend.seen()) == 2)
        client.send(b"efgh")
        await pause(0.05)
        client.send(b"ijkl")
        answer = Answer(await client.closed())
        assert answer.status == 200
    assert backend.seen()[1]["body"] == "abcdefghijkl"


@pytest_twisted.ensureDeferred
async def test_a_body_waits_with_its_client(lying: Lies) -> None:
    """
    What a client sends while the next attempt is waited for is not gathered, and arrives whole.
    """
    backend = lying()
    async with gate(backend, retry__max_body_bytes=1000) as subject:
        backend.script("busy_early", "count")
        client = await subject.connect()
        size = 32 << 20
        client.send(head_of("/", "Idempotency-Key: k", f"Content-Length: {size}", "Connection: close", method="PUT"))
        await eventually(lambda: retries(subject))
        client.send(b"x" * size)
        await pause(0.5)
        # Nothing but kernel buffers and the channel's bound took of it.
        assert len(client.transport.dataBuffer) + client.transport._tempDataLen > size // 2
        [exchange] = subject.edge.open
        assert exchange.downstream.bytes_in <= 256 * 1024
        assert Answer(await client.closed()).body == str(size).encode()


@pytest_twisted.ensureDeferred
async def test_the_time_begins_when_the_client_has_sent(lying: Lies) -> None:
    """
    A body that took its time leaves the whole time-out for the answer, another attempt included.
    """
    backend = lying()
    backend.script("reset", "slow")
    async with gate(backend, timeout_s=0.7) as subject:
        client = await subject.connect()
        client.send(head_of("/", "Idempotency-Key: k", "Content-Length: 8", "Connection: close", method="PUT"))
        for byte in b"patience":
            await pause(0.1)
            client.send(bytes([byte]))
        assert Answer(await client.closed()).status == 200
    assert [asked["body"] for asked in backend.seen()] == ["patience", "patience"]


@pytest_twisted.ensureDeferred
async def test_the_deadline_covers_all_attempts(lying: Lies) -> None:
    """
    A try that took too long is repeated within the route's time and not beyond it.
    """
    backend = lying()
    async with gate(backend, timeout_s=1.2, try_timeout_s=0.5, retry__attempts=5) as subject:
        began = clock().seconds()
        answer = await subject.ask("/lie/stall")
        lasted = clock().seconds() - began
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert 1.1 < lasted < 4
        assert 2 <= len(backend.seen()) <= 3
        backend.forget()
        backend.script("stall")
        assert (await subject.ask("/")).status == 200
        assert (await subject.ask("/lie/stall", method="POST", body=b"x")).status == 504
        assert len(backend.seen()) == 3


@pytest_twisted.ensureDeferred
async def test_retries_stay_a_small_share(lying: Lies) -> None:
    """
    When many requests fail, retries are at most a tenth of what succeeds, and a few more.
    """
    backend = lying()
    async with gate(backend, breaker__min_requests=10_000, retry__budget_min=100) as subject:
        for _ in range(10):
            # One in four fails, twice.
            await gatherResults(
                [Deferred.fromCoroutine(subject.ask("/lie/busy" if number % 4 == 0 else "/")) for number in range(40)]
            )
    asked = len(backend.seen())
    assert 400 < asked <= 400 + 5 + 300 / 10
    assert retries(subject)["budget"] >= 60


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_the_retries(lying: Lies) -> None:
    """
    Nobody waits for a second attempt: there is none.
    """
    backend = lying()
    backend.script("busy")
    slow = upstream(backend.target, retry__backoff_base_s=0.5, retry__backoff_max_s=0.5)
    async with Gate([slow], [route()], chance=lambda: 0.9) as subject:
        client = await subject.connect()
        client.send(head_of("/"))
        await eventually(lambda: retries(subject))
        client.reset()
        await eventually(lambda: not subject.edge.open)
        await pause(0.6)
    assert len(backend.seen()) == 1
