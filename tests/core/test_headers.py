"""
Header hygiene: what passes to a backend and to a client, and what never does.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import headers as headers_module
from gateway.core.headers import (
    connection_names,
    identity_names,
    is_reserved,
    request_block,
    response_block,
    tokens_of,
    trailer_block,
)
from gateway.core.message import Header, RequestHead, ResponseHead, block_of

NONE: frozenset[bytes] = frozenset()


def request(*headers: Header) -> RequestHead:
    return RequestHead(b"GET", b"/", list(headers), {name.lower(): value for name, value in headers})


def response(*headers: Header) -> ResponseHead:
    return ResponseHead(200, b"OK", list(headers), {name.lower(): value for name, value in headers}, 0)


def test_end_to_end_headers_pass_as_they_are() -> None:
    """
    What belongs to both ends passes with its spelling, its order, and as often as it stands.
    """
    kept: list[Header] = [
        (b"Accept", b"*/*"),
        (b"aCCEPT-encoding", b"gzip"),
        (b"Cookie", b"a=1"),
        (b"Cookie", b"b=2"),
        (b"Authorization", b"Bearer x"),
        (b"X-Thing", b""),
        (b"Idempotency-Key", b"\xe9"),
    ]
    assert request_block(request(*kept), NONE) == block_of(kept)
    answered: list[Header] = [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Content-Encoding", b"gzip")]
    assert response_block(response(*answered)) == block_of(answered)


HOP = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Proxy-Authenticate",
    b"Trailer",
    b"Transfer-Encoding",
    b"Upgrade",
    b"HTTP2-Settings",
    b"Content-Length",
]
FROM_GATEWAY = [
    b"Host",
    b"Expect",
    b"Proxy-Authorization",
    b"TE",
    b"Via",
    b"X-Forwarded-For",
    b"X-Forwarded-Client-Cert",
    b"X-Forwarded-Prefix",
    b"Forwarded",
    b"X-Real-IP",
    b"True-Client-IP",
    b"CF-Connecting-IP",
    b"X-Envoy-Internal",
    b"X-Request-Id",
    b"traceparent",
    b"tracestate",
    b"baggage",
    b"X-HTTP-Method-Override",
    b"X-HTTP-Method",
    b"X-Method-Override",
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"X-User-Id",
    b"X-User-Anything",
    b"X-Auth-Request-Email",
    b"X-Gateway-Key",
]


def spellings(name: bytes) -> list[bytes]:
    return [
        name,
        name.lower(),
        name.upper(),
        name.swapcase(),
        name.replace(b"-", b"_"),
        name.replace(b"-", b"_", 1).lower(),
        name.replace(b"-", b"."),
        name.replace(b"-", b"~").title(),
    ]


@pytest.mark.parametrize("name", [spelt for name in HOP + FROM_GATEWAY for spelt in spellings(name)])
def test_nothing_the_gateway_states_passes_to_a_backend(name: bytes) -> None:
    """
    Hop-by-hop headers, identity, origin, ids and overrides are dropped in every spelling.
    """
    head = request((b"Accept", b"x"), (name, b"evil"), (b"X-Z", b"y"))
    assert request_block(head, NONE) == b"Accept: x\r\nX-Z: y\r\n"
    assert is_reserved(name, NONE)
    assert trailer_block([(name, b"evil"), (b"X-Sum", b"1")], NONE) == b"X-Sum: 1\r\n"


@pytest.mark.parametrize("name", [*HOP, b"TE", b"Alt-Svc", b"X-Gateway-Error", b"x-request-id"])
def test_nothing_of_one_connection_passes_to_a_client(name: bytes) -> None:
    """
    Of an answer everything that belongs to the hop is dropped, and what only the gateway says.
    """
    assert response_block(response((b"ETag", b"1"), (name, b"x"))) == b"ETag: 1\r\n"


def test_configured_names_are_dropped_in_every_spelling() -> None:
    """
    Names by which this configuration tells backends of the caller are dropped too, prefixes as well.
    """
    drop = identity_names(["X-Roles", "Tenant_Id", "X-Game-*"])
    for name in (b"x-roles", b"X_ROLES", b"tenant-id", b"Tenant.Id", b"X-Game-Seat", b"x_game_", b"X-GAME-A-B"):
        assert is_reserved(name, drop)
        assert request_block(request((name, b"evil")), drop) == b""
        assert trailer_block([(name, b"evil")], drop) == b""
    for name in (b"X-Rolesx", b"X-Game", b"Tenant", b"X-Userid"):
        assert not is_reserved(name, drop)
    assert request_block(request((b"authorization", b"x")), drop | {b"authorization"}) == b""
    assert response_block(response((b"SERVER", b"x"), (b"A", b"b")), frozenset((b"server",))) == b"A: b\r\n"


@given(st.sampled_from(HOP + FROM_GATEWAY), st.data())
def test_no_spelling_of_a_reserved_name_passes(name: bytes, data: st.DataObject) -> None:
    """
    Whatever case and whatever sign for the hyphen, a reserved name stays reserved.
    """
    signs = st.sampled_from(list(b"-_.~!#$%&'*+^`|"))
    cases = st.booleans()
    spelt = bytes(
        data.draw(signs) if sign == 0x2D else (bytes([sign]).swapcase()[0] if data.draw(cases) else sign)
        for sign in name
    )
    assert is_reserved(spelt, NONE)


def test_connection_removes_what_it_lists() -> None:
    """
    All lines of Connection count, both ways, whatever their case and spacing.
    """
    listed: list[Header] = [
        (b"Connection", b"close, X-One"),
        (b"X-One", b"1"),
        (b"x-two", b"2"),
        (b"X-Three", b"3"),
        (b"connection", b" ,keep-alive ,\tX-TWO"),
    ]
    assert request_block(request(*listed), NONE) == b"X-Three: 3\r\n"
    assert response_block(response(*listed)) == b"X-Three: 3\r\n"
    assert connection_names(request(*listed)) == {b"x-one", b"x-two"}
    assert connection_names(request((b"Connection", b"keep-alive"))) == frozenset()


@pytest.mark.parametrize(
    ("values", "passes"),
    [
        ([b"trailers"], True),
        ([b"Trailers, deflate;q=0.5"], True),
        ([b"deflate", b"trailers"], True),
        ([b"gzip"], False),
        ([b"trailersx"], False),
        ([b""], False),
    ],
)
def test_te_passes_for_trailers_alone(values: list[bytes], passes: bool) -> None:
    """
    Of TE only ``trailers`` passes, also where Connection lists TE.
    """
    head = request((b"Connection", b"TE"), *[(b"TE", value) for value in values])
    assert request_block(head, NONE) == (b"TE: trailers\r\n" if passes else b"")


@pytest.mark.parametrize(
    "name",
    [b"Content-Type", b"content-range", b"Authorization", b"Set-Cookie", b"If-Match", b"Cache-Control", b"Location"],
)
def test_trailers_cannot_change_the_message(name: bytes) -> None:
    """
    What decides framing, content, routing or credentials is no trailer (RFC 9110, 6.5.1).
    """
    assert trailer_block([(name, b"x"), (b"grpc-status", b"0")], NONE) == b"grpc-status: 0\r\n"
    assert trailer_block([], NONE) == b""


def test_memory_of_names_is_bounded() -> None:
    """
    Clients that send ever new names, and configurations that change, fill no memory.
    """
    for number in range(3000):
        name = b"x-%d" % number
        assert request_block(request((name, b"1"), (b"Connection", name)), NONE) == b""
    for number in range(200):
        assert is_reserved(b"x-user-id", frozenset((b"x-%d" % number,)))
    assert not is_reserved(b"x" * 500, NONE)
    assert len(headers_module._request_kept) <= headers_module._SETS_REMEMBERED
    assert all(len(names) <= headers_module._NAMES_REMEMBERED for names in headers_module._request_kept.values())
    assert b"x" * 500 not in headers_module._request_kept[NONE]
    assert len(headers_module._connections) <= headers_module._NAMES_REMEMBERED


def test_tokens_are_split_and_lowered() -> None:
    """
    Lists over several lines give their tokens, without parameters, blanks and empty ones.
    """
    assert tokens_of([b"A, b;q=1 ,,\tC", b"", b"d"]) == [b"a", b"b", b"c", b"d"]
