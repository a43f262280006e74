"""
What a worker that starts anew must have as the others have it, whatever a reload has changed since.

A reload does not open or close listeners, nor turn TLS on or off, nor leave a store for another: those need a
restart. A worker that dies after such a reload comes back beside others that still have the old ones, so it is told them.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace

from gateway.config.sections import Config, Listener
from gateway.config.store_section import Store

__all__ = ["pin", "pinned"]


def pin(config: Config) -> bytes:
    """
    Keep what *config* says of this, for ``pinned`` in another process.
    """
    return pickle.dumps((config.listen.clients, config.store))


def pinned(config: Config, kept: bytes) -> Config:
    """
    Return *config* with what ``pin`` kept, as our parent has handed it over.
    """
    clients: Sequence[Listener]
    store: Store
    clients, store = pickle.loads(kept)  # noqa: S301  # made by our own parent, on a line that is nobody else's
    now = {listener.endpoint: listener for listener in config.listen.clients}
    same = tuple(_kept(listener, now.get(listener.endpoint)) for listener in clients)
    return replace(config, listen=replace(config.listen, clients=same), store=store)


def _kept(before: Listener, now: Listener | None) -> Listener:
    # Certificates, and who sends a PROXY header, may have changed; whether it speaks TLS may not.
    return now if now is not None and bool(now.certificate) == bool(before.certificate) else before
