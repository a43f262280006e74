"""
An answer as text.

What clients said of themselves stands in it, so nothing that could steer a terminal gets through.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from gateway.console.told import Table, Told

__all__ = ["lines", "plain"]

WIDEST: Final = 60
"""Signs of a cell; longer ones are cut and marked."""

WIDEST_LAST: Final = 200

_TIMES: Final = frozenset(("at", "session_began", "seen"))


def lines(told: Told, *, on: bool = False) -> list[str]:
    """
    Lay out *told*.

    Args:
        on: It goes on with a table whose columns were named before.
    """
    found: list[str] = []
    if told.facts:
        width = max(map(len, told.facts))
        found += [f"{name:{width}}  {_cell(name, value, WIDEST * 4)}" for name, value in told.facts.items()]
    for table in told.tables:
        if found:
            found.append("")
        found += _table(table)[1 if on and not table.title else 0 :]
    found += [plain(note) for note in told.notes]
    if told.silent:
        found.append(f"no answer from: {', '.join(map(plain, told.silent))}")
    return found


def _table(table: Table) -> list[str]:
    most = [*[WIDEST] * (len(table.columns) - 1), WIDEST_LAST]
    rows = [list(map(_cell, table.columns, row, most)) for row in table.rows]
    widths = [
        max(len(name), *(len(row[index]) for row in rows)) if rows else len(name)
        for index, name in enumerate(table.columns)
    ]
    found = [table.title.upper()] if table.title else []
    found += [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (table.columns, *rows)
    ]
    if not rows:
        found.append("none")
    return found


def _cell(name: str, value: Any, most: int) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _TIMES and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%H:%M:%S.%f")[:-3] if name == "at" else _moment(value)
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        value = ", ".join(str(each) for each in value)
    elif isinstance(value, dict):
        value = ", ".join(f"{key}: {each}" for key, each in value.items()) or "-"
    text = plain(str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def plain(text: str) -> str:
    """
    Write *text* so that a terminal shows it, whatever is in it.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
