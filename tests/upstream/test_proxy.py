"""
What passes through, and what does not.
"""

import json
from typing import Any

import pytest
import pytest_twisted
from tests.backends.running import Lying
from tests.upstream.conftest import Lies
from tests.upstream.gate import Answer, Gate, head_of, route, upstream
from tests.web.harness import eventually


def values(asked: dict[str, Any], name: str) -> list[str]:
    """What the backend was told under *name*, however it was spelled."""
    return [value for key, value in asked["headers"] if key.lower() == name]


def gate(backend: Lying, **changes: Any) -> Gate:
    return Gate([upstream(backend.target, **changes)], [route()])


@pytest_twisted.ensureDeferred
async def test_a_request_reaches_the_backend_as_it_was(lying: Lies) -> None:
    """
    Method, path, query, headers and body arrive unchanged, and so do status, headers and body of the answer.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask(
            "/a/%C3%A9/b+c?q=1&q=%2F&empty",
            "Accept-Encoding: gzip",
            "Cookie: a=b; c=d",
            "X-Many: 1",
            "X-Many: 2",
            "Content-Type: application/x-www-form-urlencoded",
            method="POST",
            body=b"a=1&b=%zz",
        )
    [asked] = backend.seen()
    assert (asked["method"], asked["target"], asked["body"]) == ("POST", "/a/%C3%A9/b+c?q=1&q=%2F&empty", "a=1&b=%zz")
    assert values(asked, "x-many") == ["1", "2"]
    assert values(asked, "accept-encoding") == ["gzip"]
    assert values(asked, "cookie") == ["a=b; c=d"]
    assert (answer.status, answer.header("x-backend"), answer.whole) == (200, str(backend.port), True)
    assert json.loads(answer.body)["body"] == "a=1&b=%zz"
    [(exchange, whole)] = subject.journal.ended
    assert whole
    assert (exchange.upstream, exchange.upstream_target, exchange.attempts) == ("backend", backend.name, 1)
    assert (exchange.flag, exchange.reason) == ("", "")
    assert exchange.upstream_ttfb_s > 0


@pytest_twisted.ensureDeferred
async def test_what_the_gateway_adds(lying: Lies) -> None:
    """
    A backend is told where the request came from, which it is, who calls and who passed it on; once each.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask("/")
    [asked] = backend.seen()
    expected = {
        "host": backend.name,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "gw.example",
        "via": "1.1 gateway",
        "x-user-id": "alice",
        "x-role": "player",
    }
    assert {name: values(asked, name) for name in expected} == {name: [value] for name, value in expected.items()}
    assert len(values(asked, "traceparent")) == len(values(asked, "x-request-id")) == 1
    assert values(asked, "connection") == []
    assert answer.header("via") == "1.1 gateway"
    assert answer.header("x-request-id") == values(asked, "x-request-id")[0]


FORGED = {
    "plain": ["X-User-Id: mallory", "X-Role: admin"],
    "case": ["x-uSeR-iD: mallory", "X-ROLE: admin"],
    "underscore": ["X_User_Id: mallory", "X_Role: admin"],
    "other signs": ["X.User.Id: mallory", "X~Role: admin", "X-User.Id: mallory"],
    "twice": ["X-User-Id: mallory", "X-User-Id: mallory", "X-Role: admin", "X-Role: admin"],
    "whole family": ["X-User-Name: mallory", "X-Auth-User: mallory", "X-Gateway-Trusted: mallory"],
    "listed as hop by hop": ["X-User-Id: mallory", "Connection: x-user-id, X-Role, host, x-forwarded-for, via"],
    "listed in two lines": ["Connection: keep-alive, x-user-id", "Connection: x-role, traceparent, x-request-id"],
    "only listed": ["Connection: X-User-Id", "Connection: X-Role"],
    "token": ["Authorization: Bearer mallory"],
    "address": [
        "X-Forwarded-For: mallory",
        "X-Forwarded-Host: mallory",
        "X-Real-IP: mallory",
        "Forwarded: for=mallory",
        "CF-Connecting-IP: mallory",
        "True-Client-IP: mallory",
    ],
    "method and path": [
        "X-HTTP-Method-Override: mallory",
        "X-Original-URL: /mallory",
        "X-Rewrite-URL: /mallory",
        "X-Forwarded-Prefix: /mallory",
    ],
    "proxy": ["Proxy-Authorization: mallory", "Proxy-Connection: mallory", "Keep-Alive: mallory"],
}


