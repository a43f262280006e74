"""
Responses of backends that behave, and of those that do not.
"""

import socket
import time

import pytest
import pytest_twisted
from tests.upstream.conftest import Pools, Receiving
from tests.upstream.raw import answering, backend, read_head
from twisted.internet import reactor
from twisted.internet.task import deferLater

from gateway.core.message import CHUNKED
from gateway.ports.upstream import Fault
from gateway.upstream.pool import Pool

GET = b"GET / HTTP/1.1\r\nHost: t\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(pool: Pool, method: bytes = b"GET") -> Receiving:
    receiving = Receiving()
    pool.request(method, GET.replace(b"GET", method), 0, b"", True, receiving)
    return receiving


async def pause(seconds: float = 0.05) -> None:
    await deferLater(reactor, seconds)


@pytest_twisted.ensureDeferred
async def test_connection_is_kept_and_used_again(pools: Pools) -> None:
    """
    Requests one after the other travel over one connection, and each response comes in one call.
    """
    with backend(answering(OK)) as server:
        pool = pools(server.port)
        for _ in range(5):
            receiving = await get(pool).done
            assert receiving.head is not None
            assert (receiving.head.status, receiving.head.reason, receiving.body) == (200, b"OK", b"ok")
            assert (receiving.head.body_length, receiving.calls) == (2, 1)
        assert (pool.opened, pool.reused, pool.idle) == (1, 4, 1)


WHOLE = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello"),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    "continue before": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest_twisted.ensureDeferred
async def test_whole_responses(name: str, pools: Pools) -> None:
    """
    Every lawful framing is read to its end and the connection is used again.
    """
    answer, body = WHOLE[name]
    with backend(answering(answer)) as server:
        pool = pools(server.port)
        for _ in range(2):
            receiving = await get(pool).done
            assert receiving.fault is None
            assert receiving.body == body
        assert pool.opened == 1


@pytest.mark.parametrize("cut", range(1, 75, 3))
@pytest_twisted.ensureDeferred
async def test_split_anywhere(cut: int, pools: Pools) -> None:
    """
    Where the bytes are split makes no difference.
    """
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nT: z\r\n\r\n"

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while read_head(connection):
            connection.sendall(answer[:cut])
            time.sleep(0.01)
            connection.sendall(answer[cut:])

    with backend(script) as server:
        receiving = await get(pools(server.port)).done
        assert receiving.fault is None
        assert receiving.body == b"hello"
        assert receiving.head is not None
        assert receiving.head.headers == [(b"A", b"b")]
        assert receiving.head.trailers == [(b"T", b"z")]


@pytest_twisted.ensureDeferred
async def test_head_has_a_length_and_no_body(pools: Pools) -> None:
    """
    A response to HEAD ends with its head, and the connection is used again.
    """
    with backend(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", OK)) as server:
        pool = pools(server.port)
        receiving = await get(pool, b"HEAD").done
        assert receiving.head is not None
        assert (receiving.head.body_length, receiving.body) == (5, b"")
        assert (await get(pool).done).body == b"ok"
        assert pool.opened == 1


MALFORMED = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "coding before chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "status 99": b"HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 999": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok",
    "version 2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "bare line end": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nA: b\x00\r\nContent-Length: 2\r\n\r\nok",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "space before colon": b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"A: %s\r\n" % (b"b" * 1000) * 100,
    "flood of interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest_twisted.ensureDeferred
async def test_malformed_heads_are_faults(name: str, pools: Pools) -> None:
    """
    A head that is not one HTTP/1.1 response beyond doubt is a fault, and its connection is not used again (Z6).
    """
    with backend(answering(MALFORMED[name], OK)) as server:
        pool = pools(server.port)
        receiving = await get(pool).done
        assert receiving.fault is not None
        assert receiving.fault.kind == "malformed"
        assert receiving.head is None
        assert (pool.idle, pool.open) == (0, 0)


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    "last chunk missing": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
    "trailer not ended": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nA: b\r\n",
}


@pytest.mark.parametrize("name", CUT)
@pytest_twisted.ensureDeferred
async def test_a_body_cut_short_is_never_whole(name: str, pools: Pools) -> None:
    """
    A backend that closes before the end of the body is a fault after the head, whatever the framing (row 28).
    """
    with backend(answering(CUT[name], close=True)) as server:
        receiving = await get(pools(server.port)).done
        assert receiving.body == b"he"
        assert receiving.fault is not None
        assert (receiving.fault.kind, receiving.fault.answered) == ("reset", True)


