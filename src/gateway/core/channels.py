"""
Channel names, and the patterns that say what each channel may do.

A pattern is literal text with variables: ``lobby``, ``table:{table_id}``, ``user:{user_id}``. A
variable stands for one or more characters other than ``:``; the last one may be written
``{rest*}`` and then stands for anything. A literal character beats a variable, so ``table:vip``
wins over ``table:{id}``. A name that no pattern has is refused: nothing is open by omission.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

__all__ = ["MAX_NAME", "BadPattern", "ChannelMatch", "ChannelTable", "valid_name", "variables_of"]

T = TypeVar("T")

MAX_NAME: Final = 255
"""Longest channel name in characters, as the SDKs' servers have it."""

_CACHE_SIZE = 8192

_name = re.compile(r"[!-~]{1,255}").fullmatch
_piece = re.compile(r"\{([a-z_][a-z0-9_]*)(\*)?\}|([^{}]+)")


class BadPattern(ValueError):
    """
    A pattern that cannot be read, or two that mean the same.
    """


def valid_name(name: str) -> bool:
    """
    Whether *name* can be a channel: 1 to 255 visible ASCII characters.
    """
    return _name(name) is not None


class ChannelMatch(Generic[T]):
    """
    What a name turned out to be. Shared and cached: never changed.

    Attributes:
        name: The channel.
        rule: The pattern's value.
        pattern: The pattern, as a label for metrics.
        params: Values of the variables.
    """

    __slots__ = ("name", "params", "pattern", "rule")

    def __init__(self, name: str, rule: T, pattern: str, params: Mapping[str, str]) -> None:
        self.name = name
        self.rule = rule
        self.pattern = pattern
        self.params = params


class ChannelTable(Generic[T]):
    """
    All patterns of an instance.

    Raises:
        BadPattern: for a pattern that is malformed, has a variable twice, or equals another one.
    """

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._literal: dict[str, tuple[str, T]] = {}
        compiled: list[tuple[tuple[int, ...], re.Pattern[str], str, T]] = []
        shapes: dict[str, str] = {}
        for pattern, rule in entries:
            expression, shape, rank = _compile(pattern)
            if shape in shapes:
                raise BadPattern(f"{pattern!r} means the same channels as {shapes[shape]!r}")
            shapes[shape] = pattern
            if expression is None:
                self._literal[pattern] = (pattern, rule)
            else:
                compiled.append((rank, expression, pattern, rule))
        compiled.sort(key=lambda entry: entry[0])
        self._patterns = [(expression.fullmatch, pattern, rule) for _, expression, pattern, rule in compiled]
        self._cache: dict[str, ChannelMatch[T] | None] = {}

    def match(self, name: str) -> ChannelMatch[T] | None:
        """
        Find the rule of channel *name*; None if no pattern has it or it is no name at all.
        """
        try:
            return self._cache[name]
        except KeyError:
            found = self._find(name)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            if len(name) <= MAX_NAME:
                self._cache[name] = found
            return found

    def patterns(self) -> list[tuple[str, T]]:
        """
        List every pattern with its rule, the most specific first.
        """
        return [*self._literal.values(), *((pattern, rule) for _, pattern, rule in self._patterns)]

    def _find(self, name: str) -> ChannelMatch[T] | None:
        if not valid_name(name):
            return None
        literal = self._literal.get(name)
        if literal is not None:
            return ChannelMatch(name, literal[1], literal[0], {})
        for fullmatch, pattern, rule in self._patterns:
            found = fullmatch(name)
            if found is not None:
                return ChannelMatch(name, rule, pattern, found.groupdict())
        return None


def variables_of(pattern: str) -> tuple[str, ...]:
    """
    List the names of a pattern's variables, in order.

    Raises:
        BadPattern: it cannot be read.
    """
    expression, _, _ = _compile(pattern)
    return tuple(expression.groupindex) if expression is not None else ()


def _compile(pattern: str) -> tuple[re.Pattern[str] | None, str, tuple[int, ...]]:
    """A pattern as expression (None if literal), as shape without variable names, and its rank: lower is tried first."""
    if not pattern or len(pattern) > MAX_NAME:
        raise BadPattern(f"{pattern!r} is empty or longer than {MAX_NAME} characters")
    expression, shape, at = "", "", 0
    names: list[str] = []
    rank: list[int] = []
    while at < len(pattern):
        piece = _piece.match(pattern, at)
        if piece is None:
            raise BadPattern(f"{pattern!r}: a brace at column {at + 1} opens or closes nothing")
        name, rest, literal = piece.groups()
        at = piece.end()
        if literal is not None:
            if not valid_name(literal):
                raise BadPattern(f"{pattern!r} holds a character that no channel name can have")
            expression += re.escape(literal)
            shape += literal
            rank += [0] * len(literal)
            continue
        if name in names:
            raise BadPattern(f"{pattern!r} has {{{name}}} twice")
        if names and shape.endswith(("{}", "{*}")):
            raise BadPattern(f"{pattern!r} has two variables with nothing between them")
        if rest and at < len(pattern):
            raise BadPattern(f"{pattern!r}: {{{name}*}} can only stand at the end")
        names.append(name)
        expression += f"(?P<{name}>.+)" if rest else f"(?P<{name}>[^:]+)"
        shape += "{*}" if rest else "{}"
        rank.append(2 if rest else 1)
    if not names:
        return None, shape, ()
    return re.compile(expression), shape, (*rank, 3)
