"""
Direct transports: what they send at once, what they queue, and that all else is stock.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import abstract, reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTCP, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from gateway.net import transports
from gateway.net.transports import DirectReactor, is_reset, pending_bytes, set_write_limit, switch_protocol

HERE: Any = reactor


class Kept(Protocol):
    """Keeps what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.paused = 0
        self.resumed = 0

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        pass


class Pair:
    """A direct server and client, connected."""

    def __init__(self, port: Any, server: Kept, client: Kept) -> None:
        self.port = port
        self.server = server
        self.client = client

    @classmethod
    async def make(cls, endpoint: str, client_endpoint: str = "") -> Pair:
        direct: Any = DirectReactor(reactor)
        accepted: Deferred[Kept] = Deferred()

        class Server(Kept):
            def connectionMade(self) -> None:
                accepted.callback(self)

        port: Any = await serverFromString(direct, endpoint).listen(Factory.forProtocol(Server))
        where = client_endpoint or f"tcp:127.0.0.1:{port.getHost().port}"
        client: Kept = await clientFromString(direct, where).connect(Factory.forProtocol(Kept))
        return cls(port, await accepted, client)

    async def stop(self) -> None:
        for end in (self.server, self.client):
            if end.lost is None:
                end.transport.abortConnection()
        await self.port.stopListening()
        await until(lambda: self.server.lost is not None and self.client.lost is not None)


async def until(what: Any) -> None:
    for _ in range(1500):
        if what():
            return
        await deferLater(HERE, 0.01)
    pytest.fail("it never came true")


async def pairs(tmp_path: Path) -> list[Pair]:
    path = tmp_path / "socket"
    return [
        await Pair.make("tcp:0:interface=127.0.0.1"),
        await Pair.make(f"unix:{path}", f"unix:{path}"),
    ]


@pytest_twisted.ensureDeferred
async def test_both_ways_and_in_order(tmp_path: Path) -> None:
    """
    Whatever is written arrives, in order, over TCP and UNIX sockets, however much is queued.
    """
    for pair in await pairs(tmp_path):
        sent = b"".join(b"%d," % number for number in range(400_000))
        for at in range(0, len(sent), 100_001):
            pair.server.transport.write(sent[at : at + 100_001])
        pair.client.transport.writeSequence([b"a", b"", b"bc"])
        pair.client.transport.write(b"")
        await until(lambda pair=pair, sent=sent: len(pair.client.data) == len(sent) and pair.server.data == b"abc")
        assert pair.client.data == sent
        assert pending_bytes(pair.server.transport) == 0
        await pair.stop()


@pytest_twisted.ensureDeferred
async def test_small_writes_leave_at_once(tmp_path: Path) -> None:
    """
    A small write is in the kernel when ``write`` returns: the peer's socket has it without a reactor turn.
    """
    for pair in await pairs(tmp_path):
        pair.server.transport.write(b"now")
        assert pair.client.transport.socket.recv(10) == b"now"
        assert pending_bytes(pair.server.transport) == 0
        await pair.stop()


@pytest_twisted.ensureDeferred
async def test_producer_is_paused_above_the_limit(tmp_path: Path) -> None:
    """
    What the kernel does not take is queued, and above the limit the producer is paused until it is gone.
    """
    for pair in await pairs(tmp_path):
        server = pair.server
        server.transport.registerProducer(server, True)
        set_write_limit(server.transport, 200_000)
        pair.client.transport.pauseProducing()
        total = 0
        while not server.paused:
            server.transport.write(b"x" * 50_000)
            total += 50_000
        pending = pending_bytes(server.transport)
        assert pending is not None
        assert 200_000 < pending <= 250_000
        resumed = server.resumed
        pair.client.transport.resumeProducing()
        await until(lambda pair=pair, total=total: len(pair.client.data) == total)
        assert (resumed, server.resumed) == (0, 1)
        server.transport.unregisterProducer()
        await pair.stop()


