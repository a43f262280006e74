"""
Child processes that are stopped in order, and never outlive their parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

__all__ = ["Children"]

STOP_S = 40.0
"""How long one may take to end after TERM; a gateway may drain for 30 s."""

LAST_LINES = 5

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class Children:
    """
    The processes started so far.

    Args:
        folder: Where they run.
        logs: Where what each writes goes, into a file of its name; None: to where we write.
    """

    def __init__(self, folder: Path, logs: Path | None = None) -> None:
        self._folder = folder
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: Sequence[str], environ: dict[str, str]) -> None:
        """
        Start one more, with *environ* added to the environment.
        """
        parent = os.getpid()

        def in_child() -> None:
            # Even when the parent is killed, what it started ends.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with ExitStack() as opened:
            out = opened.enter_context((self._logs / f"{name}.log").open("ab")) if self._logs is not None else None
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=os.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # A Ctrl-C is for the parent, which stops its children one after another.
                start_new_session=True,
                preexec_fn=in_child,  # noqa: PLW1509  # this process has one thread
            )
        self._running.append((name, process))

    def said(self, name: str) -> str:
        """
        Say where what one wrote can be read: the end of its log, or above.
        """
        if self._logs is None:
            return "above"
        log = self._logs / f"{name}.log"
        last = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
        return "\n  ".join((f"in {log}:", *last))

    def ended(self) -> str:
        """
        Name one that has ended; empty if none has.
        """
        return next((name for name, process in self._running if process.poll() is not None), "")

    def pid(self, name: str) -> int:
        """
        The process id of one.
        """
        return next(process.pid for other, process in self._running if other == name)

    def end(self, name: str) -> int:
        """
        Ask one to end, wait for it, and forget it; return its exit code.
        """
        self.ask_to_end(name)
        return self.bury(name)

    def ask_to_end(self, name: str) -> None:
        """
        Send TERM to one, if it runs.
        """
        for other, process in self._running:
            if other == name and process.poll() is None:
                process.terminate()

    def bury(self, name: str) -> int:
        """
        Wait for one to end, and forget it; return its exit code, or the signal that killed it with a minus.
        """
        entry = next(entry for entry in self._running if entry[0] == name)
        self._running.remove(entry)
        return entry[1].wait()

    def wait(self) -> str:
        """
        Return the name of the first one to end.
        """
        while not self.ended():
            time.sleep(0.2)
        return self.ended()

    def stop(self) -> None:
        """
        Ask the last one to end, wait for it, then the one before, and so on.
        """
        for ignored in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ignored, signal.SIG_IGN)
        while self._running:
            _, process = self._running.pop()
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
