"""
What the expressions of channels, methods and lifecycle calls may name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.channels import ChannelMatch
from gateway.node.rulebook import ChannelRule, json_of

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["channel_facts", "client_facts", "command_facts", "ids_of", "with_channel"]

MOST_KEY = 128
"""Longest idempotency key of a client; a longer one is none."""


def client_facts(client: Client) -> dict[str, Any]:
    """
    Wherever there is a connection: ``claims``, ``client``, ``session``.
    """
    return {
        "claims": client.claims,
        "client": {
            "id": client.id,
            "user": client.user,
            "device": client.device,
            "address": client.opening.address,
            "user_agent": client.opening.user_agent,
            "name": client.name,
            "version": client.version,
            "transport": client.transport.kind,
        },
        "session": {"id": client.session.id if client.session is not None else ""},
    }


def ids_of(client: Client) -> dict[str, str]:
    """
    By what a line of the log is found among others: the connection, its session, user, opening request and trace.
    """
    opening, session = client.opening, client.session
    found = {
        "client": client.id,
        "session": session.id if session is not None else "",
        "user": client.user,
        "address": opening.address,
        "request_id": opening.request_id,
        "trace_id": opening.trace.trace_id if opening.trace is not None else "",
    }
    return {name: text for name, text in found.items() if text}


def channel_facts(client: Client, match: ChannelMatch[ChannelRule], data: bytes | None = None) -> dict[str, Any]:
    """
    Where there is also a channel; with *data* also what was sent.
    """
    facts = with_channel(client.facts(), match)
    if data is not None:
        facts["data"] = json_of(data)
    return facts


def with_channel(facts: Mapping[str, Any], match: ChannelMatch[ChannelRule]) -> dict[str, Any]:
    """
    Add the channel to what is known of a client.
    """
    return {**facts, "channel": {**match.params, "name": match.name}}


def command_facts(client: Client, number: int, data: bytes) -> dict[str, Any]:
    """
    Of a command: its id, and a key under which it is done once.

    A client's own key is the member ``idempotency_key`` of its data; without one each command is its own.
    """
    own = ""
    if b'"idempotency_key"' in data:
        read = json_of(data)
        given = read.get("idempotency_key") if isinstance(read, dict) else None
        own = given if isinstance(given, str) and 0 < len(given) <= MOST_KEY else ""
    return {"id": str(number), "idempotency_key": own or f"{client.id}-{number}", "own_key": bool(own)}
