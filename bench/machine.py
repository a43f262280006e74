"""
The machine: which cores are used for what, and what processes spend on them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout", "cpu_s", "layout", "resident_bytes", "tree"]

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Layout:
    """
    Attributes:
        measured: The core of whatever is measured, one at a time.
        load: The core of the load and of the backend.
    """

    measured: int
    load: int

    def __str__(self) -> str:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
        return f"measured on core {self.measured}, load and backend on core {self.load}, of {os.cpu_count()} x {model}"


def layout(cores: str | None) -> Layout:
    """
    Choose two cores: *cores* as ``2,3`` (measured, load), or the last two that this process may use.

    Raises:
        SystemExit: there are not two.
    """
    usable = sorted(os.sched_getaffinity(0))
    wanted = [int(core) for core in cores.split(",")] if cores else usable[-2:]
    if len(wanted) != 2 or wanted[0] == wanted[1] or not set(wanted) <= set(usable):
        raise SystemExit(f"bench: two cores of {usable} are needed, as --cores {usable[0]},{usable[-1]}; got {wanted}")
    return Layout(*wanted)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue


def tree(pid: int) -> list[int]:
    """
    Return *pid* and all that descend from it.
    """
    parents = dict(_parents())
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def cpu_s(pids: list[int]) -> float:
    """
    Return the seconds that the threads of *pids* have run, user and system, to the nanosecond.
    """
    spent = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def resident_bytes(pids: list[int]) -> int:
    """
    Return the resident memory of *pids*.
    """
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in pids)
