"""
Every promise and every threat names a test that is there.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_test = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")
_row = re.compile(r"^\| (?!-|#|promise |who |what )(.+) \|$", re.MULTILINE)

RELIABILITY = (
    "2",
    "3, 4",
    "5",
    "21, 22",
    "23, 24",
    "25",
    "26",
    "27",
    "28",
    "29",
    "30",
    "31",
    "34",
    "35",
    "36",
    "37",
    "42",
    "44",
    "48",
)
USUAL_PARTS = tuple(f"Z{number}" for number in range(1, 24))


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of one file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / "docs" / name).read_text("utf-8")


@pytest.mark.parametrize("name", ["spec.md", "threat-model.md"])
def test_tests_that_are_named_exist(name: str) -> None:
    """
    A test that a page names is one that runs.
    """
    named = _test.findall(page(name))
    assert len(named) > 60
    assert sorted(f"{path}::{test}" for path, test in named if test not in names_in(path)) == []


def test_every_promise_has_a_place_and_a_test() -> None:
    """
    A promise is a sentence, the modules where it lives, and the tests that prove it.
    """
    for row in _row.findall(page("spec.md")):
        sentence, places, tests = row.split(" | ")
        assert sentence.endswith("."), sentence
        assert re.search(r"`[a-z_/]+\.(py|sh)`", places), sentence
        assert _test.findall(tests), sentence


def test_every_known_threat_has_a_row() -> None:
    """
    What is known to break gateways has a row each, with a test.
    """
    rows = {row.split(" | ")[0]: row for row in _row.findall(page("threat-model.md"))}
    for number in (*RELIABILITY, *USUAL_PARTS):
        assert _test.findall(rows[number]), number
