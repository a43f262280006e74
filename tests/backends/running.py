"""
Starts ``lying.py`` as a process and speaks with its control port.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("lying.py")


class Lying:
    """
    A lying backend, running.

    Attributes:
        port: Where it answers HTTP.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.port: int = ports["port"]
        self._control = socket.create_connection(("127.0.0.1", ports["control"]), timeout=20)
        self._lines = self._control.makefile("rwb")

    @property
    def target(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        """As a target is called in logs."""
        return f"127.0.0.1:{self.port}"

    def seen(self) -> list[dict[str, Any]]:
        """Everything it was asked."""
        found: list[dict[str, Any]] = self._order(do="seen")
        return found

    def forget(self) -> None:
        """Forget what was asked, and the script."""
        self._order(do="forget")

    def script(self, *names: str) -> None:
        """What to do with the next requests."""
        self._order(do="script", names=names)

    def refuse(self) -> None:
        """Listen no more; connections that are open stay so."""
        self._order(do="listen", on=False)

    def listen(self) -> None:
        """Listen again, on the same port."""
        self._order(do="listen", on=True)

    def stop(self) -> None:
        """End the process."""
        self._lines.close()
        self._control.close()
        self._process.communicate(timeout=10)

    def _order(self, **order: Any) -> Any:
        self._lines.write(json.dumps(order).encode() + b"\n")
        self._lines.flush()
        return json.loads(self._lines.readline())
