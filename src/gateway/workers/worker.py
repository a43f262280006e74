"""
The process of one worker: ``python -m gateway.workers.worker NUMBER``, started by its parent and nobody else.

The number is for whoever lists processes; what it is to do, the worker is told on the line.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.protocol import ProcessProtocol

from gateway.telemetry.sink import Sink
from gateway.workers.supervised import Spawn

__all__ = ["spawner"]

LINE: Final = 3
TURNS: Final = 4
"""Descriptors of a worker's process beside the usual three."""


def spawner(reactor: Any, sink: Sink, turns: int, environ: Mapping[str, str]) -> Spawn:
    """
    Return what starts a worker: this interpreter, with what can be imported here; to be called before a change of folder.

    The process is not forked: by now there are threads here, whose locks a copy would find locked by nobody.
    Twisted's ``spawnProcess`` calls ``posix_spawn``.

    Args:
        sink: Where lines go: the worker's standard output, so that it need not have the right to open it.
        turns: The open file by which those who write the log take turns.
    """
    known = [str(Path(path).absolute()) for path in sys.path]

    def spawn(number: int, protocol: ProcessProtocol, line: int) -> Any:
        return reactor.spawnProcess(
            protocol,
            sys.executable,
            # -P: the folder it is started in is no place for modules, unless it is one of ours as well.
            [sys.executable, "-P", "-m", "gateway.workers.worker", str(number)],
            env={**environ, "PYTHONPATH": os.pathsep.join(known)},
            childFDs={0: 0, 1: sink.descriptor, 2: 2, LINE: line, TURNS: turns},
        )

    return spawn


def main() -> None:
    """
    Serve until the parent says otherwise.
    """
    from gateway.tap import work
    from gateway.workers.line import receive_begin

    # A terminal's Ctrl-C is for the parent, which tells its workers.
    try:
        os.setsid()
        for descriptor in (LINE, TURNS):
            os.set_inheritable(descriptor, False)
        end = socket.socket(fileno=LINE)
        begin = receive_begin(end)
    except OSError as error:
        sys.exit(f"a worker is started by its gateway: {error}")
    work(begin, end, TURNS)


if __name__ == "__main__":
    main()
