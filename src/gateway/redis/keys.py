"""
How keys and topics are named, and which of them share a slot.

``PREFIX:1:KIND:{TAG}``: the 1 is the schema's number, the tag alone decides the slot of a cluster
(Redis Cluster specification, «hash tags»). What one script touches has one tag.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["PARTITIONS", "SCHEMA", "Keys"]

SCHEMA: Final = 1
"""Grows when what is stored changes so that releases cannot share it."""

PARTITIONS: Final = 64


class Keys:
    """
    The names of one installation.

    Args:
        prefix: What tells it from others in the same Redis.
        database: Stands in the names if it is not 0: topics are the same in all databases.
    """

    __slots__ = ("_base",)

    def __init__(self, prefix: str, database: int = 0) -> None:
        self._base = f"{prefix}:{SCHEMA}:" + (f"db{database}:" if database else "")

    @staticmethod
    def tag(channel: str) -> str:
        """
        Make the tag of a channel: its name, or a digest where the name would end the tag early.
        """
        if "}" in channel or not channel:
            return blake2b(channel.encode(), digest_size=16).hexdigest() + "%"
        return channel

    def channel(self, kind: str, channel: str) -> str:
        """Name a key or topic that belongs to *channel*."""
        return f"{self._base}{kind}:{{{self.tag(channel)}}}"

    def topic(self, channel: str) -> str:
        """Name the topic of *channel*; the name can be read from it."""
        topic = self.channel("t", channel)
        return topic if self.tag(channel) == channel else topic + channel

    def partition(self, kind: str, number: int) -> str:
        """Name a key of a partition, 0 to 63."""
        return f"{self._base}{kind}:{{p{number}}}"

    def one(self, kind: str, name: str = "") -> str:
        """Name a key that stands alone; *kind* and *name* are its tag."""
        return f"{self._base}{{{kind}{':' if name else ''}{name}}}"
