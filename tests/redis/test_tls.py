"""
Redis behind TLS: who it must be, and who we are to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import link
from tests.redis.server import RedisServer
from tests.redis.test_link import Hearing, until
from tests.web.certificates import Authority

from gateway.config.sections import UpstreamTls


@pytest_twisted.ensureDeferred
async def test_a_server_behind_tls(tmp_path: Path) -> None:
    """
    With the authority that is configured, the address or the name that is configured is verified; commands and topics pass.
    """
    authority = Authority(tmp_path)
    by_address = authority.make("redis.internal", addresses=("127.0.0.1",))
    for made, tls in (
        (by_address, UpstreamTls(ca_file=authority.file)),
        (authority.make("redis.example"), UpstreamTls(ca_file=authority.file, server_name="redis.example")),
    ):
        server = RedisServer(tmp_path / "redis", tls=made).start()
        redis = await link(server.url, tls=tls)
        hearing = Hearing()
        await redis.subscribe("a", hearing)
        assert await redis.call("SPUBLISH", "a", b"x" * 100_000) == 1
        await until(lambda: hearing.messages == [("a", b"x" * 100_000)])  # noqa: B023
        server.kill()
        await until(lambda: not redis.available)  # noqa: B023
        server.start()
        await until(lambda: hearing.gaps == ["a"])  # noqa: B023
        await redis.stop()
        server.stop()


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("name", "the certificate is for another name"),
        ("authority", "TLS: certificate verify failed"),
        ("expired", "TLS: certificate verify failed"),
        ("plain", "no answer within 0.3 s"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_it_must_not_be(tmp_path: Path, why: str, reason: str) -> None:
    """
    Another name, another authority, a certificate of yesterday or none at all: it is told why, and nothing is said to it.
    """
    authority = Authority(tmp_path)
    made = authority.make("redis.internal", addresses=() if why == "name" else ("127.0.0.1",), expired=why == "expired")
    trusted = Authority(tmp_path, "another") if why == "authority" else authority
    server = RedisServer(tmp_path / "redis", tls=None if why == "plain" else made).start()
    events: list[tuple[str, dict[str, Any]]] = []
    url = f"rediss://127.0.0.1:{server.port}"
    with pytest.raises(AssertionError):
        await link(url, tls=UpstreamTls(ca_file=trusted.file), events=events, timeout_s=0.3, within_s=0.8)
    assert [name for name, _ in events] == ["store.lost"]
    assert reason in events[0][1]["reason"]
    server.stop()


@pytest_twisted.ensureDeferred
async def test_who_we_are_to_a_server_that_asks(tmp_path: Path) -> None:
    """
    A server that wants a client's certificate gets the one that is configured; without one it takes nobody.
    """
    authority = Authority(tmp_path)
    made, ours = authority.make("redis.internal", addresses=("127.0.0.1",)), authority.make("gateway")
    server = RedisServer(tmp_path / "redis", tls=made).start()
    for name, value in (("tls-ca-cert-file", authority.file), ("tls-auth-clients", "yes")):
        server.ask("CONFIG", "SET", name, str(value))
    tls = UpstreamTls(ca_file=authority.file, certificate_file=ours.certificate, key_file=ours.key)
    redis = await link(server.url, tls=tls)
    assert await redis.call("PING") == b"PONG"
    with pytest.raises(AssertionError, match=r"TLS: .*certificate required"):
        await link(server.url, tls=UpstreamTls(ca_file=authority.file), within_s=0.5)
    await redis.stop()
    server.stop()
