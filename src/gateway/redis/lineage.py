"""
Whether the data a server shows may be older than what we have seen of it.

A server that restarts from a file, a replica that became master, a restored backup: each may have
lost what was acknowledged. Then a new *chain* begins, and with it a new epoch of every stream, so
that no position ever names two publications. A restart of one server that writes its file before it
answers (``appendfsync always``) loses nothing, and the chain goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.keys import SCHEMA
from gateway.redis.scripts import load

__all__ = ["Lineage", "Server", "look_at"]

LEAST_VERSION: Final = 7
_NO_REPLICA: Final = b"0" * 40


class Server(Struct, frozen=True):
    """
    What a server says of itself.

    Attributes:
        id: The cluster's id of the node; ``server`` for one that stands alone.
        run: Changes with every start of its process.
        durable: What it has acknowledged survives its end.
        promoted: It was a replica before.
    """

    id: str
    run: str
    durable: bool
    promoted: bool


async def look_at(connection: Connection, *, server: str = "server", alone: bool) -> Server:
    """
    Ask a server what it is.

    Args:
        alone: Nothing takes its place when it is away: then a restart may be lossless.

    Raises:
        RedisRefused: it is no master, or still loading. StoreUnavailable: it is too old, or gone.
    """
    told = _fields(await connection.send(("INFO", "server"))) | _fields(await connection.send(("INFO", "replication")))
    version = told.get("redis_version", "0").split(".")[0]
    if not version.isdecimal() or int(version) < LEAST_VERSION:
        raise StoreUnavailable(f"Redis {LEAST_VERSION} or newer is needed; this is {told.get('redis_version')}")
    if told.get("role") != "master":
        raise RedisRefused("READONLY it is a replica")
    promoted = told.get("master_replid2", _NO_REPLICA.decode()) != _NO_REPLICA.decode()
    return Server(server, told.get("run_id", ""), alone and await _syncs(connection), promoted)


async def _syncs(connection: Connection) -> bool:
    try:
        found = await connection.send(("CONFIG", "GET", "append*"))
    except (RedisFault, RedisRefused):
        return False  # Not ours to know: then nothing is promised of its restarts.
    settings = dict(zip(found[::2], found[1::2], strict=False))
    return settings.get(b"appendonly") == b"yes" and settings.get(b"appendfsync") == b"always"


def _fields(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


class Lineage:
    """
    The chain as this instance knows it.

    Args:
        fresh: Makes a name for a new chain.

    Attributes:
        chain: ``NUMBER-NAME``; numbers only grow, so that of two chains the newer is known.
    """

    def __init__(self, key: str, fresh: Callable[[], str]) -> None:
        self.chain = ""
        self._key = key
        self._fresh = fresh
        self._number = 0
        self._mark = 0

    async def settle(self, connection: Connection, server: Server) -> None:
        """
        Tell the store which server we see, and learn which chain holds.

        Raises:
            StoreUnavailable: another release's schema is in use, or it cannot be asked.
        """
        script = load("lineage")
        told: Any = await connection.send(
            (
                *("EVAL", script.text, 1, self._key, SCHEMA, server.id, server.run, int(server.durable)),
                *(int(server.promoted), self._fresh(), self._number, self._mark),
            )
        )
        schema, number, name, mark = told
        if schema != SCHEMA:
            raise StoreUnavailable(
                f"the store holds schema {schema} of another release; this one knows {SCHEMA}: use another prefix"
            )
        self._number, self._mark = number, mark
        self.chain = f"{number}-{name.decode()}"
