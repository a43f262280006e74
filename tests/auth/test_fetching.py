"""
Keys fetched by the gateway's own client, from a server that is not always kind.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.auth.key_server import KeyServer
from tests.auth.making import jwk, jwks
from tests.web.certificates import Authority
from twisted.internet import reactor as installed
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from gateway.auth.keys import KeyRing
from gateway.auth.sources import MAX_DOCUMENT_BYTES
from gateway.config.sections import Auth, Issuer
from gateway.upstream.fetch import Fetcher

reactor: Any = installed


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[KeyServer, Fetcher]]:
    server, fetch = KeyServer(), Fetcher(reactor)
    try:
        yield server, fetch
    finally:
        fetch.close()
        await server.close()


async def outcome(fetch: Fetcher, url: str, ca_file: Path | None = None) -> tuple[str, str]:
    """What a ring reports of its first fetch."""
    reported: Deferred[tuple[str, str]] = Deferred()

    def report(event: str, *, issuer: str, detail: str) -> None:
        reported.callback((event, detail))

    issuer = Issuer("i", ("gateway",), ("ES256",), jwks_url=url, jwks_ca_file=ca_file)
    ring = KeyRing(Auth(issuer=(issuer,)), fetch, Clock(), report)
    ring.start()
    try:
        return await reported.addTimeout(10, reactor)
    finally:
        await ring.stop()


@pytest_twisted.ensureDeferred
async def test_keys_arrive() -> None:
    """
    The client and the ring understand one another.
    """
    async with serving() as (server, fetch):
        assert await outcome(fetch, server.url) == ("keys.fetched", "1 keys")
        assert await outcome(fetch, server.url + "?tenant=7") == ("keys.fetched", "1 keys")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest_twisted.ensureDeferred
async def test_redirects_are_not_followed(status: int) -> None:
    """
    Whoever can answer with a redirect cannot send the gateway to another address for its keys.
    """
    async with serving() as (server, fetch), serving() as (other, _):
        server.status = status
        server.headers = {"Location": other.url}
        assert await outcome(fetch, server.url) == ("keys.failed", f"ValueError: status {status}")
        assert other.asked == 0


@pytest_twisted.ensureDeferred
async def test_documents_are_bounded() -> None:
    """
    A document beyond 256 KiB is not taken, though it would be a good one.
    """
    async with serving() as (server, fetch):
        good = jwks(jwk("P-256", "k1"))
        server.document = good + b" " * (MAX_DOCUMENT_BYTES - len(good))
        assert (await outcome(fetch, server.url))[0] == "keys.fetched"
        server.document += b" "
        assert (await outcome(fetch, server.url))[0] == "keys.failed"


@pytest_twisted.ensureDeferred
async def test_silence_ends_in_time() -> None:
    """
    A server that takes the request and says nothing costs the deadline, not more.
    """
    async with serving() as (server, fetch):
        server.holding = True
        with pytest.raises(TookTooLong):
            await fetch(server.url, None, 0.2, 1000)


@pytest_twisted.ensureDeferred
async def test_a_body_that_never_ends_ends_in_time() -> None:
    """
    A head and half a body are no answer either.
    """

    class Half(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> int:
            request.setHeader(b"Content-Length", b"100")
            request.write(b"{")
            return NOT_DONE_YET

    port = reactor.listenTCP(0, Site(Half()), interface="127.0.0.1")
    fetch = Fetcher(reactor)
    with pytest.raises(TookTooLong):
        await fetch(f"http://127.0.0.1:{port.getHost().port}/", None, 0.3, 1000)
    fetch.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_no_cookie_is_kept() -> None:
    """
    A cookie that the issuer sets is not sent back to it.
    """
    seen: list[Any] = []

    class Cookies(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            seen.append(request.getHeader(b"cookie"))
            request.setHeader(b"Set-Cookie", b"session=1; Path=/")
            return b"{}"

    port = reactor.listenTCP(0, Site(Cookies()), interface="127.0.0.1")
    fetch = Fetcher(reactor)
    for _ in range(3):
        await fetch(f"http://127.0.0.1:{port.getHost().port}/", None, 5.0, 1000)
    assert seen == [None] * 3
    fetch.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_issuer_is_verified(tmp_path: Path) -> None:
    """
    Over TLS keys are taken only from the name in the URL, vouched for by the authorities configured.
    """
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "another authority")
    fetch = Fetcher(reactor)

    class Keys(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return jwks(jwk("P-256", "k1"))

    async def asked(name: str, ca_file: Path | None) -> str:
        made = authority.make(name)
        context = ssl.DefaultOpenSSLContextFactory(str(made.key), str(made.certificate))
        port = reactor.listenSSL(0, Site(Keys()), context, interface="127.0.0.1")
        try:
            return (await outcome(fetch, f"https://localhost:{port.getHost().port}/", ca_file))[0]
        finally:
            await port.stopListening()

    assert await asked("localhost", authority.file) == "keys.fetched"
    assert await asked("elsewhere.example", authority.file) == "keys.failed"
    assert await asked("localhost", other.file) == "keys.failed"
    assert await asked("localhost", None) == "keys.failed"
    fetch.close()
