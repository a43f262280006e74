"""
Backends that hang or fail for all: deadlines, the breaker, ejection, and who is not harmed.
"""

from typing import Any

import pytest
import pytest_twisted
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Answer, Gate, head_of, route, upstream
from tests.web.harness import clock, eventually, pause
from twisted.internet.defer import Deferred, gatherResults


def gate(*backends: Lying, **changes: Any) -> Gate:
    strict: dict[str, Any] = {"retry__attempts": 1}
    return Gate([upstream(*[backend.target for backend in backends], **strict | changes)], [route()])


async def many(subject: Gate, number: int, target: str, **more: Any) -> list[Answer]:
    """Ask at once."""
    asked = [Deferred.fromCoroutine(subject.ask(target, **more)) for _ in range(number)]
    answers: list[Answer] = await gatherResults(asked)
    return answers


@pytest.mark.parametrize("lie", ["stall", "deaf"])
@pytest_twisted.ensureDeferred
async def test_a_backend_that_hangs_is_a_504_in_time(lie: str, lying: Lies) -> None:
    """
    Whoever waits is answered when the route's time is over, and the backend's connection is given up.
    """
    backend = lying()
    async with gate(backend, timeout_s=0.5) as subject:
        began = clock().seconds()
        answers = await many(subject, 10, f"/lie/{lie}", method="POST", body=b"x" * 100)
        lasted = clock().seconds() - began
        assert {(answer.status, answer.code, answer.whole) for answer in answers} == {(504, "upstream_timeout", True)}
        assert 0.4 < lasted < 3
        [member] = subject.cluster().members
        assert not member.value.active
        assert not member.value.open
    if lie == "stall":
        await eventually(lambda: all(asked["gone"] is not None for asked in backend.seen()))


@pytest_twisted.ensureDeferred
async def test_a_route_has_its_own_time(lying: Lies) -> None:
    """
    A route's time-out is used instead of the upstream's.
    """
    backend = lying()
    routes = [route("/lie/**", timeout_s=0.3), route("/**")]
    async with Gate([upstream(backend.target)], routes) as subject:
        began = clock().seconds()
        assert (await subject.ask("/lie/stall", method="POST", body=b"x")).status == 504
        assert clock().seconds() - began < 2


@pytest_twisted.ensureDeferred
async def test_one_hanging_route_slows_no_other(lying: Lies) -> None:
    """
    While a hundred requests hang at one backend, those of another are answered at once.
    """
    hanging, well = lying(), lying()
    upstreams = [upstream(hanging.target, name="a", timeout_s=5.0), upstream(well.target, name="b")]
    async with Gate(
        upstreams, [route("/a/**", "a", strip_prefix="/a"), route("/b/**", "b", strip_prefix="/b")]
    ) as subject:
        for _ in range(100):
            (await subject.connect()).send(head_of("/a/lie/stall"))
        await eventually(lambda: subject.cluster("a").active == 100)
        began = clock().seconds()
        answers = await many(subject, 50, "/b/hello")
        assert {answer.status for answer in answers} == {200}
        assert clock().seconds() - began < 3
        assert subject.cluster("a").active == 100


@pytest_twisted.ensureDeferred
async def test_the_breaker_opens_and_recovers(lying: Lies) -> None:
    """
    A backend that fails all is left alone for a while, asked by a few, and used again when they were answered.
    """
    backend = lying()
    async with gate(
        backend, breaker__min_requests=10, breaker__open_s=1.5, breaker__probes=2, breaker__window_s=60.0
    ) as subject:
        assert {answer.status for answer in await many(subject, 10, "/lie/reset")} == {502}
        assert len(backend.seen()) == 10
        refused = await many(subject, 20, "/lie/reset")
        assert {(answer.status, answer.code, answer.header("x-gateway-error")) for answer in refused} == {
            (503, "upstream_open", "UC")
        }
        assert {answer.header("retry-after") for answer in refused} <= {"1", "2"}
        assert len(backend.seen()) == 10

        await pause(1.55)
        # Ten ask at once; two are let through, and they are answered.
        answers = await many(subject, 10, "/lie/slow?seconds=0.4")
        assert sorted(answer.status for answer in answers) == [200] * 2 + [503] * 8
        assert {answer.status for answer in await many(subject, 10, "/")} == {200}
        states = [fields["state"] for event, fields in subject.events if event == "upstream.breaker"]
        assert states == ["open", "half_open", "closed"]


