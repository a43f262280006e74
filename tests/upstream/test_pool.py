"""
What a pool does at its edges: connections that died meanwhile, targets that do not answer, ends.
"""

import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.upstream.conftest import Pools, Receiving
from tests.upstream.raw import RawBackend, answering, backend, read_head
from tests.web.harness import eventually
from twisted.internet import reactor as installed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater

from gateway.core.message import CHUNKED, Header, ResponseHead
from gateway.net.transports import pending_bytes
from gateway.ports.upstream import Fault
from gateway.upstream.pool import Pool

reactor: Any = installed
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RESET = struct.pack("ii", 1, 0)


def lead(method: bytes) -> bytes:
    return method + b" / HTTP/1.1\r\nHost: t\r\n"


def ask(pool: Pool, method: bytes = b"GET") -> Receiving:
    receiving = Receiving()
    pool.request(method, lead(method), 0, b"", True, receiving)
    return receiving


async def pause(seconds: float = 0.05) -> None:
    await deferLater(reactor, seconds)


def silent(connection: socket.socket) -> None:
    """Take a request and never answer."""
    read_head(connection)
    connection.recv(1)


class Fleeting:
    """
    Answers one request on a connection and then ends it, in a manner, when told.
    """

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.now = False
        self.gone = 0
        self.heads: list[bytes] = []

    def __call__(self, connection: socket.socket) -> None:
        head = read_head(connection)
        if not head:
            return
        self.heads.append(head)
        connection.sendall(OK)
        if len(self.heads) > 1:
            connection.recv(1)
            return
        while not self.now:
            time.sleep(0.001)
        if self.manner == "speak":
            connection.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if self.manner == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
        self.gone += 1

    def end(self) -> None:
        """End it, before this thread lets the reactor see that."""
        self.now = True
        while not self.gone:
            time.sleep(0.001)
        time.sleep(0.02)


@pytest.mark.parametrize("manner", ["close", "reset", "speak"])
@pytest_twisted.ensureDeferred
async def test_what_may_not_be_sent_twice_is_not_spent_on_a_dead_connection(manner: str, pools: Pools) -> None:
    """
    A kept connection that has ended, or said something, by the time of a POST is not used, though
    the reactor has not yet heard of it.
    """
    fleeting = Fleeting(manner)
    with backend(fleeting) as server:
        pool = pools(server.port)
        await ask(pool, b"POST").done
        assert pool.idle == 1
        fleeting.end()
        receiving = await ask(pool, b"POST").done
        assert receiving.fault is None
        assert receiving.body == b"ok"
        assert (pool.opened, pool.reused) == (2, 0)


@pytest.mark.parametrize(("manner", "sent"), [("close", True), ("reset", False)])
@pytest_twisted.ensureDeferred
async def test_a_stale_connection_is_a_reset(manner: str, sent: bool, pools: Pools) -> None:
    """
    A kept connection that ended unnoticed is a reset, with nothing sent if the kernel took nothing;
    whoever retries may know.
    """
    fleeting = Fleeting(manner)
    with backend(fleeting) as server:
        pool = pools(server.port)
        await ask(pool).done
        fleeting.end()
        fault = (await ask(pool).done).fault
        assert fault is not None
        assert (fault.kind, fault.sent, fault.answered) == ("reset", sent, False)
        assert pool.open == 0
        assert (await ask(pool).done).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_the_last_one_used_is_used_first(pools: Pools) -> None:
    """
    Of several kept connections the warmest serves, so that the others can grow old and go.
    """
    with backend(answering(OK)) as server:
        pool = pools(server.port)
        for receiving in [ask(pool) for _ in range(3)]:
            await receiving.done
        assert (pool.open, pool.idle, pool.in_use) == (3, 3, 0)
        for _ in range(5):
            receiving = ask(pool)
            assert (pool.idle, pool.in_use) == (2, 1)
            await receiving.done
        assert (pool.opened, pool.reused) == (3, 5)
        busy = [connection for connection in server.connections if connection.fileno() != -1]
        assert len(busy) == 3


@pytest_twisted.ensureDeferred
async def test_a_target_that_does_not_take_connections(pools: Pools) -> None:
    """
    A connection that does not come about in its time is a fault of its own, with nothing sent.
    """
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        pool = pools(port, connect_timeout_s=0.2)
        fault = (await ask(pool).done).fault
        assert fault is not None
        assert (fault.kind, fault.sent) == ("connect", False)
        # A deadline that comes before that is a time-out as any other.
        receiving = Receiving()
        pool.request(b"GET", lead(b"GET"), 0, b"", True, receiving).deadline = reactor.seconds() + 0.01
        fault = (await receiving.done).fault
        assert fault is not None
        assert (fault.kind, fault.sent) == ("timeout", False)
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("target", ["http://a..b.invalid:1", "http://*.invalid:80", "unix:/nowhere/at/all.sock"])
@pytest_twisted.ensureDeferred
async def test_targets_that_cannot_be(target: str, pools: Pools) -> None:
    """
    A name that is none, or a socket that is not there, is told after the request returned, as any fault.
    """
    pool = pools(target)
    receiving = ask(pool)
    assert not receiving.done.called
    fault = (await receiving.done.addTimeout(20, reactor)).fault
    assert fault is not None
    assert (fault.kind, fault.sent) == ("connect", False)
    assert not pool.active


