"""
What backends are sent of a client's data: beside what is set, never over it, and never a crash.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
import pytest_twisted
from tests.upstream.asked import ALICE, FACTS, ROOTS, Question, asking, failure, keyed, over_grpc, over_http, said
from tests.upstream.grpc_backends import grpc_backend
from tests.upstream.raw import backend, read_head

from gateway.config.realtime_sections import Rpc

pytestmark = pytest.mark.timeout(60)


class Remembering:
    """
    Answers ``{}`` and keeps heads and bodies.
    """

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def __call__(self, connection: Any) -> None:
        while head := read_head(connection):
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            length, body = int(fields.get(b"content-length", 0)), b""
            while len(body) < length:
                body += connection.recv(length - len(body))
            self.heads.append(head)
            self.bodies.append(body)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n")

    def lines(self, name: bytes) -> list[bytes]:
        """What the last head says of *name*."""
        lines = self.heads[-1].split(b"\r\n")
        return [line.partition(b": ")[2] for line in lines if line.lower().startswith(name + b":")]


@pytest.mark.parametrize(
    "data",
    [
        {"who": {"user": "mallory"}},
        {"WHO": {"user": "mallory"}, "who": {"USER": "mallory", "u\u017fer": "mallory"}},
        {"who": "mallory"},
        {"who": [{"user": "mallory"}]},
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_member_of_a_body_is_taken_for_one_that_is_set(data: dict[str, Any]) -> None:
    """
    A member that differs from a set one only in case is not sent: there are backends that would take it.
    """
    remembering = Remembering()
    with backend(remembering) as http:
        async with asking(over_http(http.port)) as make:
            call = make(Rpc(method="m", upstream="http", http="POST /a", set=(("who.user", "claims.sub"),)), ROOTS)
            assert await call.ask(FACTS, json.dumps({**data, "n": 1}).encode(), ALICE) == b"{}"
            assert json.loads(remembering.bodies[-1]) == {"n": 1, "who": {"user": "alice"}}


@pytest.mark.parametrize(
    "data",
    [
        {"who.user": "mallory"},
        {"": {"who": {"user": "mallory"}}},
        {"Who": {"User": ["mallory", "mallory"]}},
        {"who[user]": "mallory", "who.user[]": "mallory", " who .user": "mallory"},
        {"room": 2, "ROOM[]": 3},
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_name_in_a_query_is_taken_for_one_that_is_set(data: dict[str, Any]) -> None:
    """
    Nor is a name in a query that some backend reads as a set one, or as one of the configured path's own.
    """
    remembering = Remembering()
    with backend(remembering) as http:
        async with asking(over_http(http.port)) as make:
            section = Rpc(
                method="m", upstream="http", http="GET /a%2Fb?room=1&x=%26", set=(("who.user", "claims.sub"),)
            )
            text = "a b+c&d=e%41\u00fc"
            given = {**data, "q": text, "tags": [True, None, 2], "who2": {"user": "x"}}
            await make(section, ROOTS).ask(FACTS, json.dumps(given).encode(), ALICE)
            method, url, _ = remembering.heads[-1].split(b"\r\n")[0].split(b" ")
            path, _, query = url.decode("ascii").partition("?")
            assert (method, path) == (b"GET", "/a%2Fb")
            assert parse_qsl(query) == [
                ("room", "1"),
                ("x", "&"),
                ("q", text),
                ("tags", "true"),
                ("tags", "2"),
                ("who2.user", "x"),
                ("who.user", "alice"),
            ]
            assert remembering.bodies == [b""]
            assert remembering.lines(b"content-type") == []


@pytest_twisted.ensureDeferred
async def test_data_that_is_nothing() -> None:
    """
    No data and ``null`` are an empty request of either kind; data where nothing is set goes out as it came.
    """
    asked: list[Any] = []

    def answer(request: bytes, _context: Any) -> bytes:
        asked.append(Question.FromString(request))
        return b""

    remembering = Remembering()
    with backend(remembering) as http, grpc_backend(answer) as (port, _):
        async with asking(over_http(http.port), over_grpc(port)) as make:
            post = make(Rpc(method="m", upstream="http", http="POST /a"), ROOTS)
            put = make(Rpc(method="m", upstream="http", http="PUT /a", set=(("u", "claims.sub"),)), ROOTS)
            delete = make(Rpc(method="m", upstream="http", http="DELETE /a", set=(("u", "claims.sub"),)), ROOTS)
            call = make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask"), ROOTS)
            for nothing in (b"", b"null"):
                assert await call.ask(FACTS, nothing, ALICE) == b"{}"
                for one in (post, put, delete):
                    assert await one.ask(FACTS, nothing, ALICE) == b"{}"
            assert remembering.bodies == [b"{}", b'{"u":"alice"}', b""] * 2
            assert remembering.heads[-1].startswith(b"DELETE /a?u=alice HTTP/1.1\r\n")
            assert asked == [Question(), Question()]
            await post.ask(FACTS, b'[1, {"a":2,"a":3}]', ALICE)
            assert remembering.bodies[-1] == b'[1, {"a":2,"a":3}]'


@pytest_twisted.ensureDeferred
async def test_data_that_is_deep() -> None:
    """
    Data that is nested deeper than can be handled is the client's mistake.
    """
    remembering = Remembering()
    with backend(remembering) as http, grpc_backend(said("ok")) as (port, served):
        async with asking(over_http(http.port), over_grpc(port)) as make:
            sections = (
                Rpc(method="m", upstream="http", http="GET /a"),
                Rpc(method="m", upstream="http", http="POST /a", set=(("user", "claims.sub"),)),
                Rpc(method="m", upstream="grpc", call="t.Rules/Ask"),
            )
            for section in sections:
                error = await failure(make(section, ROOTS), b'{"inner":' * 5000 + b"1" + b"}" * 5000)
                assert (error.code, error.temporary) == (107, False)
            error = await failure(make(sections[0], ROOTS), b'{"inner":' * 700 + b"1" + b"}" * 700)
            assert error.code == 107
            assert (remembering.heads, served.metadata) == ([], [])


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("once", "once"),
        ("a\x00b", "a%00b"),
        ("a\r\nX-User-Id: mallory", "a%0D%0AX-User-Id: mallory"),
        ("\u00fc", "%C3%BC"),
        ("100%", "100%25"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_key_is_told_alike(key: str, told: str) -> None:
    """
    Whatever a client's key is made of, both kinds of backends are told the same, and it ends no line.
    """
    remembering = Remembering()
    with backend(remembering) as http, grpc_backend(said("ok")) as (port, served):
        async with asking(over_http(http.port), over_grpc(port)) as make:
            await make(Rpc(method="m", upstream="http", http="POST /a"), ROOTS).ask(keyed(key), b"", ALICE)
            await make(Rpc(method="m", upstream="grpc", call="t.Rules/Ask"), ROOTS).ask(keyed(key), b"", ALICE)
            assert remembering.lines(b"idempotency-key") == [told.encode("ascii")]
            assert remembering.lines(b"x-user-id") == [b"alice"]
            assert served.metadata[-1]["idempotency-key"] == told