@pytest_twisted.ensureDeferred
async def test_a_probe_that_fails_opens_it_again(lying: Lies) -> None:
    """
    A backend that still fails is left alone for longer.
    """
    backend = lying()
    async with gate(backend, breaker__min_requests=4, breaker__open_s=0.5, breaker__probes=1) as subject:
        await many(subject, 4, "/lie/close")
        await pause(0.55)
        assert (await subject.ask("/lie/close")).status == 502
        await pause(0.4)
        assert (await subject.ask("/")).code == "upstream_open"
        await pause(0.7)
        assert (await subject.ask("/")).status == 200


@pytest_twisted.ensureDeferred
async def test_a_probe_that_streams_closes_it(lying: Lies) -> None:
    """
    A probe counts when its answer begins: a stream that lasts keeps nobody waiting.
    """
    backend = lying()
    async with gate(backend, breaker__min_requests=4, breaker__open_s=0.3, breaker__probes=1) as subject:
        await many(subject, 4, "/lie/close")
        await pause(0.35)
        client = await subject.connect()
        client.send(head_of("/lie/stall_body"))
        await client.containing(b"begun")
        assert (await subject.ask("/")).status == 200


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 501])
@pytest_twisted.ensureDeferred
async def test_a_client_cannot_open_it_by_mistakes(status: int, lying: Lies) -> None:
    """
    Answers that blame the request say nothing against the backend.
    """
    backend = lying()
    async with gate(backend, breaker__min_requests=4, outlier__consecutive_failures=2) as subject:
        for answer in await many(subject, 8, f"/lie/busy?status={status}"):
            assert answer.status == status
        assert (await subject.ask("/")).status == 200
        assert subject.events == []


@pytest_twisted.ensureDeferred
async def test_a_client_cannot_open_it_by_leaving(lying: Lies) -> None:
    """
    Clients that do not wait say nothing against the backend.
    """
    backend = lying()
    async with gate(backend, breaker__min_requests=4) as subject:
        for _ in range(10):
            client = await subject.connect()
            client.send(head_of("/lie/stall"))
            await eventually(lambda: subject.cluster().active)
            client.reset()
            await eventually(lambda: not subject.cluster().active)
        assert (await subject.ask("/")).status == 200
        assert subject.events == []


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_sending_is_to_blame_itself(lying: Lies) -> None:
    """
    A body that does not come is a 408 and not the backend's failure; one that comes slowly has all the time it takes.
    """
    backend = lying()
    async with gate(backend, timeout_s=0.8, breaker__min_requests=1) as subject:
        client = await subject.connect()
        client.send(head_of("/", "Content-Length: 8", "Connection: close", method="POST"))
        for byte in b"patience":
            await pause(0.15)
            client.send(bytes([byte]))
        assert Answer(await client.closed()).status == 200
        client = await subject.connect()
        client.send(head_of("/", "Content-Length: 8", "Connection: close", method="POST") + b"imp")
        answer = Answer(await client.containing(b"request_timeout"))
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert subject.events == []
        assert (await subject.ask("/")).status == 200


@pytest_twisted.ensureDeferred
async def test_no_more_at_once_than_allowed(lying: Lies) -> None:
    """
    Beyond the bound on requests under way the answer is 503 at once, which says nothing against the backend.
    """
    backend = lying()
    async with gate(backend, breaker__max_requests=5, breaker__min_requests=4) as subject:
        answers = await many(subject, 20, "/lie/slow?seconds=0.6")
        assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 15
        assert {answer.code for answer in answers if answer.status == 503} == {"upstream_overload"}
        assert {answer.header("retry-after") for answer in answers if answer.status == 503} == {"1"}
        assert len(backend.seen()) == 5
        assert subject.events == []


