"""
The lean client of unary gRPC calls, frame by frame: what it sends, what it makes of whatever comes, and that no call is
ever left without an end.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstream.grpc_backends import HEAD, frame, header
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.ports.calls import CallFailed
from gateway.upstream import http2 as h
from gateway.upstream import lean_unary
from gateway.upstream.grpc_target import MAX_MESSAGE_BYTES
from gateway.upstream.lean_connection import LeanConnection
from gateway.upstream.lean_unary import LeanUnary
from gateway.upstream.target import Target
from gateway.upstream.unary import UnaryReply

OK = header(b"grpc-status", b"0")
METHOD = "/test.Service/Method"


class Wire(StringTransport):
    """What the client wrote, as frames."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Return and forget the frames written since the last time."""
        data = self.value()
        self.clear()
        data = data.removeprefix(h.PREFACE)
        found = []
        while data:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found


class Rig:
    """A client whose connections are made by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.unary = LeanUnary(
            self.clock,
            Target.parse("http://127.0.0.1:1"),
            None,
            connect_timeout_s=2.0,
            random=random.Random(1).random,
        )
        self.made: list[tuple[LeanConnection, Wire]] = []
        self.results: list[Any] = []
        self.refuse = False
        self.unary._connect = self._connect  # type: ignore[method-assign]  # its sockets are here

    def _connect(self) -> None:
        self.unary._making = True
        self.unary._greet_by = self.clock.seconds() + 2.0
        if self.refuse:
            self.unary._failed(Failure(ConnectionDone("refused")))
            return
        connection = self.unary._protocol()
        wire = Wire()
        self.made.append((connection, wire))
        self.unary._all[connection] = None
        connection.makeConnection(wire)

    @property
    def wire(self) -> Wire:
        """The newest connection's."""
        return self.made[-1][1]

    def ask(self, data: bytes = b"ask", timeout_s: float = 5.0) -> int:
        """Begin a call; return its place among the results, which is None until it ends."""
        place = len(self.results)
        self.results.append(None)

        def ended(result: Any) -> None:
            assert self.results[place] is None, "ended twice"
            self.results[place] = result.value if isinstance(result, Failure) else result

        self.unary.call(METHOD, data, [], timeout_s).addBoth(ended)
        self.turn()
        return place

    def say(self, data: bytes, which: int = -1) -> None:
        """The server sends something."""
        self.made[which][0].dataReceived(data)
        self.turn()

    def greet(self, *pairs: tuple[int, int]) -> None:
        """The server's settings."""
        self.say(frame(4, 0, 0, b"".join(struct.pack("!HI", *pair) for pair in pairs)))

    def turn(self, seconds: float = 0.0) -> None:
        """Let what was written leave."""
        self.clock.advance(seconds)

    def code(self, place: int) -> Any:
        """Status and kind of a call that failed."""
        failed = self.results[place]
        assert isinstance(failed, CallFailed), failed
        return failed.code, failed.kind


def message(data: bytes) -> bytes:
    return b"\x00" + struct.pack("!I", len(data)) + data


def reply(stream: int, data: bytes = b"answer") -> bytes:
    return frame(1, 4, stream, HEAD) + frame(0, 0, stream, message(data)) + frame(1, 5, stream, OK)


def opened() -> Rig:
    """A rig whose first call is under way on stream 1."""
    rig = Rig()
    rig.ask()
    rig.greet()
    return rig


def test_a_call_on_the_wire() -> None:
    """
    Nothing is asked before the server's settings; then the head of a call is what gRPC's protocol asks for.
    """
    rig = Rig()
    rig.ask(timeout_s=0.25)
    assert [kind for kind, *_ in rig.wire.frames()] == [h.SETTINGS, h.WINDOW_UPDATE]
    rig.greet()
    ack, head, data = rig.wire.frames()
    assert ack[:3] == (h.SETTINGS, h.ACK, 0)
    assert head[:3] == (h.HEADERS, h.END_HEADERS, 1)
    fields: Any = hpack.Decoder().decode(head[3])
    assert list(map(tuple, fields)) == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
        (":authority", "127.0.0.1:1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", lean_unary._AGENT.decode()),
        ("grpc-timeout", "250000u"),
    ]
    assert data == (h.DATA, h.END_STREAM, 1, message(b"ask"))
    rig.say(reply(1))
    assert rig.results == [UnaryReply(b"answer", [], [])]


def test_no_byte_need_come_with_another() -> None:
    """
    However the server's bytes are split, the answer is the same.
    """
    data = frame(4, 0, 0) + reply(1, b"x" * 300)
    for at in range(len(data)):
        rig = Rig()
        rig.ask()
        rig.say(data[:at])
        rig.say(data[at:])
        assert rig.results[0].data == b"x" * 300, at


