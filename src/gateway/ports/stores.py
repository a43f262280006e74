"""
The stores that a node lives on, handed in together: all in memory, or all in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ports.cluster import ClusterBus
from gateway.ports.realtime import Broker, IdempotencyStore, PresenceStore, SessionStore

__all__ = ["Stores"]


@dataclass(frozen=True, slots=True)
class Stores:
    """
    One complete set.
    """

    broker: Broker
    presence: PresenceStore
    sessions: SessionStore
    idempotency: IdempotencyStore
    bus: ClusterBus
