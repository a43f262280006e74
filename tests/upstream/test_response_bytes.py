"""
Responses as bytes, fed in pieces of every size: where they are split makes no difference.

A real connection on Twisted's in-memory transport, because no socket promises where it splits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.config.sections import Upstream
from gateway.core.message import CHUNKED, Header, ResponseHead
from gateway.ports.upstream import Fault
from gateway.upstream.connection import Connection
from gateway.upstream.pool import Pool
from gateway.upstream.target import Target

HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"


@dataclass
class Outcome:
    """What a receiver was told, and what became of the connection."""

    status: int = 0
    reason: bytes = b""
    headers: list[Header] = field(default_factory=list)
    length: int = 0
    body: bytes = b""
    trailers: list[Header] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    ended: bool = False
    fault: str = ""
    kept: bool = False

    def responded(self, head: ResponseHead, data: bytes, ended: bool) -> None:
        assert not self.status
        self.status, self.reason, self.headers, self.length = head.status, head.reason, head.headers, head.body_length
        self._head = head
        self.received(data, ended)

    def received(self, data: bytes, ended: bool) -> None:
        assert self.status
        assert not self.ended
        assert not self.fault
        self.body += data
        self.ended = ended
        if ended:
            self.trailers = self._head.trailers

    def informed(self, status: int, headers: list[Header]) -> None:
        assert not self.status
        self.interim.append(status)

    def failed(self, fault: Fault) -> None:
        assert not self.ended
        assert not self.fault
        self.fault = fault.kind


class _Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


def fed(pieces: list[bytes], *, method: bytes = b"GET", close: bool = False) -> Outcome:
    """Feed a response in *pieces*."""
    pool = Pool(Clock(), Target.parse("http://127.0.0.1:1"), Upstream(name="t"))
    connection, transport, outcome = Connection(pool), _Transport(), Outcome()
    wire: Any = transport
    connection.makeConnection(wire)
    pool.open = 1
    pool.put(connection)
    pool.request(method, HEAD.replace(b"GET", method), 0, b"", True, outcome)
    for piece in pieces:
        if piece and not transport.aborted:
            connection.dataReceived(piece)
    outcome.kept = pool.idle == 1
    if close and not transport.aborted:
        connection.connectionLost(Failure(ConnectionDone()))
    assert not pool.active or not (outcome.ended or outcome.fault)
    pool.abort()
    return outcome


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Split *data* at *cuts*."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


names = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: (
        name.lower()
        not in {b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade", b"keep-alive"}
    )
)
values = st.from_regex(rb"([!-~\x80-\xff]([\t !-~\x80-\xff]{0,30}[!-~\x80-\xff])?)?", fullmatch=True)
header_lists = st.lists(st.tuples(names, values), max_size=6)
cut_lists = st.lists(st.integers(0, 100_000), max_size=12)
bodies = st.lists(st.binary(min_size=1, max_size=300), max_size=5)


def everywhere(check: Callable[[list[int]], None], examples: int = 20) -> None:
    """
    Try *check* with many ways to split, among them none.

    Called within a test: pytest-twisted cannot wrap a property that is parametrized.
    """
    check([])
    settings(deadline=None, max_examples=examples)(given(cuts=cut_lists)(check))()


def block(headers: list[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


@settings(deadline=None)
@given(
    status=st.sampled_from([200, 201, 206, 302, 404, 418, 500, 599]),
    reason=st.from_regex(rb"[ -~]{0,20}", fullmatch=True),
    headers=header_lists,
    parts=bodies,
    framing=st.sampled_from(["length", "chunks", "close"]),
    trailers=header_lists,
    interim=st.lists(st.sampled_from([100, 102, 103, 104, 199]), max_size=3),
    cuts=cut_lists,
)
def test_whole_responses(
    status: int,
    reason: bytes,
    headers: list[Header],
    parts: list[bytes],
    framing: str,
    trailers: list[Header],
    interim: list[int],
    cuts: list[int],
) -> None:
    """
    What was said is what is told, wherever it was split.
    """
    body = b"".join(parts)
    data = b"".join(b"HTTP/1.1 %d Wait\r\nLink: x\r\n\r\n" % number for number in interim)
    data += b"HTTP/1.1 %d %b\r\n%b" % (status, reason, block(headers))
    if framing == "length":
        data += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    elif framing == "chunks":
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        data += b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (chunks, block(trailers))
    else:
        data += b"\r\n" + body
    outcome = fed(split(data, cuts), close=framing == "close")
    assert outcome.fault == ""
    assert outcome.ended
    assert (outcome.status, outcome.reason, outcome.body) == (status, reason, body)
    assert outcome.headers == headers
    assert outcome.length == (len(body) if framing == "length" else CHUNKED)
    assert outcome.trailers == (trailers if framing == "chunks" else [])
    assert outcome.interim == [number for number in interim if number != 100]
    assert outcome.kept is (framing != "close")


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: 2\r\n\r\nok"

MALFORMED = {
    "RTSP": b"RTSP/1.0 200 OK\r\n" + LENGTH,
    "ICE": b"ICE/1.0 200 OK\r\n" + LENGTH,
    "ICE after an interim response": b"HTTP/1.1 103 E\r\n\r\nICE/1.0 200 OK\r\n" + LENGTH,
    "lower case": b"http/1.1 200 OK\r\n" + LENGTH,
    "empty line first": b"\r\n" + OK + LENGTH,
    "version 0.9": b"HTTP/0.9 200 OK\r\n" + LENGTH,
    "version 1.2": b"HTTP/1.2 200 OK\r\n" + LENGTH,
    "version 2.0": b"HTTP/2.0 200 OK\r\n" + LENGTH,
    "version 2.0 after an interim response": b"HTTP/1.1 103 E\r\n\r\nHTTP/2.0 200 OK\r\n" + LENGTH,
    "status 099": b"HTTP/1.1 099 OK\r\n" + LENGTH,
    "status 000": b"HTTP/1.1 000 OK\r\n" + LENGTH,
    "status 20": b"HTTP/1.1 20 OK\r\n" + LENGTH,
    "status 2000": b"HTTP/1.1 2000 OK\r\n" + LENGTH,
    "status 600": b"HTTP/1.1 600 OK\r\n" + LENGTH,
    "status -20": b"HTTP/1.1 -20 OK\r\n" + LENGTH,
    "two spaces": b"HTTP/1.1  200 OK\r\n" + LENGTH,
    "tab": b"HTTP/1.1\t200 OK\r\n" + LENGTH,
    "bare CR in the reason": b"HTTP/1.1 200 O\rK\r\n" + LENGTH,
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n" + LENGTH,
    "DEL in the reason": b"HTTP/1.1 200 O\x7fK\r\n" + LENGTH,
    "bare LF after the status": b"HTTP/1.1 200 OK\n" + LENGTH,
    "bare LF after a header": OK + b"A: b\n" + LENGTH,
    "bare LF at the end": OK + b"Content-Length: 2\r\n\nok",
    "bare CR in a header": OK + b"A: b\rc\r\n" + LENGTH,
    "folded": OK + b"A: b\r\n c\r\n" + LENGTH,
    "folded length": OK + b"Content-Length:\r\n 2\r\n\r\nok",
    "folded first line": OK + b" A: b\r\n" + LENGTH,
    "no colon": OK + b"A\r\n" + LENGTH,
    "no name": OK + b": b\r\n" + LENGTH,
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nok",
    "NUL in a value": OK + b"A: b\x00\r\n" + LENGTH,
    "control byte in a value": OK + b"A: b\x01c\r\n" + LENGTH,
    "DEL in a value": OK + b"A: b\x7fc\r\n" + LENGTH,
    "byte above 127 in a name": OK + b"A\xe9: b\r\n" + LENGTH,
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "two numbers": OK + b"Content-Length: 2 2\r\n\r\nok",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nok",
    "empty length": OK + b"Content-Length:\r\n\r\nok",
    "length of 20 digits": OK + b"Content-Length: 00000000000000000002\r\n\r\nok",
    "huge length": OK + b"Content-Length: 18446744073709551615\r\n\r\nok",
    "huger length": OK + b"Content-Length: 18446744073709551617\r\n\r\nok",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length nought and chunks": OK + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "identity and length": OK + b"Transfer-Encoding: identity\r\n" + LENGTH,
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ",chunked": OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "chunked,": OK + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "chunked;q=1": OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "chunked in two lines": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab before chunked": OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "tab after chunked": OK + b"Transfer-Encoding: chunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nxx",
    "switching to nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + LENGTH,
    "interim response of HTTP/1.0": b"HTTP/1.0 103 E\r\n\r\n" + OK + LENGTH,
    "interim response with a length": b"HTTP/1.1 104 E\r\nContent-Length: 4\r\n\r\nevil" + OK + LENGTH,
    "interim response with length nought": b"HTTP/1.1 103 E\r\nContent-Length: 0\r\n\r\n" + OK + LENGTH,
    "interim response in chunks": b"HTTP/1.1 104 E\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"
    + OK
    + LENGTH,
    "flood of interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40 + OK + LENGTH,
    "large head": OK + b"A: %b\r\n" % (b"b" * 1000) * 66 + LENGTH,
    "large header": OK + b"A: %b\r\n" % (b"b" * 66_000) + LENGTH,
    "large heads": (b"HTTP/1.1 103 E\r\nA: %b\r\n\r\n" % (b"b" * 9000)) * 8 + OK + LENGTH,
    "chunk size with prefix": CHUNKS + b"0x2\r\nok\r\n0\r\n\r\n",
    "chunk size with sign": CHUNKS + b"+2\r\nok\r\n0\r\n\r\n",
    "negative chunk": CHUNKS + b"-2\r\nok\r\n0\r\n\r\n",
    "underscore in a chunk size": CHUNKS + b"0_2\r\nok\r\n0\r\n\r\n",
    "space before a chunk size": CHUNKS + b" 2\r\nok\r\n0\r\n\r\n",
    "space after a chunk size": CHUNKS + b"2 \r\nok\r\n0\r\n\r\n",
    "no chunk size": CHUNKS + b"\r\nok\r\n0\r\n\r\n",
    "bare LF after a chunk size": CHUNKS + b"2\nok\r\n0\r\n\r\n",
    "bare LF after a chunk": CHUNKS + b"2\r\nok\n0\r\n\r\n",
    "bare LF in an extension": CHUNKS + b"2;a=b\nok\r\n0\r\n\r\n",
    "NUL in an extension": CHUNKS + b"2;a\x00b\r\nok\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKS + b"2\r\nokk\r\n0\r\n\r\n",
    "huge chunk": CHUNKS + b"10000000000000002\r\nok\r\n",
    "bare LF at the end of chunks": CHUNKS + b"2\r\nok\r\n0\r\n\n",
    "folded trailer": CHUNKS + b"0\r\nA: b\r\n c\r\n\r\n",
    "bad trailer": CHUNKS + b"0\r\nA b\r\n\r\n",
    "length in a trailer": CHUNKS + b"0\r\nContent-Length: 2\r\n\r\n",
    "coding in a trailer": CHUNKS + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "endless trailers": CHUNKS + b"0\r\n" + b"A: %b\r\n" % (b"b" * 60) * 3000,
    "endless extension": CHUNKS + b"2;" + b"a" * 200_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_responses(name: str) -> None:
    """
    What is not one response beyond doubt is a fault, wherever it is split, and its connection is cut (Z6, row 28).
    """

    def check(cuts: list[int]) -> None:
        data = MALFORMED[name]
        # A segment of TCP is never as long as what floods.
        pieces = [piece[at : at + 16384] for piece in split(data, cuts) for at in range(0, len(piece), 16384)]
        outcome = fed(pieces)
        assert (outcome.fault, outcome.ended, outcome.kept) == ("malformed", False, False)
        assert b"okk".startswith(outcome.body)

    everywhere(check)


@pytest.mark.parametrize("name", [name for name in MALFORMED if len(MALFORMED[name]) < 1000])
def test_malformed_byte_by_byte(name: str) -> None:
    """
    The same, one byte at a time.
    """
    outcome = fed([bytes([byte]) for byte in MALFORMED[name]])
    assert (outcome.fault, outcome.ended, outcome.kept) == ("malformed", False, False)


GENEROUS = {
    "spaces around a length": OK + b"Content-Length: \t 2 \t\r\n\r\nok",
    "spaces around a coding": OK + b"Transfer-Encoding: \t chunked  \r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "coding in capitals": OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "length in small letters": OK + b"content-length: 2\r\n\r\nok",
    "length in capitals": OK + b"CONTENT-LENGTH: 2\r\n\r\nok",
    "leading noughts": OK + b"Content-Length: 0002\r\n\r\nok",
    "chunk sizes with noughts": CHUNKS + b"0002\r\nok\r\n000\r\n\r\n",
    "extensions": CHUNKS + b'2;a=b;c="d e"\r\nok\r\n0;x\r\n\r\n',
    "reason beyond ASCII": b"HTTP/1.1 200 \xc3\xa4h\tso\r\n" + LENGTH,
    "value beyond ASCII": OK + b"A: \xc3\xa4\tb\r\n" + LENGTH,
    "names with signs": OK + b"A_b.c!~: d\r\n" + LENGTH,
    "HTTP/1.0 kept": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH,
}


@pytest.mark.parametrize("name", GENEROUS)
def test_odd_but_clear_responses(name: str) -> None:
    """
    What is odd and still one response beyond doubt passes, and its connection is kept.
    """

    def check(cuts: list[int]) -> None:
        outcome = fed(split(GENEROUS[name], cuts))
        assert (outcome.fault, outcome.ended, outcome.body, outcome.kept) == ("", True, b"ok", True)
        assert not {header.lower() for header, _ in outcome.headers} & {b"content-length", b"transfer-encoding"}

    everywhere(check)


NOT_KEPT = {
    "close": OK + b"Connection: close\r\n" + LENGTH,
    "close among others": OK + b"Connection: keep-alive, Close\r\n" + LENGTH,
    "close in another line": OK + b"Connection: x\r\nConnection: close\r\n" + LENGTH,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + LENGTH,
    "another response": OK + LENGTH + OK + b"Content-Length: 4\r\n\r\nevil",
    "another response in chunks": OK + LENGTH + CHUNKS + b"4\r\nevil\r\n0\r\nA: b\r\n\r\n",
    "a byte too many": OK + LENGTH + b"x",
    "another head's beginning": OK + LENGTH + b"HTTP/1.1 2",
    "bytes after chunks": CHUNKS + b"2\r\nok\r\n0\r\n\r\nx",
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_connections_that_are_not_kept(name: str) -> None:
    """
    A response that ends its connection, or has something behind it, counts; its connection does not.
    """

    def check(cuts: list[int]) -> None:
        outcome = fed(split(NOT_KEPT[name], cuts))
        assert (outcome.fault, outcome.ended, outcome.body, outcome.trailers) == ("", True, b"ok", [])
        assert not outcome.kept

    everywhere(check)


BODYLESS: dict[str, tuple[bytes, bytes, int, bool]] = {
    "HEAD with a length": (b"HEAD", OK + b"Content-Length: 5\r\n\r\n", 5, True),
    "HEAD with chunks": (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", CHUNKED, True),
    "HEAD without framing": (b"HEAD", OK + b"A: b\r\n\r\n", CHUNKED, True),
    "HEAD and close": (b"HEAD", OK + b"Connection: x, close\r\n\r\n", CHUNKED, False),
    "HEAD in HTTP/1.0": (b"HEAD", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 5, False),
    "HEAD with a body": (b"HEAD", OK + b"Content-Length: 5\r\n\r\nhello", 5, False),
    "HEAD with a body until close": (b"HEAD", OK + b"\r\nhello", CHUNKED, False),
    "HEAD with a chunked body": (
        b"HEAD",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        CHUNKED,
        False,
    ),
    "HEAD with an empty chunked body": (b"HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", CHUNKED, False),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 0, True),
    "204 with length nought": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 0, True),
    "204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", 4, False),
    "204 with a body": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", 4, False),
    "204 in chunks": (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED, False),
    "304": (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", CHUNKED, True),
    "304 with a length": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", 77, True),
    "304 in chunks": (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKED, False),
}


@pytest.mark.parametrize("name", BODYLESS)
def test_responses_without_a_body(name: str) -> None:
    """
    HEAD, 204 and 304 end with their head, whatever it announces and whatever follows.
    """

    def check(cuts: list[int]) -> None:
        method, data, length, kept = BODYLESS[name]
        whole = fed([data], method=method)
        assert (whole.ended, whole.fault, whole.body, whole.length) == (True, "", b"", length)
        assert whole.kept is kept
        outcome = fed(split(data, cuts), method=method)
        assert (outcome.ended, outcome.fault, outcome.body, outcome.length) == (True, "", b"", length)
        # Where the last bytes of a head come alone, nobody can tell whose they are; then it is not kept either.
        assert kept or not outcome.kept

    everywhere(check)


@settings(deadline=None, max_examples=400)
@given(
    whole=st.sampled_from(
        [OK + b"A: b\r\n" + LENGTH, CHUNKS + b"2;x=y\r\nok\r\n1\r\n!\r\n0\r\nT: u\r\n\r\n", OK + b"\r\nok"]
    ),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4),
    cuts=cut_lists,
)
def test_damaged_responses(whole: bytes, changes: list[tuple[int, int]], cuts: list[int]) -> None:
    """
    However a response is damaged, it has one end, and splitting it does not change which.
    """
    data = bytearray(whole)
    for place, byte in changes:
        data[place % len(data)] = byte
    at_once = fed([bytes(data)], close=True)
    in_pieces = fed(split(bytes(data), cuts), close=True)
    assert at_once.ended is not bool(at_once.fault)
    assert (at_once.ended, at_once.fault) == (in_pieces.ended, in_pieces.fault)
    if at_once.ended:
        assert at_once == in_pieces
