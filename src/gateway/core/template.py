"""
The grammar of a route's path (google/api/http.proto), read once when the configuration is.

::

    Template  = "/" Segments [ ":" Verb ]
    Segments  = Segment { "/" Segment }
    Segment   = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
    FieldPath = IDENT { "." IDENT }

``*`` is exactly one segment that is not empty, ``**`` is all that is left, perhaps nothing, and
stands last. ``{x}`` is ``{x=*}``. Beyond the grammar a path may end in ``/``, which is then part
of it, and a literal may hold escapes (``%20``) or the characters themselves (``é``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn
from urllib.parse import unquote

from gateway.core.path import canonical, encode_segment
from gateway.core.problems import Problem

__all__ = ["REST", "STAR", "BadTemplate", "Part", "Template", "Variable", "parse"]

_field_path = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").match
_bad_character = re.compile(r"[\x00-\x20\x7f?#\\;<>\"|^`\[\]]").search


class BadTemplate(ValueError):
    """
    A path that is not in the grammar, or that no request could have.

    Attributes:
        template: The whole of it.
        column: Where, counted from 1.
        what: What is wrong, and what was meant.
    """

    def __init__(self, template: str, column: int, what: str) -> None:
        super().__init__(f"{template!r}, column {column}: {what}")
        self.template = template
        self.column = column
        self.what = what


class Wildcard:
    """``*`` or ``**``; there is one of each."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


STAR: Final = Wildcard("*")
REST: Final = Wildcard("**")

Part = str | Wildcard
"""One segment: a decoded literal, ``STAR`` or ``REST``."""


class Variable(NamedTuple):
    """
    What a template captures.

    Attributes:
        name: The field path, ``player_id`` or ``player.id``.
        start: Index of its first segment.
        stop: Index after its last; None when it takes all that is left.
        single: It is one segment, so its value is decoded wholly.
    """

    name: str
    start: int
    stop: int | None
    single: bool


@dataclass(frozen=True, slots=True)
class Template:
    """
    A path as parsed.

    Attributes:
        text: As written.
        parts: Its segments; ``REST`` only at the end.
        variables: What it captures, in order.
        verb: After the colon, or empty.
    """

    text: str
    parts: tuple[Part, ...]
    variables: tuple[Variable, ...]
    verb: str

    @property
    def static_path(self) -> bytes | None:
        """The one canonical path that it matches, if it has no wildcard."""
        texts = [part for part in self.parts if isinstance(part, str)]
        if len(texts) < len(self.parts):
            return None
        verb = b":" + encode_segment(self.verb) if self.verb else b""
        return b"/" + b"/".join(encode_segment(text) for text in texts) + verb

    @property
    def shape(self) -> str:
        """The path without names: templates of one shape match the same paths."""
        parts = "/".join("\x00" + part.text if isinstance(part, Wildcard) else part for part in self.parts)
        return f"/{parts}:{self.verb}"


def parse(template: str) -> Template:
    """
    Read *template*.

    Raises:
        BadTemplate: at its first fault.
    """
    return _Parser(template).template()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.parts: list[Part] = []
        self.variables: list[Variable] = []

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        raise BadTemplate(self.text, (self.at if at is None else at) + 1, what)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def template(self) -> Template:
        verb = ""
        if self.peek() != "/":
            self.fail("a path begins with /")
        while self.peek() == "/":
            self.at += 1
            if self.parts and self.parts[-1] is REST:
                self.fail("nothing can follow **, which takes all that is left")
            if self.peek() == "{":
                self.variable()
            else:
                verb = self.segment("/{}", verb_allowed=True)
        if self.peek() == ":":
            self.at += 1
            verb = self.literal(self.text[self.at :], self.at)
            self.at = len(self.text)
        if self.at < len(self.text):
            self.fail(f"{self.peek()!r} cannot stand here: a variable or wildcard is a whole segment")
        return Template(self.text, tuple(self.parts), tuple(self.variables), verb)

    def segment(self, ends: str, *, verb_allowed: bool) -> str:
        """Read a literal or wildcard, up to one of *ends*; returns the verb found at its end."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ends:
            self.at += 1
        word = self.text[start : self.at]
        last = self.at == len(self.text)
        verb = ""
        if verb_allowed and last and ":" in word:
            word, _, tail = word.rpartition(":")
            verb = self.literal(tail, start + len(word) + 1)
        if word in ("*", "**"):
            self.parts.append(STAR if word == "*" else REST)
        elif "*" in word:
            self.fail("a wildcard is a whole segment: write {name} or * between slashes", start + word.index("*"))
        elif word == "" and verb_allowed and self.peek() == "}":
            self.fail("'}' cannot stand here: it closes a variable that begins with {")
        elif word == "" and not (verb_allowed and last):
            self.fail("an empty segment never matches: // is merged before", start)
        else:
            self.parts.append(self.literal(word, start) if word else "")
        return verb

    def variable(self) -> None:
        opened = self.at
        self.at += 1
        found = _field_path(self.text, self.at)
        if found is None:
            self.fail("a variable has a name of letters, digits and _, with dots between fields")
        name = found[0]
        self.at = found.end()
        if any(name == known.name for known in self.variables):
            self.fail(f"{name} stands twice", opened + 1)
        start = len(self.parts)
        if self.peek() == "=":
            while True:
                self.at += 1
                if self.parts[start:] and self.parts[-1] is REST:
                    self.fail("nothing can follow **, which takes all that is left")
                if self.peek() == "{":
                    self.fail("a variable cannot hold another")
                self.segment("/{}", verb_allowed=False)
                if self.peek() != "/":
                    break
        else:
            self.parts.append(STAR)
        if self.peek() != "}":
            self.fail("the variable is not closed by }" if not self.peek() else f"{self.peek()!r} cannot stand here")
        self.at += 1
        stop = len(self.parts)
        rest = self.parts[-1] is REST
        self.variables.append(Variable(name, start, None if rest else stop, stop - start == 1 and not rest))

    def literal(self, word: str, start: int) -> str:
        """Decode a literal, and see that a request could have it."""
        if not word:
            self.fail("a verb follows the colon", start)
        bad = _bad_character(word)
        if bad is not None:
            self.fail(f"{bad[0]!r} never stands in a path that is matched", start + bad.start())
        text = unquote(word, errors="surrogateescape")
        try:
            alike = canonical(b"/" + encode_segment(text)).segments == (text,) and "/" not in text
        except (Problem, UnicodeEncodeError):
            alike = False
        if not alike or text in (".", ".."):
            self.fail(f"no request has {word!r} after its path was made canonical", start)
        return text
