"""
The Python prompt: for developers, over ssh, with a key, where the configuration says so.
"""

from __future__ import annotations

from typing import Any

from twisted.conch.manhole import ManholeInterpreter

__all__ = ["Python"]


class Python:
    """
    One prompt. What runs in it runs on the reactor: it stops everybody for as long as it takes.

    Args:
        out: Where results and prints go (``addOutput``).
        namespace: What has a name from the beginning.
    """

    def __init__(self, out: Any, namespace: dict[str, Any]) -> None:
        self._out = out
        self._namespace = namespace
        self._interpreter = ManholeInterpreter(out, namespace)

    def push(self, line: str) -> bool:
        """
        Take one line; True if more belongs to it.
        """
        return bool(self._interpreter.push(line.encode("utf-8")))

    def anew(self) -> Python:
        """
        The same, with nothing begun.
        """
        return Python(self._out, self._namespace)
