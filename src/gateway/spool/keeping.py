"""
A file kept in step with the stores of a process, by a thread of its own.

The reactor gathers what happens in one of its turns and hands it over; the thread writes whatever
lies there in one transaction, so the more happens the fewer commits there are. When the file cannot be written it is
tried again with each beat, from the beginning: then everything is written that there is by then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from gateway.ports.sessions import OutboxEvent, SessionRecord
from gateway.ports.spool import Contents, Spooled
from gateway.spool.file import Changes, SpoolFault, SpoolFile

__all__ = ["BEAT_S", "PATIENCE_S", "FileSpool"]

BEAT_S: Final = 5.0
"""How exactly the end of a process is known that said nothing of it."""

PATIENCE_S: Final = 0.5
"""A file that takes longer is waited for no more, until it has everything."""

MOST_WAITING: Final = 100_000
"""Changes that the thread has not written; beyond it they are dropped, and everything is written anew."""

MOST_TOGETHER: Final = 1000
"""Turns of the reactor written in one transaction."""

_LOOK_S: Final = 0.02

Job = Callable[[], Any]


class FileSpool:
    """
    The ``ports.spool.Spool`` of a process.

    Args:
        reactor: Has ``callFromThread``.
        file: Not open yet.
        wall: Seconds since the epoch.
        event: Told what operators should know: a name and fields.
        failed: Told of faults of our own, with a name.

    Attributes:
        keeping: The file has everything, or will in a moment.
        late: It does not keep pace; nobody waits for it.
        waiting: Changes that are not written yet.
        missed: Changes that happened while nothing could be written, ever.
    """

    def __init__(
        self,
        reactor: Any,
        file: SpoolFile,
        *,
        wall: Callable[[], float],
        event: Callable[[str, dict[str, Any]], None],
        failed: Callable[[str, Failure], None],
        beat_s: float = BEAT_S,
    ) -> None:
        self._reactor = reactor
        self._wall = wall
        self._event = event
        self._failed = failed
        self._beat_s = beat_s
        self._file = file
        self._jobs: SimpleQueue[tuple[int, Changes] | Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stores: Spooled | None = None
        self._changes: Changes | None = None
        self._handing: IDelayedCall | None = None
        self._unwritten: deque[tuple[float, int, int]] = deque()  # handed over when, how many, newest event
        self._waiters: deque[tuple[int, Deferred[None]]] = deque()
        self._watch: IDelayedCall | None = None
        self._handed = self._taken = self._newest = 0
        self._generation = 0
        self._beats = LoopingCall(self._beat)
        self._beats.clock = reactor
        self._trying = False
        self._whole = False  # The thread's: what it wrote is everything there was before what it writes next.
        self._fault = ""
        self.keeping = False
        self.late = False
        self.waiting = 0
        self.missed = 0

    # What stores say.

    @property
    def written(self) -> float:
        """
        The newest event that is safe; all of them while nothing is kept.
        """
        return self._newest if self.keeping and not self.late else inf

    def put(self, record: SessionRecord, until: float | None) -> None:
        """
        Write how a session is now.
        """
        if self.keeping:
            self._now().sessions[record.id] = (record, until)
        else:
            self.missed += 1

    def drop(self, session: str) -> None:
        """
        Write that a session is over.
        """
        if self.keeping:
            self._now().sessions[session] = None
        else:
            self.missed += 1

    def append(self, number: int, event: OutboxEvent) -> None:
        """
        Write an event.
        """
        if self.keeping:
            changes = self._now()
            changes.events[number] = event
            changes.last = number
        else:
            self.missed += 1

    def done(self, numbers: Sequence[int]) -> None:
        """
        Forget events.
        """
        if self.keeping:
            self._now().done.extend(numbers)
        else:
            self.missed += 1

    async def settled(self) -> None:
        """
        Wait until what was said so far is safe.
        """
        if not self.keeping or self.late or (self._changes is None and not self._unwritten):
            return
        waiter: Deferred[None] = Deferred()
        self._waiters.append((self._handed + (self._changes is not None), waiter))
        await waiter

    def _now(self) -> Changes:
        changes = self._changes
        if changes is None:
            self._changes = changes = Changes()
            self._handing = self._reactor.callLater(0, self._hand_over)
        return changes

    def _hand_over(self) -> None:
        changes, self._changes = self._changes, None
        if changes is None or not self.keeping:
            return
        if self.waiting > MOST_WAITING:
            self._give_up("slow", f"{self._file.path}: {self.waiting} changes wait")
            return
        changes.at = self._wall()
        self._expect(len(changes), changes.last)
        self._jobs.put((self._generation, changes))

    def _expect(self, number: int, last: int) -> None:
        self._handed += 1
        self.waiting += number
        self._unwritten.append((self._reactor.seconds(), number, last))
        if self._watch is None and not self.late:
            self._watch = self._reactor.callLater(PATIENCE_S, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._unwritten:
            return
        left_s = PATIENCE_S - (self._reactor.seconds() - self._unwritten[0][0])
        if left_s > 0:
            self._watch = self._reactor.callLater(left_s, self._look)
        else:
            self.late = True
            self._event("spool.late", {"waiting": self.waiting})
            self._release(self._handed + 1)

    def _committed(self, generation: int, several: int) -> None:
        """The thread wrote the *several* oldest of what was handed over."""
        if generation != self._generation:
            return
        for _ in range(several):
            _, number, last = self._unwritten.popleft()
            self._taken += 1
            self.waiting -= number
            self._newest = max(self._newest, last)
        self._release(self._taken)
        if self.late and not self._unwritten:
            self.late = False
            self._event("spool.in_time", {})

    def _release(self, ticket: int) -> None:
        waiters = self._waiters
        while waiters and waiters[0][0] <= ticket:
            waiters.popleft()[1].callback(None)

    # From the first try to the last.

    async def start(self, stores: Spooled, within_s: float) -> None:
        """
        Take back what an earlier process left, and keep what *stores* have from now on.

        Returns when that is done, has failed, or has not come about *within_s* seconds; it is tried on with each beat.
        """
        self._stores = stores
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()
        self._beats.start(self._beat_s, now=True)
        until = self._reactor.seconds() + within_s
        while self._trying and self._reactor.seconds() < until:
            await deferLater(self._reactor, _LOOK_S)

    async def stop(self, within_s: float) -> None:
        """
        Write what waits, and close the file; a disk that hangs is left alone after *within_s* seconds.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._beats.stop()
        self._hand_over()
        if self._handing is not None and self._handing.active():
            self._handing.cancel()
        self._jobs.put(None)
        until = self._reactor.seconds() + within_s
        while thread.is_alive() and self._reactor.seconds() < until:
            await deferLater(self._reactor, _LOOK_S)
        self.keeping = False
        self._release(self._handed + 1)

    def _beat(self) -> None:
        if self._trying:
            return
        if self.keeping:
            at = self._wall()
            self._jobs.put(lambda: self._say_alive(at))
        else:
            self._trying = True
            self._jobs.put(self._open)

    def _opened(self, left: Contents, moved: Path | None) -> None:
        """The file is there; *left* is what another process left in it."""
        self._trying = False
        stores = self._stores
        if stores is None or self._thread is None:
            return
        if moved is not None:
            self._event("spool.corrupt", {"moved": str(moved)})
        if left.sessions or left.events:
            stores.take_back(left)
            self._event("spool.taken_back", {"sessions": len(left.sessions), "events": len(left.events)})
        if self._fault:
            self._event("spool.mended", {"missed": self.missed})
            self._fault = ""
        contents = replace(stores.contents(), alive_at=self._wall())
        self.keeping = True
        newest = contents.events[-1][0] if contents.events else 0
        self._newest = 0
        self._expect(len(contents.sessions) + len(contents.events), newest)
        generation = self._generation
        self._jobs.put(lambda: self._renew(generation, contents))

    def _broken(self, fault: SpoolFault) -> None:
        self._trying = False
        self._give_up(fault.kind, str(fault))

    def _give_up(self, kind: str, text: str) -> None:
        self.missed += self.waiting + (len(self._changes) if self._changes is not None else 0)
        self.keeping = self.late = False
        self._generation += 1
        self._changes = None
        self._unwritten.clear()
        self._taken = self._handed
        self.waiting = 0
        if self._fault != kind:
            self._fault = kind
            self._event("spool.failed", {"why": kind, "detail": text})
        self._release(self._handed + 1)

    # In the thread.

    def _run(self) -> None:
        job: tuple[int, Changes] | Job | None
        while (job := self._jobs.get()) is not None:
            try:
                while isinstance(job, tuple):
                    job = self._write(job)
                if job is None:
                    break
                job()
            except SpoolFault as fault:
                self._whole = False
                self._reactor.callFromThread(self._broken, fault)
            except Exception:  # A fault of our own: told as one, and no reason to keep nothing from now on.
                self._whole = False
                self._reactor.callFromThread(self._failed, "spool", Failure())
                self._reactor.callFromThread(self._broken, SpoolFault("unusable", "see background.failed"))
        self._file.close()

    def _open(self) -> None:
        left = self._file.open()
        moved, self._file.moved = self._file.moved, None
        self._reactor.callFromThread(self._opened, left, moved)

    def _say_alive(self, at: float) -> None:
        if self._whole:
            self._file.beat(at)

    def _renew(self, generation: int, contents: Contents) -> None:
        self._file.renew(contents)
        self._whole = True
        self._reactor.callFromThread(self._committed, generation, 1)

    def _write(self, first: tuple[int, Changes]) -> tuple[int, Changes] | Job | None:
        """Write *first* and what lies behind it; return what is to be done next."""
        generation, changes = first
        several = [changes]
        follows: tuple[int, Changes] | Job | None = _nothing
        while len(several) < MOST_TOGETHER:
            try:
                follows = self._jobs.get_nowait()
            except Empty:
                follows = _nothing
                break
            if not isinstance(follows, tuple) or follows[0] != generation:
                break
            several.append(follows[1])
            follows = _nothing
        if self._whole:
            self._file.write(several)
            self._reactor.callFromThread(self._committed, generation, len(several))
        return follows


def _nothing() -> None:
    """What is done when nothing is."""
