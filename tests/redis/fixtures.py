"""
Fixtures of every test that needs a Redis. A conftest takes them over by importing them.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.clusters import Cluster
from tests.redis.server import RedisServer
from tests.web.harness import pause

from gateway.config.store_section import Store
from gateway.redis.slots import SLOTS, slot_of
from gateway.upstream.tls import client_options

__all__ = [
    "KINDS",
    "Marks",
    "least_rights",
    "link",
    "redis",
    "redis_cluster",
    "redis_of",
    "redis_on_cluster",
    "redis_server",
    "url_of",
]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests of a worker; who stops or floods one takes a server of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


def least_rights(prefix: str) -> list[str]:
    """Return what docs/redis.md says that an ACL user needs, for keys that begin with *prefix*."""
    page = Path(__file__).parent.parent.parent.joinpath("docs", "redis.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER gateway on >secret ")]
    return line.removeprefix("ACL SETUSER gateway on >secret ").replace("gateway:", prefix).split()


async def link(url: str, prefix: str = "", **settings: Any) -> Any:
    """
    Return a ``Redis`` that is connected; the caller stops it.

    Args:
        settings: Of ``[store]``, and ``events``: a list that takes what operators are told; ``within_s``.
    """
    from twisted.internet import reactor  # pytest-twisted has installed one.
    from twisted.internet.task import deferLater

    from gateway.redis.connect import connect

    events: list[tuple[str, dict[str, Any]]] = settings.pop("events", [])
    within_s: float = settings.pop("within_s", 5.0)
    section = Store(url=url, prefix=prefix or "t" + secrets.token_hex(4), **{"timeout_s": 1.0, **settings})
    made = connect(
        reactor,
        section,
        tls=lambda host: client_options(section.tls, host, ()),
        random=random.random,
        fresh=lambda: secrets.token_hex(4),
        event=lambda name, fields: events.append((name, fields)),
    )
    made.start()
    for _ in range(int(within_s / 0.01)):
        if made.available and made.hearing:
            return made
        await deferLater(reactor, 0.01)
    await made.stop()
    raise AssertionError(f"no Redis at {url}: {events}")


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three masters for all tests of a worker; who moves slots or stops one takes a cluster of its own."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), timeout_ms=15_000)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest_twisted.async_yield_fixture
async def redis_on_cluster(redis_cluster: Cluster) -> AsyncIterator[Any]:
    """The same as ``redis`` on a cluster."""
    made = await link(redis_cluster.url)
    yield made
    await made.stop()


KINDS = ["memory", "redis", "cluster"]
"""What stores stand on in the tests of all of them."""


def url_of(request: pytest.FixtureRequest) -> str:
    """Return where the Redis of this parameter is."""
    url: str = request.getfixturevalue("redis_server" if request.param == "redis" else "redis_cluster").url
    return url


def redis_of(request: pytest.FixtureRequest) -> Any:
    """Return the Redis of this parameter."""
    return request.getfixturevalue("redis" if request.param == "redis" else "redis_on_cluster")


class Marks:
    """
    What is published behind everything else, to every shard, and heard by all links.
    """

    def __init__(self, links: Sequence[Any], prefix: str) -> None:
        self._links = links
        third = -(-SLOTS // 3)
        tags = {slot_of(tag) // third: tag for tag in map(str, range(32))}
        self._topics = [f"{prefix}mark{{{tag}}}" for tag in tags.values()]
        self._heard = 0

    async def listen(self) -> None:
        """Hear the marks on all links."""
        for each in self._links:
            for topic in self._topics:
                await each.subscribe(topic, self)

    async def settle(self) -> None:
        """Wait until everything has been heard that was published before."""
        wanted = self._heard + len(self._links) * len(self._topics)
        for topic in self._topics:
            await self._links[0].call("SPUBLISH", topic, "")
        while self._heard < wanted:
            await pause(0.002)

    def message(self, topic: str, payload: bytes) -> None:
        """Count a mark."""
        self._heard += 1

    def gap(self, topics: Sequence[str]) -> None:
        """No link is lost here."""


@pytest_twisted.async_yield_fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Any]:
    """A ``Redis`` with keys of its own."""
    made = await link(redis_server.url)
    yield made
    await made.stop()
