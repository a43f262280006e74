"""
Where each key of a TOML text stands.

``tomllib`` parses; this only looks where. It reads text that ``tomllib`` has accepted, so it
need not be strict, and it decodes nothing itself: a quoted key is handed to ``tomllib`` again.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable

from gateway.config.faults import KeyPath

__all__ = ["Positions", "scan"]

_blank = re.compile(r"[ \t\r\n]*(?:#[^\n]*[ \t\r\n]*)*").match
_bare_key = re.compile(r"[A-Za-z0-9_-]+").match
_one_line = {
    '"': re.compile(r'"(?:[^"\\\n]++|\\.)*+"').match,
    "'": re.compile(r"'[^'\n]*'").match,
}
# The closing quotes may be preceded by one or two that belong to the text.
_many_lines = {
    '"': re.compile(r'"""(?:[^"\\]++|\\.|"(?!""))*+"""(?:"{1,2})?', re.DOTALL).match,
    "'": re.compile(r"'''(?:[^']++|'(?!''))*+'''(?:'{1,2})?", re.DOTALL).match,
}
_word = re.compile(r"[^,\]}#\n]*").match


class Positions:
    """
    Line and column of every key path: of the key itself, or of the value for an element of an array.

    A table is where its header names it, however often keys of it stand elsewhere.
    """

    def __init__(self, text: str) -> None:
        self.offsets: dict[KeyPath, int] = {}
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def of(self, path: KeyPath) -> tuple[int, int]:
        """
        Find where *path* stands; one that does not exist is where the nearest table around it is.
        """
        while path:
            offset = self.offsets.get(path)
            if offset is not None:
                return self.line_column(offset)
            path = path[:-1]
        return 1, 1

    def line_column(self, offset: int) -> tuple[int, int]:
        """
        Turn an index into the text into line and column, both from 1.
        """
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1


def scan(text: str) -> Positions:
    """
    Find every key of *text*, which ``tomllib.loads`` has accepted.
    """
    positions = Positions(text)
    _Scanner(text, positions.offsets).document()
    return positions


class _Scanner:
    """One pass over the text; ``at`` is the index of what comes next."""

    def __init__(self, text: str, offsets: dict[KeyPath, int]) -> None:
        self.text = text
        self.offsets = offsets
        self.at = 0
        self.lengths: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self.blank()
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self.header(2)
            elif self.text[self.at] == "[":
                table = self.header(1)
            else:
                self.pair(table)
            self.blank()

    def header(self, brackets: int) -> KeyPath:
        """Read ``[a.b]`` or ``[[a.b]]``: the path of the table that it opens."""
        self.at += brackets
        *leading, (name, offset) = self.keys()
        self.at += brackets
        path: KeyPath = ()
        for part, start in leading:
            path = (*path, part)
            self.offsets.setdefault(path, start)
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        path = (*path, name)
        if brackets == 1:
            self.offsets[path] = offset
            return path
        self.offsets.setdefault(path, offset)
        index = self.lengths.get(path, 0)
        self.lengths[path] = index + 1
        path = (*path, index)
        self.offsets[path] = offset
        return path

    def pair(self, table: KeyPath) -> None:
        """Read ``a.b = value``."""
        *leading, (name, offset) = self.keys()
        for part, start in leading:
            table = (*table, part)
            self.offsets.setdefault(table, start)
        table = (*table, name)
        self.offsets[table] = offset
        self.at += 1  # The equals sign.
        self.value(table)

    def value(self, path: KeyPath) -> None:
        self.blank()
        opening = self.text[self.at]
        if opening == "[":
            self.array(path)
        elif opening == "{":
            self.inline_table(path)
        elif opening in _one_line:
            many = self.text.startswith(opening * 3, self.at)
            self.take((_many_lines if many else _one_line)[opening])
        else:
            self.take(_word)

    def array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        self.blank()
        while self.text[self.at] != "]":
            self.offsets[*path, index] = self.at
            self.value((*path, index))
            index += 1
            self.blank()
            if self.text[self.at] == ",":
                self.at += 1
                self.blank()
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        self.blank()
        while self.text[self.at] != "}":
            self.pair(path)
            self.blank()
            if self.text[self.at] == ",":
                self.at += 1
                self.blank()
        self.at += 1

    def keys(self) -> list[tuple[str, int]]:
        """Read ``a."b c".d``: each part with its offset; ends before what follows the last."""
        parts = []
        while True:
            self.blank()
            start = self.at
            quote = _one_line.get(self.text[start])
            word = self.take(_bare_key if quote is None else quote)
            parts.append((word if quote is None else tomllib.loads(f"key = {word}")["key"], start))
            self.blank()
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def blank(self) -> None:
        """Pass white space, ends of lines and comments."""
        self.take(_blank)

    def take(self, pattern: Callable[[str, int], re.Match[str] | None]) -> str:
        found = pattern(self.text, self.at)
        assert found is not None, f"not TOML at {self.at}"
        self.at = found.end()
        return found[0]
