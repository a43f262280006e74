"""
The PROXY protocol: exact headers, from named peers only, from those always.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network
from typing import Any

import pytest
import pytest_twisted
from tests.web.harness import Served, hello, pause, request, serve, statuses

from gateway.config.sections import Listener
from gateway.web.proxied import SIGNATURE, BadHeader, read_header

ENDPOINT = "tcp:0:interface=127.0.0.1"
TRUSTING = Listener(ENDPOINT, proxy_protocol_from=(ip_network("127.0.0.0/8"),))

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"


def v2(family: int = 0x11, body: bytes = b"", command: int = 0x21, tlvs: bytes = b"") -> bytes:
    body += tlvs
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


INET = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
INET6 = IPv6Address("2001:db8::1").packed * 2 + INET[8:]

GOOD = [
    (V1, ("192.0.2.1", 4711)),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1 65535\r\n", ("2001:db8::1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 x 1 2\r\n", None),
    (v2(0x11, INET), ("192.0.2.1", 4711)),
    (v2(0x11, INET, tlvs=b"\x03\x00\x04abcd"), ("192.0.2.1", 4711)),
    (v2(0x21, INET6), ("2001:db8::1", 4711)),
    (v2(0x00), None),
    (v2(0x31, b"\0" * 216), None),
    (v2(0x11, INET, command=0x20), None),
    (v2(0x00, command=0x20), None),
]


@pytest.mark.parametrize(("data", "named"), GOOD, ids=[repr(each[0][:40]) for each in GOOD])
def test_good_headers(data: bytes, named: Any) -> None:
    """
    A header is complete with its last byte, not before, and what follows is left alone.
    """
    for end in range(1, len(data)):
        assert read_header(data[:end]) is None
    assert read_header(data + b"GET") == (named, b"GET")


BAD = [
    b"GET / HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443 5\r\n",
    b"PROXY TCP4 192.0.2.1  192.0.2.2 4711 443\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 4711 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 04711 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
    b"PROXY TCP4 2001:db8::1 192.0.2.2 1 443\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 443\r\n",
    b"PROXY TCP5 192.0.2.1 192.0.2.2 1 443\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\n\r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"PROXY UNKNOWN" + b" " * 200,
    v2(0x11, INET[:-1]),
    v2(0x21, INET),
    v2(0x12, INET),
    v2(0x11, INET, command=0x22),
    v2(0x11, INET, command=0x11),
    v2(0x41, INET),
    v2(0x13, INET),
    v2(0x11, INET + b"x" * 5000),
    SIGNATURE[:-1] + b"X",
    b"\r\n\r\nGET",
]


@pytest.mark.parametrize("data", BAD, ids=[repr(each[:50]) for each in BAD])
def test_bad_headers(data: bytes) -> None:
    """
    Anything else is no header.
    """
    with pytest.raises(BadHeader):
        read_header(data)


async def ask(served: Served, data: bytes) -> bytes:
    return await served.ask(data + request("Connection: close"))


@pytest.mark.parametrize("header", [V1, v2(0x11, INET)], ids=["v1", "v2"])
@pytest_twisted.ensureDeferred
async def test_peer_is_who_the_header_names(header: bytes) -> None:
    """
    From a named peer the header says who the client is, and the socket's address is kept beside it.
    """
    served = await serve(hello, listener=TRUSTING)
    client = await served.connect()
    for at in range(len(header)):
        client.send(header[at : at + 1])
        if at % 7 == 0:
            await pause(0.002)
    client.send(request("Connection: close"))
    assert statuses(await client.closed()) == [200]
    peer = served.handler.begun[0].peer
    assert (peer.host, peer.port, peer.socket_host, peer.listener) == ("192.0.2.1", 4711, "127.0.0.1", ENDPOINT)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_named_peer_may_name_nobody() -> None:
    """
    A load balancer's own health check (LOCAL, UNKNOWN) is its own peer.
    """
    served = await serve(hello, listener=TRUSTING)
    for header in (b"PROXY UNKNOWN\r\n", v2(0x00, command=0x20)):
        assert statuses(await ask(served, header)) == [200]
    assert {each.peer.host for each in served.handler.begun} == {"127.0.0.1"}
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_header_is_mandatory() -> None:
    """
    A named peer that sends no header, or a bad one, is cut without an answer.
    """
    served = await serve(hello, listener=TRUSTING)
    for header in (b"", b"PROXY TCP4 x y 1 2\r\n", V1[:-2] + b"\n"):
        assert await ask(served, header) == b""
    assert not served.handler.begun
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_header_has_a_deadline() -> None:
    """
    A header that does not come is not waited for.
    """
    served = await serve(hello, listener=TRUSTING, head_timeout_s=0.4)
    client = await served.connect()
    client.send(V1[:10])
    assert await client.closed() == b""
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_others_cannot_send_one() -> None:
    """
    From a peer that is not named a header is a malformed request.
    """
    listener = Listener(ENDPOINT, proxy_protocol_from=(ip_network("192.0.2.0/24"),))
    served = await serve(hello, listener=listener)
    for header in (V1, v2(0x11, INET)):
        assert statuses(await ask(served, header)) == [400]
    assert statuses(await ask(served, b"")) == [200]
    assert served.handler.begun[0].peer.host == "127.0.0.1"
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_connections_count_for_whom_the_header_names() -> None:
    """
    The limit per address is that of the client, not of its load balancer.
    """
    served = await serve(hello, listener=TRUSTING, connections_per_address=1)
    first, second, other = [await served.connect() for _ in range(3)]
    first.send(V1 + request())
    await first.containing(b"hello")
    second.send(V1 + request())
    assert statuses(await second.closed()) == [503]
    other.send(V1.replace(b"192.0.2.1", b"192.0.2.9") + request())
    await other.containing(b"hello")
    await served.stop()
