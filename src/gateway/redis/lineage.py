"""
Whether the data a server shows may be older than what we have seen of it.

A server that restarts from a file, a replica that became master, a restored backup: each may have
lost what was acknowledged. Then a new *chain* begins, and with it a new epoch of every stream, so
that no position ever names two publications. A restart of a server that writes its file before it
answers (``appendfsync always``) loses nothing, and the chain goes on.

Nothing may flap: what once began a chain never begins another, chains have an order that all agree
on, and a chain that is only known by hearsay is not gone beyond at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from twisted.python.failure import Failure

from gateway.ports.realtime import StoreUnavailable
from gateway.redis.connection import Connection, Part, all_of
from gateway.redis.errors import RedisFault, RedisRefused
from gateway.redis.keys import SCHEMA
from gateway.redis.scripts import load

__all__ = ["Lineage", "Server", "look_at"]

LEAST_VERSION: Final = 7
PATIENCE_S: Final = 15.0
_NO_REPLICA: Final = "0" * 40
_DURABLE: Final = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}


class Server(Struct, frozen=True):
    """
    What a server says of itself.

    Attributes:
        id: The cluster's id of the node; ``server`` for one that stands alone.
        run: Changes with every start of its process.
        before: If it was a replica before, what its master then called its data; else ``-``.
        durable: What it has acknowledged survives its end.
    """

    id: str
    run: str
    before: str
    durable: bool


async def look_at(connection: Connection, *, cluster: bool = False, alone: bool = True) -> Server:
    """
    Ask a server what it is.

    Args:
        cluster: It is one of many, and has an id.
        alone: No other server takes its place under the same id: then a restart may be lossless.

    Raises:
        RedisRefused: it is no master, or still loading. StoreUnavailable: it is too old, or gone.
    """
    asked = [connection.send(("INFO", "server")), connection.send(("INFO", "replication"))]
    asked.append(connection.send(("CONFIG", "GET", *_DURABLE)).addErrback(_not_ours))
    if cluster:
        asked.append(connection.send(("CLUSTER", "MYID")))
    process, replication, settings, *names = await all_of(asked)
    told = _fields(process) | _fields(replication)
    version = told.get("redis_version", "0").split(".")[0]
    if not version.isdecimal() or int(version) < LEAST_VERSION:
        raise StoreUnavailable(f"Redis {LEAST_VERSION} or newer is needed; this is {told.get('redis_version')}")
    if told.get("role") != "master":
        raise RedisRefused("READONLY it is a replica")
    before = told.get("master_replid2", _NO_REPLICA)
    return Server(
        names[0].decode() if names else "server",
        told.get("run_id", ""),
        "-" if before == _NO_REPLICA else before,
        alone and dict(zip(settings[::2], settings[1::2], strict=False)) == _DURABLE,
    )


def _not_ours(failure: Failure) -> list[bytes]:
    """Whether it writes its file in time is not ours to know: then nothing is promised of its restarts."""
    failure.trap(RedisFault, RedisRefused)
    return []


def _fields(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


class Lineage:
    """
    The chain as this instance knows it.

    Args:
        fresh: Makes a name for a new chain.
        clock: Seconds, never back.
        patience_s: How long a newer chain is only hearsay: somebody else's may hold, on servers that we cannot see.

    Attributes:
        chain: ``NUMBER-NAME``; the newer of two is the greater text.
    """

    def __init__(
        self, key: str, fresh: Callable[[], str], clock: Callable[[], float], *, patience_s: float = PATIENCE_S
    ) -> None:
        self.chain = ""
        self.key = key
        self._fresh = fresh
        self._clock = clock
        self._patience_s = patience_s
        self._mark = 0
        self._rumour = ""
        self._since = 0.0

    async def settle(self, send: Callable[[Sequence[Part]], Awaitable[Any]], server: Server) -> None:
        """
        Tell the store which server we see, and learn which chain holds.

        Args:
            send: Sends a command to the server that has the key.

        Raises:
            StoreUnavailable: another release's schema is in use, or it cannot be asked.
        """
        script = load("lineage")
        newest = self.chain
        if self._rumour and self._clock() - self._since >= self._patience_s:
            # What we can see has lost it. Less and less willing: two who see different things must not outbid each other.
            newest, self._rumour = self._rumour, ""
            self._patience_s *= 2
        told: Any = await send(
            (
                *("EVAL", script.text, 1, self.key, SCHEMA, server.id, server.run, server.before, int(server.durable)),
                *(self._fresh(), newest, self._mark),
            )
        )
        schema, chain, mark = told
        if schema != SCHEMA:
            raise StoreUnavailable(
                f"the store holds schema {schema} of another release; this one knows {SCHEMA}: use another prefix"
            )
        # Answers of two connections may come in any order.
        self.chain, self._mark = max(self.chain, chain.decode()), max(self._mark, mark)
        if self._rumour <= self.chain:
            self._rumour = ""

    def heard(self, refusal: str) -> None:
        """
        Take the chain that a stream has, from the end of a script's refusal of ours.
        """
        found = refusal.rpartition(" ")[2]
        if found > max(self._rumour, self.chain):
            if not self._rumour:
                self._since = self._clock()
            self._rumour = found

    @property
    def behind(self) -> bool:
        """A newer chain was heard of than the one that we are told."""
        return bool(self._rumour)