@pytest.mark.parametrize("name", FORGED)
@pytest_twisted.ensureDeferred
async def test_forged_identity_never_arrives(name: str, lying: Lies) -> None:
    """
    Under no spelling and by no trick does a backend see a client's word for who calls, from where, for what.
    """
    backend = lying()
    async with gate(backend) as subject:
        assert (await subject.ask("/", *FORGED[name])).status == 200
    [asked] = backend.seen()
    assert "mallory" not in json.dumps(asked)
    assert "admin" not in json.dumps(asked["headers"])
    assert values(asked, "x-user-id") == ["alice"]
    assert values(asked, "x-role") == ["player"]
    assert values(asked, "x-forwarded-for") == ["127.0.0.1"]
    assert values(asked, "via") == ["1.1 gateway"]
    assert len(values(asked, "host")) == len(values(asked, "traceparent")) == 1


@pytest.mark.parametrize("name", FORGED)
@pytest_twisted.ensureDeferred
async def test_without_identity_there_is_none(name: str, lying: Lies) -> None:
    """
    Where nobody is known the backend is told nobody, whatever a client says.
    """
    backend = lying()
    async with Gate([upstream(backend.target)], [route()], identity=None) as subject:
        assert (await subject.ask("/", *FORGED[name])).status == 200
    [asked] = backend.seen()
    assert "mallory" not in json.dumps(asked)
    assert values(asked, "x-user-id") == values(asked, "x-role") == values(asked, "authorization") == []


@pytest_twisted.ensureDeferred
async def test_forged_trailers_never_arrive(lying: Lies) -> None:
    """
    Trailers pass, but none that says who calls.
    """
    backend = lying()
    async with gate(backend) as subject:
        for late in (False, True):
            client = await subject.connect()
            client.send(head_of("/", "Transfer-Encoding: chunked", "Connection: close", method="POST"))
            client.send(b"2\r\nhi\r\n")
            if late:
                await eventually(lambda: backend.seen()[1:])
            client.send(b"0\r\nX-User-Id: mallory\r\nX-Role: mallory\r\nX_Role: mallory\r\nX-Sum: 7\r\n\r\n")
            assert Answer(await client.closed()).status == 200
    for asked in backend.seen():
        assert asked["body"] == "hi"
        assert asked["trailers"] == ["X-Sum: 7"]


@pytest_twisted.ensureDeferred
async def test_hop_by_hop_stays_behind(lying: Lies) -> None:
    """
    What belongs to the client's connection, and what it lists, is not passed on; "te: trailers" is.
    """
    backend = lying()
    async with gate(backend) as subject:
        await subject.ask(
            "/", "Connection: X-Hop", "X-Hop: 1", "TE: trailers, deflate", "Keep-Alive: timeout=5", "X-Kept: 1"
        )
    [asked] = backend.seen()
    assert values(asked, "x-hop") == values(asked, "keep-alive") == values(asked, "connection") == []
    assert values(asked, "te") == ["trailers"]
    assert values(asked, "x-kept") == ["1"]


@pytest.mark.parametrize(
    ("host", "told"), [(None, "127.0.0.1:{port}"), ("players.internal", "players.internal"), ("client", "gw.example")]
)
@pytest_twisted.ensureDeferred
async def test_host(host: str | None, told: str, lying: Lies) -> None:
    """
    ``Host`` is the target's authority, a fixed name, or the client's.
    """
    backend = lying()
    async with gate(backend, host=host) as subject:
        assert (await subject.ask("/")).status == 200
    assert values(backend.seen()[0], "host") == [told.format(port=backend.port)]