@pytest_twisted.ensureDeferred
async def test_no_more_connections_than_allowed(lying: Lies) -> None:
    """
    A target with as many connections as it may have takes no more; another one is asked instead.
    """
    first, second = lying(), lying()
    async with gate(first, max_connections=3) as subject:
        answers = await many(subject, 6, "/lie/slow?seconds=0.6")
        assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 3
        [member] = subject.cluster().members
        assert (member.attempts, member.failures) == (6, 0)
    first.forget()
    async with gate(first, second, max_connections=3, retry__attempts=2, outlier__consecutive_failures=1) as subject:
        answers = await many(subject, 6, "/lie/slow?seconds=0.6", method="POST", body=b"x")
        assert {answer.status for answer in answers} == {200}
        assert (len(first.seen()), len(second.seen())) == (3, 3)
        assert subject.events == []


@pytest_twisted.ensureDeferred
async def test_a_target_that_fails_is_left_out(lying: Lies) -> None:
    """
    After a few failures in a row a target is asked no more until its time is over.
    """
    bad, good = lying(), lying()
    async with gate(
        bad,
        good,
        outlier__consecutive_failures=3,
        outlier__base_ejection_s=1.5,
        breaker__min_requests=1000,
    ) as subject:
        bad.script(*["status_500"] * 3)
        statuses = [(await subject.ask("/")).status for _ in range(20)]
        assert statuses.count(500) == 3
        assert statuses[-10:] == [200] * 10
        assert len(bad.seen()) == 3
        assert [(event, fields["target"]) for event, fields in subject.events] == [("upstream.ejected", bad.name)]
        out, used = subject.cluster().describe(clock().seconds())["targets"]
        assert 0 < out["ejected_s"] <= 1.5
        assert used["ejected_s"] == 0
        await pause(1.55)
        for _ in range(10):
            assert (await subject.ask("/")).status == 200
        assert len(bad.seen()) > 3


@pytest_twisted.ensureDeferred
async def test_the_last_target_is_always_asked(lying: Lies) -> None:
    """
    However often it fails: a single target is never ejected, and of two one remains.
    """
    one, other = lying(), lying()
    async with gate(one, outlier__consecutive_failures=2, breaker__min_requests=1000) as subject:
        one.script(*["status_500"] * 6)
        assert [(await subject.ask("/")).status for _ in range(7)] == [500] * 6 + [200]
    one.forget()
    async with gate(one, other, outlier__consecutive_failures=2, breaker__min_requests=1000) as subject:
        one.script(*["status_500"] * 30)
        other.script(*["status_500"] * 30)
        for _ in range(20):
            assert (await subject.ask("/")).status == 500
        assert len(subject.events) == 1
    assert len(one.seen()) + len(other.seen()) == 20


@pytest_twisted.ensureDeferred
async def test_a_hanging_target_is_left_out(lying: Lies) -> None:
    """
    Time-outs count as failures of the target that had a fair time.
    """
    bad, good = lying(), lying()
    async with gate(bad, good, try_timeout_s=0.2, retry__attempts=2, outlier__consecutive_failures=2) as subject:
        bad.script(*["stall"] * 50)
        for _ in range(12):
            assert (await subject.ask("/")).status == 200
        assert len(bad.seen()) == 2


@pytest_twisted.ensureDeferred
async def test_a_target_is_not_blamed_for_the_time_others_took(lying: Lies) -> None:
    """
    An attempt that had only a rest of the route's time says nothing about its target.
    """
    backend = lying()
    backend.script("busy_slowly", "stall")
    async with gate(backend, timeout_s=0.6, retry__attempts=2) as subject:
        assert (await subject.ask("/")).status == 504
        [member] = subject.cluster().members
        assert (member.attempts, member.failures) == (2, 1)


@pytest_twisted.ensureDeferred
async def test_a_fault_of_our_own_leaves_nothing_under_way(lying: Lies) -> None:
    """
    When the proxy itself fails the client is answered 500, and the request is not counted as under way for ever.
    """

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    async with gate(lying()) as subject:
        [member] = subject.cluster().members
        member.value.request = broken  # type: ignore[method-assign, assignment]
        assert (await subject.ask("/")).status == 500
        assert (subject.cluster().active, member.in_flight) == (0, 0)
        [crash] = subject.journal.crashes
        assert str(crash.value) == "a fault of our own"
        subject.journal.crashes.clear()
