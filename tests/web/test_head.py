"""
What a head must be to reach the node: one table of bytes and verdicts (Z11, Z12, Z14 to Z18).
"""

from __future__ import annotations

import pytest

from gateway.core.message import CHUNKED
from gateway.web.head import HeadReader, Refused

READER = HeadReader(max_target=200, max_head=2000, max_headers=20)


def verdict(data: bytes) -> str:
    try:
        head = READER.read(data)
    except Refused as refused:
        return str(refused)
    return f"ok {head.body_length}"


def lines(*more: bytes, start: bytes = b"POST / HTTP/1.1", host: bytes | None = b"Host: a.example") -> bytes:
    return b"\r\n".join([start, *([host] if host is not None else []), *more, b"", b""])


BAD = "400 bad_request"

HEADS = [
    # The request line (Z12).
    (lines(start=b"GET / HTTP/1.1"), "ok 0"),
    (lines(start=b"GET / HTTP/1.0"), "ok 0"),
    (lines(start=b"GET  / HTTP/1.1"), BAD),
    (lines(start=b"GET /  HTTP/1.1"), BAD),
    (lines(start=b"GET\t/ HTTP/1.1"), BAD),
    (lines(start=b"GET / HTTP/1.1 "), BAD),
    (lines(start=b" GET / HTTP/1.1"), BAD),
    (lines(start=b"GET /"), BAD),
    (lines(start=b"GET / http/1.1"), BAD),
    (lines(start=b"GET / RTSP/1.0"), BAD),
    (lines(start=b"GET / HTTP/1.10"), BAD),
    (lines(start=b"GET / HTTP/1.2"), "505 version_unsupported"),
    (lines(start=b"GET / HTTP/0.9"), "505 version_unsupported"),
    (lines(start=b"GET / HTTP/2.0"), "505 version_unsupported"),
    (b"PRI * HTTP/2.0\r\n\r\n", "505 version_unsupported"),
    (lines(start=b"BREW / HTTP/1.1"), "501 method_unknown"),
    (lines(start=b"get / HTTP/1.1"), "501 method_unknown"),
    (lines(start=b"TRACE / HTTP/1.1"), "501 method_unknown"),
    (lines(start=b"CONNECT a.example:443 HTTP/1.1"), "501 method_unknown"),
    (lines(start=b"G(T / HTTP/1.1"), BAD),
    (lines(start=b"GET a HTTP/1.1"), BAD),
    (lines(start=b"GET admin HTTP/1.1"), BAD),
    (lines(start=b"GET http://evil.example/x HTTP/1.1"), BAD),
    (lines(start=b"GET /x#y HTTP/1.1"), BAD),
    (lines(start=b"GET /\x80 HTTP/1.1"), BAD),
    (lines(start=b"GET /\x01 HTTP/1.1"), BAD),
    (lines(start=b"GET /\x00 HTTP/1.1"), BAD),
    (lines(start=b"GET * HTTP/1.1"), BAD),
    (lines(start=b"OPTIONS * HTTP/1.1"), "ok 0"),
    (lines(start=b"OPTIONS ** HTTP/1.1"), BAD),
    (lines(start=b"GET /%s HTTP/1.1" % (b"a" * 199)), "ok 0"),
    (lines(start=b"GET /%s HTTP/1.1" % (b"a" * 200)), "414 target_too_long"),
    (lines(start=b"GET /%s HTTP/1.1" % (b"a" * 900)), "414 target_too_long"),
    # Host (Z11).
    (lines(host=None), "400 bad_host"),
    (lines(start=b"GET / HTTP/1.0", host=None), "400 bad_host"),
    (lines(b"Host: b.example"), "400 bad_host"),
    (lines(b"host: a.example"), "400 bad_host"),
    (lines(host=b"Host:"), "400 bad_host"),
    (lines(host=b"Host: a@b/c, d"), "400 bad_host"),
    (lines(host=b"Host: user@a.example"), "400 bad_host"),
    (lines(host=b"Host: a.example, b.example"), "400 bad_host"),
    (lines(host=b"Host: a b"), "400 bad_host"),
    (lines(host=b"Host: a/b"), "400 bad_host"),
    (lines(host=b"Host: a\\b"), "400 bad_host"),
    (lines(host=b"Host: a?b"), "400 bad_host"),
    (lines(host=b"Host: a.example:http"), "400 bad_host"),
    (lines(host=b"Host: a.example:999999"), "400 bad_host"),
    (lines(host=b"Host: a:1:2"), "400 bad_host"),
    (lines(host=b"Host: ::1"), "400 bad_host"),
    (lines(host=b"Host: [::1"), "400 bad_host"),
    (lines(host=b"Host: \xc3\xa4.example"), "400 bad_host"),
    (lines(host=b"Host: " + b"a" * 300), "400 bad_host"),
    (lines(host=b"Host: a.example:8080"), "ok 0"),
    (lines(host=b"Host: 192.0.2.1"), "ok 0"),
    (lines(host=b"Host: [2001:db8::1]:4000"), "ok 0"),
    (lines(host=b"Host: xn--bcher-kva.example"), "ok 0"),
    # Header lines (Z14, Z15).
    (lines(b"X: a"), "ok 0"),
    (lines(b"X:"), "ok 0"),
    (lines(b"X: \xc3\xa4"), "ok 0"),
    (lines(b"X : a"), BAD),
    (lines(b"X\t: a"), BAD),
    (lines(b" X: a"), BAD),
    (lines(b": a"), BAD),
    (lines(b"X"), BAD),
    (lines(b"X(: a"), BAD),
    (lines(b"X\xe4: a"), BAD),
    (lines(b"X: a\r\n b"), BAD),
    (lines(b"X: a\r\n\tb"), BAD),
    (lines(b"X: a\x00b"), BAD),
    (lines(b"X: a\x01b"), BAD),
    (lines(b"X: a\x7fb"), BAD),
    (lines(b"X: a\rb"), BAD),
    (lines(b"X: a\nY: b"), BAD),
    (lines(b"X: a\n"), BAD),
    (lines(b"X: a\r"), BAD),
    (lines().replace(b"\r\n", b"\n"), BAD),
    (b"POST / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    (lines(*[b"X-%d: a" % i for i in range(19)]), "ok 0"),
    (lines(*[b"X-%d: a" % i for i in range(20)]), "431 head_too_large"),
    (lines(*[b"X_%d: a" % i for i in range(20)]), "431 head_too_large"),
    (lines(b"X: " + b"a" * 2000), "431 head_too_large"),
    (lines(*[b"X-%d: a" % i for i in range(40)], b"bad line"), "431 head_too_large"),
    (lines(b"bad line\n", *[b"X-%d: a" % i for i in range(40)]), BAD),
    (lines(b"Authorization: Bearer a", b"authorization: Bearer b"), BAD),
    (lines(b"Content-Type: a/b", b"Content-Type: c/d"), BAD),
    (lines(b"Cookie: a=b", b"Cookie: c=d"), "ok 0"),
    # Framing (Z14, Z17).
    (lines(b"Content-Length: 5"), "ok 5"),
    (lines(b"Content-Length: 007"), "ok 7"),
    (lines(b"Content-Length: " + b"9" * 19), f"ok {'9' * 19}"),
    (lines(b"Content-Length: " + b"9" * 20), BAD),
    (lines(b"Content-Length: " + b"0" * 20), BAD),
    (lines(b"Content-Length: " + b"1" * 1000), BAD),
    (lines(b"Content-Length: +5"), BAD),
    (lines(b"Content-Length: -5"), BAD),
    (lines(b"Content-Length: 0x5"), BAD),
    (lines(b"Content-Length: 5_0"), BAD),
    (lines(b"Content-Length: 5 0"), BAD),
    (lines(b"Content-Length: 5,5"), BAD),
    (lines(b"Content-Length: 5.0"), BAD),
    (lines(b"Content-Length: \xd9\xa5"), BAD),
    (lines(b"Content-Length:"), BAD),
    (lines(b"Content-Length: 5", b"Content-Length: 5"), BAD),
    (lines(b"Content-Length: 5", b"content-length: 6"), BAD),
    (lines(b"Content-Length: 5", b"Transfer-Encoding: chunked"), BAD),
    (lines(b"Transfer-Encoding: chunked", b"Content-Length: 0"), BAD),
    (lines(b"Transfer-Encoding: chunked"), f"ok {CHUNKED}"),
    (lines(b"Transfer-Encoding: Chunked"), f"ok {CHUNKED}"),
    (lines(b"Transfer-Encoding: identity"), BAD),
    (lines(b"Transfer-Encoding: gzip, chunked"), BAD),
    (lines(b"Transfer-Encoding: chunked, chunked"), BAD),
    (lines(b"Transfer-Encoding: chunked, identity"), BAD),
    (lines(b"Transfer-Encoding: chunked,"), BAD),
    (lines(b"Transfer-Encoding: ,chunked"), BAD),
    (lines(b"Transfer-Encoding: xchunked"), BAD),
    (lines(b'Transfer-Encoding: "chunked"'), BAD),
    (lines(b"Transfer-Encoding: chunked;q=1"), BAD),
    (lines(b"Transfer-Encoding:"), BAD),
    (lines(b"Transfer-Encoding: \x0bchunked"), BAD),
    (lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), BAD),
    (lines(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), BAD),
    (lines(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"), BAD),
    # Expect.
    (lines(b"Expect: 100-continue", b"Content-Length: 5"), "ok 5"),
    (lines(b"Expect: 100-Continue", b"Content-Length: 5"), "ok 5"),
    (lines(b"Expect: 200-ok"), "417 expectation_failed"),
    (lines(b"Expect: 100-continue, x"), "417 expectation_failed"),
    (lines(b"Expect: 200-ok", start=b"POST / HTTP/1.0"), "ok 0"),
    # Connection.
    (lines(b"Connection: close, x-user-id"), "ok 0"),
    (lines(b"Connection: a b"), BAD),
]


@pytest.mark.parametrize(("data", "expected"), HEADS, ids=[repr(data[:60]) for data, _ in HEADS])
def test_verdict(data: bytes, expected: str) -> None:
    """
    Each head gets exactly this verdict.
    """
    assert verdict(data) == expected


def test_first_byte_of_tls() -> None:
    """
    A TLS handshake on a plain port is told so.
    """
    doom = READER.doom(b"\x16")
    assert doom is not None
    assert str(doom) == "400 tls_unexpected"


def test_doom_agrees_with_read() -> None:
    """
    Whatever dooms a beginning is the verdict on the whole, so that splitting changes nothing.
    """
    for data, expected in HEADS:
        for end in range(1, len(data)):
            doom = READER.doom(data[:end])
            assert doom is None or str(doom) == expected, data[:end]


def test_doom_may_go_on_where_it_stopped() -> None:
    """
    Looking only at what is new finds the same doom, at the same byte, as looking at all of it.
    """
    for data, _ in HEADS:
        seen = 0
        for end in range(1, len(data)):
            whole = READER.doom(data[:end])
            assert str(READER.doom(data[:end], seen)) == str(whole), data[:end]
            if whole is not None:
                break
            seen = max(0, end - 3)


def test_names_with_underscore_are_dropped() -> None:
    """
    Z15: ``X_User_Id`` cannot reach a backend that reads it as ``X-User-Id``; the rest of the head stays.
    """
    head = READER.read(lines(b"X_User_Id: mallory", b"X-Fine: yes", b"_: x"))
    assert [name for name, _ in head.headers] == [b"Host", b"X-Fine"]
    assert set(head.fields) == {b"host", b"x-fine"}


def test_values_lose_outer_white_space_only() -> None:
    """
    White space around a value is not part of it.
    """
    head = READER.read(lines(b"X: \t a \t b \t "))
    assert head.fields[b"x"] == b"a \t b"


@pytest.mark.parametrize(
    ("start", "more", "keep"),
    [
        (b"GET / HTTP/1.1", (), True),
        (b"GET / HTTP/1.0", (), False),
        (b"GET / HTTP/1.0", (b"Connection: Keep-Alive",), True),
        (b"GET / HTTP/1.1", (b"Connection: close",), False),
        (b"GET / HTTP/1.1", (b"Connection: keep-alive,close",), False),
        (b"GET / HTTP/1.1", (b"Connection: keep-alive", b"Connection: x, CLOSE"), False),
        (b"GET / HTTP/1.0", (b"Connection: keep-alive, close",), False),
        (b"GET / HTTP/1.1", (b"Connection: ,, keep-alive ,",), True),
    ],
)
def test_persistence(start: bytes, more: tuple[bytes, ...], keep: bool) -> None:
    """
    Z16: ``Connection`` is a list of tokens over all of its lines.
    """
    assert READER.read(lines(*more, start=start)).keep_alive is keep


@pytest.mark.parametrize(
    ("more", "upgrade"),
    [
        ((b"Connection: Upgrade", b"Upgrade: WebSocket"), b"websocket"),
        ((b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"), b"websocket"),
        ((b"Upgrade: websocket",), None),
        ((b"Connection: upgrade",), None),
        ((b"Connection: upgrade", b"Upgrade: h2c, websocket"), b"h2c"),
        ((b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 3"), None),
    ],
)
def test_upgrade(more: tuple[bytes, ...], upgrade: bytes | None) -> None:
    """
    An upgrade is one only when ``Connection`` names it and no body stands between.
    """
    assert READER.read(lines(*more)).upgrade == upgrade


def test_one_head_leaves_nothing_for_the_next() -> None:
    """
    A reader serves every connection: what one said about closing or a body changes no other.
    """
    for before in (
        lines(b"Connection: close"),
        lines(b"Content-Length: 50"),
        lines(b"Transfer-Encoding: chunked"),
        lines(b"Connection: upgrade", b"Upgrade: x"),
        b"nonsense\r\n\r\n",
    ):
        verdict(before)
        assert verdict(lines(b"X: y")) == "ok 0"