def test_more_calls_than_the_server_takes() -> None:
    """
    Calls beyond ``MAX_CONCURRENT_STREAMS`` wait their turn, and one that is given up meanwhile is never sent.
    """
    rig = Rig()
    first = rig.ask(b"1")
    rig.greet((3, 1))
    rig.wire.frames()
    second, third, fourth = rig.ask(b"2", 0.1), rig.ask(b"3"), rig.ask(b"4")
    assert rig.wire.frames() == []
    rig.turn(0.2)
    assert rig.code(second) == (4, "deadline")
    rig.say(reply(1))
    assert [payload for kind, _, _, payload in rig.wire.frames() if kind == h.DATA] == [message(b"3")]
    rig.say(reply(3))
    rig.say(reply(5))
    assert [rig.results[place].data for place in (first, third, fourth)] == [b"answer"] * 3


def test_windows() -> None:
    """
    No more is sent than the server's windows allow, on the stream and on the connection; a change of settings moves those
    of streams that are open.
    """
    rig = Rig()
    rig.ask(b"x" * 100_000)
    rig.greet((4, 10_000))
    sent = [payload for kind, _, _, payload in rig.wire.frames() if kind == h.DATA]
    assert sum(map(len, sent)) == 10_000
    rig.say(frame(8, 0, 1, struct.pack("!I", 20_000)))
    sent += [payload for kind, _, _, payload in rig.wire.frames() if kind == h.DATA]
    assert sum(map(len, sent)) == 30_000
    rig.greet((4, 90_000))
    sent += [payload for kind, _, _, payload in rig.wire.frames() if kind == h.DATA]
    assert sum(map(len, sent)) == 65_535  # now the connection's
    rig.say(frame(8, 0, 0, struct.pack("!I", 1_000_000)))
    rest = rig.wire.frames()
    sent += [payload for kind, _, _, payload in rest if kind == h.DATA]
    assert b"".join(sent) == message(b"x" * 100_000)
    assert max(map(len, sent)) <= h.MAX_FRAME
    assert rest[-1][1] == h.END_STREAM
    rig.say(reply(1))
    assert rig.results[0].data == b"answer"


def test_the_connection_s_window_is_topped_up() -> None:
    """
    Replies of any number do not use up what the server may send.
    """
    rig = opened()
    granted = 0
    block = frame(0, 0, 1, b"y" * 16_000)
    for _ in range(3):
        stream = rig.made[0][0]._next - 2
        rig.say(frame(1, 4, stream, HEAD))
        for _ in range(260):
            rig.say(block.replace(struct.pack("!I", 1), struct.pack("!I", stream), 1))
        rig.ask()
        granted += sum(int.from_bytes(p, "big") for k, _, s, p in rig.wire.frames() if k == h.WINDOW_UPDATE and not s)
    taken = 3 * 260 * 16_000
    assert taken - granted < 2 * (1 << 24)


def test_sent_away() -> None:
    """
    GOAWAY: what the server looks at is answered there, what it does not goes once to a new connection, and so do new calls.
    """
    rig = opened()
    rig.ask(b"2")
    rig.say(frame(7, 0, 0, struct.pack("!II", 1, 0)))
    rig.ask(b"3")
    assert len(rig.made) == 2
    rig.greet()
    assert [p for k, _, _, p in rig.wire.frames() if k == h.DATA] == [message(b"2"), message(b"3")]
    rig.say(reply(1, b"old"), 0)
    assert rig.made[0][1].disconnecting
    rig.say(reply(1) + reply(3))
    assert [each.data for each in rig.results] == [b"old", b"answer", b"answer"]


def test_sent_away_again_and_again() -> None:
    """
    A server that takes nothing is told of as one that cannot be reached: a call is sent twice at most.
    """
    rig = opened()
    rig.say(frame(7, 0, 0, struct.pack("!II", 0, 0)))
    rig.greet()
    rig.say(frame(7, 0, 0, struct.pack("!II", 0, 0)))
    assert rig.code(0) == (14, "connect")


def test_a_gentle_goodbye() -> None:
    """
    GOAWAY twice, first without a number as servers do that drain: what was begun between the two is not lost.
    """
    rig = opened()
    rig.ask(b"2")
    rig.say(frame(7, 0, 0, struct.pack("!II", 2**31 - 1, 0)))
    rig.say(frame(7, 0, 0, struct.pack("!II", 1, 0)), 0)
    rig.greet()
    rig.say(reply(1, b"there"))
    rig.say(reply(1, b"here"), 0)
    assert [each.data for each in rig.results] == [b"here", b"there"]


def test_lost_under_way() -> None:
    """
    A call whose connection is lost may have been done: it is not said that the backend could not be reached. One that was
    not sent yet goes to a new connection.
    """
    rig = Rig()
    rig.ask(b"1")
    rig.greet((3, 1))
    rig.ask(b"2")
    rig.made[0][0].connectionLost(Failure(ConnectionDone()))
    assert rig.code(0) == (14, "lost")
    rig.greet()
    rig.say(reply(1))
    assert rig.results[1].data == b"answer"