@pytest.mark.parametrize(
    ("path", "prefix", "asked", "forwarded"),
    [
        ("/**", "/api", "/api/players/1?a=b", "/players/1?a=b"),
        ("/**", "/api/", "/api/players", "/players"),
        ("/**", "/api", "/api", "/"),
        ("/**", "/api", "/api/", "/"),
        ("/**", "/api", "/apis/1", "/apis/1"),
        ("/**", "/api", "/v1/../api/%7Eme/./x//y", "/~me/x/y"),
        ("/**", None, "/a/../b", "/b"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_prefix(path: str, prefix: str | None, asked: str, forwarded: str, lying: Lies) -> None:
    """
    The canonical path is what is forwarded, less the prefix where that is whole segments.
    """
    backend = lying()
    async with Gate([upstream(backend.target)], [route(path, strip_prefix=prefix)]) as subject:
        assert (await subject.ask(asked)).status == 200
    assert backend.seen()[0]["target"] == forwarded


@pytest_twisted.ensureDeferred
async def test_via_is_joined_and_a_loop_ends(lying: Lies) -> None:
    """
    Our name joins those before it; a request that bears it three times is not passed on any more.
    """
    backend = lying()
    async with gate(backend) as subject:
        await subject.ask("/", "Via: 1.0 fred, 1.1 gateway (us)", "Via: HTTP/1.1 GATEWAY")
        assert values(backend.seen()[0], "via") == ["1.0 fred, 1.1 gateway (us), HTTP/1.1 GATEWAY, 1.1 gateway"]
        answer = await subject.ask("/", "Via: 1.1 gateway, 1.1 gateway", "Via: 1.1 gateway, 1.1 other")
    assert (answer.status, answer.code) == (508, "loop_detected")
    assert len(backend.seen()) == 1


@pytest_twisted.ensureDeferred
async def test_an_old_client(lying: Lies) -> None:
    """
    An HTTP/1.0 client's version stands in ``Via``; its answer ends as such a client understands.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(b"GET /lie/trailers HTTP/1.0\r\nHost: gw.example\r\n\r\n")
        answer = Answer(await client.closed())
    assert values(backend.seen()[0], "via") == ["1.0 gateway"]
    assert (answer.status, answer.body, answer.header("transfer-encoding")) == (200, b"hello", None)


@pytest_twisted.ensureDeferred
async def test_answers_without_a_body(lying: Lies) -> None:
    """
    HEAD, 204 and 304 pass without a body, and the connection goes on.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask("/", method="HEAD")
        assert (answer.status, answer.body, answer.rest) == (200, b"", b"")
        assert int(answer.header("content-length") or 0) > 0
        answer = await subject.ask("/lie/trailers", method="HEAD")
        assert (answer.status, answer.header("content-length"), answer.rest) == (200, None, b"")
        client = await subject.connect()
        for number, status in enumerate((204, 304), 1):
            client.send(head_of(f"/lie/busy?status={status}"))
            await client.containing(b"Sorry\r\n", number)
        client.send(head_of("/", "Connection: close"))
        data = await client.closed()
        assert data.count(b"HTTP/1.1 ") == 3


@pytest_twisted.ensureDeferred
async def test_trailers_of_an_answer(lying: Lies) -> None:
    """
    Trailers come back, but none that could not be a trailer.
    """
    backend = lying()
    async with gate(backend) as subject:
        answer = await subject.ask("/lie/trailers")
    assert (answer.body, answer.whole) == (b"hello", True)
    assert answer.trailers == b"X-Sum: 42\r\n"


@pytest_twisted.ensureDeferred
async def test_interim_responses_pass(lying: Lies) -> None:
    """
    Early hints reach the client before the answer, without what only the gateway may say.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(head_of("/lie/hints", "Connection: close"))
        first, _, second = (await client.closed()).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 103 ")
    assert b"Link: </a.css>; rel=preload" in first
    assert b"X-Gateway-Error" not in first
    assert Answer(second).status == 200


@pytest_twisted.ensureDeferred
async def test_an_awaited_continue(lying: Lies) -> None:
    """
    A client that waits for 100 Continue is told to go on once there is a target for its body.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(head_of("/", "Expect: 100-continue", "Content-Length: 5", "Connection: close", method="PUT"))
        await client.containing(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        answer = Answer((await client.closed()).partition(b"\r\n\r\n")[2])
    assert answer.status == 200
    [asked] = backend.seen()
    assert (asked["body"], values(asked, "expect")) == ("hello", [])


@pytest_twisted.ensureDeferred
async def test_an_early_answer_is_passed_on(lying: Lies) -> None:
    """
    A backend that answers before it has read the body is heard; the rest of the body goes nowhere.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(head_of("/lie/early", "Content-Length: 10000000", method="POST") + b"x" * 100_000)
        await client.containing(b"\r\n\r\nno")
        assert client.data.startswith(b"HTTP/1.1 403 ")
        assert (await subject.ask("/")).status == 200


@pytest_twisted.ensureDeferred
async def test_connections_are_kept(lying: Lies) -> None:
    """
    Requests of different clients share a connection to the backend.
    """
    backend = lying()
    async with gate(backend) as subject:
        for _ in range(5):
            await subject.ask("/", method="POST", body=b"x")
    assert len({asked["connection"] for asked in backend.seen()}) == 1


@pytest_twisted.ensureDeferred
async def test_pipelined_requests_are_answered_in_order(lying: Lies) -> None:
    """
    A slow answer is not overtaken by a quick one on the same connection.
    """
    backend = lying()
    async with gate(backend) as subject:
        client = await subject.connect()
        client.send(
            head_of("/lie/slow?n=1") + head_of("/2") + head_of("/lie/slow?n=3") + head_of("/4", "Connection: close")
        )
        data = await client.closed()
    assert [data.index(mark) for mark in (b'n=1"', b'"/2"', b'n=3"', b'"/4"')] == sorted(
        data.index(mark) for mark in (b'n=1"', b'"/2"', b'n=3"', b'"/4"')
    )
