"""
Backends behind TLS: who they must be, and who the gateway is to them.
"""

import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.upstream.conftest import Pools, Receiving
from tests.upstream.raw import Script, answering, backend, read_head
from tests.web.certificates import Authority, Made
from tests.web.harness import pause
from twisted.internet import reactor as installed

from gateway.config.sections import Upstream, UpstreamTls
from gateway.ports.upstream import Fault
from gateway.upstream.pool import Pool
from gateway.upstream.target import Target

reactor: Any = installed
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"


class Secured:
    """
    Speaks TLS before a script runs.

    Attributes:
        names: What each client asked for by SNI.
        protocols: What was agreed by ALPN.
        subjects: Of the clients' certificates.
    """

    def __init__(self, made: Made, script: Script, client_ca: Path | None = None) -> None:
        self.names: list[str | None] = []
        self.protocols: list[str | None] = []
        self.subjects: list[Any] = []
        self._script = script
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.certificate, made.key)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)

    def __call__(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as wrapped:
            self.protocols.append(wrapped.selected_alpn_protocol())
            certificate: Any = wrapped.getpeercert()
            if certificate:
                self.subjects.append(dict(pair for (pair,) in certificate["subject"]))
            self._script(wrapped)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def ask(pool: Pool, method: bytes = b"GET") -> Receiving:
    receiving = Receiving()
    pool.request(method, HEAD.replace(b"GET", method), 0, b"", True, receiving)
    return await receiving.done.addTimeout(20, reactor)


def fault_of(receiving: Receiving) -> Fault:
    assert receiving.fault is not None
    return receiving.fault


@pytest_twisted.ensureDeferred
async def test_a_verified_backend(authority: Authority, pools: Pools) -> None:
    """
    A backend with a certificate for its name is asked, by HTTP/1.1 and with its name in SNI, and its connection kept.
    """
    secured = Secured(authority.make("localhost"), answering(OK))
    with backend(secured) as server:
        pool = pools(f"https://localhost:{server.port}", tls=UpstreamTls(ca_file=authority.file))
        for method in (b"GET", b"POST", b"GET"):
            assert (await ask(pool, method)).body == b"ok"
        assert (pool.opened, pool.reused) == (1, 2)
        assert secured.names == ["localhost"]
        assert secured.protocols == ["http/1.1"]


@pytest_twisted.ensureDeferred
async def test_a_backend_at_an_address(authority: Authority, pools: Pools) -> None:
    """
    A target that is an address is verified as one; a name in the certificate does not count for it.
    """
    tls = UpstreamTls(ca_file=authority.file)
    with backend(Secured(authority.make(file="a", common_name="a", addresses=("127.0.0.1",)), answering(OK))) as server:
        assert (await ask(pools(f"https://127.0.0.1:{server.port}", tls=tls))).body == b"ok"
    with backend(Secured(authority.make("localhost"), answering(OK))) as server:
        assert fault_of(await ask(pools(f"https://127.0.0.1:{server.port}", tls=tls))).kind == "connect"


@pytest_twisted.ensureDeferred
async def test_another_name(authority: Authority, pools: Pools) -> None:
    """
    ``server_name`` is sent and verified in place of the target's host.
    """
    secured = Secured(authority.make("backend.internal"), answering(OK))
    tls = UpstreamTls(ca_file=authority.file, server_name="backend.internal")
    with backend(secured) as server:
        assert (await ask(pools(f"https://127.0.0.1:{server.port}", tls=tls))).body == b"ok"
        assert secured.names == ["backend.internal"]


@pytest.mark.parametrize("why", ["name", "authority", "expired", "system"])
@pytest_twisted.ensureDeferred
async def test_a_backend_that_cannot_be_verified(why: str, authority: Authority, pools: Pools) -> None:
    """
    A certificate for another name, from another authority, or of yesterday ends the connection before
    a byte of the request has left: it may be tried elsewhere.
    """
    signing = Authority(authority.folder, "another authority") if why == "authority" else authority
    made = signing.make("elsewhere.example" if why == "name" else "localhost", expired=why == "expired")
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        got.append(connection.recv(1000))

    with backend(Secured(made, script)) as server:
        tls = UpstreamTls(ca_file=None if why == "system" else authority.file)
        pool = pools(f"https://localhost:{server.port}", tls=tls)
        fault = fault_of(await ask(pool, b"POST"))
        assert (fault.kind, fault.sent, fault.answered) == ("connect", False, False)
        assert fault.detail == {"name": "the certificate is for another name"}.get(
            why, "TLS: certificate verify failed"
        )
        assert (pool.open, len(pool.active)) == (0, 0)
    assert b"".join(got) == b""


@pytest_twisted.ensureDeferred
async def test_who_the_gateway_is(authority: Authority, pools: Pools) -> None:
    """
    To a backend that asks for one the gateway shows its certificate; without one it is not let in.
    """
    own = authority.make(common_name="gateway", file="gateway")
    secured = Secured(authority.make("localhost"), answering(OK), authority.file)
    with backend(secured) as server:
        url = f"https://localhost:{server.port}"
        tls = UpstreamTls(ca_file=authority.file, certificate_file=own.certificate, key_file=own.key)
        assert (await ask(pools(url, tls=tls))).body == b"ok"
        assert secured.subjects == [{"commonName": "gateway"}]
        # In TLS 1.3 a client hears only after its first bytes that it is not let in.
        fault = fault_of(await ask(pools(url, tls=UpstreamTls(ca_file=authority.file))))
        assert (fault.kind, fault.answered) == ("reset", False)


@pytest_twisted.ensureDeferred
async def test_the_chain_above_the_gateways_certificate(authority: Authority, pools: Pools, tmp_path: Path) -> None:
    """
    The file of the gateway's certificate may hold the one that signed it, for backends that know only the root.
    """
    between = authority.make_authority("between")
    own = between.make(common_name="gateway", file="gateway")
    both = tmp_path / "both.pem"
    both.write_bytes(own.certificate.read_bytes() + between.file.read_bytes())
    with backend(Secured(authority.make("localhost"), answering(OK), authority.file)) as server:
        url = f"https://localhost:{server.port}"
        tls = UpstreamTls(ca_file=authority.file, certificate_file=both, key_file=own.key)
        assert (await ask(pools(url, tls=tls))).body == b"ok"
        tls = UpstreamTls(ca_file=authority.file, certificate_file=own.certificate, key_file=own.key)
        assert (await ask(pools(url, tls=tls))).fault is not None


@pytest.mark.parametrize("what", ["silence", "plain HTTP", "close"])
@pytest_twisted.ensureDeferred
async def test_no_handshake(what: str, authority: Authority, pools: Pools) -> None:
    """
    Whoever does not speak TLS, or nothing at all, is no connection; the connect time-out covers the handshake.
    """

    def script(connection: socket.socket) -> None:
        if what == "silence":
            time.sleep(1.0)
        elif what == "plain HTTP":
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.recv(1000)

    with backend(script) as server:
        tls = UpstreamTls(ca_file=authority.file)
        pool = pools(f"https://localhost:{server.port}", tls=tls, connect_timeout_s=0.3)
        fault = fault_of(await ask(pool))
        assert (fault.kind, fault.sent) == ("connect", False)
        assert (pool.open, len(pool.active)) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_cancel_during_the_handshake(authority: Authority, pools: Pools) -> None:
    """
    A request given up during the handshake leaves nothing behind.
    """
    greeted = threading.Event()

    def script(connection: socket.socket) -> None:
        while connection.recv(1000):
            greeted.set()

    with backend(script) as server:
        pool = pools(f"https://localhost:{server.port}", tls=UpstreamTls(ca_file=authority.file))
        receiving = Receiving()
        call = pool.request(b"GET", HEAD, 0, b"", True, receiving)
        while not greeted.is_set():
            await pause(0.005)
        call.cancel()
        assert (pool.open, len(pool.active)) == (0, 0)
        assert (receiving.done.called, receiving.fault) == (False, None)


@pytest.mark.parametrize("orderly", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_body_until_close_ends_with_the_end_of_tls(orderly: bool, authority: Authority, pools: Pools) -> None:
    """
    Without TLS's own end a body that ends with the connection may have been cut by anybody; it is not whole.
    """

    def script(connection: Any) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if orderly:
            connection.unwrap()

    with backend(Secured(authority.make("localhost"), script)) as server:
        pool = pools(f"https://localhost:{server.port}", tls=UpstreamTls(ca_file=authority.file))
        receiving = await ask(pool)
        assert receiving.body == b"hello"
        if orderly:
            assert receiving.fault is None
        else:
            fault = fault_of(receiving)
            assert (fault.kind, fault.answered) == ("reset", True)


@pytest_twisted.ensureDeferred
async def test_large_bodies_over_tls(authority: Authority, pools: Pools) -> None:
    """
    A few mebibytes go up and come back, held back where they must be.
    """
    body = bytes(range(256)) * 16 * 1024

    def script(connection: socket.socket) -> None:
        read_head(connection)
        data = b""
        while len(data) < len(body):
            data += connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    with backend(Secured(authority.make("localhost"), script)) as server:
        pool = pools(f"https://localhost:{server.port}", tls=UpstreamTls(ca_file=authority.file))
        receiving = Receiving()
        call = pool.request(b"PUT", HEAD.replace(b"GET", b"PUT"), len(body), body, True, receiving)
        await receiving.began
        call.pause()
        await pause(0.005)
        call.resume()
        assert (await receiving.done).body == body
        assert pool.idle == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """
    A certificate's file that is not there, or is none, is told when the pool is made and not with the first request.
    """
    target = Target.parse("https://localhost:1")
    with pytest.raises(OSError, match="nowhere"):
        Pool(reactor, target, Upstream(name="t", tls=UpstreamTls(ca_file=tmp_path / "nowhere.pem")))
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"bad\.pem"):
        Pool(reactor, target, Upstream(name="t", tls=UpstreamTls(ca_file=bad)))
