"""
What operators are told is what there is: events, metrics, paths, files, and links between pages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.realtime import RealtimeMetrics

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "gateway"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")

_link = re.compile(r"\]\(([^)\s]+)\)")
_heading = re.compile(r"^#+ (.+)$", re.MULTILINE)
_fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_event = re.compile(r"[a-z]+\.[a-z_]+")
_TELLING = {"info", "warning", "error", "report", "audit", "_audit", "_event", "_changed"}
"""Calls whose first argument is an event's name."""


def anchors(page: Path) -> set[str]:
    """The names that links into *page* can have, as GitHub makes them."""
    headings = _heading.findall(_fence.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    """Every link of a page to something in this repository."""
    for page in PAGES:
        for target in _link.findall(_fence.sub("", page.read_text("utf-8"))):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*each, id=f"{each[0].name}:{each[1]}") for each in links()])
def test_links_lead_somewhere(page: Path, target: str) -> None:
    """
    A link between pages names a file that is there, and a heading that is in it.
    """
    name, _, anchor = target.partition("#")
    there = (page.parent / name).resolve() if name else page
    assert there.exists()
    if anchor:
        assert anchor in anchors(there)


def events(source: str) -> Iterator[str]:
    """The events that a module writes."""
    for node in ast.walk(ast.parse(source)):
        names: list[ast.expr] = []
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
            names = node.args[:1] if node.func.attr in _TELLING else []
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
            names = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
        for name in names:
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and _event.fullmatch(name.value):
                yield name.value


def test_every_event_is_explained() -> None:
    """
    The table of log events has each event that is written, and no other.
    """
    written = {event for path in SOURCE.rglob("*.py") for event in events(path.read_text("utf-8"))}
    explained = {
        event
        for line in OPERATIONS.splitlines()
        if line.startswith("| `")
        for event in re.findall(r"`([a-z]+\.[a-z_]+)`", line.split("|")[1])
    }
    assert explained == written


def test_metrics_that_are_named_exist() -> None:
    """
    A metric that a page speaks of is one that ``/metrics`` shows.
    """
    metrics = Metrics()
    RealtimeMetrics(metrics.registry, metrics.auth_failures)
    shown = set(re.findall(r"^# TYPE (\S+?)(?:_total)? ", metrics.render().decode(), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"`((?:gateway|process)_[a-z_]+)[{`=]", page.read_text("utf-8"))
    }
    assert len(named) > 10
    assert {name for name in named if name.removesuffix("_total") not in shown} == set()
