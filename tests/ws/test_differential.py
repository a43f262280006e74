"""
The short ways and Autobahn's own answer the same bytes alike.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from tests.ws.wire import Socket, Stock, frame

CLOSE = 0x88


def text(content: str | bytes) -> bytes:
    return frame(1, content.encode() if isinstance(content, str) else content)


BAD_UTF8 = (b"\xff", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xc0\xaf", b"\xf0\x9f\x98")
NORMAL = struct.pack("!H", 1000)

CASES: dict[str, list[bytes]] = {
    "text": [text("hi")],
    "empty": [text("")],
    "125": [text("a" * 125)],
    "126": [text("a" * 126)],
    "16384": [text("d" * 16384)],
    "16385": [text("e" * 16385)],
    "65535": [text("b" * 65535)],
    "65536": [text("c" * 65536)],
    "65537": [text("c" * 65537)],
    "too large, then more": [text("c" * 65537), text("x")],
    "letters of all sizes": [text("héllo 😀 漢字")],
    "binary": [frame(2, bytes(range(256)))],
    "three": [text("1") + text("2") + text("3")],
    "ping": [frame(9, b"x")],
    "ping between": [text("1") + frame(9, b"p") + text("2")],
    "pong": [frame(10, b"x") + text("1")],
    "fragments": [frame(1, b"ab", fin=False) + frame(0, b"cd")],
    "fragments of a binary": [frame(2, b"\xff", fin=False) + frame(0, b"\xfe")],
    "ping within": [frame(1, b"ab", fin=False) + frame(9, b"p") + frame(0, b"cd")],
    "text within": [frame(1, b"ab", fin=False) + text("x")],
    "continuation of nothing": [frame(0, b"x")],
    "letter over fragments": [frame(1, "é".encode()[:1], fin=False) + frame(0, "é".encode()[1:])],
    "fragments over writes": [frame(1, b"ab", fin=False), frame(0, b"cd"), text("after")],
    "fragments too large": [frame(1, b"a" * 40000, fin=False), frame(0, b"b" * 40000), text("after")],
    "unmasked": [frame(1, b"x", mask=None)],
    "unmasked after": [text("a") + frame(1, b"x", mask=None)],
    "rsv1": [frame(1, b"x", rsv=4)],
    "rsv3": [frame(1, b"x", rsv=1)],
    "opcode 3": [frame(3, b"x")],
    "opcode 11": [frame(11, b"x")],
    "opcode 15 after": [text("a") + frame(15)],
    "126 for 5": [frame(1, b"x" * 5, form=126)],
    "127 for 200": [frame(1, b"x" * 200, form=127)],
    "2^63": [b"\x81\xff" + b"\xff" * 8 + b"abcd"],
    "ping of 126": [frame(9, b"x" * 126)],
    "fragmented ping": [frame(9, b"x", fin=False)],
    "close": [frame(8, NORMAL + b"bye")],
    "close without a code": [frame(8)],
    "close with half a code": [frame(8, b"\x03")],
    "close with 1005": [frame(8, struct.pack("!H", 1005))],
    "close with 999": [frame(8, struct.pack("!H", 999))],
    "close with 3999": [frame(8, struct.pack("!H", 3999) + b"mine")],
    "close with 5000": [frame(8, struct.pack("!H", 5000))],
    "close in bad letters": [frame(8, NORMAL + b"\xff")],
    "said after close": [text("a") + frame(8, NORMAL) + text("b")],
    "mask of noughts": [frame(1, b"abc", mask=b"\0\0\0\0")],
    "in halves": [text("hello")[:4], text("hello")[4:] + text("z")],
    "half of the second": [text("a") + text("hello")[:3], text("hello")[3:]],
    "byte by byte": [bytes((byte,)) for byte in text("héllo") + frame(9, b"q") + text("x" * 130)],
}
CASES |= {f"bad letters {number}": [text(bad)] for number, bad in enumerate(BAD_UTF8)}
CASES |= {f"bad letters {number} between": [text("x") + text(bad) + text("y")] for number, bad in enumerate(BAD_UTF8)}


def until_closed(found: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """
    Frames up to the close frame: what follows a failure is read by Autobahn, and by us no more.
    """
    for index, (first, _) in enumerate(found):
        if first == CLOSE:
            return found[: index + 1]
    return found


def compare(pieces: list[bytes]) -> None:
    stock, plain, lean = Stock(), Socket(lean=False), Socket(lean=True)
    expected = until_closed(stock.talk(*pieces))
    assert until_closed(plain.talk(*pieces)) == expected
    assert until_closed(lean.talk(*pieces)) == expected
    for ours in (plain, lean):
        assert ours.connection.state == stock.connection.state or ours.connection.failedByMe


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases(name: str) -> None:
    """
    Each way a message can be sent, rightly and wrongly, has the same answer by every road.
    """
    compare(CASES[name])


def test_every_split() -> None:
    """
    Where the bytes are cut makes no difference.
    """
    whole = text("split me") + frame(9, b"q") + frame(1, b"fr", fin=False) + frame(0, b"ag") + text("x" * 200)
    for at in range(1, len(whole)):
        compare([whole[:at], whole[at:]])


def _broken(rng: random.Random) -> Iterator[list[bytes]]:
    for number in range(1500):
        parts = (
            text(f"m{number}"),
            frame(2, rng.randbytes(20)),
            frame(9, b"k"),
            frame(1, b"f", fin=False),
            frame(0, b"g"),
            text("é" * rng.randrange(200)),
            text("a" * rng.choice((125, 126, 127, 300))),
            frame(8, NORMAL),
        )
        data = bytearray(b"".join(rng.choices(parts, (6, 2, 2, 2, 2, 4, 3, 1), k=rng.randrange(1, 7))))
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(3)))
        yield [bytes(data[a:b]) for a, b in zip([0, *cut], [*cut, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_broken_streams(seed: int) -> None:
    """
    Streams of frames with wrong bytes in them, cut anywhere, have the same answer by every road.
    """
    for pieces in _broken(random.Random(seed)):
        compare(pieces)
