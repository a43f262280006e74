"""
What is imported is declared: a clean clone installs all that it needs.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OURS = {"gateway", "demo", "tests", "bench"}


def needed(requirements: list[str]) -> set[str]:
    """The distributions that *requirements* bring, those that they need included."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    looked: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in looked:
            continue
        looked.add(key)
        found.add(name)
        try:
            texts = requires(name) or []
        except PackageNotFoundError:
            continue
        for text in texts:
            inner = Requirement(text)
            extras = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    return found


def imported(folder: Path) -> Iterator[str]:
    """Every module that a file below *folder* imports."""
    for path in folder.rglob("*.py"):
        if path.stem.endswith(("_pb2", "_pb2_grpc")) or "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


@pytest.mark.parametrize(
    ("folder", "extras"), [("src", ()), ("demo", ("dev",)), ("tests", ("dev",)), ("bench", ("dev",))]
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    """
    Each library that is imported comes with the project's requirements; the package does without those for development.
    """
    declared = list(PROJECT["dependencies"])
    for extra in extras:
        declared += PROJECT["optional-dependencies"][extra]
    brought = needed(declared)
    distributions = packages_distributions()
    missing = set()
    for module in set(imported(ROOT / folder)):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in OURS or top not in distributions:
            continue
        if top == "google":
            continue  # A namespace of many distributions: protobuf and googleapis-common-protos, both declared.
        if not {canonicalize_name(name) for name in distributions[top]} & brought:
            missing.add(module)
    assert missing == set()


def test_what_is_tested_is_pinned() -> None:
    """
    Every declared requirement has its exact version in the constraints.
    """
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    names = {canonicalize_name(Requirement(text).name) for text in declared}
    assert names - pinned - {"setuptools"} == set()
