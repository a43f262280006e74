"""
The stores that a node lives on, handed in together: all in memory, or all in Redis.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ports.cluster import ClusterBus
from gateway.ports.instances import InstanceRegistry
from gateway.ports.realtime import Broker, IdempotencyStore, PresenceStore
from gateway.ports.sessions import EventOutbox, SessionStore

__all__ = ["Stores"]


@dataclass(frozen=True, slots=True)
class Stores:
    """
    One complete set.

    Attributes:
        events: What happened to sessions and is to be told.
        owed: What is still to be done for connections whose instance died: their notes.
    """

    broker: Broker
    presence: PresenceStore
    sessions: SessionStore
    idempotency: IdempotencyStore
    bus: ClusterBus
    instances: InstanceRegistry
    events: EventOutbox
    owed: EventOutbox
