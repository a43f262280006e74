"""
Deadlines: absolute, of the whole head, of the body's rate, of the answer's progress (Z8).
"""

from __future__ import annotations

import pytest
import pytest_twisted
from tests.web.harness import Collected, Memory, echo, eventually, hello, pause, request, serve, silent, statuses

from gateway.core.message import CHUNKED
from gateway.ports.http import Exchange


def test_head_deadline_counts_from_its_first_byte() -> None:
    """
    Z8: a byte a second keeps no head open beyond its deadline; the client is told 408.
    """
    memory = Memory(head_timeout_s=10.0)
    for byte in request()[:12]:
        memory.pass_time(1.0)
        if memory.sent:
            break
        memory.feed(bytes([byte]))
    assert statuses(memory.sent) == [408]
    assert memory.clock.seconds() <= 11.5
    assert memory.handler.refusals[0][:2] == (408, "request_timeout")
    memory.pass_time(2.5)
    assert memory.transport.over


def test_silent_connection_is_closed() -> None:
    """
    A connection that says nothing is closed after the head's deadline, without a word.
    """
    memory = Memory(head_timeout_s=10.0)
    memory.pass_time(9.5)
    assert not memory.transport.over
    memory.pass_time(1.0)
    assert memory.transport.over
    assert memory.sent == b""


def test_kept_connection_is_closed_when_idle() -> None:
    """
    A kept connection is closed after its idle time, and a new head has a deadline of its own.
    """
    memory = Memory(hello, idle_timeout_s=75.0, head_timeout_s=10.0)
    memory.feed(request())
    memory.pass_time(70)
    assert not memory.transport.over
    memory.feed(request())
    memory.pass_time(70)
    memory.feed(b"GET")
    memory.pass_time(8)
    assert not memory.transport.over
    memory.pass_time(3)
    assert statuses(memory.sent) == [200, 200, 408]


def test_waiting_for_the_backend_has_no_deadline_here() -> None:
    """
    While the node has the request, the channel cuts nothing: time-outs of backends are the route's.
    """
    memory = Memory(silent)
    memory.feed(request())
    memory.pass_time(600, step=5)
    assert not memory.transport.over
    hello(memory.handler.begun[0])
    assert statuses(memory.sent) == [200]


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_body_must_keep_its_rate(framing: str) -> None:
    """
    After the grace a body slower than the rate is a 408, however regularly its bytes come.
    """
    memory = Memory(echo, body_grace_s=10.0, min_body_rate_bytes=1000)
    memory.feed(request(framing, method="POST"))
    piece = b"5\r\nhello\r\n" if "chunked" in framing else b"hello"
    while not memory.sent and memory.clock.seconds() < 60:
        memory.pass_time(0.5)
        memory.feed(piece)
    assert statuses(memory.sent) == [408]
    assert memory.clock.seconds() < 12
    assert [(exchange.status, whole) for exchange, whole in memory.handler.ended_as] == [(408, False)]


def test_body_at_its_rate_is_not_cut() -> None:
    """
    A slow body that keeps the rate takes as long as it takes.
    """
    memory = Memory(echo, body_grace_s=10.0, min_body_rate_bytes=1000)
    memory.feed(request("Content-Length: 60000", method="POST"))
    for _ in range(60):
        memory.feed(b"x" * 1000)
        memory.pass_time(0.8, step=0.4)
    assert statuses(memory.sent) == [200]


def test_time_a_body_is_held_back_does_not_count() -> None:
    """
    A backend slower than the client is not the client's fault.
    """
    memory = Memory(silent, body_grace_s=10.0, min_body_rate_bytes=1000)
    memory.feed(request("Content-Length: 20000", method="POST"))
    memory.pass_time(60)
    exchange = memory.handler.begun[0]
    downstream = exchange.downstream
    downstream.receive(Collected(exchange, lambda body: hello(exchange)))
    memory.feed(b"x" * 5000)
    downstream.pause_body()
    memory.pass_time(300)
    downstream.resume_body()
    memory.pass_time(1)
    assert not memory.sent
    memory.feed(b"x" * 15000)
    assert statuses(memory.sent) == [200]


def test_answered_request_is_cut_not_answered_twice() -> None:
    """
    A body too slow after the answer has begun cuts the connection.
    """

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", CHUNKED, b"early", ended=False)
        exchange.downstream.receive(Collected(exchange, lambda body: None))

    memory = Memory(answer, body_grace_s=5.0)
    memory.feed(request("Content-Length: 20000", method="POST"))
    memory.pass_time(6)
    assert memory.transport.over
    assert statuses(memory.sent) == [200]
    assert not memory.sent.endswith(b"0\r\n\r\n")
    assert memory.handler.outcomes == [False]


def test_rest_of_an_unwanted_body_has_a_deadline() -> None:
    """
    The small rest of a body that nobody wants is waited for like a head.
    """
    memory = Memory(hello, head_timeout_s=10.0)
    memory.feed(request("Content-Length: 5", method="POST"))
    assert statuses(memory.sent) == [200]
    memory.pass_time(11)
    assert memory.transport.over


def test_deadlines_do_not_hang_on_the_wall_clock() -> None:
    """
    The date in an answer follows the wall clock, deadlines do not.
    """
    memory = Memory(hello, head_timeout_s=10.0)
    memory.site._wall = lambda: 1e9
    memory.pass_time(0.5)
    assert not memory.transport.over
    memory.feed(request())
    assert b"Date: Sun, 09 Sep 2001 01:46:40 GMT\r\n" in memory.sent


# With sockets and real time.


@pytest_twisted.ensureDeferred
async def test_slow_head() -> None:
    """
    Row 25: a client that sends its head byte by byte is told 408 and cut at the deadline.
    """
    served = await serve(hello, head_timeout_s=0.6)
    client = await served.connect()
    begun = served.site.clock.seconds()
    for byte in request("X: " + "y" * 200):
        if client.lost is not None:
            break
        client.send(bytes([byte]))
        await pause(0.05)
    assert statuses(await client.closed()) == [408]
    assert served.site.clock.seconds() - begun < 6
    assert not served.handler.begun
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_slow_reader() -> None:
    """
    Row 25, Z8: a client that takes nothing of its answer is cut; one that takes little by little is not.
    """

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", 20_000_000, b"x" * 20_000_000, ended=True)

    served = await serve(answer, write_timeout_s=0.7)
    stuck, slow = await served.connect(), await served.connect()
    stuck.transport.pauseProducing()
    for client in (stuck, slow):
        client.send(request("Connection: close"))
    slow.transport.pauseProducing()
    for _ in range(12):
        slow.transport.resumeProducing()
        await pause(0.01)
        slow.transport.pauseProducing()
        await pause(0.15)
    await eventually(lambda: served.site.connections <= 1)
    slow.transport.resumeProducing()
    assert len(await slow.closed()) > 20_000_000
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_closing_connection_that_takes_nothing() -> None:
    """
    A last answer that is never taken does not keep its connection.
    """

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", 20_000_000, b"x" * 20_000_000, ended=True)

    served = await serve(answer, write_timeout_s=0.5)
    client = await served.connect()
    client.transport.pauseProducing()
    client.send(request("Connection: close"))
    await eventually(lambda: served.handler.ended_as)
    await eventually(lambda: not served.site.connections)
    await served.stop()