@pytest_twisted.ensureDeferred
async def test_names_are_resolved_by_the_reactor(pools: Pools) -> None:
    """
    A host name goes through the reactor's resolver, which does not block.
    """
    with backend(answering(OK)) as server:
        pool = pools(f"http://localhost:{server.port}")
        assert isinstance(pool._endpoint, HostnameEndpoint)
        assert (await ask(pool).done).body == b"ok"


@pytest_twisted.ensureDeferred
async def test_unix_sockets(tmp_path: Path, pools: Pools) -> None:
    """
    A target may be a unix socket; its connections are kept like any others.
    """
    path = tmp_path / "backend.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    running = RawBackend(answering(OK), listening)
    pool = pools(f"unix:{path}")
    for _ in range(3):
        assert (await ask(pool, b"POST").done).body == b"ok"
    assert (pool.opened, pool.reused, pool.target.authority) == (1, 2, b"localhost")
    running.close()


@pytest_twisted.ensureDeferred
async def test_close_lets_requests_end(pools: Pools) -> None:
    """
    A closed pool takes no more requests, closes what is idle, and lets what is under way come to its end.
    """
    go_on = False

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nba")
        while not go_on:
            time.sleep(0.005)
        connection.sendall(b"se")

    with backend(script) as server:
        pool = pools(server.port)
        receiving = ask(pool)
        await receiving.began
        pool.close()
        with pytest.raises(Fault) as caught:
            ask(pool)
        assert caught.value.kind == "overflow"
        go_on = True
        assert (await receiving.done).body == b"base"
        assert (pool.open, pool.idle) == (0, 0)
    before = len(reactor.getDelayedCalls())
    await pause(0.1)
    assert len(reactor.getDelayedCalls()) <= before


@pytest_twisted.ensureDeferred
async def test_abort_ends_everything(pools: Pools) -> None:
    """
    An aborted pool has neither connections nor requests nor timers; requests hear of it.
    """
    with backend(silent) as server:
        pool = pools(server.port)
        first = ask(pool)
        await pause(0.1)
        second = ask(pool)
        pool.abort()
        for receiving in (first, second):
            fault = (await receiving.done).fault
            assert fault is not None
            assert fault.kind == "reset"
        await pause(0.1)
        assert (pool.open, len(pool.active), pool._timer) == (0, 0, None)


@pytest_twisted.ensureDeferred
async def test_one_receiver_that_raises_hurts_no_other(pools: Pools) -> None:
    """
    A receiver that raises when its time-out is told leaves the deadlines of others in force.
    """

    class Raising(Receiving):
        def failed(self, fault: Fault) -> None:
            raise ZeroDivisionError

    with backend(silent) as server:
        pool = pools(server.port)
        now = reactor.seconds()
        pool.request(b"GET", lead(b"GET"), 0, b"", True, Raising()).deadline = now + 0.1
        other = Receiving()
        pool.request(b"GET", lead(b"GET"), 0, b"", True, other).deadline = now + 0.15
        assert (await other.done.addTimeout(10, reactor)).fault is not None


class Leaving(Receiving):
    """Gives its request up as soon as it hears something."""

    call: Any

    def informed(self, status: int, headers: list[Header]) -> None:
        super().informed(status, headers)
        if self.leave == "informed":
            self.call.cancel()

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        super().responded(head, data, ended)
        if self.leave == "responded":
            self.call.cancel()

    def __init__(self, leave: str) -> None:
        super().__init__()
        self.leave = leave


