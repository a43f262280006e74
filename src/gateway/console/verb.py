"""
A verb: its name, who may use it, what it takes, and what it does.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.config.console_users import ROLES, Role
from gateway.config.units import parse_duration
from gateway.config.walk import suggest
from gateway.console.told import Refusal, Told
from gateway.node.realtime import RealtimeNode
from gateway.ports.identity import Revocations
from gateway.ports.sessions import EventOutbox, SessionStore

__all__ = ["MOST_LINE", "Asked", "Face", "Param", "Verb", "may", "split"]

MOST_LINE: Final = 1000
"""Signs of a command."""


@dataclass(frozen=True, slots=True)
class Face:
    """
    What verbs ask: the node, which stands for all instances, and what is the same for all.
    """

    node: RealtimeNode
    revocations: Revocations
    outbox: EventOutbox
    sessions: SessionStore


@dataclass(frozen=True, slots=True)
class Param:
    """
    One argument.

    Attributes:
        kind: How it is written; ``duration`` becomes seconds, ``number`` a whole number from 1 to 100.
        default: What it is without it; None: it must be there.
        names: What it names (``node.support_acts.Names``), for completion.
    """

    name: str
    doc: str
    kind: Literal["text", "duration", "number"] = "text"
    default: Any = None
    choices: tuple[str, ...] = ()
    names: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A verb's arguments, by name, and where to go on.
    """

    values: Mapping[str, Any]
    next: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(frozen=True, slots=True)
class Verb:
    """
    One verb.

    Attributes:
        role: The least role that may use it.
        help: What it does, in a sentence.
        does: Answers, from what is asked.
        more: A page about it, beyond the sentence.
    """

    name: str
    role: Role
    help: str
    does: Callable[[Face, Asked], Coroutine[Any, Any, Told]]
    params: tuple[Param, ...] = ()
    more: str = ""

    @property
    def usage(self) -> str:
        """How it is written: ``kick USER [REASON]``."""
        words = [p.name.upper() if p.default is None else f"[{p.name.upper()}]" for p in self.params]
        return " ".join([self.name, *words])

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """
        Take *words* as its arguments.

        Raises:
            Refusal: ``usage``.
        """
        if len(words) > len(self.params):
            raise Refusal("usage", f"usage: {self.usage}")
        values: dict[str, Any] = {}
        for index, param in enumerate(self.params):
            if index < len(words):
                values[param.name] = _value(param, words[index])
            elif param.default is None:
                raise Refusal("usage", f"{param.name} is missing; usage: {self.usage}")
            else:
                values[param.name] = param.default
        return values


def _value(param: Param, word: str) -> Any:
    if param.choices and word not in param.choices:
        raise Refusal("usage", f"{param.name}: there is no {word!r}{suggest(word, param.choices)}")
    if param.kind == "duration":
        try:
            return parse_duration(word)
        except ValueError as error:
            raise Refusal("usage", f"{param.name}: {word!r}: {error}") from None
    if param.kind == "number":
        if not word.isdecimal() or not 1 <= int(word) <= 100:
            raise Refusal("usage", f"{param.name}: a whole number from 1 to 100")
        return int(word)
    return word


def may(role: str, least: Role) -> bool:
    """
    Whether somebody of *role* may do what *least* may.
    """
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)


def split(line: str) -> list[str]:
    """
    Cut a line into words as a shell does.

    Raises:
        Refusal: ``usage``: it is too long, or a quote is open.
    """
    if len(line) > MOST_LINE:
        raise Refusal("usage", f"at most {MOST_LINE} signs")
    try:
        return shlex.split(line)
    except ValueError as error:
        raise Refusal("usage", str(error).lower()) from None
