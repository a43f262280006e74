"""
Which clients were let in by which token: found at once when one is revoked, whatever their number.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gateway.core.identity import Identity, Revocation

if TYPE_CHECKING:
    from gateway.node.client import Client

__all__ = ["Holders"]


class Holders:
    """
    Clients by the ids of their tokens (``jti``) and of their tokens' sessions (``sid``).

    As a rule an id is one client's: that costs an entry, and only several cost a collection.

    Args:
        users: Clients by subject.
    """

    def __init__(self, users: dict[str, dict[Client, None]]) -> None:
        self._users = users
        self._held: dict[str, Client | dict[Client, None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, client: Client) -> None:
        """
        Note who *client* is.
        """
        for id_ in _ids(client.identity):
            before = self._held.get(id_)
            if before is None:
                self._held[id_] = client
            elif isinstance(before, dict):
                before[client] = None
            else:
                self._held[id_] = {before: None, client: None}

    def drop(self, client: Client) -> None:
        """
        Forget *client*, while it still has the identity under which it was noted.
        """
        for id_ in _ids(client.identity):
            held = self._held.get(id_)
            if isinstance(held, dict):
                held.pop(client, None)
            if held is client or held == {}:
                del self._held[id_]

    def of(self, revocation: Revocation) -> Collection[Client]:
        """
        Those who may be meant by *revocation*.
        """
        if revocation.subject:
            return list(self._users.get(revocation.subject, ()))
        held = self._held.get(revocation.token_id)
        return [] if held is None else list(held) if isinstance(held, dict) else [held]


def _ids(identity: Identity | None) -> Collection[str]:
    if identity is None:
        return ()
    return {id_ for id_ in (identity.token_id, identity.session_id) if id_}
