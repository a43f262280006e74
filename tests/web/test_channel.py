"""
The channel over real sockets: framing, order, back-pressure, endings.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import pytest_twisted
from tests.web.harness import (
    Collected,
    Memory,
    body_of,
    echo,
    eventually,
    hello,
    pause,
    request,
    serve,
    silent,
    status_of,
    statuses,
)
from twisted.internet.protocol import Protocol

from gateway.core.message import CHUNKED
from gateway.ports.http import Exchange

CLOSE = "Connection: close"


@pytest_twisted.ensureDeferred
async def test_small_answer() -> None:
    """
    An answer has its length, the date, the server's name, and the connection stays.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request())
    data = await client.containing(b"hello")
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b"hello"
    assert head.startswith(b"HTTP/1.1 200 OK\r\nServer: gateway\r\nDate: ")
    assert b"\r\nContent-Length: 5" in head
    assert b"onnection" not in head
    client.clear()
    client.send(request())
    assert body_of(await client.containing(b"hello")) == b"hello"
    assert served.handler.outcomes == [True, True]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_own_date_and_server_stand_once() -> None:
    """
    A proxied answer keeps its own date; the gateway adds none beside it.
    """

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"Fine", b"date: then\r\nX-Update: 1\r\n", 0, b"", ended=True)

    served = await serve(answer)
    data = await served.ask(request(CLOSE))
    assert data.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert data.lower().count(b"\r\ndate:") == 1
    assert b"\r\nServer: gateway\r\n" in data
    await served.stop()


REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    (request("Host: b"), 400, "bad_host"),
    (request(target="http://evil.example/"), 400, "bad_request"),
    (request(method="CONNECT", target="a:1"), 501, "method_unknown"),
    (request(method="TRACE"), 501, "method_unknown"),
    (request(method="BREW"), 501, "method_unknown"),
    (request("Transfer-Encoding: chunked", "Content-Length: 5"), 400, "bad_request"),
    (request("Content-Length: " + "9" * 5000), 400, "bad_request"),
    (request("X : y"), 400, "bad_request"),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\nHost", 400, "bad_request"),
    (request(target="/" + "a" * 20000), 414, "target_too_long"),
    (b"GET /" + b"a" * 20000, 414, "target_too_long"),
    (request("X: " + "a" * 40000), 431, "head_too_large"),
    (request()[:-2] + b"X: " + b"a" * 40000, 431, "head_too_large"),
    (request(*[f"X-{i}: y" for i in range(101)]), 431, "head_too_large"),
    (request(*[f"X-{i}: y" for i in range(101)])[:-2], 431, "head_too_large"),
    (request("Expect: cookies"), 417, "expectation_failed"),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version_unsupported"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_unsupported"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "tls_unexpected"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request(), 400, "bad_request"),
    (b"\x00", 400, "bad_request"),
    (b"\r\n\r\n" + request(), 400, "bad_request"),
]


@pytest.mark.parametrize(("data", "status", "code"), REFUSED, ids=[repr(each[0][:50]) for each in REFUSED])
@pytest_twisted.ensureDeferred
async def test_refusals(data: bytes, status: int, code: str) -> None:
    """
    Z11, Z12, Z14, Z17, Z18: what cannot be read gets a problem that the client can read, the
    connection ends, and the node never sees an exchange.
    """
    served = await serve(hello)
    answer = await served.ask(data)
    assert status_of(answer) == status
    assert b"Content-Type: application/problem+json\r\n" in answer
    assert b"Connection: close\r\n" in answer
    assert f'"code":"{code}"'.encode() in body_of(answer)
    assert f"Content-Length: {len(body_of(answer))}\r\n".encode() in answer
    assert [(each[0], each[1]) for each in served.handler.refusals] == [(status, code)]
    assert not served.handler.begun
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_refusal_survives_a_client_that_goes_on_sending() -> None:
    """
    The connection is not reset under the answer while the client still sends.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request("Content-Length: 5", "Content-Length: 6"))
    for _ in range(20):
        client.send(b"x" * 10000)
        await pause(0.005)
    assert status_of(await client.closed()) == 400
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_one_empty_line_before_a_request() -> None:
    """
    One empty line before a request line is forgiven (RFC 9112, 2.2), split or not.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(b"\r\n" + request())
    await client.containing(b"hello")
    for piece in (b"\r", b"\n", request(CLOSE)):
        client.send(piece)
        await pause(0.02)
    assert statuses(await client.closed()) == [200, 200]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_pipelined_in_order() -> None:
    """
    Pipelined requests are answered in their order, although the second could be answered first.
    """
    waiting: list[Exchange] = []

    def answer(exchange: Exchange) -> None:
        if exchange.head.target == b"/slow":
            waiting.append(exchange)
        else:
            echo(exchange)

    served = await serve(answer)
    client = await served.connect()
    client.send(request(target="/slow") + request("Content-Length: 2", method="POST", target="/b") + b"hi")
    client.send(request(target="/c") + request(CLOSE, target="/d"))
    await eventually(lambda: waiting)
    await pause(0.05)
    assert client.data == b""
    assert len(served.handler.begun) == 1
    echo(waiting[0])
    data = await client.closed()
    assert [data.find(mark) > 0 for mark in (b"GET /slow", b"POST /b hi", b"GET /c", b"GET /d")] == [True] * 4
    assert data.find(b"GET /slow") < data.find(b"POST /b hi") < data.find(b"GET /c") < data.find(b"GET /d")
    assert served.handler.outcomes == [True] * 4
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_pipelining_is_bounded() -> None:
    """
    While a request is under way the socket is not read beyond a bound.
    """
    served = await serve(silent)
    client = await served.connect()
    client.send(request() + request(target="/next") * 2_000_000)
    await eventually(lambda: served.handler.begun)
    await pause(0.3)
    channel: Any = next(iter(served.site._open))
    assert len(channel._buffer) < 256 * 1024
    served.handler.answer = hello
    hello(served.handler.begun[0])
    await eventually(lambda: len(served.handler.begun) > 10)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_who_takes_no_answers_is_asked_for_no_requests() -> None:
    """
    A client that pipelines and never reads stops being served, in bounded memory, and is cut (Z8).
    """

    def answer(exchange: Exchange) -> None:
        body = b"x" * 20000
        exchange.start(200, b"", b"", len(body), body, ended=True)

    served = await serve(answer, write_timeout_s=1.0)
    client = await served.connect()
    client.transport.pauseProducing()
    client.send(request() * 20000)
    await eventually(lambda: served.site._stalled)
    await pause(0.2)
    begun = len(served.handler.begun)
    await pause(0.2)
    assert len(served.handler.begun) == begun < 20000
    await eventually(lambda: not served.site.connections)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_head_has_no_body() -> None:
    """
    HEAD gets the head of the answer with its length, and nothing after it.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request(method="HEAD") + request(CLOSE))
    data = await client.closed()
    first, second = data.split(b"HTTP/1.1 200 OK")[1:]
    assert b"Content-Length: 5\r\n" in first
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b"hello")
    await served.stop()


@pytest.mark.parametrize(("status", "length"), [(204, b""), (304, b""), (205, b"Content-Length: 0")])
@pytest_twisted.ensureDeferred
async def test_statuses_without_body(status: int, length: bytes) -> None:
    """
    Z19: 204, 205 and 304 never carry a body nor announce one, whatever the handler gave.
    """

    def answer(exchange: Exchange) -> None:
        data = b"" if status == 304 else b"a body here"
        exchange.start(status, b"", b"X-Thing: 1\r\n", len(data), data, ended=True)

    served = await serve(answer)
    client = await served.connect()
    client.send(request() + request(CLOSE))
    data = await client.closed()
    assert statuses(data) == [status, status]
    assert b"a body" not in data
    assert b"ransfer-Encoding" not in data
    assert data.count(b"Content-Length") == (2 if length else 0)
    assert data.count(length) >= 2
    await served.stop()


def streaming(*pieces: bytes, length: int = CHUNKED, trailers: bytes = b"") -> Any:
    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", length, b"", ended=False)
        for piece in pieces:
            exchange.downstream.write(piece)
        exchange.downstream.finish(trailers)

    return answer


@pytest_twisted.ensureDeferred
async def test_chunked_answer() -> None:
    """
    An answer of unknown length is chunked on HTTP/1.1; an empty piece ends nothing.
    """
    served = await serve(streaming(b"hello", b"", b" world", trailers=b"X-Sum: 7\r\n"))
    client = await served.connect()
    client.send(request() + request(CLOSE))
    data = await client.closed()
    assert data.count(b"\r\nTransfer-Encoding: chunked\r\n") == 2
    assert data.count(b"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n") == 2
    assert b"Content-Length" not in data
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_unknown_length_on_http_1_0() -> None:
    """
    An HTTP/1.0 client gets it until the connection closes, and no chunks or trailers.
    """
    served = await serve(streaming(b"hello", b" world", trailers=b"X-Sum: 7\r\n"))
    data = await served.ask(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert data.endswith(b"\r\nConnection: close\r\n\r\nhello world")
    assert b"ransfer-Encoding" not in data
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_keep_alive_on_http_1_0() -> None:
    """
    An HTTP/1.0 client that asks for it keeps the connection, and is told.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in await client.containing(b"hello")
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (await client.closed()).count(b"Connection: close") == 1
    await served.stop()


