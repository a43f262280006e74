"""
Where keys stand, held against ``tomllib``: the same keys, and each position is one.
"""

import string
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.faults import KeyPath
from gateway.config.positions import scan

BARE = ["a", "b", "route", "x-y", "1", "_"]
QUOTED = ['"a"', "'b'", '"c d"', "'e.f'", '""', '"g\\"h"', '"\\u00e9"', '"é]"', "'#'", "'[x]'"]
BLANKS = ["", " ", "\t", "  "]
COMMENTS = ["", "# plain", '# "quote', "# [table] a = 1", "# '''"]

blank = st.sampled_from(BLANKS)
keys = st.sampled_from(BARE + QUOTED)
dotted_keys = st.lists(keys, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".", " . ", "\t."]).map(lambda dot: dot.join(parts))
)
scalars = st.sampled_from(
    [
        *("1", "-2", "0x1F", "1_000", "3.5", "1e6", "inf", "nan", "true", "false"),
        *("1979-05-27", "07:32:00", "1979-05-27 07:32:00", "1979-05-27T07:32:00.5Z"),
        *('""', '"plain"', '"a # b"', '"a \\" ] } , b"', '"\\\\"', "''", "'a \\'", "'] } , #'", '"= [x]"'),
        *('""""""', '"""a\nb = 1\n[t]\n"""', '"""a "" b"""', '"""a\\"""b"""', '"""a""""', '"""a"""""'),
        *('"""\n  a \\\n  b"""', '"""\\\\"""', "''''''", "'''a\n[t]\n'''", "'''a''''", "'''a'' \\'''''"),
    ]
)


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    between = st.sampled_from([",", " , ", ",\n", "\n, # it's ]\n", ",\r\n\t"])
    ends = st.sampled_from(["", " ", "\n", " # ]\n", ",\n"])
    return st.builds(
        lambda items, comma, end: "[" + (comma.join(items) + end if items else "") + "]",
        st.lists(values, max_size=3),
        between,
        ends,
    )


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds(lambda key, space, value: f"{key}{space}={space}{value}", dotted_keys, blank, values)
    return st.builds(lambda items, space: f"{{{space}{', '.join(items)}{space}}}", st.lists(pairs, max_size=3), blank)


values = st.recursive(scalars, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)
ends = st.builds(
    lambda space, comment, end: space + comment + end, blank, st.sampled_from(COMMENTS), st.sampled_from(["\n", "\r\n"])
)
pairs = st.builds(
    lambda indent, key, space, value, end: f"{indent}{key}{space}={space}{value}{end}",
    blank,
    dotted_keys,
    blank,
    values,
    ends,
)
tables = st.builds(
    lambda indent, key, space, end: f"{indent}[{space}{key}{space}]{end}", blank, dotted_keys, blank, ends
)
table_arrays = st.builds(
    lambda indent, key, space, end: f"{indent}[[{space}{key}{space}]]{end}", blank, dotted_keys, blank, ends
)
statements = st.lists(pairs | tables | table_arrays | ends, max_size=12)


def accepted(parts: list[str]) -> str:
    """Join the statements that ``tomllib`` takes, leaving out those that contradict earlier ones."""
    text = ""
    for part in parts:
        try:
            tomllib.loads(text + part)
        except tomllib.TOMLDecodeError:
            continue
        text += part
    return text


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, (*path, index))


def key_at(text: str, offset: int) -> str:
    """Read the one key that begins at *offset*, by ``tomllib``."""
    rest = text[offset:]
    if rest[0] not in "\"'":
        return rest[
            : next(i for i, sign in enumerate(rest + " ") if sign not in string.ascii_letters + string.digits + "_-")
        ]
    for end in range(2, len(rest) + 1):
        try:
            (key,) = tomllib.loads(f"{rest[:end]} = 1")
        except tomllib.TOMLDecodeError:
            continue
        return str(key)
    raise AssertionError(rest)


@settings(max_examples=300, deadline=None)
@given(statements)
def test_scan_finds_exactly_the_keys_that_tomllib_finds(parts: list[str]) -> None:
    """
    Every key path of a text has a position, nothing else has one, and at a key's position it stands.
    """
    text = accepted(parts)
    raw = tomllib.loads(text)
    positions = scan(text)
    assert set(positions.offsets) == set(paths_of(raw))
    for path, offset in positions.offsets.items():
        if isinstance(path[-1], str):
            assert key_at(text, offset) == path[-1]
        line, column = positions.of(path)
        assert text.split("\n")[line - 1][column - 1] == text[offset]


@settings(max_examples=100, deadline=None)
@given(st.lists(values, max_size=4))
def test_an_element_of_an_array_is_where_its_value_begins(items: list[str]) -> None:
    """
    The text from one element's position to the next is that element.
    """
    text = "a = [ " + ", ".join(items) + " ]"
    try:
        expected = tomllib.loads(text)["a"]
    except tomllib.TOMLDecodeError:  # An inline table that names a key twice.
        return
    positions = scan(text)
    at = len("a = [ ")
    for index, item in enumerate(items):
        assert positions.offsets["a", index] == at
        at += len(item) + 2
    assert len(expected) == len(items)


def test_a_table_is_where_its_own_header_is() -> None:
    """
    ``[a]`` after ``[a.b]`` is where ``a`` stands; without it, its first mention.
    """
    positions = scan("[a.b]\nx = 1\n[a]\ny = 2\n[c.d]\n")
    assert positions.of(("a",)) == (3, 2)
    assert positions.of(("a", "b")) == (1, 4)
    assert positions.of(("a", "b", "x")) == (2, 1)
    assert positions.of(("c",)) == (5, 2)


def test_elements_of_table_arrays_are_counted_within_their_table() -> None:
    """
    Tables below an element of an array belong to the latest one.
    """
    positions = scan("[[a]]\n[[a.b]]\n[[a]]\nk = 1\n[[a.b]]\n[[a.b]]\n[a.c]\n")
    assert positions.of(("a",)) == (1, 3)
    assert positions.of(("a", 1)) == (3, 3)
    assert positions.of(("a", 1, "k")) == (4, 1)
    assert positions.of(("a", 0, "b", 0)) == (2, 5)
    assert positions.of(("a", 1, "b", 1)) == (6, 5)
    assert positions.of(("a", 1, "c")) == (7, 4)


def test_what_is_missing_is_where_the_table_around_it_is() -> None:
    """
    A key that should be there but is not has the position of its table; the top has line 1.
    """
    positions = scan("\n[[a]]\nb = 1\n")
    assert positions.of(("a", 0, "missing", "deep")) == (2, 3)
    assert positions.of(("missing",)) == (1, 1)
