"""
SDK clients as processes, a line of JSON for each order and each event.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
JS = HERE / "js"

WITHIN_S = 30.0


class Driver:
    """
    A process with clients in it.

    Attributes:
        events: Everything it told, in order.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._came = threading.Condition()
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._came:
                self.events.append(json.loads(line))
                self._came.notify_all()

    def say(self, do: str, client: str, **more: Any) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "client": client, **more}) + "\n")
        self.process.stdin.flush()

    def ask(self, do: str, client: str, **more: Any) -> dict[str, Any]:
        """Give an order; return its ``result``, or its ``error``."""
        self._number += 1
        number = self._number
        self.say(do, client, id=number, **more)
        return self.wait(0, id=number)

    def wait(self, after: int = 0, user: str = "", **wanted: Any) -> dict[str, Any]:
        """Wait for an event that has all of *wanted*, about *user* if one is named; the first since *after* events."""
        deadline = time.monotonic() + WITHIN_S
        with self._came:
            while True:
                for event in self.events[after:]:
                    if user and event.get("info", {}).get("user") != user:
                        continue
                    if all(event.get(name) == value for name, value in wanted.items()):
                        return event
                left = deadline - time.monotonic()
                assert left > 0, f"{wanted} did not come; {self.events[after:]}"
                self._came.wait(left)

    def of(self, after: int = 0, **wanted: Any) -> list[dict[str, Any]]:
        """All events that have all of *wanted*."""
        return [
            event for event in self.events[after:] if all(event.get(name) == value for name, value in wanted.items())
        ]


def commands() -> dict[str, Sequence[str]]:
    """
    The SDKs' processes, by name.
    """
    node = shutil.which("node")
    assert node is not None, "node is missing. As root: apt-get install nodejs npm"
    assert (JS / "node_modules" / "centrifuge").exists(), "the JavaScript SDK is missing: npm --prefix tests/sdk/js ci"
    return {"js": [node, str(JS / "client.mjs")], "python": [sys.executable, str(HERE / "python_client.py")]}


@contextmanager
def driving(name: str) -> Iterator[Driver]:
    """
    Run the process of an SDK, ``js`` or ``python``.
    """
    process = subprocess.Popen(commands()[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
    try:
        yield Driver(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