@pytest.mark.parametrize(
    "answer",
    [
        streaming(b"hel", length=5),
        streaming(b"hello!", length=5),
        lambda exchange: exchange.start(200, b"", b"", 6, b"hello", ended=True),
        lambda exchange: exchange.downstream.finish(),
        lambda exchange: exchange.downstream.abort(),
    ],
    ids=["short", "long", "mismatch", "no head", "abort"],
)
@pytest_twisted.ensureDeferred
async def test_cut_short_is_never_whole(answer: Any) -> None:
    """
    An answer that breaks its own promise cuts the connection, and is not counted as whole.
    """
    served = await serve(answer)
    data = await served.ask(request())
    assert not data.endswith(b"hello")
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_after_the_end_nothing_happens() -> None:
    """
    After ``finish`` every further call on the downstream does nothing.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request())
    await client.containing(b"hello")
    downstream = served.handler.begun[0].downstream
    downstream.write(b"more")
    downstream.finish()
    downstream.abort()
    downstream.inform(103, b"")
    downstream.start(500, b"", b"", 0, b"", True)
    downstream.pause_body()
    downstream.resume_body()
    client.send(request(CLOSE))
    assert statuses(await client.closed()) == [200, 200]
    assert served.handler.outcomes == [True, True]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_interim_response() -> None:
    """
    103 goes before the answer on HTTP/1.1 and never on 1.0; 100 and 101 are not for handlers.
    """

    def answer(exchange: Exchange) -> None:
        for status in (100, 101, 103, 200):
            exchange.downstream.inform(status, b"Link: </a.css>; rel=preload\r\n")
        hello(exchange)

    served = await serve(answer)
    data = await served.ask(request(CLOSE))
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert statuses(data) == [103, 200]
    assert statuses(await served.ask(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")) == [200]
    await served.stop()


# Bodies of requests.


@pytest_twisted.ensureDeferred
async def test_bodies_arrive() -> None:
    """
    Bodies by length and in chunks reach the receiver whole, with their trailers.
    """
    served = await serve(echo)
    client = await served.connect()
    client.send(request("Content-Length: 5", method="POST") + b"hello")
    await client.containing(b"POST / hello")
    client.send(request("Transfer-Encoding: chunked", CLOSE, method="POST"))
    for piece in (b"3\r\nhel\r", b"\n2;x=", b"y\r\nlo\r\n0\r\nX-Sum: 7\r", b"\n\r\n"):
        client.send(piece)
        await pause(0.01)
    assert (await client.closed()).count(b"POST / hello") == 2
    assert served.handler.begun[1].downstream.trailers == [(b"X-Sum", b"7")]
    assert [each.downstream.bytes_in for each in served.handler.begun] == [5, 5]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_bodies_are_not_looked_into() -> None:
    """
    Z10: a body is passed on as it came, whatever its type says it should be.
    """
    served = await serve(echo)
    for kind in (
        "multipart/form-data",
        "application/x-www-form-urlencoded; charset=%",
        "multipart/form-data; boundary",
    ):
        head = request("Content-Length: 12", f"Content-Type: {kind}", CLOSE, method="POST")
        assert (await served.ask(head + b"--x\r\n%zz=&&\0")).endswith(b"POST / --x\r\n%zz=&&\0")
    await served.stop()


@pytest.mark.parametrize(
    ("trailers", "status"),
    [(b"no colon\r\n", 400), (b"X: a\n", 400), (b"Content-Length: 5\r\n", 400), (b"X: " + b"a" * 9000, 431)],
)
@pytest_twisted.ensureDeferred
async def test_bad_trailers(trailers: bytes, status: int) -> None:
    """
    Z18: trailers are held to the rules of header lines, and bounded.
    """
    served = await serve(echo)
    head = request("Transfer-Encoding: chunked", CLOSE, method="POST")
    assert statuses(await served.ask(head + b"2\r\nhi\r\n0\r\n" + trailers + b"\r\n")) == [status]
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_begins_at_the_end_of_the_head() -> None:
    """
    Z9: the node decides before any of the body is read, and a refusal costs no body.
    """

    def answer(exchange: Exchange) -> None:
        exchange.start(401, b"", b"", 0, b"", ended=True)

    served = await serve(answer)
    client = await served.connect()
    client.send(request("Content-Length: 99999999999", "Expect: 100-continue", method="POST"))
    data = await client.closed()
    assert statuses(data) == [401]
    assert b"Connection: close\r\n" in data
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_continue_is_sent_when_somebody_receives() -> None:
    """
    ``100 Continue`` is sent by ``receive`` and not before.
    """
    served = await serve(silent)
    client = await served.connect()
    client.send(request("Content-Length: 5", "Expect: 100-continue", CLOSE, method="POST"))
    await eventually(lambda: served.handler.begun)
    await pause(0.05)
    assert client.data == b""
    echo(served.handler.begun[0])
    assert await client.containing(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert (await client.closed()).endswith(b"POST / hello")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_no_continue_for_who_does_not_wait() -> None:
    """
    Who sends its body without waiting, or speaks HTTP/1.0, gets no ``100 Continue``.
    """
    served = await serve(echo)
    data = await served.ask(request("Content-Length: 5", "Expect: 100-continue", CLOSE, method="POST") + b"hello")
    assert statuses(data) == [200]
    head = b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    client = await served.connect()
    client.send(head)
    await pause(0.05)
    assert client.data == b""
    client.send(b"hello")
    assert statuses(await client.closed()) == [200]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_small_unwanted_body_keeps_the_connection() -> None:
    """
    A small body that nobody wants is dropped, here already or still to come, and the next request is served.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request("Content-Length: 5", method="POST") + b"GET /" + request(target="/1"))
    client.send(
        request("Transfer-Encoding: chunked", method="POST") + b"5\r\nGET /\r\n0\r\n\r\n" + request(target="/2")
    )
    await client.containing(b"hello", 4)
    client.send(request("Content-Length: 5", method="POST"))
    await client.containing(b"hello", 5)
    client.send(b"GET /" + request(CLOSE, target="/3"))
    data = await client.closed()
    assert statuses(data) == [200] * 6
    assert [each.head.target for each in served.handler.begun] == [b"/", b"/1", b"/", b"/2", b"/", b"/3"]
    await served.stop()


