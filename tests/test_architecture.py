"""
The floors hold: an import points down, never up and never sideways, and what is real stays at the edge.

The source is read, not imported, so an import in a function or under TYPE_CHECKING counts as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "gateway"

BELOW_EDGES = {"core", "ports", "config", "telemetry"}
FLOORS: list[tuple[set[str], set[str]]] = [
    ({"core", "protos", "net"}, set()),
    ({"ports", "config", "telemetry"}, {"core"}),
    ({"node"}, BELOW_EDGES),
    ({"memory", "redis", "spool", "upstream", "auth", "events", "dialects"}, BELOW_EDGES | {"net", "protos"}),
    ({"ws", "web", "console", "api"}, BELOW_EDGES | {"node", "net", "protos"}),
]
"""
Rooms of one floor, and the rooms they may know beside themselves. ``tap``, ``app`` and those beside them put
everything together and may know all. ``protos`` is generated; ``net`` is Twisted with fewer steps
and knows nothing of the gateway.
"""

MAY_IMPORT = {room: below for rooms, below in FLOORS for room in rooms}

TOP = {
    *(
        "tap",
        "app",
        "cli",
        "ctl",
        "routing",
        "browsing",
        "reloading",
        "draining",
        "part",
        "live",
        "storage",
        "supporting",
        "telling",
        "tracing",
        "workers",
    ),
    *("__init__", "__main__"),
}
PURE_LIBRARIES = {"msgspec", "automat", "google"}
"""What core may import beside the standard library."""

PURE_GOOGLE = {"google.protobuf", "google.api", "google.rpc"}
"""Of ``google`` only messages and their descriptors."""

IMPURE = {
    *("asyncio", "multiprocessing", "os", "random", "secrets", "select", "selectors", "shutil", "signal"),
    *("socket", "ssl", "subprocess", "tempfile", "threading", "time", "twisted", "zope"),
}
"""What core must not know: files, sockets, clocks, chance, coroutines."""

HOMES = {
    "autobahn": {"ws"},
    "cel": {"config"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "structlog": {"telemetry"},
    "txredisapi": {"redis"},
    "ua_parser": {"events"},
}
"""Libraries that one room alone knows, so that they can be replaced there."""

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
THE_CLOCK = {"net/reactor.py"}
"""The reactor itself: what everybody else is handed as ``clock``."""

LONGEST_MODULE = 400
LONGER = {"web/channel.py": 520}
"""The state machine of an HTTP/1.1 connection: its states decide about each other and are read together."""
STANDARD = sys.stdlib_module_names

MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
PACKAGES = [
    path.parent
    for path in sorted(SOURCE.rglob("__init__.py"))
    if path.parent.parent.name != "protos" and "protos" not in path.relative_to(SOURCE).parts[:-2]
]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def room_of(path: Path) -> str:
    inside = path.relative_to(SOURCE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module as a dotted name; of ``from a import b`` both ``a`` and ``a.b``."""
    package = ["gateway", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def test_every_room_has_a_floor() -> None:
    """
    Each folder and module of the package is one that the floors name.
    """
    assert {room_of(path) for path in MODULES} <= set(MAY_IMPORT) | TOP


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    """
    A room imports only rooms below it; siblings meet through a port.
    """
    room = room_of(path)
    if room in TOP:
        return
    known = MAY_IMPORT[room] | {room}
    wrong = {
        f"line {line}: {room} must not know {module}"
        for line, module in imports_of(path)
        if module.startswith("gateway.") and module.split(".")[1] not in known
    }
    assert not wrong


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) == "core"], ids=name_of)
def test_core_is_pure(path: Path) -> None:
    """
    Floor 0 knows no file, socket, clock, chance or coroutine, and few libraries.
    """
    wrong = set()
    for line, module in imports_of(path):
        library = module.split(".")[0]
        google = ".".join(module.split(".")[:2])
        if library in IMPURE or (library == "google" and google not in PURE_GOOGLE):
            wrong.add(f"line {line}: {module}")
        elif library not in {"gateway", *PURE_LIBRARIES} and library not in STANDARD:
            wrong.add(f"line {line}: {module} is not in the standard library")
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await)):
            wrong.add(f"line {node.lineno}: a coroutine")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        ):
            wrong.add(f"line {node.lineno}: {node.func.id}()")
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_stay_at_home(path: Path) -> None:
    """
    A library that one room stands for is imported nowhere else.
    """
    wrong = {
        f"line {line}: {module}"
        for line, module in imports_of(path)
        if room_of(path) not in HOMES.get(module.split(".")[0], {room_of(path)})
    }
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_tap_imports_the_reactor(path: Path) -> None:
    """
    Everybody but tap.py is handed the reactor.
    """
    wrong = [line for line, module in imports_of(path) if module == "twisted.internet.reactor"]
    assert name_of(path) == "tap.py" or not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_top_reads_a_clock(path: Path) -> None:
    """
    Nothing below the composition root asks the machine for the time, in any spelling.
    """
    if room_of(path) in ("tap", "app", "cli") or name_of(path) in THE_CLOCK:
        return
    wrong = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            named = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if node.func.attr in CLOCKS.get(named, ()):
                wrong.add(f"line {node.lineno}: {named}.{node.func.attr}()")
        # By another name the call could not be seen.
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            wrong |= {f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in CLOCKS["time"]}
        if isinstance(node, ast.Import):
            wrong |= {
                f"line {node.lineno}: time as {alias.asname}"
                for alias in node.names
                if alias.name == "time" and alias.asname
            }
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_stay_short(path: Path) -> None:
    """
    No module is longer than one can read at a sitting.
    """
    lines = len(path.read_text().splitlines())
    assert lines <= LONGER.get(name_of(path), LONGEST_MODULE)


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_packages_say_what_they_are_for(package: Path) -> None:
    """
    Each package opens with a docstring: what the room is for and what it must not know.
    """
    assert ast.get_docstring(tree_of(package / "__init__.py"))
