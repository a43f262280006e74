"""
The URL of a store: which kind, where, and which database.

``memory://`` · ``redis://host:6379/0`` · ``rediss://host:6380`` (TLS) · ``redis+unix:///run/redis.sock`` ·
``redis+sentinel://s1:26379,s2:26379/service`` · ``redis+cluster://n1:6379,n2:6379``; with ``rediss+`` the last two
speak TLS. Passwords have settings of their own, so that a URL may be shown.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

__all__ = ["BadStoreUrl", "StoreUrl", "read_store_url"]

_PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_MOST_DATABASES: Final = 16384


class BadStoreUrl(ValueError):
    """
    It is no URL of a store; the text says what was expected.
    """


class StoreUrl(Struct, frozen=True):
    """
    Where a store is.

    Attributes:
        kind: ``unix`` is one server behind a socket file.
        hosts: Servers, sentinels or seed nodes, with their ports.
        path: The socket file of ``unix``.
        service: The master's name at its sentinels.
        database: 0 but for one server or sentinels.
    """

    kind: Literal["memory", "single", "unix", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    tls: bool = False
    service: str = ""
    database: int = 0

    @property
    def shared(self) -> bool:
        """Whether other processes see the same data."""
        return self.kind != "memory"


def read_store_url(text: str) -> StoreUrl:
    """
    Read a URL.

    Raises:
        BadStoreUrl: with what is wrong; the text never repeats a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise BadStoreUrl("expected memory://, redis://host:6379, redis+sentinel://… or redis+cluster://…")
    scheme = scheme.lower()
    if scheme == "memory":
        if rest:
            raise BadStoreUrl("memory:// has nothing behind it")
        return StoreUrl("memory")
    base, _, kind = scheme.partition("+")
    kind = kind or "single"
    if base not in ("redis", "rediss") or kind not in ("single", "unix", "sentinel", "cluster"):
        raise BadStoreUrl(f"{scheme}:// is no kind of store; known: memory, redis, rediss, redis+unix, redis+sentinel")
    where, _, path = rest.partition("/")
    if "@" in where:
        raise BadStoreUrl("a name and a password stand in username and password of [store], not in the URL")
    if "?" in rest or "#" in rest:
        raise BadStoreUrl("parameters are not known here; what there is to set stands beside url in [store]")
    if kind == "unix":
        if where or not path or base == "rediss":
            raise BadStoreUrl("expected redis+unix:///path/of/redis.sock")
        return StoreUrl("unix", path="/" + path)
    hosts = tuple(_host(part, _PORTS[kind]) for part in where.split(","))
    tls = base == "rediss"
    if kind == "single":
        if len(hosts) > 1:
            raise BadStoreUrl("one server; several are redis+sentinel:// or redis+cluster://")
        return StoreUrl("single", hosts, tls=tls, database=_database(path))
    if kind == "cluster":
        if path not in ("", "0"):
            raise BadStoreUrl("a cluster has no databases beside 0")
        return StoreUrl("cluster", hosts, tls=tls)
    service, _, database = path.partition("/")
    if not service:
        raise BadStoreUrl("the service's name is missing: redis+sentinel://host:26379/SERVICE")
    return StoreUrl("sentinel", hosts, tls=tls, service=service, database=_database(database))


def _host(text: str, port: int) -> tuple[str, int]:
    host, rest = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadStoreUrl(f"{text!r} is no host")
        rest = rest[1:] if rest else ""
    elif ":" in text:
        host, _, rest = text.partition(":")
    if not host or any(character.isspace() for character in host):
        raise BadStoreUrl("a host is missing")
    if not rest:
        return host, port
    if not (rest.isascii() and rest.isdecimal() and 0 < int(rest) < 65536):
        raise BadStoreUrl(f"{rest!r} is no port")
    return host, int(rest)


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < _MOST_DATABASES):
        raise BadStoreUrl(f"{text!r} is no number of a database")
    return int(text)
