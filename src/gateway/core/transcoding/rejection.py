"""
What is wrong with a request, field by field, in words that name nothing of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from gateway.core.problems import Problem

__all__ = [
    "MOST_VIOLATIONS",
    "Findings",
    "Key",
    "Place",
    "Rejected",
    "Source",
    "Unfit",
    "UnknownName",
    "Violation",
    "render",
    "shorten",
]

Source = Literal["body", "query", "path", "gateway"]
"""Where a value came from. ``gateway`` is what ``set`` computes: never the client's fault alone."""

Place = tuple["Place | None", "str | int | Key"]
"""Where one is within a value: the place outside, then a member's name, an index or a map's key."""

MOST_VIOLATIONS: Final = 20
DEEPEST_MESSAGE: Final = 99
"""Messages within each other, the outermost not counted: the default of C++, Java and upb is 100 in all."""

_LONGEST_NAME: Final = 80
_LONGEST_PATH: Final = 400


class Key(str):
    """A key of a map or Struct, which is shown in brackets."""

    __slots__ = ()


class Unfit(ValueError):
    """A value does not fit its field. The text is told to the caller."""


class UnknownName(Unfit):
    """The name of no value of an enum; skipped where unknown fields are."""


@dataclass(frozen=True, slots=True)
class Violation:
    """
    One fault.

    Attributes:
        path: As the client wrote it: ``seats[2].playerId``, ``labels["a"]``; a parameter's or path
            variable's name; empty for a body as a whole.
        message: What is wrong, or what is expected.
        source: Which part of the request it is about.
    """

    path: str
    message: str
    source: Source = "body"


class Rejected(Problem):
    """
    A request that does not make a message: 400 with ``errors``, one for each fault.

    Attributes:
        violations: At least one, at most ``MOST_VIOLATIONS``.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        first = violations[0]
        super().__init__(
            "message_invalid",
            f"{first.path}: {first.message}" if first.path else f"The {first.source} {first.message}",
            extra={
                "errors": [
                    {"in": violation.source, "path": violation.path, "message": violation.message}
                    for violation in violations
                ]
            },
        )
        self.violations = tuple(violations)


class Findings:
    """
    The faults of one request as they are found, and how deep one is.

    Attributes:
        source: What is being read.
        depth: Messages around the one that is being filled, counted as on the wire.
    """

    __slots__ = ("depth", "found", "source")

    def __init__(self, source: Source = "body") -> None:
        self.source: Source = source
        self.depth = 0
        self.found: list[Violation] = []

    def add(self, place: Place | str | None, message: str) -> None:
        """
        Note a fault.

        Raises:
            Rejected: when there are as many as are told.
        """
        path = place if isinstance(place, str) else render(place)
        self.found.append(Violation(path, message, self.source))
        if len(self.found) >= MOST_VIOLATIONS:
            raise Rejected(self.found)

    def enter(self, place: Place | None, levels: int) -> None:
        """
        Go *levels* messages deeper; the caller takes them off ``depth`` when it comes back.

        Raises:
            Rejected: so deep that other implementations of protobuf would not read the message.
        """
        self.depth += levels
        if self.depth > DEEPEST_MESSAGE:
            self.refuse(place, "is nested too deep for a message")

    def refuse(self, place: Place | str | None, message: str) -> NoReturn:
        """Note a fault that makes it pointless to go on."""
        self.add(place, message)
        raise Rejected(self.found)

    def close(self) -> None:
        """
        End the reading.

        Raises:
            Rejected: when something was found.
        """
        if self.found:
            raise Rejected(self.found)


def render(place: Place | None) -> str:
    """
    Write *place* as a path. Names from the client are shortened.
    """
    parts: list[str] = []
    while place is not None:
        place, step = place
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif isinstance(step, Key):
            parts.append(f'["{shorten(step)}"]')
        else:
            parts.append(f".{shorten(step)}")
    path = "".join(reversed(parts)).removeprefix(".")
    return path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "…"


def shorten(name: str) -> str:
    """
    Make a client's *name* fit for an answer: bounded, printable.
    """
    if len(name) > _LONGEST_NAME:
        name = name[:_LONGEST_NAME] + "…"
    return name if name.isprintable() else "".join(sign if sign.isprintable() else "�" for sign in name)
