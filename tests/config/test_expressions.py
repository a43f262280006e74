"""
Expressions: what is refused at load, what is denied at run time, and that nothing passes by accident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import cel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import expressions
from gateway.config.expression_source import FUNCTIONS, MACROS, METHODS, TYPES
from gateway.config.expressions import Denied, Expression, ExpressionError, Reason, check, compile_expression

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "expressions.md"

ROOTS = frozenset(("claims", "path", "query", "header", "request"))

CONTEXT: dict[str, Any] = {
    "claims": {
        "sub": "alice",
        "level": 5,
        "ratio": 0.5,
        "verified": True,
        "banned": False,
        "nothing": None,
        "roles": ["player", "vip"],
        "realm_access": {"roles": ["a", "b"]},
        "https://x/roles": ["admin"],
        "one": 1,
        "big": 2**70,
    },
    "path": {"player_id": "alice", "table_id": "t-1"},
    "header": {"x-game": "poker"},
}


def compiled(source: str) -> Expression:
    return compile_expression(source, ROOTS)


def denied(source: str, context: Mapping[str, Any] = CONTEXT) -> str:
    with pytest.raises(Denied) as caught:
        compiled(source).allows(context)
    return caught.value.reason


@pytest.mark.parametrize(
    "source",
    [
        "path.player_id == claims.sub",
        "claims.sub == 'alice'",
        '"alice" == claims["sub"]',
        "'player' in claims.roles",
        "'admin' in claims['https://x/roles']",
        "'sub' in claims",
        "claims.verified",
        "claims.verified && 'vip' in claims.roles && path.player_id == claims.sub",
        "!claims.banned",
        "claims.level >= 5 && claims.level < 10",
        "claims.level == 5.0",
        "claims.ratio < 1.0",
        "claims.nothing == null",
        "size(claims.roles) == 2",
        "claims.roles[1] == 'vip'",
        "claims.realm_access.roles == ['a', 'b']",
        "claims.roles.exists(role, role.startsWith('v'))",
        "claims.roles.all(role, size(role) > 2)",
        "claims.roles.exists_one(role, role == 'vip')",
        "claims.roles.filter(role, role != 'vip').size() == 1",
        "claims.roles.map(role, role + '!')[0] == 'player!'",
        "claims.roles.filter(r, r == 'vip').exists(r, true)",
        "has(claims.sub) && !has(claims.nope)",
        "claims.sub.matches('^[a-z]+$')",
        "claims.sub.matches(r'^\\w+$')",
        "type(claims.level) == int",
        "string(claims.level) == '5'",
        "header['x-game'] == 'poker'",
        "claims.level > 3 ? true : false",
        "timestamp('2024-01-01T00:00:00Z') < timestamp('2025-01-01T00:00:00Z')",
        "claims.sub == 'alice' // the owner",
        "claims.nope == 'x' || claims.sub == 'alice'",
        "query == {}",
        "{'alice': true}[claims.sub]",
    ],
)
def test_true_is_allowed(source: str) -> None:
    """
    An expression whose result is exactly true allows.
    """
    assert check(source, ROOTS, rule=True) == []
    assert compiled(source).allows(CONTEXT) is True
    assert compiled(source).allows(MappingProxyType(CONTEXT)) is True


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("path.player_id == 'bob'", "false"),
        ("claims.banned", "false"),
        ("'admin' in claims.roles", "false"),
        ("claims.verified && claims.banned", "false"),
        ("claims.nope", "missing"),
        ("claims.nope == 'x'", "missing"),
        ("path.nope == claims.nope", "missing"),
        ("claims.nope.deeper", "missing"),
        ("query.q == 'x'", "missing"),
        ("'x' in claims.nope", "missing"),
        ("claims.roles[7] == 'x'", "missing"),
        ("header[claims.sub] == 'x'", "missing"),
        ("claims.nope == 'x' && claims.sub == 'alice'", "missing"),
        ("has(claims.nope.deeper)", "missing"),
        ("claims.sub", "not_boolean"),
        ("claims.one", "not_boolean"),
        ("claims.nothing", "not_boolean"),
        ("claims.roles", "not_boolean"),
        ("claims.level + 1", "not_boolean"),
        ("claims.verified ? 'yes' : 'no'", "not_boolean"),
        ("claims.sub > 5", "type"),
        ("claims.sub.deeper", "type"),
        ("claims.sub && claims.verified", "type"),
        ("!claims.sub", "type"),
        ("'ali' in claims.sub", "type"),
        ("claims.level.startsWith('5')", "type"),
        ("int(claims.sub) == 1", "type"),
        ("claims.level / 0 == 1", "error"),
        ("claims.level * 9223372036854775807 > 1", "error"),
        ("claims.big == 1180591620717411303424.0", "too_large"),
        ("claims.big > 1", "too_large"),
        ("size(claims) > 1", "too_large"),
    ],
)
def test_anything_but_true_is_denied(source: str, reason: str) -> None:
    """
    False, a missing claim, a type that does not fit and a result that is no boolean are denials with a reason.
    """
    assert denied(source) == reason


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (True, 1), (1, "1"), (0, False), (None, False), ([], ""), ({}, []), ("a", "A"), ("a", ["a"])],
)
def test_values_of_different_types_are_not_equal(left: Any, right: Any) -> None:
    """
    Python's 1 == True does not get through.
    """
    assert denied("claims.left == path.right", {"claims": {"left": left}, "path": {"right": right}}) == "false"
    assert denied("claims.left == path.right && true", {"claims": {"left": left}, "path": {"right": right}}) == "false"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("claims.sub", "alice"),
        ("claims.realm_access.roles", ["a", "b"]),
        ("claims['https://x/roles']", ["admin"]),
        ("claims . sub // note", "alice"),
        ("claims.big", 2**70),
        ("claims.nothing", None),
        ("claims.level + 1", 6),
        ("claims.sub + '/' + path.table_id", "alice/t-1"),
        ("'fixed'", "fixed"),
        ("[claims.sub, 'x']", ["alice", "x"]),
        ("{'user': claims.sub}", {"user": "alice"}),
        ("query", {}),
    ],
)
def test_values_are_found(source: str, value: Any) -> None:
    """
    A bare path gives the value itself, an expression what it evaluates to.
    """
    assert compiled(source).value(CONTEXT) == value


def test_bare_paths_and_roots_are_told() -> None:
    """
    An expression tells the roots it needs, and its path if it is no more than one.
    """
    assert compiled("claims.realm_access.roles").path == ("claims", "realm_access", "roles")
    assert compiled("claims['a b'].c").path == ("claims", "a b", "c")
    assert compiled("claims.sub == path.id").path is None
    assert compiled("claims.roles[0]").path is None
    assert compiled("claims.sub == path.id").roots == {"claims", "path"}
    assert compiled("true").roots == frozenset()


@pytest.mark.parametrize(
    ("source", "column", "what"),
    [
        ("", 1, "empty"),
        ("  ", 1, "empty"),
        ("claims.sub ==", 14, "mismatched input"),
        ("claims.sub = 'x'", 12, "cannot stand"),
        ("claims.sub == 'x", 15, "cannot stand"),
        ("claims.sub; true", 11, "cannot stand"),
        ("claims.`x`", 8, "cannot stand"),
        ("(claims.sub", 12, "missing ')'"),
        ("clams.sub == 'x'", 1, "did you mean claims"),
        ("user.id == 'x'", 1, "there are claims, header, path, query, request"),
        ("claims.sub == x", 15, "x is not known"),
        ("lower(claims.sub) == 'x'", 1, "no function lower"),
        ("now() > claims.exp", 1, "no function now"),
        ("claims.sub.startWith('x')", 12, "did you mean startsWith"),
        ("claims.sub.lowerAscii() == 'x'", 12, "no function lowerAscii"),
        ("claims.sub.matches(path.x)", 12, "written out"),
        ("claims.sub.matches('a' + 'b')", 12, "written out"),
        ("claims.roles.all(a, claims.roles.exists(b, a == b))", 34, "do not nest"),
        ("claims.roles.map(a, [1].map(b, b))", 25, "do not nest"),
        ("claims.roles.exists(claims, true)", 21, "means something else"),
        ("claims.roles.exists(int, true)", 21, "means something else"),
        ("claims.roles.exists(true)", 14, "is written as"),
        ("claims.roles.transformList(i, v, v)", 14, "no function transformList"),
        ("claims.roles.exists(r, true) && r == 'x'", 33, "r is not known"),
        ("optional.of(claims.sub)", 1, "optional is not known"),
        ("cel.bind(x, claims.sub, x)", 1, "cel is not known"),
        ("Role{name: claims.sub}", 1, "messages"),
        (".claims.sub == 'x'", 1, "begin with a dot"),
        ("[" * 33 + "]" * 33, 33, "nested deeper"),
        ("claims.sub == '" + "x" * 2000 + "'", 2001, "at most 2000"),
        ("1 + 'a' == claims.sub", None, "whatever the request"),
        ("claims > 5", None, "whatever the request"),
        ("1 / 0 == 1", None, "whatever the request"),
        ("'a'.matches('(')", None, "whatever the request"),
        ("has(claims['sub'])", 11, "has()"),
        ("claims.sub ==\n== 1", None, "extraneous input"),
    ],
)
def test_faults_are_found_at_load(source: str, column: int | None, what: str) -> None:
    """
    What can be known to be wrong without a request is refused with what was meant, and where.
    """
    with pytest.raises(ExpressionError) as caught:
        compiled(source)
    assert what in caught.value.message
    assert caught.value.column == column
    assert what in check(source, ROOTS)[0]


def test_every_fault_is_listed() -> None:
    """
    All unknown names of an expression are reported at once.
    """
    assert [line.split(":")[0] for line in check("a == b && claims.c.foo()", ROOTS)] == [
        "column 1",
        "column 6",
        "column 20",
    ]


@pytest.mark.parametrize("source", ["'yes'", "1", "claims", "size(claims)", "[true]", "null"])
def test_rules_that_are_no_boolean_are_found_at_load(source: str) -> None:
    """
    A rule whose result is known to be no boolean is refused; as a value it is taken.
    """
    assert "a rule is true or false" in check(source, ROOTS, rule=True)[0]
    assert check(source, ROOTS) == []


def test_every_listed_name_is_known_to_the_library() -> None:
    """
    The standard set is what the library has: each function, method and type can be used.
    """
    calls = {
        "bytes": "bytes('a')",
        "double": "double('1')",
        "duration": "duration('1s')",
        "dyn": "dyn(1)",
        "has": "has({'a': 1}.a)",
        "int": "int('1')",
        "size": "size('a')",
        "string": "string(1)",
        "timestamp": "timestamp('2024-01-01T00:00:00Z')",
        "type": "type(1)",
        "uint": "uint(1)",
    }
    assert set(calls) == FUNCTIONS
    for source in [*calls.values(), *TYPES]:
        assert compiled(source).value({}) is not None
    for method in METHODS:
        source = (
            f"timestamp('2024-01-01T00:00:00Z').{method}()"
            if method.startswith("get")
            else "'a'.size()"
            if method == "size"
            else f"'a'.{method}('a')"
        )
        assert compiled(source).value({}) is not None


@pytest.mark.parametrize(
    "value",
    [
        "x" * (expressions.LONGEST_TEXT + 1),
        b"x" * (expressions.LONGEST_TEXT + 1),
        ["x"] * (expressions.MOST_ITEMS + 1),
        {str(number): 1 for number in range(expressions.MOST_ITEMS + 1)},
        [["x"] * 200] * 200,
        2**63,
        -(2**63) - 1,
    ],
)
def test_what_is_handed_in_is_bounded(value: Any) -> None:
    """
    Long texts, long or many lists and numbers beyond 64 bits are a denial, wherever they stand.
    """
    for claims in ({"x": value}, {"x": [value]}, {"x": {"y": value}}):
        assert denied("claims.x != 'a'", {"claims": claims}) == "too_large"
        assert denied("claims != path", {"claims": claims}) == "too_large"


def test_depth_is_bounded() -> None:
    """
    Lists a thousand deep, at which the library's conversion could exhaust the stack, are a denial.
    """
    value: Any = 1
    for _ in range(1000):
        value = [value]
    assert denied("claims.x != 'a'", {"claims": {"x": value}}) == "too_large"


def test_collecting_macros_take_shorter_lists() -> None:
    """
    The macros map and filter, whose time is quadratic, are given fewer items than the others.
    """
    context = {"claims": {"roles": ["x"] * 200}}
    assert compiled("claims.roles.exists(r, r == 'x')").allows(context)
    assert denied("claims.roles.filter(r, r == 'x').size() == 200", context) == "too_large"


def test_only_what_is_named_is_handed_over() -> None:
    """
    A claim that the expression does not name cannot make it fail.
    """
    context = {"claims": {"sub": "alice", "odd": object(), "long": "x" * 100_000}}
    assert compiled("claims.sub != 'bob'").allows(context)
    assert compiled("has(claims.sub) && !has(claims.other)").allows(context)
    assert denied("claims.odd != 'bob'", context) == "type"
    assert denied("size(claims) > 0", context) == "type"


def test_denials_show_no_values() -> None:
    """
    What a denial says for the log holds names and types, never a claim's value.
    """
    context = {"claims": {"sub": "secret-value", "roles": ["secret-value"]}}
    for source in (
        "claims.sub > 1",
        "int(claims.sub) == 1",
        "claims.sub",
        "claims.sub == 'x'",
        "timestamp(claims.sub) > timestamp(claims.sub)",
        "duration(claims.sub) > duration('1s')",
        "claims.sub.nope",
        "claims.roles.nope == 1",
        "claims.roles.x.y",
    ):
        with pytest.raises(Denied) as caught:
            compiled(source).allows(context)
        assert "secret-value" not in str(caught.value)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.integers(),
        st.floats(),
        st.sampled_from(["a", "b", ""]),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "sub"]), inner, max_size=3)
    ),
    max_leaves=6,
)
contexts = st.fixed_dictionaries(
    {}, optional={"claims": st.dictionaries(st.sampled_from(["a", "b", "sub"]), values), "path": values}
)
terms = st.sampled_from(
    ["claims.a", "claims.b", "claims.sub", "claims", "path", "path.a", "path.a.b", "claims['a']['b']", "'a'", "''", "1"]
)
conditions = st.one_of(
    st.tuples(terms, st.sampled_from(["==", "in", "!=", "<"]), terms).map(" ".join),
    terms,
    terms.map("!{}".format),
    terms.map("{}.exists(x, x == 'a')".format),
    terms.map("size({}) > 0".format),
)
sources = st.lists(conditions, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([" && ", " || "]).map(lambda sign: sign.join(parts))
)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])  # a shared machine is slow by itself
@given(sources, contexts)
def test_allowed_is_what_cel_calls_true(source: str, context: dict[str, Any]) -> None:
    """
    Whatever the short cuts and bounds, an expression allows only what the library alone calls
    true of the same context, and nothing but a denial comes out otherwise.
    """
    try:
        expression = compiled(source)
    except ExpressionError:
        return
    reason = ""
    try:
        expression.allows(context)
    except Denied as error:
        reason = error.reason
    try:
        result = cel.compile(source).execute({"claims": {}, "path": {}, **context})
    except Exception:
        result = None
    if not reason:
        assert result is True
    elif result is True:
        assert reason in ("too_large", "type")


@settings(max_examples=300)
@given(st.text(alphabet="claims.suptrh&|=!<>()[]{}'\"?: ,+-0149inxr\\\n/", max_size=30), contexts)
def test_any_source_is_refused_or_decided(source: str, context: dict[str, Any]) -> None:
    """
    Whatever is written in the configuration, it is refused at load, or allows, or denies.
    """
    try:
        expression = compiled(source)
    except ExpressionError:
        return
    answer: object
    try:
        answer = expression.allows(context)
    except Denied as error:
        answer = error.reason
    assert answer in (True, "missing", "type", "too_large", "error", "not_boolean", "false")


def test_docs_and_code_agree() -> None:
    """
    The page for operators has every name, reason and limit, and its examples can be taken.
    """
    page = DOCS.read_text()
    named = set(re.findall(r"`([A-Za-z_]+)`", page))
    assert named >= FUNCTIONS | METHODS | MACROS | set(get_args(Reason))
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == set(get_args(Reason))
    for limit in ("LONGEST_SOURCE", "LONGEST_TEXT", "MOST_ITEMS", "MOST_ITEMS_COLLECTED", "MOST_VALUES", "DEEPEST"):
        assert re.search(rf"\b{getattr(expressions, limit)}\b", page)
    (examples,) = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert all(check(line, ROOTS, rule=True) == [] for line in examples.splitlines())
