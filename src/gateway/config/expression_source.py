"""
Reading the source of a CEL expression: which names it uses, and whether this gateway takes them.

The library parses and evaluates; it does not say where a name stands, which names are bound by a
macro, or how macros nest. So the source is also cut into tokens here and walked once, never
parsed. What the two disagree about is refused (``expressions.compile_expression``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, NamedTuple

__all__ = ["FUNCTIONS", "MACROS", "METHODS", "Analysis", "Path", "Token", "analyse", "plain_text"]

FUNCTIONS: Final = frozenset(
    ("bytes", "double", "duration", "dyn", "has", "int", "size", "string", "timestamp", "type", "uint")
)
METHODS: Final = frozenset(
    (
        "contains",
        "endsWith",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "matches",
        "size",
        "startsWith",
    )
)
MACROS: Final = frozenset(("all", "exists", "exists_one", "filter", "map"))
TYPES: Final = frozenset(("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"))

_KEYWORDS: Final = frozenset(("true", "false", "null", "in"))
_MOST_BRACKETS = 32

_token = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<raw>[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*'))
  | (?P<text>[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<number>0x[0-9a-fA-F]+[uU]?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+(?:[eE][+-]?[0-9]+)?[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """One token: its kind (``text``, ``number``, ``name``, ``sign``, ``end``), itself, and its column from 1."""

    kind: str
    text: str
    column: int


Path = tuple[str, ...]
"""A root and the fields below it: ``("claims", "realm_access", "roles")``."""


@dataclass(slots=True)
class Analysis:
    """
    What the walk found.

    Attributes:
        tokens: All of them, ended by one of kind ``end``.
        paths: Every path from a root, and the token indices it spans.
        bound: Names that macros bind.
        types: Type names used as values.
        called: Functions and methods called, macros and ``has`` left out.
        collects: ``map`` or ``filter`` is used; the library's take time that is quadratic in the list.
        faults: What is not taken, with the column.
    """

    tokens: list[Token] = field(default_factory=list)
    paths: list[tuple[Path, int, int]] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    collects: bool = False
    faults: list[tuple[str, int]] = field(default_factory=list)


def plain_text(token: Token) -> str | None:
    """
    The value of a string token without prefix, escapes or triple quotes; None for any other token.
    """
    text = token.text
    if token.kind != "text" or text[0] not in "'\"" or "\\" in text or text[:3] in ("'''", '"""'):
        return None
    return text[1:-1]


def analyse(source: str, roots: frozenset[str]) -> Analysis:
    """
    Walk *source*, in which the names of *roots* may stand.
    """
    found = Analysis()
    for token in _tokens(source):
        if token.kind == "bad":
            found.faults.append((f"{token.text!r} cannot stand in an expression", token.column))
            return found
        found.tokens.append(token)
    found.tokens.append(Token("end", "", len(source) + 1))
    _Walk(found, roots).run()
    return found


def _tokens(source: str) -> Iterator[Token]:
    at = 0
    while at < len(source):
        match = _token.match(source, at)
        if match is None:
            yield Token("bad", source[at], at + 1)
            return
        kind = match.lastgroup or ""
        if kind != "space":
            yield Token(kind, match[0], at + 1)
        at = match.end()


class _Walk:
    """One pass from left to right, with the brackets that are open and what macro opened them."""

    def __init__(self, found: Analysis, roots: frozenset[str]) -> None:
        self.found = found
        self.tokens = found.tokens
        self.roots = roots
        self.open: list[str] = []  # For each bracket the variable that its macro binds, or nothing.

    def fault(self, what: str, token: Token) -> None:
        self.found.faults.append((what, token.column))

    def run(self) -> None:
        at = 0
        while self.tokens[at].kind != "end":
            at = self.step(at)

    def step(self, at: int) -> int:
        token = self.tokens[at]
        if token.kind == "name" and token.text not in _KEYWORDS:
            return self.member(at) if at and self.tokens[at - 1].text == "." else self.name(at)
        if token.kind != "sign":
            return at + 1
        if token.text in "([{":
            self.open.append("")
            if len(self.open) == _MOST_BRACKETS + 1:
                self.fault(f"brackets are nested deeper than {_MOST_BRACKETS}", token)
        elif token.text in ")]}" and self.open:
            self.open.pop()
        elif token.text == "." and not self.operand(at - 1):
            self.fault("a name cannot begin with a dot", token)
        return at + 1

    def operand(self, at: int) -> bool:
        """Whether the token at *at* ends something that has fields."""
        if at < 0:
            return False
        token = self.tokens[at]
        return token.text in (")", "]", "}") or token.kind == "text" or (token.kind == "name" and token.text != "in")

    def name(self, at: int) -> int:
        token, after = self.tokens[at], self.tokens[at + 1].text
        if after == "(":
            if token.text not in FUNCTIONS:
                self.fault(f"there is no function {token.text}{_meant(token.text, FUNCTIONS)}", token)
            elif token.text != "has":
                self.found.called.add(token.text)
        elif after == "{":
            self.fault("messages are not made here", token)
        elif token.text in self.open:
            pass
        elif token.text in self.roots:
            return self.path(at)
        elif token.text in TYPES:
            self.found.types.add(token.text)
        else:
            known = ", ".join(sorted(self.roots))
            self.fault(f"{token.text} is not known here{_meant(token.text, self.roots)}; there are {known}", token)
        return at + 1

    def path(self, start: int) -> int:
        """Take a root with the fields that are named after it."""
        path = [self.tokens[start].text]
        at = start + 1
        while True:
            sign, (key, after) = self.tokens[at].text, [*self.tokens[at + 1 : at + 3], _END, _END][:2]
            if sign == "." and key.kind == "name" and key.text != "in" and after.text != "(":
                path.append(key.text)
                at += 2
            elif sign == "[" and after.text == "]" and (text := plain_text(key)) is not None:
                path.append(text)
                at += 3
            else:
                break
        self.found.paths.append((tuple(path), start, at))
        return at

    def member(self, at: int) -> int:
        """A field, a method or a macro behind a dot."""
        token, after = self.tokens[at], self.tokens[at + 1].text
        if after != "(":
            return at + 1
        if token.text in MACROS:
            return self.begin_macro(at)
        if token.text not in METHODS:
            self.fault(f"there is no function {token.text}{_meant(token.text, METHODS | MACROS)}", token)
        elif token.text == "matches" and not (
            self.tokens[at + 2].kind in ("text", "raw") and self.tokens[at + 3].text == ")"
        ):
            # A pattern taken from a request could be made costly to compile.
            self.fault("the pattern of matches is written out, as a string", token)
        self.found.called.add(token.text)
        return at + 1

    def begin_macro(self, at: int) -> int:
        token, variable = self.tokens[at], self.tokens[at + 2]
        if variable.kind != "name" or variable.text in _KEYWORDS or self.tokens[at + 3].text != ",":
            self.fault(f"{token.text} is written as list.{token.text}(name, expression)", token)
            return at + 1
        if any(self.open):
            self.fault(f"{token.text} stands inside another macro; macros do not nest", token)
        if variable.text in self.roots or variable.text in TYPES:
            self.fault(f"{variable.text} means something else already; choose another name", variable)
        self.found.bound.add(variable.text)
        self.found.collects |= token.text in ("map", "filter")
        self.open.append(variable.text)
        return at + 4


_END: Final = Token("end", "", 0)


def _meant(name: str, known: frozenset[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
