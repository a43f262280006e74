"""
Fixtures of every test that needs a Redis. A conftest takes them over by importing them.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.server import RedisServer

from gateway.config.store_section import Store
from gateway.upstream.tls import client_options

__all__ = ["least_rights", "link", "redis", "redis_server"]


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


@pytest_twisted.async_yield_fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Any]:
    """A ``Redis`` with keys of its own."""
    made = await link(redis_server.url)
    yield made
    await made.stop()
