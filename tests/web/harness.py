"""
What the channel's tests speak with: a handler that records, and a client that sends raw bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.config.sections import Limits, Listener
from gateway.core.problems import Problem, problem_body
from gateway.ports.http import Downstream, Exchange, Peer
from gateway.web.channel import Channel
from gateway.web.factory import ChannelFactory
from gateway.web.listen import Listening, listen

LIMITS = Limits()

Answer = Callable[[Exchange], None]


class Collected:
    """
    A body receiver that answers once the body is whole.
    """

    def __init__(self, exchange: Exchange, done: Callable[[bytes], None]) -> None:
        self.exchange = exchange
        self.pieces: list[bytes] = []
        self.done = done

    def received(self, data: bytes, ended: bool) -> None:
        self.pieces.append(data)
        if ended:
            self.done(b"".join(self.pieces))


def hello(exchange: Exchange) -> None:
    """Answer without looking at the body."""
    exchange.start(200, b"", b"Content-Type: text/plain\r\n", 5, b"hello", ended=True)


def echo(exchange: Exchange) -> None:
    """Answer with the method, the target and the body."""

    def done(body: bytes) -> None:
        answer = b"%b %b %b" % (exchange.head.method, exchange.head.target, body)
        exchange.start(200, b"", b"Content-Type: text/plain\r\n", len(answer), answer, ended=True)

    exchange.downstream.receive(Collected(exchange, done))


def silent(exchange: Exchange) -> None:
    """Answer nothing."""


class Recorder:
    """
    A handler that remembers what it was asked and how each exchange ended.

    Attributes:
        begun: Every exchange.
        ended_as: Exchange and whether it was whole, in order.
        refusals: Status, code and beginning of what the channel refused.
    """

    def __init__(self, answer: Answer = echo) -> None:
        self.answer = answer
        self.begun: list[Exchange] = []
        self.ended_as: list[tuple[Exchange, bool]] = []
        self.refusals: list[tuple[int, str, bytes]] = []
        self.gone = 0

    def begin(self, downstream: Downstream) -> Exchange:
        exchange = Exchange(downstream, 0.0)
        self.begun.append(exchange)
        self.answer(exchange)
        return exchange

    def ended(self, exchange: Exchange, *, whole: bool) -> None:
        self.ended_as.append((exchange, whole))
        gone, exchange.on_gone = exchange.on_gone, None
        if gone is not None and not whole:
            gone()

    def refused(self, peer: Peer, status: int, code: str, head: bytes) -> bytes:
        self.refusals.append((status, code, head))
        return problem_body(Problem(code))

    @property
    def outcomes(self) -> list[bool]:
        return [whole for _, whole in self.ended_as]


class RawClient(Protocol):
    """
    A connection that sends exactly what it is told and keeps what comes back.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.connected_at = 0.0
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._look()

    def _look(self) -> None:
        ready = [each for each in self._waiting if each[0]() or self.lost is not None]
        self._waiting = [each for each in self._waiting if each not in ready]
        for _, waiting in ready:
            waiting.callback(None)

    async def until(self, what: Callable[[], bool], within: float = 15.0) -> bytes:
        """Wait until *what* holds or the connection is lost; return all that was received."""
        if not what() and self.lost is None:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((what, waiting))
            await waiting.addTimeout(within, clock())
        return self.data

    async def containing(self, data: bytes, count: int = 1) -> bytes:
        """Wait until *data* was received *count* times."""
        return await self.until(lambda: self.data.count(data) >= count)

    async def closed(self, within: float = 15.0) -> bytes:
        """Wait for the end; return all that was received."""
        return await self.until(lambda: self.lost is not None, within)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self) -> None:
        """Shut the sending side."""
        self.transport.loseWriteConnection()

    def reset(self) -> None:
        self.transport.abortConnection()

    def clear(self) -> None:
        self.data = b""


def clock() -> IReactorTime:
    here: Any = reactor
    return here  # type: ignore[no-any-return]