@pytest.mark.parametrize(
    ("code", "told"), [(7, (14, "connect")), (8, (1, "cancelled")), (2, (13, "malformed")), (11, (8, "malformed"))]
)
def test_a_stream_that_is_reset(code: int, told: tuple[int, str]) -> None:
    """
    What RST_STREAM says is told in gRPC's statuses; the connection goes on.
    """
    rig = opened()
    rig.say(frame(3, 0, 1, struct.pack("!I", code)))
    assert rig.code(0) == told
    rig.ask()
    rig.say(reply(3))
    assert rig.results[1].data == b"answer"


def test_cancelling() -> None:
    """
    A call that nobody waits for is reset at the server; its answer, if it comes all the same, is nobody's.
    """
    rig = opened()
    rig.wire.frames()
    calling = rig.unary.call(METHOD, b"", [], 5.0)
    calling.addErrback(lambda _: None)
    rig.turn()
    rig.wire.frames()
    calling.cancel()
    rig.turn()
    assert rig.wire.frames() == [(h.RST_STREAM, 0, 3, struct.pack("!I", 8))]
    rig.say(reply(3) + reply(1))
    assert rig.results[0].data == b"answer"


def test_a_target_that_is_away() -> None:
    """
    Calls that wait for a connection fail with it; those that come just after fail at once, and later ones try again.
    """
    rig = Rig()
    rig.refuse = True
    rig.ask()
    assert rig.code(0) == (14, "connect")
    rig.refuse = False
    rig.ask()
    assert rig.code(1) == (14, "connect")
    rig.turn(2.0)
    rig.ask()
    rig.greet()
    rig.say(reply(1))
    assert rig.results[2].data == b"answer"


def test_a_server_that_does_not_greet() -> None:
    """
    One that takes connections and says nothing is given up in the time that connecting may take.
    """
    rig = Rig()
    rig.ask(timeout_s=60.0)
    for _ in range(110):
        rig.turn(0.02)
    assert rig.code(0) == (14, "connect")
    assert rig.wire.aborted


def test_a_server_that_is_gone_without_a_word() -> None:
    """
    While calls wait, a silent server is asked after 30 s, and given up 10 s later.
    """
    rig = Rig()
    rig.ask(timeout_s=120.0)
    rig.greet()
    rig.wire.frames()
    for _ in range(1600):
        rig.turn(0.02)
    assert [kind for kind, *_ in rig.wire.frames()] == [h.PING]
    rig.say(frame(6, 1, 0, b"gateway."))
    for _ in range(1600):
        rig.turn(0.02)
    assert [kind for kind, *_ in rig.wire.frames()] == [h.PING]
    for _ in range(550):
        rig.turn(0.02)
    assert rig.code(0) == (14, "lost")


def test_a_ping_is_answered() -> None:
    """
    With the bytes that it brought.
    """
    rig = opened()
    rig.wire.frames()
    rig.say(frame(6, 0, 0, b"12345678"))
    assert rig.wire.frames() == [(h.PING, h.ACK, 0, b"12345678")]


