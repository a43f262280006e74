"""
A command was answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core import commands as c

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["answered"]


def answered(client: Client, command: c.Command, outcome: str) -> None:
    """
    Count it, tell of it if it is recorded, and show it to those who look on.

    Args:
        outcome: ``ok``, or the code of an error.
    """
    node = client.node
    node.metrics.commands.inc(type(command.request).__name__, outcome)
    if command.span is not None:
        command.span.end(outcome)
    if node.hub.taps.on is not None:
        node.hub.taps.command(client, command, outcome)
