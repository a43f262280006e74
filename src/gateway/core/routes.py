"""
Which route a request takes: the most specific one, whatever the order they were written in.

The path decides first, segment by segment from the left: a literal beats ``*``, ``*`` beats
``**``. So ``/a/b/*`` is asked before ``/a/*/c``, and ``/a/x/c`` still finds the second: what a
more specific route does not match falls to the next. Then the method: a route that names it
beats one that takes all; GET also answers HEAD, unless a route names HEAD; where the path is
known but no route takes the method the answer is 405 with ``Allow``. CONNECT and TRACE are
never routed.

A path that ends in ``:verb`` is first looked for with that verb. Where templates with verbs
end, an unknown verb is unknown (404) rather than part of an id; everywhere else a colon is data.

Two routes of one shape that take the same method are a conflict; nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote

from gateway.core.path import REFUSALS, Target
from gateway.core.problems import Problem
from gateway.core.route_tree import Conflict, Ends, Entry, Leaf, Match, Node, every, fill, find
from gateway.core.template import REST, STAR, BadTemplate, Template, Wildcard, parse

__all__ = ["BadTemplate", "Conflict", "Entry", "Match", "RouteConflict", "RouteTable"]

T = TypeVar("T")

NEVER_ROUTED: Final = frozenset((b"CONNECT", b"TRACE"))

_reserved_escape = re.compile(r"(%(?:2[1346-9A-CF]|3[ABDF]|40|5[BD]))")


class RouteConflict(ValueError):
    """
    The table is ambiguous.

    Attributes:
        conflicts: Every pair.
    """

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__(
            "; ".join(f"{pair.first.template} and {pair.second.template}: {pair.reason}" for pair in conflicts)
        )
        self.conflicts = tuple(conflicts)


class RouteTable(Generic[T]):
    """
    All routes, compiled.

    Raises:
        BadTemplate: a template cannot be read (the first one), or an entry names CONNECT or TRACE.
        RouteConflict: with every pair of which neither is more specific.
    """

    def __init__(self, entries: Iterable[Entry[T]]) -> None:
        self._root: Node[T] = Node()
        self._static: dict[bytes, Ends[T]] = {}
        self._verbs: set[str] = set()
        self._templates: list[tuple[Entry[T], Template]] = []
        conflicts: list[Conflict] = []
        for entry in entries:
            conflicts += self._add(entry)
        if conflicts:
            raise RouteConflict(conflicts)
        self._answer_head(self._root)

    def match(self, target: Target, method: bytes) -> Match[T]:
        """
        Find the route of *target* for *method*.

        Raises:
            Problem: ``no_route``; ``method_not_allowed`` with ``Allow``; ``bad_path`` when the
                target holds an encoded slash and the route does not take it.
        """
        ends = self._static.get(target.path)
        leaf = ends.pick(method) if ends is not None else None
        segments = target.segments
        if leaf is None:
            verb, colon = "", False
            if self._verbs and b":" in target.path:
                stem, verb, colon = _split_verb(target)
                if verb in self._verbs:
                    leaf = find(self._root, stem, 0, len(stem), method, verb, False)
                    if leaf is not None:
                        segments = stem
            if leaf is None:
                leaf = find(self._root, segments, 0, len(segments), method, "", colon)
        if leaf is None or method in NEVER_ROUTED:
            raise self._refusal(target)
        if target.encoded_slash and not leaf.encoded_slash:
            raise Problem("bad_path", REFUSALS["encoded_slash"], reason="encoded_slash")
        if leaf.fixed is not None:
            return leaf.fixed
        entry = leaf.entry
        if leaf.singles is not None:
            return Match(entry.value, {name: segments[at] for name, at in leaf.singles}, entry.template)
        params = {
            name: segments[start] if single else _several(target, segments, start, stop)
            for name, start, stop, single in leaf.variables
        }
        return Match(entry.value, params, entry.template)

    def allowed(self, target: Target) -> frozenset[bytes]:
        """
        Collect the methods that some route takes on *target*; empty when none has its path.
        """
        stem, verb, colon = _split_verb(target) if self._verbs else (target.segments, "", False)
        methods: set[bytes] = set()
        for ends in every(self._root, target.segments, 0, "", colon):
            methods.update(ends.allowed())
        if verb:
            for ends in every(self._root, stem, 0, verb, False):
                methods.update(ends.allowed())
        return frozenset(methods)

    def nearest(self, target: Target, method: bytes = b"", count: int = 5) -> list[tuple[str, str]]:
        """
        List the templates that come nearest to *target*, best first, each with why it is not the one.

        For ``gateway explain``; costs a pass over all routes.
        """
        ranked = sorted(
            ((_why_not(entry, template, target, method), template.text) for entry, template in self._templates),
            key=lambda row: (-row[0][0], row[1]),
        )
        return [(text, why) for (_, why), text in ranked[:count]]

    def _refusal(self, target: Target) -> Problem:
        methods = self.allowed(target)
        if not methods:
            return Problem("no_route")
        return Problem("method_not_allowed", headers=((b"Allow", b", ".join(sorted(methods))),))

    def _add(self, entry: Entry[T]) -> list[Conflict]:
        if entry.methods & NEVER_ROUTED:
            raise BadTemplate(entry.template, 1, "CONNECT and TRACE are never routed")
        template = parse(entry.template)
        self._templates.append((entry, template))
        node = self._root
        for part in template.parts:
            if isinstance(part, str):
                node = node.literals.setdefault(part, Node())
            elif part is STAR:
                node.star = node = node.star or Node()
        kept = node.rest if template.parts[-1] is REST else node.ends
        ends = kept.setdefault(template.verb, Ends())
        if template.verb:
            self._verbs.add(template.verb)
        path = template.static_path
        if path is not None:
            self._static[path] = ends
        return fill(ends, Leaf(entry, template.variables))

    def _answer_head(self, node: Node[T]) -> None:
        """Let GET answer HEAD, once all entries are in."""
        for ends in (*node.ends.values(), *node.rest.values()):
            if b"GET" in ends.methods:
                ends.methods.setdefault(b"HEAD", ends.methods[b"GET"])
        for child in node.literals.values():
            self._answer_head(child)
        if node.star is not None:
            self._answer_head(node.star)


def _split_verb(target: Target) -> tuple[tuple[str, ...], str, bool]:
    """
    Cut the verb off: the segments without it, the verb, and whether there is a colon at all.

    Looked for in the encoded path, so that ``%3A`` is data.
    """
    stem, colon, verb = target.path[target.path.rindex(b"/") + 1 :].rpartition(b":")
    if not colon:
        return target.segments, "", False
    return (*target.segments[:-1], unquote(stem.decode())), unquote(verb.decode()), True


def _several(target: Target, segments: tuple[str, ...], start: int, stop: int | None) -> str:
    """The value of a variable that may be more than one segment."""
    if b"%" not in target.path:
        return "/".join(segments[start:stop])
    encoded = target.path.decode().split("/")[1:]
    if segments is not target.segments:
        encoded[-1] = encoded[-1].rpartition(":")[0]
    # A capturing split leaves the reserved escapes at the odd places.
    pieces = _reserved_escape.split("/".join(encoded[start:stop]))
    return "".join([piece if place % 2 else unquote(piece) for place, piece in enumerate(pieces)])


def _why_not(entry: Entry[Any], template: Template, target: Target, method: bytes) -> tuple[int, str]:
    """Rank how near *template* comes to *target*, and say in a sentence why it is not the one."""
    segments, verb, _ = _split_verb(target) if template.verb else (target.segments, "", False)
    for place, part in enumerate(template.parts):
        if part is REST:
            break
        if place >= len(segments):
            return place, f"the path ends before segment {place + 1}, {part if isinstance(part, str) else part.text!r}"
        segment = segments[place]
        if isinstance(part, Wildcard):
            if not segment:
                return place, f"segment {place + 1} is empty, and * takes none that is"
        elif part != segment:
            return place, f"segment {place + 1} is {segment!r}, not {part!r}"
    else:
        if len(segments) > len(template.parts):
            return len(template.parts), f"the path goes on after segment {len(template.parts)}"
    near = len(segments) + 1
    if verb != template.verb:
        return (
            near,
            f"the verb is {verb!r}, not {template.verb!r}" if verb else f"the verb {template.verb!r} is missing",
        )
    takes = entry.methods | {b"HEAD"} if b"GET" in entry.methods else entry.methods
    if method and takes and method not in takes:
        return near + 1, f"it takes {b', '.join(sorted(takes)).decode()}, not {method.decode('ascii', 'replace')}"
    return near + 2, "it matches, if no more specific route does"
