"""
The page of errors is the catalogue in the code.
"""

from __future__ import annotations

import re
from pathlib import Path

from gateway.core.problems import CATALOGUE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"

_row = re.compile(r"^\| `([a-z_]+)` \| (\d{3}) \| `([A-Z]+)` \| (.+) \| (.+) \|$", re.MULTILINE)
_flag_row = re.compile(r"^\| (`[A-Z]{2,3}`(?:, `[A-Z]{2,3}`)*) \| [^|]+ \|$", re.MULTILINE)


def test_every_kind_is_documented() -> None:
    """
    Each kind stands on the page once, with its status and its flag, what it means and what to do; and no other does.
    """
    rows = _row.findall(PAGE.read_text("utf-8"))
    assert [code for code, *_ in rows if [row[0] for row in rows].count(code) > 1] == []
    assert {code: (int(status), flag) for code, status, flag, _, _ in rows} == {
        kind.code: (kind.status, kind.flag) for kind in CATALOGUE.values()
    }


def test_every_flag_is_explained() -> None:
    """
    Each flag of an access line is in the list of flags; ``DC`` is the one that is no answer.
    """
    explained = {flag for row in _flag_row.findall(PAGE.read_text("utf-8")) for flag in re.findall(r"[A-Z]+", row)}
    assert explained == {kind.flag for kind in CATALOGUE.values()} | {"DC"}


def test_a_grpc_status_has_one_code() -> None:
    """
    The codes of calls are those of gRPC, in lower case.
    """
    for code, *_, status, _ in _row.findall(PAGE.read_text("utf-8")):
        if code.startswith("grpc_"):
            assert status == f"`{code.removeprefix('grpc_').upper()}`"
