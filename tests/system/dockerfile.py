"""
Reads a Dockerfile, as far as ours goes.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["Dockerfile", "Instruction", "ignored", "read_dockerfile"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """
    One instruction: its name, its flags, and its words (of a JSON array, its elements).
    """

    name: str
    flags: dict[str, str]
    words: list[str]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """
    Attributes:
        build: The instructions of the first stage.
        image: Those of the last one.
    """

    build: list[Instruction]
    image: list[Instruction]

    def of(self, name: str) -> list[Instruction]:
        """Return the instructions called *name* of the image."""
        return [each for each in self.image if each.name == name]

    def copied(self) -> list[str]:
        """Return every path that COPY takes from the context."""
        copies = [each for each in (*self.build, *self.image) if each.name == "COPY" and "from" not in each.flags]
        return [source for each in copies for source in each.words[:-1]]


def ignored(path: str, ignore: Path) -> bool:
    """
    Whether the .dockerignore *ignore* keeps *path* out of the context: the last pattern that fits decides.
    """
    out = False
    for line in ignore.read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            name = pattern.lstrip("!").rstrip("/")
            if any(fnmatch(part, name) for part in (path, path.split("/", 1)[0])):
                out = not pattern.startswith("!")
    return out


def read_dockerfile(path: Path) -> Dockerfile:
    """
    Read the file at *path*, which has two stages.
    """
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    stages: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(_instruction(name, rest.strip()))
    build, image = stages
    return Dockerfile(build, image)


def _instruction(name: str, rest: str) -> Instruction:
    flags: dict[str, str] = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag[2:].partition("=")
        flags[key] = value
        rest = rest.strip()
    command = rest.removeprefix("CMD").strip() if name == "HEALTHCHECK" else rest
    words = json.loads(command) if command.startswith("[") else shlex.split(command)
    return Instruction(name, flags, words)
