"""
A way to make unary calls to one target: grpcio's, or one that is lean. Both fail in the same words.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from gateway.ports.calls import Metadata

__all__ = ["Unary", "UnaryReply"]


class UnaryReply(NamedTuple):
    """
    What came back: one message, serialised, and the metadata around it.
    """

    data: bytes
    initial: Metadata
    trailing: Metadata


class Unary(Protocol):
    """
    Makes unary calls to one target.
    """

    def call(
        self, method: str, data: bytes, metadata: list[tuple[str, str | bytes]], timeout_s: float
    ) -> Deferred[UnaryReply]:
        """
        Make a call; cancelling the Deferred cancels it at the backend.

        The Deferred fails with ``CallFailed``, which names neither target nor attempts. The first call connects.

        Args:
            method: ``/pkg.Service/Method``.
            metadata: As ``clean_metadata`` leaves it.
        """

    async def stop(self) -> None:
        """End it; calls under way fail."""
