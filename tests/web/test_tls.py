"""
TLS towards clients: which certificate, which protocol, whose client certificate, and reload.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from tests.web.certificates import Authority, Made
from tests.web.harness import RawClient, Served, clock, eventually, hello, pause, request, serve, silent, statuses
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from gateway.config.sections import Certificate, Listener
from gateway.web.listen import ListenFailed, listen
from gateway.web.tls import CertificateFault

ENDPOINT = "tcp:0:interface=127.0.0.1"


def shown(*made: Made, names: tuple[str, ...] = (), **more: Any) -> Listener:
    return Listener(
        ENDPOINT, certificate=tuple(Certificate(each.certificate, each.key, names) for each in made), **more
    )


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """The client's side of TLS: name, protocols, certificate, versions."""

    def __init__(
        self,
        name: str | None = None,
        protocols: tuple[bytes, ...] = (),
        made: Made | None = None,
        newest: int | None = None,
    ) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if protocols:
            self.context.set_alpn_protos(list(protocols))
        if made is not None:
            self.context.use_certificate_file(str(made.certificate))
            self.context.use_privatekey_file(str(made.key))
        if newest is not None:
            self.context.set_max_proto_version(newest)
            self.context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self.context, None)
        connection.set_connect_state()
        if self.name is not None:
            connection.set_tlsext_host_name(self.name.encode())
        return connection


async def connect(served: Served, client: Client) -> RawClient:
    here: Any = reactor
    factory: Any = TLSMemoryBIOFactory(client, True, Factory.forProtocol(RawClient), clock=clock())
    wrapper: Any = await TCP4ClientEndpoint(here, "127.0.0.1", served.port).connect(factory)
    raw: RawClient = wrapper.wrappedProtocol
    served.clients.append(raw)
    return raw


async def serial_for(served: Served, name: str | None) -> int:
    """Which certificate is shown to who asks for *name*."""
    raw = await connect(served, Client(name))
    raw.send(request("Connection: close"))
    await raw.containing(b"hello")
    serial: int = raw.transport.getPeerCertificate().to_cryptography().serial_number
    return serial


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest_twisted.ensureDeferred
async def test_certificate_by_name(authority: Authority) -> None:
    """
    The name asked for chooses the certificate; ``*.`` stands for one label; the first is for all others.
    """
    first, second, wild = (
        authority.make("a.example", "www.a.example"),
        authority.make("b.example"),
        authority.make("*.c.example"),
    )
    served = await serve(hello, listener=shown(first, second, wild))
    for name, made in [
        ("a.example", first),
        ("www.a.example", first),
        ("B.Example", second),
        ("x.c.example", wild),
        ("x.y.c.example", first),
        ("c.example", first),
        ("unknown.example", first),
        (None, first),
    ]:
        assert await serial_for(served, name) == made.serial, name
    assert all(exchange.peer.tls for exchange in served.handler.begun)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_names_of_the_configuration(authority: Authority) -> None:
    """
    Names given with a certificate count instead of its own; without any the common name does.
    """
    first, second, bare = (
        authority.make("a.example"),
        authority.make("b.example"),
        authority.make(common_name="n.example"),
    )
    listener = Listener(
        ENDPOINT,
        certificate=(
            Certificate(first.certificate, first.key),
            Certificate(second.certificate, second.key, ("other.example",)),
            Certificate(bare.certificate, bare.key),
        ),
    )
    served = await serve(hello, listener=listener)
    assert await serial_for(served, "other.example") == second.serial
    assert await serial_for(served, "b.example") == first.serial
    assert await serial_for(served, "n.example") == bare.serial
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_protocol_negotiated(authority: Authority) -> None:
    """
    ALPN chooses http/1.1, and nothing where the client does not offer it.
    """
    served = await serve(hello, listener=shown(authority.make("a.example")))
    for offered, expected in [((b"h2", b"http/1.1"), b"http/1.1"), ((b"h2",), None), ((), None)]:
        raw = await connect(served, Client("a.example", offered))
        raw.send(request())
        await raw.containing(b"hello")
        assert raw.transport.negotiatedProtocol == expected
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_old_versions_are_refused(authority: Authority) -> None:
    """
    TLS 1.2 is the oldest version spoken.
    """
    served = await serve(hello, listener=shown(authority.make("a.example")))
    raw = await connect(served, Client("a.example", newest=SSL.TLS1_1_VERSION))
    await raw.closed()
    raw = await connect(served, Client("a.example", newest=SSL.TLS1_2_VERSION))
    raw.send(request())
    await raw.containing(b"hello")
    assert len(served.handler.begun) == 1
    await served.stop()