@pytest.mark.parametrize("head", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
@pytest_twisted.ensureDeferred
async def test_large_unwanted_body_ends_the_connection(head: str) -> None:
    """
    A body that is not small is not read to keep a connection: the answer announces the end and arrives.
    """
    served = await serve(hello)
    client = await served.connect()
    client.send(request(head, method="POST"))
    client.send(b"ff\r\n" * 20000)
    data = await client.closed()
    assert statuses(data) == [200]
    assert b"Connection: close\r\n" in data
    assert data.endswith(b"hello")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_announced_body_too_large() -> None:
    """
    A body announced as too large is a 413 before any of it, and never invited.
    """
    served = await serve(echo, max_body_bytes=10)
    data = await served.ask(request("Content-Length: 11", "Expect: 100-continue", method="POST"))
    assert statuses(data) == [413]
    assert b'"code":"body_too_large"' in data
    exchange, whole = served.handler.ended_as[0]
    assert (exchange.status, exchange.flag, whole) == (413, "TL", False)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_chunked_body_too_large() -> None:
    """
    A chunked body is a 413 once it exceeds the route's limit, and the handler is told that it is over.
    """
    gone = []

    def answer(exchange: Exchange) -> None:
        exchange.downstream.max_body_bytes = 10
        exchange.on_gone = lambda: gone.append(exchange)
        echo(exchange)

    served = await serve(answer)
    data = await served.ask(request("Transfer-Encoding: chunked", method="POST") + b"8\r\n12345678\r\n8\r\n1234")
    assert statuses(data) == [413]
    assert gone == served.handler.begun
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_bad_chunk() -> None:
    """
    A chunk that is none is a 400 where nothing was answered yet, else the connection is cut.
    """
    served = await serve(echo)
    data = await served.ask(request("Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0x0\r\n\r\n")
    assert statuses(data) == [400]

    def early(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", CHUNKED, b"early", ended=False)
        exchange.downstream.receive(Collected(exchange, lambda body: exchange.downstream.finish()))

    served.handler.answer = early
    client = await served.connect()
    client.send(request("Transfer-Encoding: chunked", method="POST"))
    await client.containing(b"early")
    client.send(b"5\r\nhello\r\n0x0\r\n\r\n")
    assert not (await client.closed()).endswith(b"0\r\n\r\n")
    assert served.handler.outcomes == [False, False]
    await served.stop()


class Slow(Collected):
    """Pauses the body at each piece."""

    def received(self, data: bytes, ended: bool) -> None:
        super().received(data, ended)
        if not ended:
            self.exchange.downstream.pause_body()


@pytest_twisted.ensureDeferred
async def test_request_body_is_held_back() -> None:
    """
    While the receiver pauses, little more is read from the client; resumed, it all arrives.
    """
    slow: list[Slow] = []
    size = 8 * 1024 * 1024

    def answer(exchange: Exchange) -> None:
        def done(body: bytes) -> None:
            assert len(body) == size
            hello(exchange)

        slow.append(Slow(exchange, done))
        exchange.downstream.receive(slow[0])

    served = await serve(answer)
    client = await served.connect()
    client.send(request(f"Content-Length: {size}", CLOSE, method="POST") + b"x" * size)
    await eventually(lambda: slow and slow[0].pieces)
    await pause(0.2)
    taken = sum(map(len, slow[0].pieces))
    assert taken <= 128 * 1024
    while client.lost is None:
        slow[0].exchange.downstream.resume_body()
        await pause(0)
    assert client.data.endswith(b"hello")
    await served.stop()


class Source:
    """Writes pieces until paused."""

    def __init__(self, exchange: Exchange, pieces: int, size: int) -> None:
        self.exchange = exchange
        self.left = pieces
        self.size = size
        self.paused = False
        self.pauses = 0
        self.gone = False

    def run(self) -> None:
        downstream = self.exchange.downstream
        while self.left and not self.paused:
            self.left -= 1
            downstream.write(b"x" * self.size)
        if not self.left:
            downstream.finish()

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.paused = False
        self.run()

    def stopProducing(self) -> None:
        self.gone = True


@pytest.mark.parametrize("write_buffer", [16 * 1024, 256 * 1024])
@pytest_twisted.ensureDeferred
async def test_answer_is_held_back(write_buffer: int) -> None:
    """
    A producer is paused above the write buffer while the client does not read, and resumed after.
    """
    sources: list[Source] = []
    size, pieces = 8192, 2000

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", size * pieces, b"", ended=False)
        sources.append(Source(exchange, pieces, size))
        exchange.downstream.register(sources[0])
        sources[0].run()

    served = await serve(answer, write_buffer_bytes=write_buffer)
    client = await served.connect()
    client.transport.pauseProducing()
    client.send(request(CLOSE))
    await eventually(lambda: sources and sources[0].paused)
    left = sources[0].left
    assert left > 0
    channel = next(iter(served.site._open))
    transport = channel.transport
    queued = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    assert queued <= write_buffer + size
    client.transport.resumeProducing()
    data = await client.closed()
    assert len(body_of(data)) == size * pieces
    assert served.handler.outcomes == [True]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_producer_registered_late_is_paused_at_once() -> None:
    """
    A producer that registers while the client is behind is paused at once.
    """
    sources: list[Source] = []

    def answer(exchange: Exchange) -> None:
        exchange.start(200, b"", b"", CHUNKED, b"x" * 30_000_000, ended=False)
        sources.append(Source(exchange, 1, 1))
        exchange.downstream.register(sources[0])

    served = await serve(answer)
    client = await served.connect()
    client.send(request(CLOSE))
    await eventually(lambda: sources)
    assert sources[0].pauses == 1
    await eventually(lambda: not sources[0].paused)
    assert (await client.closed()).endswith(b"0\r\n\r\n")
    await served.stop()


# Endings.


@pytest_twisted.ensureDeferred
async def test_half_closed_client_gets_its_answer() -> None:
    """
    A client that shuts its sending side still gets the answers to all it asked.
    """
    waiting: list[Exchange] = []
    served = await serve(waiting.append)
    client = await served.connect()
    client.send(request(target="/a") + request("Content-Length: 2", method="POST", target="/b") + b"hi")
    client.finish()
    await eventually(lambda: waiting)
    await pause(0.2)
    served.handler.answer = echo
    echo(waiting[0])
    data = await client.closed()
    assert b"GET /a" in data
    assert data.endswith(b"POST /b hi")
    assert served.handler.outcomes == [True, True]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_closed_client_is_gone_within_a_second() -> None:
    """
    A client that closes while it waits is taken for gone, and what runs for it is cancelled.
    """
    gone: list[float] = []
    served = await serve(silent)
    client = await served.connect()
    client.send(request())
    await eventually(lambda: served.handler.begun)
    served.handler.begun[0].on_gone = lambda: gone.append(served.site.clock.seconds())
    closed_at = served.site.clock.seconds()
    client.transport.loseConnection()
    await eventually(lambda: gone)
    assert gone[0] - closed_at < 3.0
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest.mark.parametrize("head", [request(), request("Content-Length: 5", method="POST")])
@pytest_twisted.ensureDeferred
async def test_reset_client_is_gone_at_once(head: bytes) -> None:
    """
    A reset ends the exchange, once, whatever state its body is in.
    """
    served = await serve(silent)
    client = await served.connect()
    client.send(head)
    await eventually(lambda: served.handler.begun)
    client.reset()
    await eventually(lambda: served.handler.ended_as)
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_reset_is_noticed_while_the_body_is_held_back() -> None:
    """
    A client that resets while nothing is read from it is noticed all the same.
    """

    def answer(exchange: Exchange) -> None:
        exchange.downstream.receive(Slow(exchange, lambda body: None))

    served = await serve(answer)
    client = await served.connect()
    client.send(request("Content-Length: 1000000", method="POST") + b"x" * 500000)
    await eventually(lambda: served.site.held)
    client.reset()
    await eventually(lambda: served.handler.ended_as)
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_closed_in_the_middle_of_a_body() -> None:
    """
    A body that stops short because the client closed is never delivered as ended.
    """
    receivers: list[Collected] = []

    def answer(exchange: Exchange) -> None:
        receivers.append(Collected(exchange, lambda body: hello(exchange)))
        exchange.downstream.receive(receivers[0])

    served = await serve(answer)
    client = await served.connect()
    client.send(request("Content-Length: 10", method="POST") + b"hello")
    await eventually(lambda: receivers and receivers[0].pieces)
    client.finish()
    assert await client.closed() == b""
    assert receivers[0].pieces == [b"hello"]
    assert served.handler.outcomes == [False]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_stop_ends_every_exchange_once() -> None:
    """
    At shutdown every exchange ends, once.
    """
    served = await serve(silent)
    clients = [await served.connect() for _ in range(5)]
    for client in clients:
        client.send(request())
    await eventually(lambda: len(served.handler.begun) == 5)
    await served.stop()
    assert served.handler.outcomes == [False] * 5


@pytest_twisted.ensureDeferred
async def test_drain() -> None:
    """
    A drain ends busy connections with their answer, which says so, and idle ones soon; a request
    that was on its way when it began is served.
    """
    served = await serve(silent)
    idle, late, busy = [await served.connect() for _ in range(3)]
    busy.send(request())
    await eventually(lambda: served.handler.begun)
    served.site.drain()
    emptied = served.site.emptied()
    served.handler.answer = hello
    late.send(request())
    data = await late.closed()
    assert b"Connection: close\r\n" in data
    assert data.endswith(b"hello")
    assert await idle.closed() == b""
    assert not emptied.called
    hello(served.handler.begun[0])
    assert b"Connection: close\r\n" in await busy.closed()
    await emptied
    await served.site.emptied()
    await served.stop()


def test_requests_leave_no_garbage() -> None:
    """
    What was made for a request is freed with it, and does not wait for the garbage collector.
    """
    memory = Memory()
    handler = memory.handler

    class Forgetful:
        begin = staticmethod(lambda downstream: answered(Exchange(downstream, 0.0)))
        ended = staticmethod(lambda exchange, whole: None)
        refused = handler.refused

    def answered(exchange: Exchange) -> Exchange:
        echo(exchange)
        return exchange

    here: Any = memory.site
    here.handler = Forgetful()
    memory.feed(request("Content-Length: 2", method="POST") + b"hi")
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            memory.feed(request("Content-Length: 2", method="POST") + b"hi")
        assert gc.collect() < 50
    finally:
        gc.enable()


# Upgrade.


class EchoProtocol(Protocol):
    """What an upgrade leads to, in these tests."""

    transport: Any

    def __init__(self) -> None:
        self.ended = 0

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"<" + data + b">")

    def connectionLost(self, reason: Any = None) -> None:
        self.ended += 1


def upgrading(successors: list[EchoProtocol]) -> Any:
    def answer(exchange: Exchange) -> None:
        downstream: Any = exchange.downstream
        exchange.status = 101
        successor = EchoProtocol()
        successors.append(successor)
        transport, data = downstream.take_over(successor)
        successor.makeConnection(transport)
        transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        if data:
            successor.dataReceived(data)

    return answer


@pytest_twisted.ensureDeferred
async def test_take_over() -> None:
    """
    A connection is given away with what was received after the head; it still counts.
    """
    successors: list[EchoProtocol] = []
    served = await serve(upgrading(successors))
    client = await served.connect()
    client.send(request("Connection: Upgrade", "Upgrade: Echo") + b"early")
    assert (await client.containing(b"<early>")).startswith(b"HTTP/1.1 101 ")
    assert served.handler.begun[0].head.upgrade == b"echo"
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.containing(b"<GET / HTTP/1.1\r\n\r\n>")
    assert served.site.connections == 1
    assert served.handler.outcomes == [True]
    client.finish()
    await client.closed()
    await eventually(lambda: not served.site.connections)
    assert successors[0].ended == 1
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_take_over_needs_a_bare_head() -> None:
    """
    An exchange with a body, or one that was answered, cannot be taken over.
    """
    served = await serve(silent)
    client = await served.connect()
    client.send(request("Connection: Upgrade", "Upgrade: Echo", "Content-Length: 1", method="POST"))
    await eventually(lambda: served.handler.begun)
    downstream: Any = served.handler.begun[0].downstream
    with pytest.raises(RuntimeError):
        downstream.take_over(EchoProtocol())
    assert served.handler.begun[0].head.upgrade is None
    await served.stop()
