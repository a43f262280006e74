"""
Known holes in what the gateway stands on, and a list of all of it: ``make audit``.

Every version in ``constraints.txt`` is looked up with PyPI's advisories, then, where those cannot be had, with OSV's. The exit
code is 1 if a hole is known, and only then: who cannot reach either is told that nothing was judged. The list (CycloneDX)
is made either way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")


def judge(report: dict[str, Any]) -> tuple[int, list[str]]:
    """
    Read a report of pip-audit: how many packages were judged, and a line for each hole.
    """
    judged, holes = 0, []
    for package in report.get("dependencies", []):
        if "skip_reason" in package:
            continue
        judged += 1
        for hole in package.get("vulns", []):
            fixed = ", ".join(hole.get("fix_versions", [])) or "no release"
            holes.append(f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}")
    return judged, holes


def look_up(tool: str, constraints: str, service: str) -> dict[str, Any]:
    """
    Ask one service about everything; an empty report if it cannot be asked.
    """
    command = [tool, "--requirement", constraints, "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--vulnerability-service", service, "--progress-spinner", "off", "--desc", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return report


def main(tools: str, constraints: str, python: str, bill: str) -> int:
    """
    Audit, and write the bill of materials.
    """
    Path(bill).parent.mkdir(parents=True, exist_ok=True)
    made = [f"{tools}/cyclonedx-py", "environment", python, "--pyproject", "pyproject.toml", "--output-file", bill]
    subprocess.run(made, check=True)
    print(f"bill of materials: {bill}, {len(json.loads(Path(bill).read_text())['components'])} components")
    for service in SERVICES:
        judged, holes = judge(look_up(f"{tools}/pip-audit", constraints, service))
        if judged:
            print(f"{service}: {judged} packages judged, {len(holes)} known holes")
            print("\n".join(holes), end="\n" if holes else "")
            return 1 if holes else 0
    print("NOT AUDITED: neither PyPI's advisories nor OSV's could be reached; nothing was judged", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
