"""
One line for each session that ends, and what its last connection did if it ended badly.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.realtime.house import House
from twisted.internet.defer import Deferred

from gateway.core.client_types import type_by_name
from gateway.core.verdicts import Closing
from gateway.node.session_log import SessionLog
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink

LOGS = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text("utf-8")

RULES = """
[channels."table:{id}"]
subscribe = "authenticated"
publish = "authenticated"
[rpc.echo]
echo = true
[rpc.slow]
upstream = "backend"
http = "POST /slow"
[realtime]
resume_window = "10s"
"""


class Logged(House):
    """A house whose sessions have lines."""

    def __init__(self) -> None:
        self.sink = Sink(-1)
        self.watches = (SessionLog(Logs(self.sink, pretty=False).logger(), lambda name, _: type_by_name(name, {})),)
        super().__init__(RULES, {"POST /slow": lambda *_: Deferred()})

    def lines(self) -> list[dict[str, Any]]:
        """What was written so far."""
        return [json.loads(line) for line in self.sink._lines]


def test_a_session_that_ends_is_one_line() -> None:
    """
    It says who, how long, why, and how much went each way; and of an orderly end no more.
    """
    house = Logged()
    alice = house.come()
    alice.reply(connect={"token": "alice;sid=phone", "name": "tetris-ios", "version": "2.1"})
    house.pass_time(2)
    alice.reply(subscribe={"channel": "table:7"})
    alice.reply(subscribe={"channel": "table:8"})
    house.pass_time(1.5)
    client = alice.side.id
    alice.leave()
    (line,) = house.lines()
    assert line["event"] == "session.ended"
    assert (line["session"], line["user"], line["connection"]) == (alice.session, "alice", client)
    assert (line["cause"], line["code"], line["duration_s"]) == ("closed", 1000, 3.5)
    assert (line["client_type"], line["name"], line["version"]) == ("mobile", "tetris-ios", "2.1")
    assert (line["transport"], line["address"], line["ua"]) == ("websocket", "192.0.2.1", "test/1.0")
    assert (line["subscriptions"], line["channels"], line["resumes"]) == (2, 1, 0)
    assert (line["frames_in"], line["frames_out"]) == (3, 3)
    assert line["bytes_out"] == len(alice.wire.sent)
    assert "operations" not in line
    row = next(row for row in LOGS.splitlines() if row.startswith("| `session.ended` |"))
    assert set(line) - set(re.findall(r"`(\w+)`", row)) == {"event", "level", "ts"}


def test_one_that_goes_on_is_one_line_at_its_end() -> None:
    """
    What it did over all its connections is added up, and the last one's operations are told once it is lost for good.
    """
    house = Logged()
    alice = house.enter("alice;sid=phone")
    alice.reply(rpc={"method": "echo", "data": {}})
    alice.lose()
    house.pass_time(5)
    again = house.enter("alice;sid=phone")
    again.answers_pings = False
    assert again.session == alice.session
    again.reply(subscribe={"channel": "table:7"})
    again.reply(publish={"channel": "nobody", "data": {}})
    house.pass_time(1)
    again.lose()
    assert house.lines() == []
    house.pass_time(15)
    (line,) = house.lines()
    assert (line["session"], line["connection"], line["resumes"]) == (alice.session, again.side.id, 1)
    assert (line["cause"], line["code"], line["duration_s"]) == ("lost", 1006, 6.0)
    assert (line["frames_in"], line["frames_out"]) == (5, 5)
    assert [operation.split(" ", 1)[1] for operation in line["operations"]] == [
        "connect",
        "subscribe table:7",
        "publish nobody",
        "error 102",
    ]


@pytest.mark.parametrize(("code", "badly"), [(3000, False), (3503, False), (3501, True), (3008, True), (4321, False)])
def test_operations_are_told_of_bad_ends(code: int, badly: bool) -> None:
    """
    A connection that the gateway had to close tells what it did; one that somebody closed on purpose does not.
    """
    house = Logged()
    alice = house.enter("alice")
    alice.reply(rpc={"method": "echo", "data": {}})
    alice.side.close(Closing(code, "because"))
    house.pass_time(15)
    (line,) = house.lines()
    assert line["code"] == code
    assert ("operations" in line) is badly


def test_what_was_unanswered_is_told() -> None:
    """
    A command that was not answered when its client went is the last of what it did; the node can be asked before.
    """
    house = Logged()
    alice = house.enter("alice")
    alice.ask(rpc={"method": "slow", "data": {}})
    assert [operation.split(" ", 1)[1] for operation in alice.side.recent()[1:]] == ["rpc slow", "slow"]
    alice.lose()
    house.pass_time(15)
    (line,) = house.lines()
    assert [operation.split(" ", 1)[1] for operation in line["operations"][1:]] == ["rpc slow", "unanswered slow"]


def test_another_instance_may_write_the_line() -> None:
    """
    Whichever instance ends a session that was lost writes its one line, with what the connection did at the other.
    """
    house = Logged()
    other = house.add()
    house.pass_time(1)
    lost = [house.come(node=node) for node in (house.node, other) for _ in range(8)]
    for number, person in enumerate(lost):
        person.reply(connect={"token": f"user-{number};sid=phone"})
        person.reply(rpc={"method": "echo", "data": {}})
        person.lose()
    house.pass_time(15)
    lines = [line for line in house.lines() if line["event"] == "session.ended"]
    assert sorted(line["session"] for line in lines) == sorted(person.session for person in lost)
    assert {line["held_by"] for line in lines} == {house.node.instance, other.instance}
    for line in lines:
        assert [operation.split(" ", 1)[1] for operation in line["operations"]] == ["connect", "rpc echo"]
