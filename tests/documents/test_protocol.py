"""
The page about the protocol has the codes of the table.
"""

from __future__ import annotations

import re
from pathlib import Path

from gateway.core.verdicts import CloseReason, ErrorCode, UnsubscribeReason, reconnects
from gateway.node.commands import HANDLERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")


def rows(section: str) -> list[list[str]]:
    """The rows of the table below a heading."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_error_codes() -> None:
    """
    Every error code, its text, and whether it is temporary.
    """
    assert rows("Error codes") == [[str(code.code), code.text, "yes" if code.temporary else "no"] for code in ErrorCode]


def test_close_codes() -> None:
    """
    Every close code, its reason, and whether clients connect again.
    """
    assert rows("Close codes") == [
        [str(reason.code), reason.text, "yes" if reconnects(reason.code) else "no"] for reason in CloseReason
    ]


def test_unsubscribe_codes() -> None:
    """
    Every code with which the server ends a subscription.
    """
    assert rows("Unsubscribe codes") == [[str(reason.code), reason.text] for reason in UnsubscribeReason]


def test_every_command_is_named() -> None:
    """
    Each command that is handled stands in the table of commands.
    """
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in HANDLERS} - {"ping", "history_asked"}
    named = set(re.findall(r"`([a-z_]+)`", PAGE.split("## Messages\n")[1].split("| push |")[0])) | {"connect"}
    assert names <= named
