"""
A port that processes share is theirs alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demo.ports import free_port
from gateway.net.held import HeldPort

HERE = "127.0.0.1"


@contextmanager
def bound(
    port: int, host: str = HERE, *, reuse: bool = True, shared: bool = False, listen: bool = True
) -> Iterator[socket.socket]:
    """A server's socket, as some program might open it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        made.bind((host, port))
        if listen:
            made.listen()
        yield made


@contextmanager
def held(port: int, interface: str = HERE, *, ipv6: bool = False) -> Iterator[HeldPort]:
    made = HeldPort(port, interface, ipv6=ipv6)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("host", "interface"), [(HERE, HERE), (HERE, ""), ("0.0.0.0", HERE), (HERE, "localhost")])
def test_a_stranger_is_noticed(host: str, interface: str, *, shared: bool) -> None:
    """
    Whoever listens there already is noticed, also one that would let others join, on any address of ours.
    """
    port = free_port()
    with bound(port, host, shared=shared), pytest.raises(OSError) as caught, held(port, interface):
        pass
    assert caught.value.errno == errno.EADDRINUSE


def test_workers_share_it() -> None:
    """
    Sockets that say so can listen there, several at once, and every one of them is given connections.
    """
    port = free_port()
    with held(port), bound(port, shared=True) as one, bound(port, shared=True) as other:
        clients = [socket.create_connection((HERE, port)) for _ in range(60)]
        taken = []
        for listening in (one, other):
            listening.setblocking(False)
            accepted = 0
            try:
                while True:
                    listening.accept()[0].close()
                    accepted += 1
            except BlockingIOError:
                taken.append(accepted)
        for client in clients:
            client.close()
    assert sum(taken) == 60
    assert min(taken) > 0


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("host", [HERE, "0.0.0.0"])
def test_nobody_else_takes_it(host: str, *, reuse: bool) -> None:
    """
    While no worker listens, a program that does not share cannot take the port; let go, it can.
    """
    port = free_port()
    with held(port), pytest.raises(OSError, match="in use"), bound(port, host, reuse=reuse):
        pass
    with bound(port, host, reuse=reuse):
        pass


def test_it_takes_no_connection() -> None:
    """
    Nobody is let in by who only holds: without a worker, clients are refused.
    """
    port = free_port()
    with held(port), pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, port))


def test_connections_of_the_past_are_no_hindrance() -> None:
    """
    Connections that linger after a server has ended (TIME_WAIT) do not keep the next one from the port.
    """
    port = free_port()
    with bound(port, shared=True) as listening:
        client = socket.create_connection((HERE, port))
        listening.accept()[0].close()
        client.close()
    with held(port), bound(port, shared=True):
        pass


def test_ipv6() -> None:
    """
    An address of IPv6 is one, and so is every interface where IPv6 is asked for.
    """
    port = free_port()
    for interface, ipv6 in (("::1", False), ("", True)):
        with held(port, interface, ipv6=ipv6):
            with pytest.raises(OSError, match="in use"), bound(port, "::1"):
                pass
            with bound(port, interface or "::", shared=True):
                pass


def test_an_address_that_is_not_ours() -> None:
    """
    What cannot be bound is an error with the system's reason.
    """
    with pytest.raises(OSError, match="assign"):
        HeldPort(free_port(), "192.0.2.1")
