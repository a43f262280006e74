"""
Which of the 64 partitions a session lives in, and how its id says so.

Everything that a store keeps of a session stands in one partition, so that opening or ending it is
one step in one place. Sessions of the same user on the same device share a partition: whoever opens
one finds the earlier one there. The last two digits of an id are its partition in hexadecimal, and
the choice is part of what is stored: it must never change.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["ID_BITS", "PARTITIONS", "partition_for", "partition_of", "partitions_of_rank", "session_id"]

PARTITIONS: Final = 64

ID_BITS: Final = 120
"""Random bits of a session id; the other eight are its partition."""


def partition_for(user: str, device: str) -> int:
    """
    Choose the partition of *user*'s sessions on *device*.
    """
    digest = blake2b(f"{len(user)}:{user}{device}".encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return int.from_bytes(digest, "big") % PARTITIONS


def session_id(bits: int, partition: int) -> str:
    """
    Make an id of 32 hexadecimal digits from ``ID_BITS`` random *bits*.
    """
    return f"{bits:030x}{partition:02x}"


def partition_of(session: str) -> int:
    """
    Read the partition from a session's id.

    Raises:
        ValueError: no session has this id.
    """
    partition = int(session[-2:], 16) if len(session) > 2 else -1
    if not 0 <= partition < PARTITIONS:
        raise ValueError(f"{session[:64]!r} is no session's id")
    return partition


def partitions_of_rank(rank: int, living: int) -> range:
    """
    List the partitions that fall to the *rank*-th (from 0) of *living* instances: every one falls to one.
    """
    return range(rank, PARTITIONS, living)
