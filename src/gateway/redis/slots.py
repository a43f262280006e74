"""
Which slot a key is of, and which master has which slot.

Pure bookkeeping. The rules are those of the Redis Cluster specification: the tag decides the slot, and of
two nodes that claim a slot the one with the greater configuration epoch has it.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

__all__ = ["SLOTS", "Address", "Claim", "SlotMap", "read_claims", "redirected", "slot_of"]

SLOTS: Final = 16384

Address = tuple[str, int]


def slot_of(key: str) -> int:
    """
    Compute the slot of a key or topic.
    """
    name = key.encode()
    begin = name.find(b"{")
    if begin >= 0:
        end = name.find(b"}", begin + 1)
        if end > begin + 1:
            name = name[begin + 1 : end]
    return crc_hqx(name, 0) % SLOTS


class Claim(Struct, frozen=True):
    """
    What a node knows of some slots: from *first* to *last* they are the master's at *address*.
    """

    first: int
    last: int
    address: Address
    epoch: int


def read_claims(slots: Sequence[Any], nodes: bytes, asked: str) -> list[Claim]:
    """
    Read what a node answers to ``CLUSTER SLOTS`` and ``CLUSTER NODES``.

    Args:
        asked: Its host; nodes that do not know their own name are where they were found.

    Raises:
        ValueError, LookupError, TypeError: it cannot be read.
    """
    epochs = {}
    for line in nodes.decode("utf-8", "replace").splitlines():
        words = line.split(" ")
        if len(words) >= 8:
            epochs[words[0]] = int(words[6])
    claims = []
    for first, last, (endpoint, port, id_, *_), *_ in slots:
        host = (endpoint or b"").decode()
        claims.append(
            Claim(first, last, (asked if host in ("", "?") else host, int(port)), epochs.get(id_.decode(), 0))
        )
    return claims


def redirected(refusal: str, asked: str) -> tuple[int, Address]:
    """
    Read the slot and the address of a ``MOVED`` or ``ASK``.

    Raises:
        ValueError: it is none.
    """
    _, slot, where = refusal.rsplit(" ", 2)
    host, _, port = where.rpartition(":")
    return int(slot), (host or asked, int(port))


class SlotMap:
    """
    Who has which slot.

    Attributes:
        masters: Those that have any.
        complete: Every slot has somebody.
    """

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * SLOTS
        self.masters: Collection[Address] = ()
        self.complete = False

    def owner(self, slot: int) -> Address | None:
        """
        Who has *slot*.
        """
        return self._owners[slot]

    def take(self, answers: Iterable[Iterable[Claim]]) -> set[int]:
        """
        Replace everything by what several nodes claim; return the slots that are another's now.
        """
        owners: list[Address | None] = [None] * SLOTS
        for claim in sorted((claim for answer in answers for claim in answer), key=lambda claim: claim.epoch):
            owners[claim.first : claim.last + 1] = [claim.address] * (claim.last - claim.first + 1)
        if owners == self._owners:
            return set()
        changed = {slot for slot, (old, new) in enumerate(zip(self._owners, owners, strict=True)) if old != new}
        self._replace(owners)
        return changed

    def move(self, slot: int, address: Address) -> bool:
        """
        Take *slot* for that of *address*; return whether it was another's.
        """
        if self._owners[slot] == address:
            return False
        owners = self._owners.copy()
        owners[slot] = address
        self._replace(owners)
        return True

    def _replace(self, owners: list[Address | None]) -> None:
        self._owners = owners
        self.masters = {owner for owner in owners if owner is not None}
        self.complete = None not in owners
