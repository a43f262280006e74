"""
Where log lines leave the process, without ever stopping it.

A write to a pipe that nobody reads blocks, whatever the descriptor's flags seem to promise, so
a thread of its own does the writing. The reactor appends to a list; what the thread has not
taken yet is bounded in bytes, and beyond the bound lines are dropped, counted, and told of once lines
are taken again.

Several processes may write to one file or pipe. A pipe keeps a write together up to 4096 bytes only
(PIPE_BUF), and lines can be longer; so each waits for its turn: a POSIX record lock on a file that all
of them have open, which the kernel gives back when its holder dies, however that dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

__all__ = ["Sink"]

_LINE_END = ord("\n")

TURN_BYTES = 64 * 1024
"""Written in one turn, in whole lines: at least one, however long."""


class Sink:
    """
    Lines to one file descriptor, through one thread.

    Before ``start`` (twistd may still fork) lines are kept; ``stop`` writes what is left, within
    a deadline. ``write`` may be called from any thread.

    Args:
        descriptor: Open for writing; not closed here.
        max_bytes: Most bytes waiting; beyond it lines are dropped.
        linger_s: How long lines gather before they are written together.
        turns: An open file by which processes that write to the same place take turns; None where this one is alone.

    Attributes:
        descriptor: As given.
        account: Makes the line that tells how many were lost, when lines are taken again; called in the thread.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        max_bytes: int = 8 * 1024 * 1024,
        linger_s: float = 0.02,
        turns: int | None = None,
    ) -> None:
        self.descriptor = descriptor
        self._turns = turns
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._taken = 0
        self._wake = threading.Event()
        self._awake = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._torn = False
        self._told = 0
        self._refused = 0
        self._lost = 0
        self.account: Callable[[int], bytes] = lambda _lost: b""

    @property
    def dropped(self) -> int:
        """Lines that there was no room for, or that could not be written, ever."""
        return self._refused + self._lost

    def write(self, line: bytes) -> None:
        """Append one line, its newline included. Never blocks."""
        # Two plain additions without a lock: a lost update only shifts the bound by a line.
        if self._waiting - self._taken > self._max_bytes:
            self._refused += 1
            return
        self._waiting += len(line)
        self._lines.append(line)
        if not self._awake:
            self._awake = True
            self._wake.set()

    def start(self) -> None:
        """Start the thread; call it after the last fork."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Write what is left, for at most *timeout_s* seconds; a stuck reader is left behind."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        else:
            self._drain()

    def switch(self, descriptor: int) -> None:
        """Write from now on to what *descriptor* is open on, and close it: the number written to stays."""
        os.dup2(descriptor, self.descriptor, inheritable=False)
        os.close(descriptor)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._stopping.wait(self._linger_s)
            self._wake.clear()
            # Before looking at the lines: who appends from here on sets the event again.
            self._awake = False
            self._drain()
        self._drain()

    def _drain(self) -> None:
        # One end of a deque per thread: swapping a list here could lose the line being appended.
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        for some in [lines] if self._turns is None else _in_turns(lines):
            with nullcontext() if self._turns is None else _turn(self._turns):
                if self._put(some):
                    self._tell_lost()

    def _tell_lost(self) -> None:
        """Lines are taken: say how many were lost before. Past those that wait, among which there may be no room."""
        dropped = self.dropped
        if dropped != self._told:
            line = self.account(dropped - self._told)
            self._told = dropped
            self._waiting += len(line)
            self._put([line])

    def _put(self, lines: Sequence[bytes]) -> bool:
        """Write *lines*; False if some are lost."""
        data = b"".join(lines)
        size, ends = len(data), 0
        if self._torn:
            # What was written last is no whole line: it must not make this one worthless, too.
            data, ends = b"\n" + data, 1
        view = memoryview(data)
        while view:
            try:
                written = os.write(self.descriptor, view)
            except BlockingIOError:
                time.sleep(0.05)
                continue
            except OSError:
                # A full disk or a closed pipe: nothing can be told there now.
                done = len(data) - len(view)
                if done:
                    self._torn = data[done - 1] != _LINE_END
                self._lost += data.count(b"\n", done) - (0 if done else ends)
                self._taken += size
                return False
            view = view[written:]
        self._torn = False
        # Only now: what is being written waits, too.
        self._taken += size
        return True


def _in_turns(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Split into runs of at least one line and, beyond that, at most ``TURN_BYTES``."""
    some: list[bytes] = []
    size = 0
    for line in lines:
        if some and size + len(line) > TURN_BYTES:
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line)
    yield some


@contextmanager
def _turn(file: int) -> Iterator[None]:
    """Wait until no other process has its turn. Without locks (a file system that has none) it is always ours."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
