"""
What operators are told is what there is: events, metrics, paths, files, and links between pages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.access import AccessLine
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.realtime import RealtimeMetrics

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "gateway"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LOGS = (ROOT / "docs" / "logs.md").read_text("utf-8")

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


def events(source: str) -> Iterator[tuple[str, set[str]]]:
    """The events that a module writes, with the fields that stand beside their names."""
    for node in ast.walk(ast.parse(source)):
        names: list[ast.expr] = []
        fields: set[str] = set()
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
            names = node.args[:1] if node.func.attr in _TELLING else []
            keys = [key for given in node.args[1:] if isinstance(given, ast.Dict) for key in given.keys]
            fields = {word.arg for word in node.keywords if word.arg is not None}
            fields |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
            names = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
        for name in names:
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and _event.fullmatch(name.value):
                yield name.value, fields


def test_every_event_is_explained() -> None:
    """
    The table of log events has each event that is written with its fields, and no other event.
    """
    explained: dict[str, set[str]] = {}
    for line in LOGS.splitlines():
        if line.startswith("| `"):
            names, fields = line.split("|")[1:3]
            known = set(re.findall(r"`(\w+)`", fields))
            explained.update(dict.fromkeys(re.findall(r"`([a-z]+\.[a-z_]+)`", names), known))
    written: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for event, some in events(path.read_text("utf-8")):
            written.setdefault(event, set()).update(some)
    assert explained.keys() == written.keys()
    assert {event: some - explained[event] for event, some in written.items() if some - explained[event]} == {}


def test_every_field_of_a_request_is_explained() -> None:
    """
    The table of an access line's fields has each of them, and no other.
    """
    table = LOGS.partition("## Requests")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(AccessLine.__struct_fields__)


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
