"""
The tree that routes are kept in: one place for each shape of path, and the walk to the best one.

It knows segments, verbs and methods; reading a target and refusing it is ``core.routes``' affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from gateway.core.template import Variable

__all__ = ["Conflict", "Ends", "Entry", "Leaf", "Match", "Node", "every", "fill", "find"]

T = TypeVar("T")

COMMON_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""What ``Allow`` says for a route that takes every method."""

_NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """
    One route.

    Attributes:
        template: Its path, see ``core.template``.
        methods: Upper-case; empty takes every method.
        value: What it leads to.
        position: Where it was written, handed back in a conflict.
        encoded_slash: A variable may hold ``%2F``. Only safe where nothing behind decodes the
            path again, as for a call whose fields are filled from it; else the request is refused.
    """

    template: str
    methods: frozenset[bytes]
    value: T
    position: Any = None
    encoded_slash: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """
    Two routes of which neither is more specific.

    Attributes:
        first: The entry that came first.
        second: The one that collides with it.
        reason: What they share.
    """

    first: Entry[Any]
    second: Entry[Any]
    reason: str


class Match(Generic[T]):
    """
    The route a request takes.

    Attributes:
        value: The entry's value.
        params: Variable to value: decoded wholly where the variable is one segment; where it is
            more, reserved characters stay encoded (``a%2Fb/c``). Not to be changed.
        template: As written: the name for logs and metrics.
    """

    __slots__ = ("params", "template", "value")

    def __init__(self, value: T, params: Mapping[str, str], template: str) -> None:
        self.value = value
        self.params = params
        self.template = template


class Leaf(Generic[T]):
    """An entry in the tree: ``fixed`` is its match without variables, ``singles`` where each is one segment."""

    __slots__ = ("encoded_slash", "entry", "fixed", "singles", "variables")

    def __init__(self, entry: Entry[T], variables: tuple[Variable, ...]) -> None:
        self.entry = entry
        self.variables = variables
        self.encoded_slash = entry.encoded_slash
        singles = tuple((name, start) for name, start, _, single in variables if single)
        self.singles = singles if len(singles) == len(variables) else None
        self.fixed = None if variables else Match(entry.value, _NO_PARAMS, entry.template)


class Ends(Generic[T]):
    """The entries of one shape, by method."""

    __slots__ = ("any", "methods")

    def __init__(self) -> None:
        self.methods: dict[bytes, Leaf[T]] = {}
        self.any: Leaf[T] | None = None

    def pick(self, method: bytes) -> Leaf[T] | None:
        """Find the entry for *method*: one that names it before one that takes all."""
        return self.methods.get(method) or self.any

    def allowed(self) -> Iterable[bytes]:
        """List the methods that some entry takes."""
        return COMMON_METHODS if self.any is not None else self.methods


class Node(Generic[T]):
    """A place in the tree. ``ends`` and ``rest`` are by verb; the empty verb is none."""

    __slots__ = ("ends", "literals", "rest", "star")

    def __init__(self) -> None:
        self.literals: dict[str, Node[T]] = {}
        self.star: Node[T] | None = None
        self.ends: dict[str, Ends[T]] = {}
        self.rest: dict[str, Ends[T]] = {}


def find(
    node: Node[T], segments: tuple[str, ...], at: int, count: int, method: bytes, verb: str, colon: bool
) -> Leaf[T] | None:
    """
    Find the most specific entry below *node*. As deep as the deepest template, however long the path.

    Args:
        colon: The path's last segment holds a colon that was not taken for a verb's: places where
            verbs are known do not take it.
    """
    while at < count:
        segment = segments[at]
        at += 1
        child = node.literals.get(segment)
        star = node.star if segment else None
        if child is None or star is None:
            below = child or star
            if below is None:
                break
            if not node.rest:  # The only way on, so there is nothing to come back for.
                node = below
                continue
            found = find(below, segments, at, count, method, verb, colon)
        else:
            found = find(child, segments, at, count, method, verb, colon)
            if found is None:
                found = find(star, segments, at, count, method, verb, colon)
        return found or _pick(node.rest, method, verb, colon)
    else:
        found = _pick(node.ends, method, verb, colon)
        if found is not None:
            return found
    return _pick(node.rest, method, verb, colon) if node.rest else None


def _pick(kept: dict[str, Ends[T]], method: bytes, verb: str, colon: bool) -> Leaf[T] | None:
    ends = kept.get(verb)
    if ends is None or (colon and len(kept) > 1):
        return None
    return ends.methods.get(method) or ends.any


def every(node: Node[T], segments: tuple[str, ...], at: int, verb: str, colon: bool) -> Iterator[Ends[T]]:
    """
    List every place below *node* that has the path, whatever the method.
    """
    if at == len(segments):
        if verb in node.ends and not (colon and len(node.ends) > 1):
            yield node.ends[verb]
    else:
        child = node.literals.get(segments[at])
        if child is not None:
            yield from every(child, segments, at + 1, verb, colon)
        if node.star is not None and segments[at]:
            yield from every(node.star, segments, at + 1, verb, colon)
    if verb in node.rest and not (colon and len(node.rest) > 1):
        yield node.rest[verb]


def fill(ends: Ends[T], leaf: Leaf[T]) -> list[Conflict]:
    """
    Put *leaf* in; returns its conflicts with what is there already.
    """
    entry = leaf.entry
    if not entry.methods:
        if ends.any is not None:
            return [Conflict(ends.any.entry, entry, "both take every method of the same paths")]
        ends.any = leaf
        return []
    taken: dict[int, tuple[Entry[T], list[bytes]]] = {}
    for method in sorted(entry.methods):
        other = ends.methods.setdefault(method, leaf)
        if other is not leaf:
            taken.setdefault(id(other), (other.entry, []))[1].append(method)
    return [
        Conflict(other, entry, f"both take {b', '.join(methods).decode()} of the same paths")
        for other, methods in taken.values()
    ]
