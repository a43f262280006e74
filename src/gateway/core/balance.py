"""
Which target a request goes to.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol, TypeVar

__all__ = ["Loaded", "candidates", "least_requests", "round_robin"]


class Loaded(Protocol):
    """
    Something with requests under way.
    """

    in_flight: int


T = TypeVar("T")
L = TypeVar("L", bound=Loaded)


def candidates(targets: Sequence[T], is_out: Callable[[T], bool], tried: Container[T] = ()) -> Sequence[T]:
    """
    List the targets to choose from; empty only if *targets* is.

    Those that are out are left out, unless all are: a wrong verdict about every target must not
    be worse than the fault. Of the rest, those *tried* before are left out, unless all were.
    """
    usable = [target for target in targets if not is_out(target)] or targets
    return [target for target in usable if target not in tried] or usable


def least_requests(targets: Sequence[L], random: Callable[[], float]) -> L:
    """
    Of two different targets drawn by chance, take the one with fewer requests under way.

    Nearly as even as asking all, and it does not send everybody to the one that just became free
    (Mitzenmacher, "The power of two choices in randomized load balancing").
    """
    count = len(targets)
    if count == 1:
        return targets[0]
    first = int(random() * count)
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    one, other = targets[first], targets[second]
    return one if one.in_flight <= other.in_flight else other


def round_robin(targets: Sequence[T], turn: int) -> T:
    """
    Take them in turn; the caller counts the turns.
    """
    return targets[turn % len(targets)]
