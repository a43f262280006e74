"""
Templates and the table of routes: what is read, which route wins, what is refused.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.path import canonical, encode_segment
from gateway.core.problems import Problem
from gateway.core.routes import BadTemplate, Entry, Match, RouteConflict, RouteTable
from gateway.core.template import REST, STAR, Variable, parse


def entry(template: str, *methods: str, encoded_slash: bool = False) -> Entry[str]:
    label = f"{' '.join(methods)} {template}".strip()
    return Entry(template, frozenset(method.encode() for method in methods), label, encoded_slash=encoded_slash)


def asked(table: RouteTable[str], method: str, target: str) -> Match[str]:
    return table.match(canonical(target.encode()), method.encode())


def refused(table: RouteTable[str], method: str, target: str) -> Problem:
    with pytest.raises(Problem) as caught:
        asked(table, method, target)
    return caught.value


@pytest.mark.parametrize(
    ("template", "parts", "variables", "verb"),
    [
        ("/", ("",), (), ""),
        ("/a", ("a",), (), ""),
        ("/a/", ("a", ""), (), ""),
        ("/a/*/b", ("a", STAR, "b"), (), ""),
        ("/**", (REST,), (), ""),
        ("/a/**:go", ("a", REST), (), "go"),
        ("/a:go", ("a",), (), "go"),
        ("/a:b:go", ("a:b",), (), "go"),
        ("/a:b/c", ("a:b", "c"), (), ""),
        ("/{x}", (STAR,), (Variable("x", 0, 1, True),), ""),
        ("/{x=*}:go", (STAR,), (Variable("x", 0, 1, True),), "go"),
        ("/v1/{x.y_1}/{z}", ("v1", STAR, STAR), (Variable("x.y_1", 1, 2, True), Variable("z", 2, 3, True)), ""),
        ("/v1/{x=a/*/b/*}", ("v1", "a", STAR, "b", STAR), (Variable("x", 1, 5, False),), ""),
        ("/v1/{x=a/**}", ("v1", "a", REST), (Variable("x", 1, None, False),), ""),
        ("/v1/{x=**}:go", ("v1", REST), (Variable("x", 1, None, False),), "go"),
        ("/v1/{x=a}", ("v1", "a"), (Variable("x", 1, 2, True),), ""),
        ("/café/%20x", ("café", " x"), (), ""),
    ],
)
def test_templates_are_read(template: str, parts: object, variables: object, verb: str) -> None:
    """
    The grammar of google.api.http, and a slash at the end beyond it.
    """
    read = parse(template)
    assert (read.parts, read.variables, read.verb) == (parts, variables, verb)


@pytest.mark.parametrize(
    ("template", "column", "what"),
    [
        ("", 1, "begins with /"),
        ("a", 1, "begins with /"),
        ("*", 1, "begins with /"),
        ("/a//b", 4, "empty segment"),
        ("/**/a", 5, "nothing can follow"),
        ("/{x=**}/a", 9, "nothing can follow"),
        ("/{x=**/a}", 8, "nothing can follow"),
        ("/a*", 3, "whole segment"),
        ("/a/***", 4, "whole segment"),
        ("/a{x}", 3, "whole segment"),
        ("/{x}b", 5, "whole segment"),
        ("/{x", 4, "not closed"),
        ("/{x=a", 6, "not closed"),
        ("/{x=a{y}}", 6, "cannot stand here"),
        ("/{x={y}}", 5, "cannot hold another"),
        ("/{}", 3, "name"),
        ("/{1x}", 3, "name"),
        ("/{x-y}", 4, "cannot stand here"),
        ("/{x=}", 5, "empty segment"),
        ("/{x}/{x}", 7, "twice"),
        ("/a:", 4, "verb follows"),
        ("/{x}:", 6, "verb follows"),
        ("/a/..", 4, "no request has"),
        ("/./a", 2, "no request has"),
        ("/%2e%2e", 2, "no request has"),
        ("/a%2Fb", 2, "no request has"),
        ("/%00", 2, "no request has"),
        ("/a?b", 3, "never stands"),
        ("/a#b", 3, "never stands"),
        ("/a b", 3, "never stands"),
        ("/a;b", 3, "never stands"),
        ("/a\\b", 3, "never stands"),
        ("/}", 2, "cannot stand here"),
    ],
)
def test_bad_templates_say_where_and_what(template: str, column: int, what: str) -> None:
    """
    What is not in the grammar, or could match no request, is refused with the column.
    """
    with pytest.raises(BadTemplate) as caught:
        RouteTable([entry(template)])
    assert (caught.value.template, caught.value.column) == (template, column)
    assert what in caught.value.what


@given(st.text(alphabet="/*{}=:.a1_%2F;?é ", max_size=12))
def test_any_template_is_read_or_refused(template: str) -> None:
    """
    Whatever is written, it is read or refused with a column inside it.
    """
    column = 1
    try:
        RouteTable([entry(template)])
    except BadTemplate as error:
        column = error.column
    assert 1 <= column <= len(template) + 1


TABLE = RouteTable(
    [
        entry("/", "GET"),
        entry("/health", "GET"),
        entry("/api/**"),
        entry("/api/players", "GET", "POST"),
        entry("/api/players/{id}", "GET", "PUT"),
        entry("/api/players/me", "GET"),
        entry("/api/players/{id}/**"),
        entry("/api/{kind}/new", "POST"),
        entry("/head", "HEAD"),
        entry("/head", "GET"),
        entry("/both", "GET"),
        entry("/both"),
        entry("/a/b/*"),
        entry("/a/*/c"),
        entry("/v1/{name=shelves/*}", "GET", "DELETE"),
        entry("/v1/{name=shelves/*}:publish", "POST"),
        entry("/v1/{name=shelves/*/books/**}:count", "GET"),
        entry("/v1/ids/{id}", "GET"),
        entry("/v1/blobs/{id}", "GET", encoded_slash=True),
        entry("/v1/files/{name=x/**}", "GET", encoded_slash=True),
        entry("/at/@me/café"),
    ]
)


@pytest.mark.parametrize(
    ("method", "target", "label", "params"),
    [
        ("GET", "/", "GET /", {}),
        ("GET", "/health?x", "GET /health", {}),
        ("HEAD", "/health", "GET /health", {}),
        ("HEAD", "/head", "HEAD /head", {}),
        ("GET", "/both", "GET /both", {}),
        ("HEAD", "/both", "GET /both", {}),
        ("POST", "/both", "/both", {}),
        ("BREW", "/both", "/both", {}),
        ("GET", "/api", "/api/**", {}),
        ("GET", "/api/", "/api/**", {}),
        ("GET", "/api/x/y/z", "/api/**", {}),
        ("GET", "/api/players", "GET POST /api/players", {}),
        ("PUT", "/api/players", "/api/**", {}),
        ("GET", "/api/players/", "/api/**", {}),
        ("GET", "/api/players/me", "GET /api/players/me", {}),
        ("PUT", "/api/players/me", "GET PUT /api/players/{id}", {"id": "me"}),
        ("POST", "/api/players/me", "/api/players/{id}/**", {"id": "me"}),
        ("GET", "/api/players/7", "GET PUT /api/players/{id}", {"id": "7"}),
        ("GET", "/api/players/7/", "/api/players/{id}/**", {"id": "7"}),
        ("GET", "/api/players/a%20b%3A", "GET PUT /api/players/{id}", {"id": "a b:"}),
        ("GET", "/api/players/urn:x:y", "GET PUT /api/players/{id}", {"id": "urn:x:y"}),
        ("POST", "/api/players/new", "/api/players/{id}/**", {"id": "new"}),
        ("POST", "/api/tables/new", "POST /api/{kind}/new", {"kind": "tables"}),
        ("GET", "/api/tables/new", "/api/**", {}),
        ("GET", "/a/b/c", "/a/b/*", {}),
        ("GET", "/a/x/c", "/a/*/c", {}),
        ("GET", "/v1/shelves/1", "GET DELETE /v1/{name=shelves/*}", {"name": "shelves/1"}),
        ("POST", "/v1/shelves/1:publish", "POST /v1/{name=shelves/*}:publish", {"name": "shelves/1"}),
        ("GET", "/v1/shelves/1%3Apublish", "GET DELETE /v1/{name=shelves/*}", {"name": "shelves/1%3Apublish"}),
        ("GET", "/v1/shelves/a%20b", "GET DELETE /v1/{name=shelves/*}", {"name": "shelves/a b"}),
        ("GET", "/v1/shelves/1/books:count", "GET /v1/{name=shelves/*/books/**}:count", {"name": "shelves/1/books"}),
        (
            "GET",
            "/v1/shelves/1/books/a/b%20c:count",
            "GET /v1/{name=shelves/*/books/**}:count",
            {"name": "shelves/1/books/a/b c"},
        ),
        ("GET", "/v1/ids/x:publish", "GET /v1/ids/{id}", {"id": "x:publish"}),
        ("GET", "/v1/blobs/a%2Fb", "GET /v1/blobs/{id}", {"id": "a/b"}),
        ("GET", "/v1/files/x/a%2fb/c%20d%26", "GET /v1/files/{name=x/**}", {"name": "x/a%2Fb/c d%26"}),
        ("GET", "/v1/files/x", "GET /v1/files/{name=x/**}", {"name": "x"}),
        ("GET", "/at/%40me/caf%c3%a9", "/at/@me/café", {}),
    ],
)
def test_the_most_specific_route_is_taken(method: str, target: str, label: str, params: dict[str, str]) -> None:
    """
    Literals beat stars from the left, then a named method beats all; values are decoded as stated.
    """
    match = asked(TABLE, method, target)
    assert (match.value, dict(match.params)) == (label, params)
    assert match.template in label


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/health", b"GET, HEAD"),
        ("GET", "/v1/shelves/1:publish", b"POST"),
        ("POST", "/v1/shelves/1", b"DELETE, GET, HEAD"),
        ("TRACE", "/both", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ("CONNECT", "/api/players/7", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    ],
)
def test_known_paths_answer_405_with_allow(method: str, target: str, allow: bytes) -> None:
    """
    A path that routes have, but none with the method, is a 405 that names the methods.
    """
    problem = refused(TABLE, method, target)
    assert (problem.kind.code, problem.headers) == ("method_not_allowed", ((b"Allow", allow),))


@pytest.mark.parametrize(
    "target",
    [
        *("/nope", "/health/", "/Health", "/healt", "/health:x", "/a/b", "/a//", "/v1/shelves", "/v1/shelves/"),
        *("/v1/shelves/1:unknown", "/v1/shelves/1:", "/v1/shelves/:publish", "/v1/ids/", "/head/x"),
    ],
)
def test_unknown_paths_answer_404(target: str) -> None:
    """
    A path no route has is a 404, and so is an unknown verb where verbs are known, and an empty segment for ``*``.
    """
    assert refused(TABLE, "GET", target).kind.code == "no_route"


@pytest.mark.parametrize("target", ["/v1/ids/a%2Fb", "/api/x%2fy", "/api/players/a%2Fb", "/a/b/x%2f"])
def test_encoded_slash_needs_a_route_that_takes_it(target: str) -> None:
    """
    An encoded slash is refused on a route that does not say that it is safe there.
    """
    problem = refused(TABLE, "GET", target)
    assert (problem.kind.code, problem.reason) == ("bad_path", "encoded_slash")


def test_allowed_lists_methods_of_every_route_with_the_path() -> None:
    """
    A preflight is told the methods of all routes that have the path, and of none if there is none.
    """
    table = RouteTable([entry("/a/*", "GET"), entry("/a/b", "PUT"), entry("/a/{x}:go", "POST")])
    assert table.allowed(canonical(b"/a/b")) == {b"GET", b"HEAD", b"PUT"}
    assert table.allowed(canonical(b"/a/b:go")) == {b"POST"}
    assert table.allowed(canonical(b"/b")) == frozenset()


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (("/a", "GET"), ("/a", "GET", "PUT"), "both take GET of"),
        (("/a",), ("/a",), "every method"),
        (("/{x}/b",), ("/*/b",), "every method"),
        (("/{x}", "PUT", "GET"), ("/{y=*}", "GET", "PUT"), "both take GET, PUT of"),
        (("/{x=**}",), ("/**",), "every method"),
        (("/a/{x}:go", "POST"), ("/a/*:go", "POST"), "both take POST of"),
        (("/caf%C3%A9",), ("/café",), "every method"),
        (("/v1/{x=a/*}", "GET"), ("/v1/a/{y}", "GET"), "both take GET of"),
    ],
)
def test_equal_routes_are_a_conflict(first: tuple[str, ...], second: tuple[str, ...], reason: str) -> None:
    """
    Two routes of one shape with a method in common are refused, with both entries.
    """
    entries = [entry(*first), entry("/other"), entry(*second)]
    with pytest.raises(RouteConflict) as caught:
        RouteTable(entries)
    (conflict,) = caught.value.conflicts
    assert (conflict.first, conflict.second) == (entries[0], entries[2])
    assert reason in conflict.reason


def test_every_conflict_is_reported() -> None:
    """
    All conflicting pairs are named at once.
    """
    with pytest.raises(RouteConflict) as caught:
        RouteTable([entry("/a"), entry("/a"), entry("/b", "GET"), entry("/b", "PUT"), entry("/b", "GET", "PUT")])
    assert [(pair.first.value, pair.second.value) for pair in caught.value.conflicts] == [
        ("/a", "/a"),
        ("GET /b", "GET PUT /b"),
        ("PUT /b", "GET PUT /b"),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("/a", "GET"), ("/a", "PUT")),
        (("/a", "GET"), ("/a",)),
        (("/a", "GET"), ("/a", "HEAD")),
        (("/a/*/c",), ("/a/b/*",)),
        (("/a/*",), ("/a/**",)),
        (("/a",), ("/a/",)),
        (("/a",), ("/a:go",)),
        (("/a/%2A",), ("/a/*",)),
    ],
)
def test_different_routes_are_no_conflict(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """
    Routes of which one is more specific, or that share no method, stand side by side.
    """
    RouteTable([entry(*first), entry(*second)])


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_connect_and_trace_cannot_be_routed(method: str) -> None:
    """
    A route that names CONNECT or TRACE is refused at load.
    """
    with pytest.raises(BadTemplate, match="never routed"):
        RouteTable([entry("/a", method)])


def test_nearest_tells_why_not() -> None:
    """
    The templates that come nearest are listed first, each with the reason it is not the one.
    """
    table = RouteTable(
        [
            entry("/a/b/c", "GET"),
            entry("/a/{x}/d"),
            entry("/z"),
            entry("/a/b"),
            entry("/a/b/{x}:go"),
            entry("/a/b/c/e"),
            entry("/a/**", "PUT"),
        ]
    )
    found = dict(table.nearest(canonical(b"/a/b/c"), b"POST", count=10))
    assert found == {
        "/a/b/c": "it takes GET, HEAD, not POST",
        "/a/**": "it takes PUT, not POST",
        "/a/b/{x}:go": "the verb 'go' is missing",
        "/a/b/c/e": "the path ends before segment 4, 'e'",
        "/a/{x}/d": "segment 3 is 'c', not 'd'",
        "/a/b": "the path goes on after segment 2",
        "/z": "segment 1 is 'a', not 'z'",
    }
    assert next(iter(found)) in ("/a/b/c", "/a/**")
    assert len(table.nearest(canonical(b"/a/b/c"), count=2)) == 2
    assert table.nearest(canonical(b"/z"))[0] == ("/z", "it matches, if no more specific route does")


words = st.sampled_from(["a", "b", "c"])
templates = st.tuples(st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=4), st.booleans()).map(
    lambda made: "/" + "/".join(made[0] + ["**"] * made[1])
)
entries_made = st.lists(st.tuples(templates, st.sampled_from(["", "GET", "PUT"])), min_size=1, max_size=12, unique=True)


@settings(max_examples=300)
@given(entries_made, st.lists(words, max_size=5), st.sampled_from(["GET", "PUT", "HEAD"]))
def test_matches_as_the_rule_says(made: list[tuple[str, str]], path: list[str], method: str) -> None:
    """
    The tree finds what a plain search finds: among all that match, the smallest from the left by
    literal, star, rest, and then the one that names the method.
    """
    table = RouteTable([entry(template, *filter(None, [name])) for template, name in made])
    target = "/" + "/".join(path)

    def rank(route: tuple[str, str]) -> tuple[list[int], bool]:
        return [{"*": 1, "**": 2}.get(part, 0) for part in route[0].split("/")[1:]], not route[1]

    def takes(route: tuple[str, str]) -> bool:
        pattern = "".join({"*": "/[^/]+", "**": "(?:/.*)?"}.get(part, "/" + part) for part in route[0].split("/")[1:])
        return re.fullmatch(pattern, target) is not None

    by_path = [route for route in made if takes(route)]
    fitting = [route for route in by_path if route[1] in ("", method) or (method == "HEAD" and route[1] == "GET")]
    if fitting:
        template, name = min(fitting, key=rank)
        assert asked(table, method, target).value == f"{name} {template}".strip()
    else:
        expected = "method_not_allowed" if by_path else "no_route"
        assert refused(table, method, target).kind.code == expected


@given(st.text(min_size=1, max_size=20))
def test_values_come_out_as_they_were_meant(text: str) -> None:
    """
    A variable of one segment is exactly the text that a client encoded, whatever its signs.
    """
    table = RouteTable([entry("/x/{value}/y", encoded_slash=True)])
    try:
        target = canonical(b"/x/" + encode_segment(text) + b"/y")
    except (Problem, UnicodeEncodeError):
        return
    assert table.match(target, b"GET").params == {"value": text}
