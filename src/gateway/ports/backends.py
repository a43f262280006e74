"""
The seam of a configured call to a backend, gRPC or HTTP: JSON in, JSON out.

Made by the composition root from ``config.sections.BackendCall``; the node knows neither protobuf
nor paths. Channel decisions, snapshots, RPC methods and lifecycle facts all go through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.core.identity import Identity
from gateway.core.trace import TraceContext

__all__ = ["Backend", "Facts"]

Facts = Mapping[str, Mapping[str, Any]]
"""What the expressions of a call may name: root to fields."""


class Backend(Protocol):
    """
    One call of the configuration.
    """

    async def ask(
        self, facts: Facts, data: bytes, identity: Identity | None, trace: TraceContext | None = None
    ) -> bytes:
        """
        Make the call. Cancelling the awaiting Deferred cancels it at the backend too.

        Args:
            data: JSON text that becomes the request, under what ``set`` fills; empty for none.
            identity: Told to the backend as its upstream is configured.
            trace: The place that the call is below; passed on.

        Returns:
            The answer as JSON text on one line; empty if it has none.

        Raises:
            ClientError: what the client is told; ``temporary`` if asking again may help.
        """