@pytest.mark.parametrize(
    "chunk",
    [b"0x2\r\nok\r\n", b"+2\r\nok\r\n", b"2 \r\nok\r\n", b"2\nok\n", b"2\r\nokk\r\n", b"fffffffffffffffff\r\nok"],
)
@pytest_twisted.ensureDeferred
async def test_bad_chunks_are_faults(chunk: bytes, pools: Pools) -> None:
    """
    A chunk whose size is anything but hexadecimal digits, or is not true, is a fault.
    """
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    with backend(answering(answer)) as server:
        pool = pools(server.port)
        receiving = await get(pool).done
        assert receiving.fault is not None
        assert receiving.fault.kind == "malformed"
        assert pool.open == 0


@pytest_twisted.ensureDeferred
async def test_until_close_ends_with_an_orderly_close(pools: Pools) -> None:
    """
    Without framing the body ends with the connection.
    """
    with backend(answering(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as server:
        pool = pools(server.port)
        receiving = await get(pool).done
        assert receiving.fault is None
        assert receiving.body == b"hello"
        assert receiving.head is not None
        assert receiving.head.body_length == CHUNKED
        assert pool.open == 0


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        OK + b"x",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_in_doubt_is_not_used_again(answer: bytes, pools: Pools) -> None:
    """
    Bytes after a response, or a response that says so, end the connection; the response itself counts.
    """
    with backend(answering(answer, OK)) as server:
        pool = pools(server.port)
        receiving = await get(pool).done
        assert receiving.fault is None
        assert b"evil" not in receiving.body
        assert pool.idle == 0
        assert (await get(pool).done).fault is None
        assert pool.opened == 2


@pytest_twisted.ensureDeferred
async def test_bytes_nobody_asked_for_end_an_idle_connection(pools: Pools) -> None:
    """
    What comes while no request is under way is never taken for the next one's response.
    """

    def script(connection: socket.socket) -> None:
        while read_head(connection):
            connection.sendall(OK)
            time.sleep(0.05)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    with backend(script) as server:
        pool = pools(server.port)
        assert (await get(pool).done).body == b"ok"
        await pause(0.3)
        assert (pool.idle, pool.open) == (0, 0)
        assert (await get(pool).done).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_interim_responses_are_passed_on(pools: Pools) -> None:
    """
    Early hints are reported before the response they precede.
    """
    with backend(answering(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)) as server:
        receiving = await get(pools(server.port)).done
        assert receiving.interim == [(103, [(b"Link", b"x")])]
        assert receiving.body == b"ok"


@pytest_twisted.ensureDeferred
async def test_refused_connection_was_never_sent(pools: Pools) -> None:
    """
    Where nobody listens nothing was sent, so any request may be tried elsewhere.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    receiving = await get(pools(port)).done
    assert receiving.fault is not None
    assert (receiving.fault.kind, receiving.fault.sent) == ("connect", False)


@pytest_twisted.ensureDeferred
async def test_deadline_and_idle_body(pools: Pools) -> None:
    """
    A head that does not come, and a body that stops, are time-outs; the connection is cut (row 29).
    """

    def silent(connection: socket.socket) -> None:
        read_head(connection)
        connection.recv(1)

    def stalling(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        connection.recv(1)

    with backend(silent) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"GET", GET, 0, b"", True, receiving)
        call.deadline = reactor.seconds() + 0.2
        fault = (await receiving.done).fault
        assert fault is not None
        assert (fault.kind, fault.sent, fault.answered) == ("timeout", True, False)
        assert pool.open == 0
    with backend(stalling) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"GET", GET, 0, b"", True, receiving)
        call.idle_body_s = 0.2
        fault = (await receiving.done).fault
        assert fault is not None
        assert (fault.kind, fault.answered, receiving.body) == ("timeout", True, b"he")


@pytest_twisted.ensureDeferred
async def test_cancel_cuts_the_connection(pools: Pools) -> None:
    """
    A request given up is cut at the backend at once, and its receiver hears nothing more (row 34).
    """
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        seen.append(connection.recv(1))

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"GET", GET, 0, b"", True, receiving)
        await pause(0.1)
        call.cancel()
        await pause(0.2)
        assert not receiving.done.called
        assert (pool.open, len(pool.active)) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_cancel_while_connecting(pools: Pools) -> None:
    """
    A request given up before its connection stands leaves nothing behind.
    """
    with backend(answering(OK)) as server:
        pool = pools(server.port)
        receiving = Receiving()
        pool.request(b"GET", GET, 0, b"", True, receiving).cancel()
        await pause(0.1)
        assert not receiving.done.called
        assert (pool.open, len(pool.active)) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_connections_are_bounded(pools: Pools) -> None:
    """
    Beyond its connections a target takes no more requests, and says so at once.
    """

    def silent(connection: socket.socket) -> None:
        read_head(connection)
        connection.recv(1)

    with backend(silent) as server:
        pool = pools(server.port, max_connections=2)
        get(pool)
        get(pool)
        with pytest.raises(Fault) as caught:
            get(pool)
        assert caught.value.kind == "overflow"


@pytest_twisted.ensureDeferred
async def test_idle_connections_end(pools: Pools) -> None:
    """
    A kept connection is closed after its time, and no more are kept than may be.
    """
    with backend(answering(OK)) as server:
        pool = pools(server.port, idle_timeout_s=0.2, idle_connections=1)
        first, second = get(pool), get(pool)
        await first.done
        await second.done
        assert pool.idle == 1
        await pause(0.5)
        assert (pool.idle, pool.open) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_request_body_by_length_and_in_chunks(pools: Pools) -> None:
    """
    A body goes out as it was announced; one of unknown length in chunks, with its trailers.
    """
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while head := read_head(connection):
            data = b""
            while not data.endswith((b"END", b"\r\nT: v\r\n\r\n")):
                data += connection.recv(1000)
            got.append(head + data)
            connection.sendall(OK)

    head = b"POST / HTTP/1.1\r\nHost: t\r\n"
    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"POST", head, 6, b"abc", False, receiving)
        call.write(b"END")
        call.finish()
        await receiving.done
        receiving = Receiving()
        call = pool.request(b"POST", head, CHUNKED, b"ab", False, receiving)
        call.write(b"c" * 16)
        call.write(b"")
        call.finish(b"T: v\r\n")
        await receiving.done
    assert got[0].endswith(b"Content-Length: 6\r\n\r\nabcEND")
    assert got[1].endswith(b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n10\r\ncccccccccccccccc\r\n0\r\nT: v\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_an_early_response_ends_the_connection(pools: Pools) -> None:
    """
    A response before the request was finished is delivered; the half-sent request keeps nobody's connection.
    """
    with backend(answering(OK)) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"POST", b"POST / HTTP/1.1\r\nHost: t\r\n", 100, b"abc", False, receiving)
        assert (await receiving.done).body == b"ok"
        call.write(b"more")
        call.finish()
        assert (pool.idle, pool.open) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_a_paused_response_holds_the_backend_back(pools: Pools) -> None:
    """
    While the client takes nothing, the backend cannot send without end; resumed, the rest comes whole.
    A connection that was paused when its response ended is not paused for the next request.
    """
    sent = 0
    total = 64 * 1024 * 1024

    def script(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"x" * 65536
        while sent < total:
            connection.sendall(block)
            sent += len(block)
        while read_head(connection):
            connection.sendall(OK)

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"GET", GET, 0, b"", True, receiving)
        await receiving.began
        call.pause()
        await pause(0.5)
        held = sent
        assert held < 16 * 1024 * 1024
        call.resume()
        while not receiving.done.called:
            call.pause()
            call.resume()
            await pause(0.01)
        assert len(receiving.body) == total
        assert (await get(pool).done).body == b"ok"
        assert pool.opened == 1


@pytest_twisted.ensureDeferred
async def test_a_slow_backend_holds_the_upload_back(pools: Pools) -> None:
    """
    The producer of a request's body is paused while the backend takes nothing, also before it is connected.
    """
    go_on = False

    def script(connection: socket.socket) -> None:
        read_head(connection)
        while not go_on:
            time.sleep(0.01)
        taken = 0
        while taken < 20_000_000:
            taken += len(connection.recv(1_000_000))
        connection.sendall(OK)
        connection.recv(1)

    class Uploading:
        paused = False
        pauses = 0

        def pauseProducing(self) -> None:
            self.paused = True
            self.pauses += 1

        def resumeProducing(self) -> None:
            self.paused = False

        def stopProducing(self) -> None:
            self.paused = True

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        producer = Uploading()
        call = pool.request(b"PUT", b"PUT / HTTP/1.1\r\nHost: t\r\n", 20_000_000, b"", False, receiving)
        call.register(producer)
        assert producer.paused
        written = 0
        while written < 20_000_000:
            if producer.paused:
                go_on = producer.pauses > 1
                await pause(0.001)
                continue
            call.write(b"x" * 100_000)
            written += 100_000
        call.finish()
        assert (await receiving.done).body == b"ok"
        assert producer.pauses >= 2
        assert pool.idle == 1
