"""
Redis behind sentinels: the master is found, followed when it changes, and nothing is forgotten over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.fixtures import link
from tests.redis.load import Load
from tests.redis.sentinels import SERVICE, Sentinel, Sentinels
from tests.redis.server import RedisServer
from tests.redis.test_link import Hearing, until
from tests.web.certificates import Authority
from tests.web.harness import pause

from gateway.config.fields import Secret
from gateway.config.sections import UpstreamTls


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.mark.parametrize("how", ["asked", "killed", "hangs"])
@pytest_twisted.ensureDeferred
async def test_a_failover_during_load(watched: Sentinels, how: str) -> None:
    """
    The master is exchanged in the middle of publications, by order, by kill -9 or because it hangs: they go on in a new chain,
    no position names two, and whoever listens is told.
    """
    events: list[tuple[str, dict[str, Any]]] = []
    load = await Load(3).start(watched.url(), events=events, timeout_s=1.0)
    try:
        before, old = load.links[0].chain, watched.master
        await load.more()
        if how == "asked":
            assert watched.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE) == b"+OK\r\n"
        elif how == "killed":
            old.kill()
        else:
            old.pause()
        await until(lambda: watched.master is not old, 20)
        await until(lambda: all(each.chain > before and each.hearing for each in load.links), 10)
        await until(lambda: set(load.gaps) == set(load.channels))
        await load.more()
        if how == "hangs":
            # For seconds it takes itself for the master still, and nobody goes back to it.
            old.resume()
            await load.more()
        assert len({each.chain for each in load.links}) == 1
        assert all(load.epochs(channel) == 2 for channel in load.channels)
        assert all(each.losses <= 2 for each in load.links)
    finally:
        await load.stop()
    load.check()


@pytest_twisted.ensureDeferred
async def test_sentinels_are_learned(watched: Sentinels) -> None:
    """
    One sentinel is enough to know all: when it is gone, the others are asked.
    """
    redis = await link(watched.url(known=1))
    try:
        hearing = Hearing()
        redis.watch(hearing)
        await until(lambda: len(redis._guide._connected()) == 3)
        watched.sentinels[0].kill()
        old = watched.master
        assert watched.sentinels[1].ask("SENTINEL", "FAILOVER", SERVICE) == b"+OK\r\n"
        await until(lambda: watched.master is not old, 20)
        await until(lambda: hearing.told == ["lost", "back"])
        await redis.call("SET", redis.keys.one("k"), 1)
    finally:
        await redis.stop()


@pytest_twisted.ensureDeferred
async def test_a_sentinel_that_fell_behind(watched: Sentinels, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A sentinel with an older configuration, which names another server, convinces nobody, though it is the first that is asked.
    """
    old = watched.master
    assert watched.sentinels[1].ask("SENTINEL", "FAILOVER", SERVICE) == b"+OK\r\n"
    await until(lambda: watched.master is not old, 20)
    behind = Sentinel(tmp_path / "behind").start(redis_server.port)
    redis = await link(watched.url().replace("//", f"//127.0.0.1:{behind.port},"))
    try:
        await until(lambda: len(redis._guide._connected()) == 4)
        await pause(1.5)
        assert b"tcp_port:%d\r\n" % watched.master.port in await redis.call("INFO", "server")
        assert redis.losses <= 1
        assert redis.hearing
    finally:
        await redis.stop()
        behind.stop()


@pytest_twisted.ensureDeferred
async def test_why_there_is_no_master(watched: Sentinels) -> None:
    """
    Sentinels that know no such service, or are not there, are named with the reason; so is a replica that a sentinel names.
    """
    with pytest.raises(AssertionError, match=r"no sentinel knows the master of other: .*No such master"):
        await link(watched.url(service="other"), within_s=1.0)
    for each in watched.sentinels:
        each.kill()
    with pytest.raises(AssertionError, match=r"no sentinel knows the master of main: .*refused"):
        await link(watched.url(), within_s=2.5)


@pytest_twisted.ensureDeferred
async def test_sentinels_behind_tls_and_a_password(tmp_path: Path) -> None:
    """
    Sentinels and master speak TLS, and the sentinels want a password of their own.
    """
    authority = Authority(tmp_path)
    made = authority.make("redis.internal", addresses=("127.0.0.1",))
    watched = Sentinels(tmp_path, tls=made, authority=authority, password="open")
    try:
        watched.start()
        tls = UpstreamTls(ca_file=authority.file)
        redis = await link(watched.url(), tls=tls, sentinel_password=Secret("open"))
        assert await redis.call("PING") == b"PONG"
        await redis.stop()
        with pytest.raises(AssertionError, match="NOAUTH"):
            await link(watched.url(), tls=tls, within_s=0.5)
        with pytest.raises(AssertionError, match="certificate verify failed"):
            other = UpstreamTls(ca_file=Authority(tmp_path, "other").file)
            await link(watched.url(), tls=other, sentinel_password=Secret("open"), within_s=2.5)
    finally:
        watched.stop()
