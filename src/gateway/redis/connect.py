"""
From the configuration to Redis: which endpoint leads to it, and who we are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from gateway.config.store_section import Store
from gateway.core.store_url import read_store_url
from gateway.redis.client import Linked, Redis
from gateway.redis.cluster import RedisCluster
from gateway.redis.keys import Keys
from gateway.redis.master import Account
from gateway.redis.sentinel import Sentinels

__all__ = ["connect"]

CONNECT_S: Final = 2.0


def connect(
    reactor: Any,
    section: Store,
    *,
    tls: Callable[[str], Any],
    random: Callable[[], float],
    fresh: Callable[[], str],
    event: Callable[[str, dict[str, Any]], None],
    took: Callable[[float], None] | None = None,
) -> Linked:
    """
    Make what ``section.url`` names; it is not started.

    Args:
        tls: Makes the options of a connection to a host.
        random: Evenly from 0 to 1.
        fresh: Makes a name nobody else makes.
        event: Called with what operators should know.
        took: Called with the seconds that answers to commands take.

    Raises:
        ValueError: it is no URL of a Redis, or TLS cannot be used as it is configured.
    """
    url = read_store_url(section.url)
    password = section.password.reveal() if section.password is not None else None
    account = Account(section.username, password, url.database, section.timeout_s, took)

    def endpoint(host: str, port: int) -> IStreamClientEndpoint:
        plain: IStreamClientEndpoint = HostnameEndpoint(reactor, host.encode(), port, timeout=CONNECT_S)
        return wrapClientTLS(tls(host), plain) if url.tls else plain

    if url.hosts:
        endpoint(*url.hosts[0])  # What cannot be read of [store.tls] is told now.
    common: dict[str, Any] = {
        "random": random,
        "fresh": fresh,
        "event": event,
    }
    keys = Keys(section.prefix, url.database)
    if url.kind == "single":
        return Redis(reactor, endpoint(*url.hosts[0]), account, keys, **common)
    if url.kind == "unix":
        return Redis(reactor, UNIXClientEndpoint(reactor, url.path, CONNECT_S), account, keys, **common)
    if url.kind == "sentinel":
        secret = section.sentinel_password.reveal() if section.sentinel_password is not None else None
        theirs = Account(section.sentinel_username, secret, timeout_s=section.timeout_s)
        sentinels = Sentinels(reactor, url.hosts, url.service, theirs, endpoint, random=random)
        return Redis(reactor, sentinels, account, keys, guide=sentinels, **common)
    if url.kind == "cluster":
        return RedisCluster(reactor, url.hosts, endpoint, account, keys, **common)
    raise ValueError(f"{section.url} is not a Redis")