def test_other_forms_of_the_same_answer() -> None:
    """
    Padding, priorities, continuations, interim heads, fields from the tables of HPACK and unknown frames change nothing.
    """
    encoded = hpack.Encoder().encode([(":status", "200"), ("content-type", "application/grpc+proto"), ("x-key", "v")])
    forms = [
        frame(1, 4 | 8, 1, b"\x05" + HEAD + b"\0" * 5)
        + frame(0, 8, 1, b"\x03" + message(b"a") + b"\0" * 3)
        + frame(1, 5, 1, OK),
        frame(1, 4 | 32, 1, b"\0\0\0\0\x10" + HEAD) + frame(0, 0, 1, message(b"a")) + frame(1, 5, 1, OK),
        frame(1, 0, 1, HEAD[:7])
        + frame(9, 0, 1, HEAD[7:9])
        + frame(9, 4, 1, HEAD[9:])
        + frame(0, 0, 1, message(b"a"))
        + frame(1, 5, 1, OK),
        frame(1, 4, 1, header(b":status", b"103")) + reply(1, b"a"),
        frame(1, 4, 1, encoded)
        + frame(0xFA, 0, 1, b"?")
        + frame(0, 0, 1, message(b"a")[:2])
        + frame(0, 0, 1, message(b"a")[2:])
        + frame(1, 5, 1, OK),
    ]
    for form in forms:
        rig = opened()
        rig.say(form)
        assert rig.results[0].data == b"a", form


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (frame(1, 5, 1, header(b":status", b"401")), (16, "malformed")),
        (frame(1, 5, 1, header(b":status", b"200")), (2, "malformed")),
        (frame(1, 5, 1, HEAD + header(b"grpc-status", b"x")), (2, "")),
        (frame(1, 4, 1, HEAD) + frame(0, 0, 1, b"\x01\0\0\0\x01a") + frame(1, 5, 1, OK), (13, "malformed")),
        (frame(1, 4, 1, HEAD) + frame(0, 0, 1, b"\0\0\0\0\x09a") + frame(1, 5, 1, OK), (13, "malformed")),
        (frame(1, 4, 1, HEAD) + frame(1, 4, 1, HEAD), (13, "malformed")),
        (frame(0, 0, 1, message(b"a")), (13, "malformed")),
        (frame(1, 4, 1, HEAD) + frame(0, 1, 1, message(b"a")), (2, "malformed")),
    ],
)
def test_answers_that_are_none(answer: bytes, told: tuple[int, str]) -> None:
    """
    They end their call alone.
    """
    rig = opened()
    rig.say(answer)
    assert rig.code(0) == told
    rig.ask()
    rig.say(reply(3))
    assert rig.results[1].data == b"answer"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        (h.MAX_FRAME + 1).to_bytes(3, "big") + b"\0\0\0\0\0\x01",
        frame(5, 4, 1, b"\0\0\0\x02" + HEAD),
        frame(9, 4, 1, HEAD),
        frame(1, 0, 1, HEAD) + frame(0, 0, 1, b""),
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        frame(4, 0, 0, b"odd"),
        frame(4, 0, 0, struct.pack("!HI", 4, 2**31)),
        frame(8, 0, 0, struct.pack("!I", 2**31 - 1)),
        frame(1, 0, 1, b"\0" * 16_000) + frame(9, 0, 1, b"\0" * 16_000) * 5,
        frame(0, 8, 1, b"\x09abc"),
    ],
)
def test_rules_that_are_broken(data: bytes) -> None:
    """
    A server that breaks a rule of the connection loses it, with everything on it; the next call has a new one.
    """
    rig = opened()
    rig.say(data)
    assert rig.made[0][1].aborted
    assert rig.code(0)[0] == 14
    rig.ask()
    rig.greet()
    rig.say(reply(1))
    assert rig.results[1].data == b"answer"


def test_too_large() -> None:
    """
    A request that is larger than messages may be is not sent; a reply that is, is not kept.
    """
    rig = opened()
    place = rig.ask(b"x" * (MAX_MESSAGE_BYTES + 1))
    assert rig.code(place) == (8, "too_large_message")
    rig.say(frame(1, 4, 1, HEAD))
    for _ in range(MAX_MESSAGE_BYTES // h.MAX_FRAME + 1):
        rig.say(frame(0, 0, 1, b"x" * h.MAX_FRAME))
    assert rig.code(0) == (8, "too_large_reply")


def test_a_server_that_remembers_fields_all_the_same() -> None:
    """
    Blocks that count on a table are decoded in their order, and none is taken for one that came before.
    """
    encoder = hpack.Encoder()
    rig = opened()
    for number in range(1, 9, 2):
        head = encoder.encode([(":status", "200"), ("content-type", "application/grpc"), ("x-n", str(number // 4))])
        end = encoder.encode([("grpc-status", "0"), ("x-t", str(number // 4))])
        if number == 1:
            # It says that its table is as large as by default.
            head = b"\x3f\xe1\x1f" + head
        rig.say(frame(1, 4, number, head) + frame(0, 0, number, message(b"a")) + frame(1, 5, number, end))
        got = rig.results[-1]
        assert (got.initial, got.trailing) == ([("x-n", str(number // 4))], [("x-t", str(number // 4))])
        rig.ask()


_frames = st.builds(
    frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 12, 13, 32, 45]),
    st.sampled_from([0, 1, 3, 5, 2]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([HEAD, OK, HEAD + OK, message(b"a"), struct.pack("!I", 7), struct.pack("!II", 0, 0), b""]),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_frames, max_size=12), st.binary(max_size=30), st.integers(1, 60))
def test_whatever_comes(frames: list[bytes], rest: bytes, step: int) -> None:
    """
    Any bytes at all: nothing is raised, every call ends once, and by its deadline.
    """
    rig = opened()
    rig.ask(b"2")
    data = b"".join(frames) + rest
    for at in range(0, len(data), step):
        connection = rig.made[0][0]
        if not connection.over:
            connection.dataReceived(data[at : at + step])
        rig.turn()
    for connection, _ in list(rig.made):
        if not connection.greeted and not connection.over:
            connection.dataReceived(frame(4, 0, 0))
    rig.turn(0.02)
    rig.turn(6.0)
    rig.turn(0.02)
    assert all(result is not None for result in rig.results)
