"""
What is told of a whole node's sessions: what their connections did, how they ended, and when.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.realtime.house import House, Person
from tests.realtime.neighbours import done

from gateway.core.partitions import PARTITIONS
from gateway.core.privacy import WHOLE
from gateway.core.session_use import SessionUse
from gateway.core.verdicts import CloseReason, cause_of
from gateway.events.content import Content, told_of

CHANNELS = """
[channels.lobby]
subscribe = "authenticated"
coalesce = "0s"
[channels."table:{table_id}"]
subscribe = "authenticated"
coalesce = "0s"
"""
CONTENT = Content(15.0, WHOLE)


class Counted(House):
    """
    A node whose sessions are told of.
    """

    tells = CONTENT

    def __init__(self, text: str = CHANNELS) -> None:
        super().__init__(text)
        CONTENT.configure(self.config.events, on=True)

    def told(self) -> list[dict[str, Any]]:
        """What was told, also earlier."""
        events = done(self.stores.events.take("x", range(PARTITIONS), 100))
        return [msgspec.json.decode(told_of(event).body) for event in events]

    def end(self, of: str) -> dict[str, Any]:
        """The end of a session."""
        (end,) = [event for event in self.told() if event["kind"] == "SESSION_ENDED" and event["session"] == of]
        return end


def sizes(person: Person) -> tuple[int, int]:
    """How many frames it was sent, and their bytes."""
    return person.wire.sent.count(b"\n"), len(person.wire.sent)


def test_frames_bytes_and_channels_of_two_connections() -> None:
    """
    An end tells what all connections of its session did, publications included that went out to many at once.
    """
    house = Counted()
    other = house.connected("bob")
    other.ask(subscribe={"channel": "lobby"})
    first = house.connected("alice;sid=d")
    session = first.session
    before = sizes(first)
    for number in range(5):
        house.publish("lobby", number)
    first.ask(subscribe={"channel": "lobby"})
    first.ask(subscribe={"channel": "table:1"})
    for number in range(20):
        house.publish("lobby", number)
    first.ask(unsubscribe={"channel": "lobby"})
    house.publish("lobby", "after")
    one = sizes(first)
    assert one[0] > before[0] + 20
    first.lose()
    house.pass_time(2)
    second = house.connected("alice;sid=d")
    assert second.session == session
    second.ask(subscribe={"channel": "table:2"})
    house.publish("table:2", "x")
    two = sizes(second)
    second.leave()
    end = house.end(session)
    assert (end["frames_out"], end["bytes_out"]) == (one[0] + two[0], one[1] + two[1])
    assert end["frames_in"] == 6
    assert end["channels"] == ["lobby", "table:{table_id}"]
    assert (end["subscriptions"], end["resumes"], end["cause"], end["close_code"]) == (3, 1, "closed", 1000)
    assert end["duration_s"] == 2.0
    assert [event["kind"] for event in house.told() if event["session"] == session] == [
        "SESSION_STARTED",
        "SESSION_RESUMED",
        "SESSION_ENDED",
    ]


def test_the_end_of_a_lost_session_is_when_it_was_lost() -> None:
    """
    Who never comes back ended when the connection was lost, told when its time is over; exactly, if that was seen.
    """
    house = Counted()
    alice = house.connected("alice;sid=d")
    house.pass_time(10)
    alice.lose()
    house.pass_time(60)
    end = house.end(alice.session)
    assert (end["duration_s"], end["cause"], end["close_code"]) == (10.0, "lost", 1006)
    assert end.get("accuracy_s", 0.0) == 0.0


def test_silence_is_not_exact() -> None:
    """
    A client that only fell silent may have been gone for as long as a ping and its answer may take.
    """
    house = Counted()
    alice = house.connected("alice;sid=d")
    alice.answers_pings = False
    house.pass_time(120)
    end = house.end(alice.session)
    assert (end["close_code"], end["accuracy_s"]) == (CloseReason.NO_PONG.code, 33.0)


def test_nothing_is_written_for_nobody() -> None:
    """
    While nobody is told of sessions no events are written.
    """
    house = Counted()
    CONTENT.configure(house.config.events, on=False)
    alice = house.connected("alice;sid=d")
    alice.leave()
    assert house.told() == []


def test_what_was_lost_is_ended_with_the_process() -> None:
    """
    Where sessions end with the process, those that could be resumed are ended in the last moment, as of their loss.
    """
    house = Counted()
    alice = house.connected("alice;sid=d")
    house.pass_time(5)
    alice.lose()
    house.pass_time(3)
    done(house.node.sessions.finish())
    end = house.end(alice.session)
    assert (end["duration_s"], end["cause"]) == (5.0, "lost")
    assert ("ended", alice.session, "lost") in house.witness.events


@pytest.mark.parametrize(
    ("code", "abnormal", "cause"),
    [
        (1000, False, "closed"),
        (1001, False, "closed"),
        (1006, True, "lost"),
        (1011, True, "lost"),
        (3001, True, "shutdown"),
        (3500, False, "invalid_token"),
        (4000, True, "disconnected"),
        (4999, False, "disconnected"),
    ],
)
def test_causes_are_a_closed_set(code: int, *, abnormal: bool, cause: str) -> None:
    """
    Whatever a client or a backend says when it closes, the cause is one of a few words.
    """
    assert cause_of(code, abnormal=abnormal) == cause


def test_use_adds_up_and_is_bounded() -> None:
    """
    What connections did adds up; of thousands of patterns a hundred are remembered, and what cannot be read is nothing.
    """
    use = SessionUse()
    for number in range(1000):
        use.subscribed(f"p{number}")
    use.frames_in, use.bytes_in = 1, 10
    use.gave(2, 30)
    total = SessionUse(1, 1, 5, 5, 1, ("p0", "q")).encode()
    added = use.after(total)
    assert (added.frames_in, added.frames_out, added.bytes_in, added.bytes_out) == (2, 3, 15, 35)
    assert (added.subscriptions, len(added.patterns), added.patterns[:2]) == (1001, 100, ("p0", "q"))
    assert SessionUse.decode(b"{") == SessionUse()


def test_who_comes_with_a_trace_and_a_country() -> None:
    """
    What the opening said of country and version, and the trace of the connect command, are told with the session.
    """
    house = Counted()
    person = house.come()
    person.side.opening.country = "DE"
    person.ask(connect={"token": "alice", "data": {"app_version": "7.1"}, "name": "tetris-android", "version": "3"})
    (begun,) = house.told()
    assert (begun["country"], begun["app_version"], begun["client_type"]) == ("DE", "7.1", "mobile")
    assert (begun["sdk_name"], begun["sdk_version"], begun["address"]) == ("tetris-android", "3", "192.0.2.1")
    assert "traceparent" not in begun