@pytest.mark.parametrize("wanted", ["optional", "required"])
@pytest_twisted.ensureDeferred
async def test_client_certificate(authority: Authority, tmp_path: Path, wanted: Any) -> None:
    """
    A client certificate of the authority is told to the node; one of another authority ends the handshake.
    """
    listener = shown(authority.make("a.example"), client_ca_file=authority.file, client_certificate=wanted)
    served = await serve(hello, listener=listener)
    alice = authority.make(common_name="alice")
    mallory = Authority(tmp_path, "another").make(common_name="mallory")

    raw = await connect(served, Client("a.example", made=alice))
    raw.send(request())
    await raw.containing(b"hello")
    assert served.handler.begun[0].peer.certificate_subject == "CN=alice"

    raw = await connect(served, Client("a.example", made=mallory))
    raw.send(request())
    assert await raw.closed() == b""

    raw = await connect(served, Client("a.example"))
    raw.send(request())
    if wanted == "required":
        assert await raw.closed() == b""
        assert len(served.handler.begun) == 1
    else:
        await raw.containing(b"hello")
        assert served.handler.begun[1].peer.certificate_subject is None
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_reload(authority: Authority) -> None:
    """
    A reload shows the new certificate to new connections, and drops none that is open.
    """
    old = authority.make("a.example")
    served = await serve(hello, listener=shown(old))
    raw = await connect(served, Client("a.example"))
    raw.send(request())
    await raw.containing(b"hello")
    new = authority.make("a.example")
    served.listening.reload()
    assert await serial_for(served, "a.example") == new.serial != old.serial
    raw.clear()
    raw.send(request())
    await raw.containing(b"hello")
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_bad_reload_changes_nothing(authority: Authority) -> None:
    """
    A certificate that cannot be used is named, and the last good one stays.
    """
    made = authority.make("a.example")
    served = await serve(hello, listener=shown(made))
    authority.make("b.example", file="other").key.replace(made.key)
    with pytest.raises(CertificateFault, match=r"a\.example\.key"):
        served.listening.reload()
    made.certificate.unlink()
    with pytest.raises(CertificateFault, match=r"a\.example\.pem"):
        served.listening.reload()
    assert await serial_for(served, "a.example") == made.serial
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_prepare_tells_what_needs_a_restart(authority: Authority) -> None:
    """
    What a reload cannot change is named: listeners opened, closed, or turned to TLS.
    """
    served = await serve(hello)
    change, restart = served.listening.prepare([shown(authority.make("a.example")), Listener("tcp:1")])
    assert sorted(restart) == [ENDPOINT, "tcp:1"]
    change()
    change, restart = served.listening.prepare([Listener(ENDPOINT)])
    assert restart == []
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_missing_certificate_opens_nothing(tmp_path: Path) -> None:
    """
    A listener whose certificate is missing is not opened, and its message names the file.
    """
    served = await serve(hello)
    missing = Made(tmp_path / "no.pem", tmp_path / "no.key", 0)
    with pytest.raises(ListenFailed, match=r"no\.pem"):
        await listen(reactor, [Listener(ENDPOINT), shown(missing)], served.site)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_handshake_has_the_heads_deadline(authority: Authority) -> None:
    """
    Row 26: a connection that never shakes hands is cut.
    """
    served = await serve(hello, listener=shown(authority.make("a.example")), head_timeout_s=0.4)
    client = await served.connect()
    await client.closed()
    half = await served.connect()
    half.send(b"\x16\x03\x01\x02\x00")
    await half.closed()
    await eventually(lambda: not served.site.connections)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_refusal_over_tls(authority: Authority) -> None:
    """
    A refusal arrives over TLS too.
    """
    served = await serve(hello, listener=shown(authority.make("a.example")))
    raw = await connect(served, Client("a.example"))
    raw.send(request("Host: b"))
    assert statuses(await raw.containing(b"bad_host")) == [400]
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_large_answer_over_tls(authority: Authority) -> None:
    """
    A large answer is held back and arrives whole over TLS; a client that stops reading is cut.
    """
    size = 12_000_000

    def answer(exchange: Any) -> None:
        exchange.start(200, b"", b"", size, b"x" * size, ended=True)

    served = await serve(answer, listener=shown(authority.make("a.example")), write_timeout_s=1.0)
    raw = await connect(served, Client("a.example"))
    raw.send(request("Connection: close"))
    assert len(await raw.closed()) > size
    raw = await connect(served, Client("a.example"))
    raw.send(request())
    await raw.until(lambda: bool(raw.data))
    raw.transport.transport.pauseProducing()
    await eventually(lambda: not served.site.connections)
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_over_tls(authority: Authority) -> None:
    """
    A client that closes its TLS connection is gone at once.
    """
    served = await serve(silent, listener=shown(authority.make("a.example")))
    raw = await connect(served, Client("a.example"))
    raw.send(request())
    await eventually(lambda: served.handler.begun)
    raw.transport.loseConnection()
    await eventually(lambda: served.handler.ended_as)
    assert served.handler.outcomes == [False]
    await pause(0)
    await served.stop()
