"""
Listeners: where, with how long a queue, for how many.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.web.harness import Served, eventually, hello, pause, request, serve, statuses
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from demo.ports import free_port
from gateway.config.sections import Certificate, Listener
from gateway.net.transports import DirectReactor
from gateway.web.factory import peer_of
from gateway.web.listen import ListenFailed, hold, listen, with_backlog


def test_backlog_is_added_where_absent() -> None:
    """
    A reconnect storm needs a long queue; who states one keeps it.
    """
    assert with_backlog("tcp:4000") == "tcp:4000:backlog=4096"
    assert with_backlog("tcp:4000:interface=127.0.0.1") == "tcp:4000:interface=127.0.0.1:backlog=4096"
    assert with_backlog("unix:/run/gw.sock") == "unix:/run/gw.sock:backlog=4096"
    assert with_backlog("tcp:4000:backlog=7") == "tcp:4000:backlog=7"
    assert with_backlog("systemd:domain=INET:index=0") == "systemd:domain=INET:index=0"


@pytest.mark.parametrize("endpoint", ["ssl:4000", "4000", "stdio:", ""])
@pytest_twisted.ensureDeferred
async def test_endpoints_that_are_no_listener(endpoint: str) -> None:
    """
    An endpoint string of another kind is named in the message.
    """
    served = await serve(hello)
    with pytest.raises(ListenFailed, match="an endpoint begins with"):
        await listen(reactor, [Listener(endpoint)], served.site)
    await served.stop()


@pytest.mark.parametrize("endpoint", ["tcp:x", "tcp:0:nonsense=1", "tcp:0:interface=192.0.2.1", "systemd:domain=INET"])
@pytest_twisted.ensureDeferred
async def test_endpoints_that_cannot_be_opened(endpoint: str) -> None:
    """
    Whatever keeps a listener from opening is one message that begins with its endpoint.
    """
    served = await serve(hello)
    with pytest.raises(ListenFailed) as caught:
        await listen(reactor, [Listener(endpoint)], served.site)
    assert str(caught.value).startswith(f"{endpoint}: ")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_port_in_use() -> None:
    """
    All listeners open, or none: those before the one that fails are closed in the next turn.
    """
    served = await serve(hello)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    wanted = [Listener(f"tcp:{free}:interface=127.0.0.1"), Listener(f"tcp:{served.port}:interface=127.0.0.1")]
    with pytest.raises(ListenFailed, match="in use"):
        await listen(reactor, wanted, served.site)
    await deferLater(reactor, 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_a_shared_port() -> None:
    """
    Two that say they share listen on one port, and each is given connections; one that does not is refused.
    """
    one, other = await serve(hello), await serve(hello)
    ports = hold([Listener("tcp:0:interface=127.0.0.1")])
    port = ports[0].number
    where = [Listener(f"tcp:{port}:interface=127.0.0.1")]
    sharing = [await listen(reactor, where, served.site, shared=True) for served in (one, other)]
    with pytest.raises(ListenFailed, match="in use"):
        await listen(reactor, where, one.site)
    for _ in range(40):
        client = await one.connect(f"tcp:127.0.0.1:{port}")
        client.send(request())
        await client.containing(b"hello")
    begun = [len(served.handler.begun) for served in (one, other)]
    assert sum(begun) == 40
    assert min(begun) > 0
    for listening in sharing:
        await listening.stop()
    for held in ports:
        held.close()
    await one.stop()
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_port_that_cannot_be_held(tmp_path: Path) -> None:
    """
    Ports are held before workers share them: all, or none where a stranger listens or a certificate is missing.
    """
    served = await serve(hello)
    free = Listener(f"tcp:{free_port()}:interface=127.0.0.1")
    taken = Listener(f"tcp:{served.port}:interface=127.0.0.1")
    with pytest.raises(ListenFailed, match=r"^tcp:\d+:interface=127.0.0.1: address in use by another process"):
        hold([free, taken])
    absent = tmp_path / "absent.pem"
    with pytest.raises(ListenFailed, match=r"absent\.pem"):
        hold([free, replace(free, certificate=(Certificate(absent, absent),))])
    for port in hold([free]):
        port.close()
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_unix_socket(tmp_path: Path) -> None:
    """
    A UNIX socket serves; its peers are called ``unix`` and have no limit per address.
    """
    path = tmp_path / "gw.sock"
    served = await serve(hello, listener=Listener(f"unix:{path}"), connections_per_address=1)
    for _ in range(3):
        client = await served.connect(f"unix:{path}")
        client.send(request())
        await client.containing(b"hello")
    peer = served.handler.begun[0].peer
    assert (peer.host, peer.port, peer.tls) == ("unix", 0, False)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_inherited_socket() -> None:
    """
    A socket that the service manager opened is served like any other, directly.
    """
    served = await serve(hello)
    inherited = socket.socket()
    inherited.bind(("127.0.0.1", 0))
    inherited.listen(5)
    inherited.setblocking(False)
    number = inherited.getsockname()[1]
    port: Any = DirectReactor(reactor).adoptStreamPort(inherited.fileno(), socket.AF_INET, served.site)
    inherited.close()
    client = await served.connect(f"tcp:127.0.0.1:{number}")
    client.send(request("Connection: close"))
    assert statuses(await client.closed()) == [200]
    await port.stopListening()
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_stop_accepts_no_more_and_touches_none() -> None:
    """
    When listening stops, connections that are open live on.
    """
    served = await serve(hello)
    client = await served.connect()
    port = served.port
    await served.listening.stop()
    client.send(request())
    await client.containing(b"hello")
    with pytest.raises(Exception, match="refused"):
        await served.connect(f"tcp:127.0.0.1:{port}")
    await served.stop()


def test_peers() -> None:
    """
    A peer is an address and a port; an IPv4 address in IPv6's clothes is one.
    """
    for address, expected in [
        (IPv4Address("TCP", "192.0.2.1", 5), ("192.0.2.1", 5)),
        (IPv6Address("TCP", "2001:db8::1", 6), ("2001:db8::1", 6)),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 7), ("192.0.2.1", 7)),
        (UNIXAddress("/x"), ("unix", 0)),
    ]:
        peer = peer_of(address)
        assert (peer.host, peer.port, peer.socket_host) == (*expected, expected[0])


# How many connections there may be.


async def turned_away(served: Served) -> bytes:
    client = await served.connect()
    return await client.closed()


@pytest_twisted.ensureDeferred
async def test_most_connections() -> None:
    """
    A connection beyond the limit is told 503 and closed; one that ends makes room.
    """
    served = await serve(hello, connections=2)
    first, second = await served.connect(), await served.connect()
    await eventually(lambda: served.site.connections == 2)
    data = await turned_away(served)
    assert statuses(data) == [503]
    assert b'"code":"too_many_connections"' in data
    assert served.site.refused == 1
    assert served.handler.refusals[0][:2] == (503, "too_many_connections")
    first.send(request())
    await first.containing(b"hello")
    second.reset()
    await eventually(lambda: served.site.connections == 1)
    third = await served.connect()
    third.send(request())
    await third.containing(b"hello")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_most_connections_of_one_address() -> None:
    """
    One address has its own limit; others are not touched by it.
    """
    served = await serve(hello, connections_per_address=2)
    clients = [await served.connect(f"tcp:127.0.0.1:{served.port}:bindAddress=127.0.0.2") for _ in range(2)]
    await eventually(lambda: served.site.connections == 2)
    over = await served.connect(f"tcp:127.0.0.1:{served.port}:bindAddress=127.0.0.2")
    assert statuses(await over.closed()) == [503]
    other = await served.connect()
    other.send(request())
    await other.containing(b"hello")
    for client in clients:
        client.send(request())
        await client.containing(b"hello")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_turning_away_costs_little() -> None:
    """
    Of very many connections too many only some are told why; none of them lasts.
    """
    served = await serve(hello, connections=1)
    keeper = await served.connect()
    await eventually(lambda: served.site.connections == 1)
    clients = [await served.connect() for _ in range(150)]
    await eventually(lambda: served.site.refused == 150)
    assert len(served.site.guests) <= 64
    for client in clients:
        if client.lost is None:
            client.send(b"x" * 1000)
    for client in clients:
        await client.closed()
    keeper.send(request())
    await keeper.containing(b"hello")
    await eventually(lambda: not served.site.guests)
    await served.stop()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest_twisted.ensureDeferred
async def test_descriptors_come_back() -> None:
    """
    However connections end, their descriptors are closed.
    """
    served = await serve(hello)
    before = descriptors()
    for _ in range(20):
        client = await served.connect()
        client.send(request("Host: b"))
        await client.closed()
        client = await served.connect()
        client.send(request())
        client.reset()
    await eventually(lambda: not served.site.connections)
    await pause(0.05)
    assert descriptors() <= before + 2
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_connections_that_were_made_are_served_though_nobody_is_let_in_any_more() -> None:
    """
    What the kernel made before the port was closed is accepted, not reset: its request is on its way.
    """
    served = await serve(hello)
    # No turn of the reactor between these: nobody has accepted when the port is closed.
    waiting = [socket.create_connection(("127.0.0.1", served.port), 5) for _ in range(30)]
    for client in waiting:
        client.sendall(request("Connection: close"))
    port = served.port
    await served.listening.stop()
    for client in waiting:
        client.settimeout(10)
        answer = await deferToThread(client.recv, 65536)
        assert statuses(answer) == [200]
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_a_request_that_comes_at_the_last_moment_is_served() -> None:
    """
    When an idle connection is about to be closed, and a request stands in its socket already, it is answered first.
    """
    served = await serve(hello)
    client = socket.create_connection(("127.0.0.1", served.port), 5)
    await eventually(lambda: served.site.connections == 1)
    served.site.drain()
    [channel] = served.site._open
    client.sendall(request())
    # The deadline is looked at before the reactor has read.
    channel.overdue(channel.deadline)
    assert b"Connection: close\r\n" in await deferToThread(client.recv, 65536)
    client.close()
    assert len(served.handler.begun) == 1
    await served.stop()
