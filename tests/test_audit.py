"""
What ``make audit`` makes of a report of pip-audit.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

JUDGE: Any = runpy.run_path(str(Path(__file__).resolve().parents[1] / ".ci" / "audit.py"))["judge"]


def test_holes_are_told_with_their_fix() -> None:
    """
    A hole is a line with package, version and the release that closes it.
    """
    report = {
        "dependencies": [
            {"name": "good", "version": "1", "vulns": []},
            {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "CVE-2"}]},
        ]
    }
    assert JUDGE(report) == (2, ["bad 2: CVE-1, fixed in 3", "bad 2: CVE-2, fixed in no release"])


def test_what_was_not_looked_up_is_not_judged() -> None:
    """
    A service that does not answer has found nothing right.
    """
    skipped = {"name": "some", "version": "1", "skip_reason": "Dependency not found"}
    assert JUDGE({"dependencies": [skipped]}) == (0, [])
    assert JUDGE({}) == (0, [])