async def pause(seconds: float) -> None:
    """Let *seconds* pass."""
    await deferLater(clock(), seconds)


async def eventually(what: Callable[[], object], within: float = 15.0) -> None:
    """Wait until *what* is true."""
    here = clock()
    until = here.seconds() + within
    while not what():
        assert here.seconds() < until, "it never came true"
        await pause(0.01)


class Served:
    """
    A site with one listener on an ephemeral port, and clients for it.
    """

    def __init__(self, handler: Recorder, site: ChannelFactory, listening: Listening) -> None:
        self.handler = handler
        self.site = site
        self.listening = listening
        self.clients: list[RawClient] = []

    @property
    def port(self) -> int:
        host: Any = self.listening.ports[0].getHost()
        return int(host.port)

    async def connect(self, endpoint: str = "") -> RawClient:
        here: Any = reactor
        client: RawClient = await clientFromString(here, endpoint or f"tcp:127.0.0.1:{self.port}").connect(
            Factory.forProtocol(RawClient)
        )
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        """Send *data* on a connection of its own; return everything until it is closed."""
        client = await self.connect()
        client.send(data)
        return await client.closed()

    async def stop(self) -> None:
        for client in self.clients:
            if client.lost is None:
                client.reset()
        await self.listening.stop()
        self.site.stop()
        await eventually(lambda: not self.site.connections)


async def serve(
    answer: Answer = echo, *, listener: Listener | None = None, limits: Limits = LIMITS, **changes: Any
) -> Served:
    """Open a site; *changes* are other limits."""
    handler = Recorder(answer)
    site = ChannelFactory(handler, replace(limits, **changes), clock())
    listening = await listen(reactor, [listener or Listener("tcp:0:interface=127.0.0.1")], site)
    return Served(handler, site, listening)


class Memory:
    """
    A channel on a transport in memory and a clock of its own.
    """

    def __init__(self, answer: Answer = echo, **changes: Any) -> None:
        self.clock = Clock()
        self.handler = Recorder(answer)
        self.site = ChannelFactory(self.handler, replace(LIMITS, **changes), self.clock, wall=lambda: 0.0)
        self.site.start()
        self.channel, self.transport = self.connect()

    def connect(self) -> tuple[Channel, MemoryTransport]:
        channel = self.site.admit(Peer("192.0.2.1", 4711))
        assert isinstance(channel, Channel)
        transport = MemoryTransport(channel)
        channel.makeConnection(transport)
        return channel, transport

    @property
    def sent(self) -> bytes:
        return bytes(self.transport.value())

    def feed(self, data: bytes, size: int = 0) -> None:
        """Deliver *data*, in pieces of *size* if one is given, until the channel closes."""
        for at in range(0, len(data), size or len(data) or 1):
            if self.transport.over:
                return
            self.channel.dataReceived(data[at : at + (size or len(data))])

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        passed = 0.0
        while passed < seconds:
            self.clock.advance(step)
            passed += step


class MemoryTransport(StringTransport):
    """
    A transport in memory that tells its protocol when it is closed.
    """

    def __init__(self, protocol: Channel) -> None:
        super().__init__()
        self.protocol = protocol
        self.over = False
        self.half = False

    def loseWriteConnection(self) -> None:
        self.half = True

    def loseConnection(self) -> None:
        super().loseConnection()
        self._end()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._end()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self.protocol.connectionLost(connectionDone)


def request(*lines: str | bytes, method: str = "GET", target: str = "/", host: str = "a.example") -> bytes:
    """Make a request head with *lines* after a good Host."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode("latin-1") for line in head)


def status_of(data: bytes) -> int:
    """Give the first response's status; 0 without one."""
    return int(data[9:12]) if data[:9] == b"HTTP/1.1 " else 0


def statuses(data: bytes) -> list[int]:
    """List every response's status, as far as bodies do not look like one."""
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def body_of(data: bytes) -> bytes:
    """Give what follows the first empty line."""
    return data.partition(b"\r\n\r\n")[2]
