"""
What a connection leaves to be told if its instance dies, and telling it for the dead.

While a backend wants to hear of ends (``on_disconnect``, ``on_unsubscribe``), each session's record has
a note: who its client is and which subscriptions stand. It is written a moment after something
changed, for many clients at once, never for a delivery. When the instance dies the notes of its
clients go into the outbox of what is owed, and survivors tell it: at least once, under the ids the
dead one would have used itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from gateway.core.identity import Identity
from gateway.node.facts import with_channel
from gateway.node.telling import body_of, end_of
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import EventOutbox, OutboxEvent, SessionStore

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["LOST_CODE", "LOST_SEQUENCE", "Leftovers"]

LOST_CODE: Final = 1006
"""What ``on_disconnect`` is told of a connection whose instance died: abnormal closure (RFC 6455, 7.4.1)."""

LOST_SEQUENCE: Final = 1_000_000_000
"""Sequence numbers of what survivors tell begin here: behind everything the dead one told."""

MOST_TAKEN: Final = 20
"""Connections of one partition that are in hand at once."""

MOST_WRITTEN: Final = 500
"""Notes written together."""

_ENDS: Final = ("on_disconnect", "on_unsubscribe")


class _Person(Struct, array_like=True):
    """Of an identity, what backends may be told; never the token itself."""

    issuer: str
    expires_at: float
    issued_at: float | None
    token_id: str | None
    session_id: str | None
    scopes: list[str]


class _Note(Struct, array_like=True):
    """What must be known of a connection: members may be added at the end, with a default."""

    user: str
    client: dict[str, Any]
    claims: dict[str, Any]
    person: _Person | None
    stands: list[tuple[str, int]]


_encode: Final = msgspec.json.Encoder().encode
_note: Final = msgspec.json.Decoder(_Note).decode


class Leftovers:
    """
    The notes of this instance's clients, and those of the dead that are this instance's to tell.
    """

    def __init__(self, node: RealtimeNode, store: SessionStore, owed: EventOutbox) -> None:
        self._node = node
        self._store = store
        self._owed = owed
        self._changed: dict[Client, None] = {}
        self._in_hand: set[str] = set()
        self._settled: list[str] = []

    def wanted(self) -> bool:
        """
        Whether any backend wants to hear of ends.
        """
        backends = self._node.telling.backends
        return any(kind in backends for kind in _ENDS)

    # Of the living.

    def note_of(self, client_id: str) -> bytes:
        """
        Write the note of a connection; empty if nobody wants to hear of its end.
        """
        client = self._node.clients.get(client_id)
        if client is None or not self.wanted():
            return b""
        identity = client.identity
        return _encode(
            _Note(
                client.user,
                client.facts()["client"],
                dict(client.claims),
                _Person(
                    identity.issuer,
                    identity.expires_at,
                    identity.issued_at,
                    identity.token_id,
                    identity.session_id,
                    sorted(identity.scopes),
                )
                if identity is not None
                else None,
                [(name, each.number) for name, each in client.subscriptions.items() if each.live and each.number],
            )
        )

    def changed(self, client: Client) -> None:
        """
        Have the note of *client* written anew.
        """
        if "on_unsubscribe" in self._node.telling.backends:
            self._changed[client] = None

    def configured(self) -> None:
        """
        Have every note written: what is wanted may have changed.
        """
        if self.wanted():
            self._changed.update(dict.fromkeys(self._node.clients.values()))

    async def write(self) -> None:
        """
        Write the notes that changed.

        Raises:
            StoreUnavailable: they are written with the next.
        """
        while self._changed:
            some = list(self._changed)[:MOST_WRITTEN]
            for client in some:
                del self._changed[client]
            notes = {
                client.session.id: (client.id, self.note_of(client.id))
                for client in some
                if client.session is not None and client.closing is None
            }
            try:
                await self._store.note(notes)
            except StoreUnavailable:
                self._changed.update(dict.fromkeys(client for client in some if client.closing is None))
                raise

    # Of the dead.

    async def tell(self) -> None:
        """
        Tell what is owed, as far as there is room; what was told is forgotten with the next call.

        Raises:
            StoreUnavailable: the next call goes on.
        """
        node, telling = self._node, self._node.telling
        if self._settled:
            settled = list(self._settled)
            await self._owed.done(settled)
            del self._settled[: len(settled)]
            self._in_hand.difference_update(settled)
        for event in await self._owed.take(node.instance, node.sessions.partitions, MOST_TAKEN):
            if telling.bytes * 2 > telling.most_bytes:
                return
            if event.ref not in self._in_hand:
                self._in_hand.add(event.ref)
                self._tell(event)

    def _tell(self, event: OutboxEvent) -> None:
        try:
            note = _note(event.data)
        except msgspec.DecodeError:
            # Of a release that writes it otherwise: nobody here can tell it.
            self._node.fact_lost("on_disconnect", "unreadable")
            self._settled.append(event.ref)
            return
        identity = _identity(note)
        facts = {"claims": note.claims, "client": note.client, "session": {"id": event.session}}
        about: dict[str, Any] = {"session": event.session, "client": event.id, "user": note.user, "at": event.at}
        node = self._node
        told: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        for channel, number in note.stands:
            match = node.rules.channels.match(channel)
            if match is not None:
                more: dict[str, Any] = {"id_": end_of(event.id, number), "more": {"channel": channel}}
                told.append(("on_unsubscribe", more, with_channel(facts, match)))
        end = {"code": LOST_CODE, "reason": "instance lost", "resumable": node.sessions.window_s > 0}
        told.append(("on_disconnect", {"id_": end_of(event.id), "more": end}, facts))
        left = len(told)

        def settled() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._settled.append(event.ref)

        for sequence, (kind, more, about_it) in enumerate(told, LOST_SEQUENCE + 1):
            node.telling.tell(kind, body_of(sequence=sequence, **more, **about), about_it, identity, settled)


def _identity(note: _Note) -> Identity | None:
    person = note.person
    if person is None:
        return None
    return Identity(
        note.user,
        person.issuer,
        person.expires_at,
        person.issued_at,
        person.token_id,
        person.session_id,
        frozenset(person.scopes),
        note.claims,
    )
