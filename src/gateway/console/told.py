"""
What a verb answers: data, which a terminal shows as text and a script takes as JSON.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["Refusal", "Table", "Told"]


class Table(Struct):
    """
    Rows under the names of their columns.

    Attributes:
        title: What they are; empty where there is one table only.
    """

    columns: list[str]
    rows: list[list[Any]]
    title: str = ""


class Told(Struct, omit_defaults=True):
    """
    An answer.

    Attributes:
        facts: By name, in order.
        tables: Bounded in rows.
        notes: Sentences.
        silent: Instances that did not answer in time.
        next: Says where to go on; empty at the end. To be given back as it is.
        again_s: There is more to see after so many seconds, with ``next``; 0: there is not.
    """

    facts: dict[str, Any] = {}
    tables: list[Table] = []
    notes: list[str] = []
    silent: list[str] = []
    next: str = ""
    again_s: float = 0.0


class Refusal(Exception):
    """
    A command was not done; the text says why, to whoever gave it.

    Attributes:
        outcome: A word for the log and the count: ``unknown``, ``usage``, ``denied``, ``failed``.
    """

    def __init__(self, outcome: str, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome
