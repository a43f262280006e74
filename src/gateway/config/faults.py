"""
What is wrong with a configuration: where, on which key, and what was meant.

A fault's text quotes what stands in the file, never what came from the environment, and never
anything of a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ConfigErrors", "Fault", "KeyPath", "dotted"]

KeyPath = tuple[str | int, ...]
"""Keys and, within arrays, indices from 0: ``("route", 2, "upstream")``."""

_bare = re.compile(r"[A-Za-z0-9_-]+").fullmatch


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """
    One thing that is wrong.

    Attributes:
        line: From 1.
        column: From 1, in characters.
        path: The key as in ``dotted``; empty for the file as a whole.
        message: What is wrong, and what was meant.
    """

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        path = f" {self.path}:" if self.path else ""
        return f"{self.line}:{self.column}:{path} {self.message}"


class ConfigErrors(Exception):
    """
    A configuration that cannot be used. As text: one line ``file:line:column: path: message`` per fault.

    Attributes:
        source: The file, as it was named.
        faults: Every fault, in the order of the file; at least one.
    """

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        self.source = source
        self.faults = tuple(sorted(faults))
        super().__init__(source, self.faults)

    def __str__(self) -> str:
        return "\n".join(f"{self.source}:{fault}" for fault in self.faults)


def dotted(path: KeyPath) -> str:
    """
    Write *path* as a reader would: ``route[2].upstream``, ``channels."table:{id}".history``.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if _bare(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{word}" if text else word
    return text
