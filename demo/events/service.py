"""
The service's gRPC side: what the gateway tells, kept before it is answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import grpc

from demo.events.store import SessionTable
from gateway.protos.event.v1 import events_pb2, events_pb2_grpc

__all__ = ["SERVICE", "EventService"]

SERVICE = events_pb2.DESCRIPTOR.services_by_name["EventService"].full_name


class EventService(events_pb2_grpc.EventServiceServicer):
    """
    The service on some table.

    Args:
        log: Takes one line for each call.
    """

    def __init__(self, table: SessionTable, log: Callable[[str], None]) -> None:
        self._table = table
        self._log = log

    def PublishEvents(self, request: Any, context: Any) -> Any:
        """Answer once the events are on the disk."""
        try:
            refused = self._table.take(request.events)
        except sqlite3.Error as error:
            self._log(f"events: not kept: {error}")
            context.abort(grpc.StatusCode.UNAVAILABLE, "events cannot be kept now")
        self._log(f"events: {len(request.events) - len(refused)} taken, {len(refused)} refused")
        return events_pb2.PublishEventsResponse(
            refused=[events_pb2.Refusal(id=id_, reason=reason) for id_, reason in refused.items()]
        )
