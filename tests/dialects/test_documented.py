"""
The dialect on the page about dialects is one: it serves a client of its own from its first message to its last.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.realtime.house import House, PlainForm, Wire

from gateway.live import dialects_of
from gateway.ports.clients import Opening

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dialects.md"

CONFIG = """
[channels."table:{table_id}"]
subscribe = "authenticated"

[rpc.echo]
echo = true
"""


def documented() -> Any:
    """The class of the page."""
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec"), names)
    return names["PokerDialect"]()


def test_it_serves_a_client() -> None:
    """
    Authenticate, watch, do, hear, and a frame that is none.
    """
    house = House(CONFIG)
    dialect = documented()
    wire = Wire(PlainForm(dialect))
    side = house.node.accept(wire, Opening("192.0.2.1", house.config.websocket[0]))
    wire.side = side

    def say(**members: Any) -> list[Any]:
        before = len(wire.sent)
        side.received(json.dumps(members).encode())
        found = [json.loads(line) for line in wire.sent[before:].splitlines()]
        return [each for line in found for each in (line if isinstance(line, list) else [line])]

    assert say(t="auth", token="alice", n=1) == [{"t": "ok", "n": 1}]
    assert say(t="watch", table=7, n=2) == [{"t": "table", "n": 2, "state": None}]
    assert say(t="do", what="echo", **{"with": [1]}, n=3) == [{"t": "done", "n": 3, "result": [1]}]
    before = len(wire.sent)
    house.publish("table:7", {"pot": 40})
    assert json.loads(wire.sent[before:]) == {"t": "change", "table": "7", "data": {"pot": 40}}
    assert say(t="watch", table=7, n=4) == [{"t": "no", "n": 4, "code": 105, "why": "already subscribed"}]
    say(t="dance")
    assert wire.closed is not None
    assert wire.closed[0] == 3501


def test_it_is_found_by_its_name() -> None:
    """
    A dialect is named by module and class; ours by one word; what is neither is said to be none.
    """
    assert [dialect.subprotocol for dialect in dialects_of("centrifuge")] == ["centrifuge-json", "centrifuge-protobuf"]
    (found,) = dialects_of("gateway.dialects.centrifuge_json:CentrifugeJson")
    assert found.name == "centrifuge-json"
    for wrong in ("no.such.module:Class", "gateway.dialects.centrifuge_json:Nothing", "oneword"):
        with pytest.raises(ValueError, match=wrong):
            dialects_of(wrong)