@pytest_twisted.ensureDeferred
async def test_closing_sends_what_is_queued(tmp_path: Path) -> None:
    """
    ``loseConnection`` and ``loseWriteConnection`` come after everything that was written.
    """
    for pair in await pairs(tmp_path):
        pair.server.transport.write(b"x" * 10_000_000)
        pair.server.transport.write(b"end")
        pair.server.transport.loseConnection()
        await until(lambda pair=pair: pair.client.lost is not None)
        assert len(pair.client.data) == 10_000_003
        assert pair.client.lost is not None
        assert pair.client.lost.check(ConnectionDone)
        await pair.stop()


@pytest_twisted.ensureDeferred
async def test_write_to_a_peer_that_is_gone() -> None:
    """
    A send that fails closes the connection in the reactor's next turn; ``write`` itself never raises.
    """
    pair = await Pair.make("tcp:0:interface=127.0.0.1")
    pair.server.transport.pauseProducing()
    pair.client.transport.abortConnection()
    await until(lambda: pair.client.lost is not None)
    assert pair.client.lost is not None
    assert pair.client.lost.check(ConnectionAborted)
    assert is_reset(pair.server.transport)
    assert pair.server.lost is None
    for _ in range(3):
        pair.server.transport.write(b"x")
    await until(lambda: pair.server.lost is not None)
    assert pair.server.lost is not None
    assert pair.server.lost.check(ConnectionLost)
    pair.server.transport.write(b"after")
    await pair.stop()


@pytest_twisted.ensureDeferred
async def test_not_reset(tmp_path: Path) -> None:
    """
    A connection that lives, was shut on one side, or is no TCP connection, was not reset.
    """
    for pair in await pairs(tmp_path):
        assert not is_reset(pair.server.transport)
        pair.server.transport.pauseProducing()
        pair.client.transport.loseWriteConnection()
        await deferLater(HERE, 0.02)
        assert not is_reset(pair.server.transport)
        await pair.stop()
    assert not is_reset(object())
    assert pending_bytes(object()) is None


@pytest_twisted.ensureDeferred
async def test_switch_protocol() -> None:
    """
    After a switch the other protocol gets what arrives.
    """
    pair = await Pair.make("tcp:0:interface=127.0.0.1")
    successor = Kept()
    switch_protocol(pair.server.transport, successor)
    pair.client.transport.write(b"hello")
    await until(lambda: successor.data == b"hello")
    assert pair.server.data == b""
    switch_protocol(pair.server.transport, pair.server)
    await pair.stop()


def test_reactor_is_itself_but_for_connections() -> None:
    """
    The wrapper provides what the reactor provides, and is the reactor in all else.
    """
    direct: Any = DirectReactor(reactor)
    assert direct.direct
    for interface in (IReactorTCP, IReactorUNIX, IReactorTime):
        assert interface.providedBy(direct)
    assert direct.callLater == HERE.callLater


def test_stock_transports_where_names_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Twisted without a name that is relied on is served by its stock transports.
    """
    assert transports.unsupported() == ""
    monkeypatch.delattr(tcp.Port, "transport")
    assert transports.unsupported() == "twisted.internet.tcp.Port.transport"
    monkeypatch.undo()
    monkeypatch.delattr(abstract.FileDescriptor, "dataBuffer")
    assert "dataBuffer" in transports.unsupported()
    assert not DirectReactor(reactor).direct
    monkeypatch.undo()
    assert not DirectReactor(Clock()).direct


@pytest_twisted.ensureDeferred
async def test_stock_transports_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    With stock transports everything works as well, only slower.
    """
    monkeypatch.setattr(transports, "unsupported", lambda: "something")
    path = tmp_path / "socket"
    for pair in [await Pair.make("tcp:0:interface=127.0.0.1"), await Pair.make(f"unix:{path}", f"unix:{path}")]:
        pair.server.transport.write(b"hello")
        await until(lambda pair=pair: pair.client.data == b"hello")
        await pair.stop()
    direct: Any = DirectReactor(reactor)
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen(5)
        inherited.setblocking(False)
        port = direct.adoptStreamPort(inherited.fileno(), socket.AF_INET, Factory.forProtocol(Kept))
    await port.stopListening()
