"""
Several workers: what they listen on must be shareable, and what they know must be kept where all see it.
"""

from __future__ import annotations

from typing import Final

from gateway.config.endpoints import BadEndpoint, Endpoint, read_endpoint
from gateway.config.faults import KeyPath
from gateway.config.sections import Config
from gateway.config.walk import Walk
from gateway.core.store_url import BadStoreUrl, read_store_url

__all__ = ["check"]

_WORKERS: Final = ("listen", "workers")


def check(config: Config, walk: Walk) -> None:
    """
    Report what several workers could not share.
    """
    if config.listen.workers == 1:
        return
    for index, listener in enumerate(config.listen.clients):
        path: KeyPath = ("listen", "clients", index)
        if (*path, "endpoint") in walk.broken:
            continue
        try:
            why = _unshareable(read_endpoint(listener.endpoint))
        except BadEndpoint:
            continue  # Reported where endpoints are.
        if why:
            walk.fault(path, f"{listener.endpoint} cannot be shared by workers: {why}", _WORKERS)
    try:
        shared = read_store_url(config.store.url).shared
    except BadStoreUrl:
        return
    if not shared:
        walk.fault(
            _WORKERS,
            f"{config.listen.workers} workers need a store that all of them see, and memory:// is kept by each alone: "
            'name a Redis in [store] url, such as "redis://127.0.0.1:6379"',
            ("store", "url"),
        )


def _unshareable(endpoint: Endpoint) -> str:
    """Say why each worker cannot open its own socket there (SO_REUSEPORT); empty if it can."""
    if endpoint.kind == "unix":
        return "a path leads to one socket, and each of them opens its own; let them listen on tcp"
    if endpoint.kind == "systemd":
        return (
            "systemd opened one socket, and each of them opens its own; name the port here as tcp, and take away the "
            "socket unit"
        )
    if endpoint.port == 0:
        return "port 0 lets the system choose, for each of them another one; name a port"
    return ""
