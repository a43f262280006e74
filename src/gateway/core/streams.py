"""
Positions in a stream, and joining history with live publications without hole or repeat.

After Centrifugo's rules for recovery: never a partial replay. Either everything since the
client's position is there, in order and gapless up to the top, or it is told that it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.core.publications import Position, Publication

__all__ = ["is_recovered", "merge", "until_hole"]


def is_recovered(since: Position, top: Position, publications: Sequence[Publication]) -> bool:
    """
    Whether *publications* are exactly everything after *since* up to *top*.

    False when the epoch is another one, when the position lies beyond the top (the store went
    back in time), or when the first, the last or one in between is missing.
    """
    if since.epoch != top.epoch or since.offset > top.offset:
        return False
    expected = since.offset
    for publication in publications:
        expected += 1
        if publication.offset != expected:
            return False
    return expected == top.offset


def merge(
    history: Sequence[Publication], top: Position, live: Iterable[Publication]
) -> tuple[list[Publication], Position] | None:
    """
    Join what was read (*history*, complete up to *top*) with what came meanwhile (*live*, in order).

    Returns:
        Everything in order without repeats, and the position after it; None if a live one is
        missing between the two, so that the subscriber must begin anew.
    """
    merged, position, whole = until_hole(history, top, live)
    return (merged, position) if whole else None


def until_hole(
    history: Sequence[Publication], top: Position, live: Iterable[Publication]
) -> tuple[list[Publication], Position, bool]:
    """
    The same up to the first one that is missing, with the position there, and whether there was no hole.
    """
    merged = list(history)
    offset = top.offset
    for publication in live:
        if publication.offset <= offset:
            continue
        if publication.offset != offset + 1:
            return merged, Position(offset, top.epoch), False
        merged.append(publication)
        offset = publication.offset
    return merged, Position(offset, top.epoch), True
