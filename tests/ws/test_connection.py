"""
What a WebSocket of ours bounds and tells beyond Autobahn's own.
"""

from __future__ import annotations

import struct
import zlib

import pytest
from tests.ws.wire import KEY, Socket, frame, frames_of
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.config.realtime_sections import WebSocket
from gateway.ws import lean
from gateway.ws.connection import FAILED_S, MOST_EMPTY
from gateway.ws.framing import LEAST_COMPRESSED
from gateway.ws.handshake import accept_of

BOTH = pytest.mark.parametrize("lean_", [True, False], ids=["lean", "plain"])
NORMAL = struct.pack("!H", 1000)


def code_of(found: list[tuple[int, bytes]]) -> int:
    """The code of the close frame at the end."""
    first, payload = found[-1]
    assert first == 0x88
    return int.from_bytes(payload[:2], "big")


@BOTH
def test_handshake(lean_: bool) -> None:
    """
    The answer to a key is the one of RFC 6455, section 1.3.
    """
    assert accept_of(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    socket = Socket(lean=lean_)
    assert socket.opened
    assert socket.handshake.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in socket.handshake.split(b"\r\n")


@BOTH
def test_our_close(lean_: bool) -> None:
    """
    A close of ours sends its code and reason, ends without a reset when the client agrees, and is told once.
    """
    socket = Socket(lean=lean_)
    socket.connection.close(3001, "shutdown")
    assert frames_of(socket.wire.value()) == [(0x88, struct.pack("!H", 3001) + b"shutdown")]
    assert socket.echo.lost_as == []
    socket.wire.clear()
    socket.talk(frame(8, struct.pack("!H", 3001)))
    assert (socket.wire.disconnecting, socket.wire.cut) == (True, False)
    socket.lose(Failure(ConnectionDone()))
    assert [(code, clean) for code, _, clean in socket.echo.lost_as] == [(3001, True)]
    assert not socket.clock.getDelayedCalls()


@BOTH
def test_a_close_that_nobody_answers(lean_: bool) -> None:
    """
    A client that does not answer the close frame is cut after the time-out, and not before.
    """
    socket = Socket(lean=lean_, section=WebSocket(close_timeout_s=5.0))
    socket.connection.close(3008, "slow")
    socket.clock.pump([0.5] * 9)
    assert not socket.wire.cut
    socket.clock.pump([0.5] * 2)
    assert socket.wire.cut
    socket.lose(Failure(ConnectionLost()))
    assert [clean for _, _, clean in socket.echo.lost_as] == [False]
    assert not socket.clock.getDelayedCalls()


@BOTH
def test_their_close(lean_: bool) -> None:
    """
    A client's close is answered with its code and told at once, with the code and as clean.
    """
    socket = Socket(lean=lean_)
    assert socket.talk(frame(8, NORMAL + b"bye")) == [(0x88, NORMAL + b"bye")]
    assert socket.echo.lost_as == [(1000, "bye", True)]
    socket.lose(Failure(ConnectionDone()))
    assert len(socket.echo.lost_as) == 1


@BOTH
def test_lost(lean_: bool) -> None:
    """
    A connection that ends without a close frame is told as 1006, not clean.
    """
    socket = Socket(lean=lean_)
    socket.lose(Failure(ConnectionLost()))
    assert socket.echo.lost_as == [(1006, "", False)]


@BOTH
def test_a_failure_ends_it(lean_: bool) -> None:
    """
    After bytes that make no sense nothing more is read, the node is told at once, and the client is cut soon.
    """
    socket = Socket(lean=lean_)
    found = socket.talk(frame(1, b"a") + frame(3, b"x") + frame(1, b"b"), frame(1, b"c"))
    assert code_of(found) == 1002
    assert socket.echo.got == [b"a"]
    assert [(code, clean) for code, _, clean in socket.echo.lost_as] == [(1002, False)]
    socket.clock.pump([0.5] * int(2 * FAILED_S + 1))
    assert socket.wire.cut


@BOTH
def test_too_large(lean_: bool) -> None:
    """
    A message above the limit closes with 1009, in one frame or in many, before it is here.
    """
    section = WebSocket(max_message_bytes=1000)
    for pieces in ([frame(1, b"a" * 1001)[:10]], [frame(1, b"a" * 600, fin=False), frame(0, b"b" * 600)[:8]]):
        socket = Socket(lean=lean_, section=section)
        assert code_of(socket.talk(*pieces)) == 1009
        assert socket.echo.got == []
    socket = Socket(lean=lean_, section=section)
    socket.talk(frame(1, b"a" * 1000))
    assert socket.echo.got == [b"a" * 1000]


@BOTH
def test_empty_fragments(lean_: bool) -> None:
    """
    Fragments without a byte count towards no size; too many of them end the connection.
    """
    socket = Socket(lean=lean_)
    socket.talk(frame(1, b"", fin=False))
    assert socket.talk(frame(0, b"", fin=False) * (MOST_EMPTY - 1)) == []
    assert code_of(socket.talk(frame(0, b"", fin=False) * 2)) == 1008


@BOTH
def test_pings_to_a_client_that_reads_nothing(lean_: bool) -> None:
    """
    While a client reads nothing, only its last ping waits for its answer: pongs cannot fill the memory.
    """
    socket = Socket(lean=lean_)
    socket.connection.pauseProducing()
    assert socket.talk(*(frame(9, b"%d" % number) for number in range(1000))) == []
    socket.connection.resumeProducing()
    assert frames_of(socket.wire.value()) == [(0x8A, b"999")]
    assert socket.echo.changes == ["blocked", "drained"]


@BOTH
def test_one_compressed_frame_serves_all(lean_: bool) -> None:
    """
    With permessage-deflate each message can be inflated by itself, by any client, and small ones are left as they are.
    """
    section = WebSocket(compression=True)
    offer = b"permessage-deflate; client_no_context_takeover; client_max_window_bits"
    one, other = (Socket(lean=lean_, section=section, extensions=offer) for _ in range(2))
    assert b"server_no_context_takeover" in one.handshake
    assert b"client_no_context_takeover" in one.handshake
    assert one.connection.form is other.connection.form
    message = b'{"state":"' + b"abc" * 100 + b'"}'
    framed = one.connection.form.frame(message)
    assert framed == one.connection.form.frame(message)
    (first, payload) = frames_of(framed)[0]
    assert first == 0xC1
    assert zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff") == message
    assert one.connection.form.frame(b"a" * (LEAST_COMPRESSED - 1))[0] == 0x81
    deflate = zlib.compressobj(wbits=-15)
    deflated = (deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    one.talk(frame(1, deflated, rsv=4), frame(1, b"plain"))
    assert one.echo.got == [message, b"plain"]


@BOTH
def test_a_bomb(lean_: bool) -> None:
    """
    A small frame that inflates beyond the limit closes with 1009.
    """
    socket = Socket(lean=lean_, section=WebSocket(compression=True), extensions=b"permessage-deflate")
    deflate = zlib.compressobj(wbits=-15)
    deflated = (deflate.compress(bytes(50_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(deflated) < 65536
    assert code_of(socket.talk(frame(1, deflated, rsv=4))) == 1009
    assert socket.echo.got == []


@pytest.mark.parametrize("offer", [b"permessage-deflate; server_max_window_bits=9", b"x-webkit-deflate-frame"])
def test_offers_that_are_declined(offer: bytes) -> None:
    """
    An offer that would need frames of its own is declined: the connection opens without compression.
    """
    socket = Socket(section=WebSocket(compression=True), extensions=offer)
    assert socket.opened
    assert b"Extensions" not in socket.handshake


def test_no_compression_unless_asked_for() -> None:
    """
    Compression that is not configured is not negotiated.
    """
    socket = Socket(extensions=b"permessage-deflate")
    assert socket.opened
    assert b"Extensions" not in socket.handshake


def test_reasons_are_cut_between_letters() -> None:
    """
    A long reason is cut to what a close frame holds, never within a letter.
    """
    socket = Socket()
    socket.connection.close(4000, "é" * 100)
    (_, payload) = frames_of(socket.wire.value())[0]
    assert payload[2:].decode() == "é" * 61


def test_names_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An Autobahn without a name that is relied on, or with state that is not known, is told; ours has and knows all.
    """
    assert lean.missing() == ""
    monkeypatch.delitem(lean._STATE, "triggered")
    assert lean.missing() == "WebSocketServerProtocol().triggered"
    monkeypatch.undo()
    monkeypatch.setattr(lean, "_RELIED_ON", (*lean._RELIED_ON, "no_such_name"))
    assert lean.missing() == "WebSocketServerProtocol.no_such_name"


def test_stock_transport_has_no_short_way() -> None:
    """
    Only transports known to send directly are sent to directly.
    """
    socket = Socket()
    assert isinstance(socket.wire, StringTransport)
    assert socket.connection.direct is None