@pytest.mark.parametrize("leave", ["informed", "responded"])
@pytest_twisted.ensureDeferred
async def test_nothing_is_told_after_cancel(leave: str, pools: Pools) -> None:
    """
    Whoever cancels from within a call to it hears nothing more, though more was read already.
    """
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(hint + hint + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nba")
        connection.recv(1)

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Leaving(leave)
        receiving.call = pool.request(b"GET", lead(b"GET"), 0, b"", True, receiving)
        await eventually(lambda: pool.opened == 1 and pool.open == 0)
        await pause()
        assert len(receiving.interim) == (1 if leave == "informed" else 2)
        assert receiving.began.called is (leave == "responded")
        assert not receiving.done.called


@pytest_twisted.ensureDeferred
async def test_a_body_is_as_long_as_it_was_announced(pools: Pools) -> None:
    """
    A body that turns out longer or shorter never reaches the wire in a way that the next request could be part of.
    """
    taken: list[bytes] = []

    def script(connection: socket.socket) -> None:
        read_head(connection)
        data = b""
        try:
            while more := connection.recv(1000):
                data += more
        finally:
            taken.append(data)

    with backend(script) as server:
        pool = pools(server.port)
        for extra in (b"too much", b""):
            receiving = Receiving()
            call = pool.request(b"POST", lead(b"POST"), 6, b"abc", False, receiving)
            await eventually(lambda: pool.in_use == 1)
            call.write(extra)
            call.finish()
            fault = (await receiving.done).fault
            assert fault is not None
            assert fault.kind == "cancelled"
            assert pool.open == 0
        await eventually(lambda: len(taken) == 2)
        assert all(b"abc".startswith(data) for data in taken)
        for data, ended in ((b"1234567", False), (b"12345", True)):
            with pytest.raises(ValueError, match="announced"):
                pool.request(b"POST", lead(b"POST"), 6, data, ended, Receiving())
        assert not pool.active


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest_twisted.ensureDeferred
async def test_mebibytes_both_ways(how: str, pools: Pools) -> None:
    """
    A body of a mebibyte goes up and comes back byte for byte, by length and in chunks, again and again
    over one connection.
    """
    body = bytes(range(256)) * 4096

    def script(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        while head := read_lines(lines):
            data = b""
            if b"chunked" in head:
                while size := int(lines.readline(), 16):
                    data += lines.read(size)
                    lines.readline()
                lines.readline()
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(data), 50_000):
                    connection.sendall(b"%x\r\n%b\r\n" % (len(data[at : at + 50_000]), data[at : at + 50_000]))
                connection.sendall(b"0\r\n\r\n")
            else:
                data = lines.read(len(body))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))

    with backend(script) as server:
        pool = pools(server.port)
        for _ in range(3):
            receiving = Receiving()
            call = pool.request(
                b"PUT", lead(b"PUT"), len(body) if how == "length" else CHUNKED, body[:1000], False, receiving
            )
            for at in range(1000, len(body), 100_000):
                call.write(body[at : at + 100_000])
            call.finish()
            assert (await receiving.done).body == body
        assert (pool.opened, pool.reused) == (1, 2)


def read_lines(lines: Any) -> bytes:
    head = b""
    while head[-4:] != b"\r\n\r\n":
        line = lines.readline()
        if not line:
            return b""
        head += line
    return head


@pytest_twisted.ensureDeferred
async def test_an_upload_is_buffered_within_bounds(pools: Pools) -> None:
    """
    A backend that takes nothing leaves no more of the upload here than the transport's bound and one write.
    """

    class Uploading:
        paused = False

        def pauseProducing(self) -> None:
            self.paused = True

        def resumeProducing(self) -> None:
            self.paused = False

        def stopProducing(self) -> None:
            self.paused = True

    with backend(silent) as server:
        pool = pools(server.port)
        producer = Uploading()
        call = pool.request(b"PUT", lead(b"PUT"), CHUNKED, b"", False, Receiving())
        call.register(producer)
        await eventually(lambda: not producer.paused)
        written = 0
        while not producer.paused and written < 100_000_000:
            call.write(b"x" * 65_536)
            written += 65_536
        assert producer.paused
        assert call.connection is not None
        held = pending_bytes(call.connection.transport)
        assert held is not None
        assert 0 < held <= 3 * 65_536
        call.cancel()


@pytest_twisted.ensureDeferred
async def test_an_answer_to_half_a_request_keeps_no_connection(pools: Pools) -> None:
    """
    A backend that answers while the end of the request still waits here has not read it; its connection goes.
    """

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(OK)
        connection.recv(1)
        time.sleep(0.3)

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        body = b"x" * 20_000_000
        pool.request(b"PUT", lead(b"PUT"), len(body), body, True, receiving)
        assert (await receiving.done).body == b"ok"
        assert (pool.idle, pool.open) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_framing_alone_is_no_progress(pools: Pools) -> None:
    """
    A body that brings chunk extensions and never a byte has stopped, and is cut after the idle time.
    """

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5;")
        while True:
            connection.sendall(b"a")
            time.sleep(0.01)

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        pool.request(b"GET", lead(b"GET"), 0, b"", True, receiving).idle_body_s = 0.2
        fault = (await receiving.done.addTimeout(10, reactor)).fault
        assert fault is not None
        assert (fault.kind, fault.answered, receiving.body) == ("timeout", True, b"ok")


@pytest_twisted.ensureDeferred
async def test_a_paused_body_is_not_idle(pools: Pools) -> None:
    """
    The time in which a body is held back here does not count as the backend's.
    """

    def script(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nba")
        time.sleep(0.1)
        connection.sendall(b"se")
        connection.recv(1)

    with backend(script) as server:
        pool = pools(server.port)
        receiving = Receiving()
        call = pool.request(b"GET", lead(b"GET"), 0, b"", True, receiving)
        call.idle_body_s = 0.2
        await receiving.began
        call.pause()
        await pause(0.6)
        call.resume()
        assert (await receiving.done).body == b"base"
        assert receiving.fault is None
