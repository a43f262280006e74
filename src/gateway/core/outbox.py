"""
What waits for one client that reads slower than it is written to, with a bound in bytes.

Frames are complete and in order. Three policies meet here: a channel's publications wait like
everything else, only the newest of a channel waits, or they are dropped and counted.
"""

from __future__ import annotations

__all__ = ["Outbox"]

_OVERHEAD = 64
"""What one waiting frame costs beside its bytes, which all subscribers share."""


class Outbox:
    """
    Frames for one client.

    Args:
        limit: Bytes, with a small cost for each frame.

    Attributes:
        bytes: What waits now.
        dropped: By channel, how many publications were dropped and not yet told.
    """

    __slots__ = ("_frames", "_next", "bytes", "dropped", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.dropped: dict[str, int] = {}
        self._frames: dict[int | str, bytes] = {}
        self._next = 0

    def put(self, frame: bytes) -> bool:
        """
        Append *frame*; False if that goes beyond the limit (it was not appended).
        """
        size = len(frame) + _OVERHEAD
        if self.bytes + size > self.limit:
            return False
        self._frames[self._next] = frame
        self._next += 1
        self.bytes += size
        return True

    def put_latest(self, channel: str, frame: bytes) -> bool:
        """
        Append *frame* in place of what still waits of *channel*.
        """
        before = self._frames.pop(channel, None)
        if before is not None:
            self.bytes -= len(before) + _OVERHEAD
        size = len(frame) + _OVERHEAD
        if self.bytes + size > self.limit:
            return False
        self._frames[channel] = frame
        self.bytes += size
        return True

    def put_or_drop(self, channel: str, frame: bytes, publications: int = 1) -> None:
        """
        Append *frame*, or count it: at half the limit, so that the other half is left for what must arrive.
        """
        if self.bytes + len(frame) + _OVERHEAD > self.limit // 2:
            self.dropped[channel] = self.dropped.get(channel, 0) + publications
        else:
            self.put(frame)

    def take(self, most: int) -> bytes:
        """
        Take out frames from the front, about *most* bytes, at least one; empty if nothing waits.
        """
        frames = self._frames
        taken: list[bytes] = []
        size = 0
        while frames:
            key = next(iter(frames))
            frame = frames[key]
            if taken and size + len(frame) > most:
                break
            del frames[key]
            taken.append(frame)
            size += len(frame)
        self.bytes -= size + _OVERHEAD * len(taken)
        return b"".join(taken)

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._frames.clear()
        self.dropped.clear()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._frames)
