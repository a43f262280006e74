"""
Spools of tests, and the stores above them.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from twisted.internet.task import Clock, deferLater

from gateway.core.partitions import PARTITIONS, partition_for, session_id
from gateway.memory.broker import MemoryChannels
from gateway.memory.bus import MemoryBus, MemoryCluster
from gateway.memory.stores import SpooledStores, memory_stores
from gateway.ports.sessions import Event, Opened, SessionRecord
from gateway.ports.spool import Contents
from gateway.spool.file import Changes, SpoolFile
from gateway.spool.keeping import FileSpool

ALL = range(PARTITIONS)
BEAT_S = 0.1


class Emptiness:
    """
    Stores that have nothing yet.
    """

    def contents(self) -> Contents:
        return Contents()

    def take_back(self, left: Contents) -> None:
        raise AssertionError(left)


def spool_in(
    folder: Path,
    wall: Callable[[], float],
    said: list[tuple[str, dict[str, Any]]] | None = None,
    file: SpoolFile | None = None,
) -> FileSpool:
    """
    Make a spool on the real reactor; *said* takes what operators are told.
    """
    from twisted.internet import reactor  # pytest-twisted has installed one.

    told = said if said is not None else []

    def event(name: str, fields: dict[str, Any]) -> None:
        told.append((name, fields))

    def failed(name: str, failure: Any) -> None:
        told.append((name, {"failure": failure.getTraceback()}))

    file = file if file is not None else SpoolFile(folder, secrets.token_hex(4))
    return FileSpool(reactor, file, wall=wall, event=event, failed=failed, beat_s=BEAT_S)


class HangingFile(SpoolFile):
    """
    On a disk that does nothing until ``goes_on`` is set.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "hanging")
        self.goes_on = threading.Event()

    def write(self, several: Sequence[Changes]) -> None:
        self.goes_on.wait(30.0)
        super().write(several)


class Process:
    """
    The sessions of one process: stores in memory above a spool.

    Args:
        at: What its clock shows.
        window_s: How long a session may be resumed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        at: float = 0.0,
        window_s: float = 30.0,
        file: SpoolFile | None = None,
        most_bytes: int = 10**8,
    ) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.clock = Clock()
        self.clock.rightNow = 1.8e9 + at
        self.spool = spool_in(folder, self.clock.seconds, self.said, file)
        bus = MemoryBus(MemoryCluster(), self.clock, lambda *_: None)
        self.stores = memory_stores(
            MemoryChannels(self.clock.seconds, self.clock.seconds),
            bus,
            self.clock.seconds,
            self.spool,
            most_bytes=most_bytes,
        )
        self._window_s = window_s

    async def start(self) -> Self:
        """Start the spool, and wait until it keeps or has failed."""
        await self.spool.start(SpooledStores(self.stores, self._window_s), 5.0)
        await self.spool.settled()
        return self

    async def stop(self) -> None:
        """End as a process does that was asked to."""
        await self.spool.stop(5.0)

    async def opened(self, number: int, user: str = "alice") -> SessionRecord:
        """Open the session of the *number*-th connection of a user's phone."""
        mine = SessionRecord(
            session_id(number, partition_for(user, "phone")), user, "phone", "i1", f"c{number}", 0.0, 0.0, {"n": number}
        )
        event = Event(f"{mine.id}-start", b"started")
        found = await self.stores.sessions.open(mine, event=event, resumed=Event(f"{mine.client}-resumed", b"resumed"))
        assert isinstance(found, Opened)
        return found.record

    async def told(self) -> list[str]:
        """The ids of the events that wait, oldest first."""
        taken = await self.stores.events.take("x", ALL, 1_000_000)
        return [event.id for event in sorted(taken, key=lambda event: int(event.ref.split(":")[1]))]

    def heard(self, name: str) -> list[dict[str, Any]]:
        """What operators were told under this name."""
        return [fields for each, fields in self.said if each == name]


async def pause(seconds: float) -> None:
    """
    Let the real reactor run.
    """
    from twisted.internet import reactor  # pytest-twisted has installed one.

    await deferLater(reactor, seconds)
