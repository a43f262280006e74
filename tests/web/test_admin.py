"""
The admin port: who may ask, what is told, what can be ordered. Over real sockets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
import pytest_twisted
from tests.web.harness import RawClient, body_of, pause, status_of, statuses
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from gateway.config.sections import AdminKey, Listen, Secret
from gateway.core.identity import Identity, Revocation
from gateway.memory.revocations import MemoryRevocations
from gateway.web.admin import AdminPort, Operations
from gateway.web.admin_pages import pages
from gateway.web.listen import ListenFailed

NOW = 1_700_000_000.0
ENDPOINT = "tcp:0:interface=127.0.0.1"
ALL, READ, REVOKE = "all-all-all-all-all", "read-read-read-read", "revoke-revoke-revoke"
KEYS = (
    AdminKey("root", Secret(ALL), ("*",)),
    AdminKey("reader", Secret(READ), ("read",)),
    AdminKey("support", Secret(REVOKE), ("revoke",)),
)
OPEN = ("/metrics", "/health", "/livez", "/ready", "/readyz", "/jwks.json")
GUARDED = ("/status", "/config", "/upstreams", "/reload", "/api/revoke", "/", "/none", "/metrics/x")


class Admin:
    """
    An admin port whose orders are remembered.
    """

    def __init__(
        self,
        keys: Iterable[AdminKey] = KEYS,
        listen: Listen | None = None,
        revocations: MemoryRevocations | None = None,
    ) -> None:
        self.revocations = revocations or MemoryRevocations(lambda: NOW)
        self.ready = True
        self.faults: list[str] = []
        self.reloads = 0
        self.audited: list[tuple[str, dict[str, Any]]] = []
        self.operations = Operations(
            metrics=lambda _openly: b"gateway_ready 1.0\n",
            ready=lambda: self.ready,
            readiness=lambda: {"ready": self.ready, "reason": "" if self.ready else "keys"},
            config=lambda: {"auth": {"issuer": [{"secret": "***"}]}},
            upstreams=lambda: [{"name": "players"}],
            openapi=lambda: {"openapi": "3.1.0"},
            jwks=lambda: {"keys": []},
            revocations=self.revocations,
            reload=self._reload,
            audit=lambda event, fields: self.audited.append((event, fields)),
            wall=lambda: NOW,
        )
        self.port = AdminPort(self.operations, listen or Listen(admin=(ENDPOINT,)), tuple(keys))

    def _reload(self) -> list[str]:
        self.reloads += 1
        return self.faults

    async def __aenter__(self) -> Admin:
        await self.port.open(reactor)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.port.close()

    async def connect(self, which: int = 0) -> RawClient:
        address: Any = self.port.addresses[which]
        here: Any = reactor
        client: RawClient = await clientFromString(here, f"tcp:127.0.0.1:{address.port}").connect(
            Factory.forProtocol(RawClient)
        )
        return client

    async def send(self, data: bytes, which: int = 0) -> bytes:
        client = await self.connect(which)
        client.send(data)
        return await client.closed()

    async def ask(
        self,
        target: str,
        *lines: str,
        method: str = "GET",
        key: str = "",
        body: bytes = b"",
        host: str = "localhost",
        which: int = 0,
    ) -> bytes:
        head = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
        if key:
            head.append(f"Authorization: Bearer {key}")
        if body:
            head.append(f"Content-Length: {len(body)}")
        return await self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body, which)


def code_of(data: bytes) -> str:
    code: str = json.loads(body_of(data))["code"]
    return code


def identity(**known: Any) -> Identity:
    return Identity(**{"subject": "alice", "issuer": "https://issuer.example", "expires_at": NOW + 60, **known})


@pytest_twisted.ensureDeferred
async def test_what_needs_no_key() -> None:
    """
    Metrics, health, readiness and the keys of minted tokens are told to whoever calls by a right name.
    """
    async with Admin(keys=()) as admin:
        for path in OPEN:
            assert status_of(await admin.ask(path)) == 200
        assert body_of(await admin.ask("/metrics")) == b"gateway_ready 1.0\n"
        assert json.loads(body_of(await admin.ask("/jwks.json"))) == {"keys": []}
        admin.ready = False
        answer = await admin.ask("/ready")
        assert status_of(answer) == 503
        assert b"keys" not in body_of(answer), "the reason is told to keys only"
        assert status_of(await admin.ask("/health")) == 200


@pytest_twisted.ensureDeferred
async def test_everything_else_needs_a_key() -> None:
    """
    Without a key every other path is 401, there or not, whatever the method; nothing is ordered.
    """
    async with Admin() as admin:
        for path in GUARDED:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
                answer = await admin.ask(path, method=method)
                assert status_of(answer) == 401, (method, path)
                assert b'WWW-Authenticate: Bearer realm="admin"\r\n' in answer
        assert admin.reloads == 0


@pytest_twisted.ensureDeferred
async def test_no_keys_open_nothing() -> None:
    """
    Where no key is configured no key is right, not even an empty one.
    """
    async with Admin(keys=()) as admin:
        for lines in ((), ("Authorization: Bearer ",), ("X-API-Key: ",), ("X-API-Key: x",)):
            assert status_of(await admin.ask("/config", *lines)) == 401


@pytest.mark.parametrize(
    "lines",
    [
        (f"Cookie: key={ALL}; X-API-Key={ALL}; Authorization=Bearer {ALL}",),
        (f"Authorization: Basic {ALL}",),
        (f"Authorization: {ALL}",),
        (f"Proxy-Authorization: Bearer {ALL}",),
        (f"Authorization: Bearer {ALL[:-1]}",),
        (f"Authorization: Bearer {ALL}x",),
        (f"Authorization: Bearer {ALL.upper()}",),
        (f"Authorization: Bearer {READ}", f"X-API-Key: {READ}"),
        (f"X-API-Key: {ALL}", f"X-API-Key: {ALL}"),
        (f"X-API-Key: {ALL},{ALL}",),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_ways_to_show_a_key(lines: tuple[str, ...]) -> None:
    """
    One key in one header; none from a cookie, another scheme, or beside a second one.
    """
    async with Admin() as admin:
        answer = await admin.ask("/config", *lines)
        assert status_of(answer) == 401
        assert code_of(answer) == "admin_key_missing"


@pytest_twisted.ensureDeferred
async def test_key_in_the_query_is_none() -> None:
    """
    A key in the query is not looked at: a query stands in logs and histories.
    """
    async with Admin() as admin:
        for name in ("key", "api_key", "access_token", "X-API-Key"):
            assert status_of(await admin.ask(f"/config?{name}={ALL}")) == 401


@pytest_twisted.ensureDeferred
async def test_scopes() -> None:
    """
    A key does what its scopes name and no more; ``*`` is everything; both headers carry it.
    """
    async with Admin() as admin:
        assert status_of(await admin.ask("/config", key=READ)) == 200
        assert status_of(await admin.ask("/config", f"X-API-Key: {READ}")) == 200
        assert status_of(await admin.ask("/config", f"Authorization: bEARER {READ}")) == 200
        assert status_of(await admin.ask("/config", key=REVOKE)) == 403
        assert status_of(await admin.ask("/reload", method="POST", key=READ)) == 403
        assert status_of(await admin.ask("/reload", method="POST", key=REVOKE)) == 403
        assert admin.reloads == 0
        assert status_of(await admin.ask("/reload", method="POST", key=ALL)) == 200
        assert admin.reloads == 1
        assert status_of(await admin.ask("/none", key=ALL)) == 404


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost:9100", "127.0.0.1", "127.0.0.1:1", "[::1]:9100"])
@pytest_twisted.ensureDeferred
async def test_own_names(host: str) -> None:
    """
    The port answers to the names in ``admin_hosts``, whatever the port and case.
    """
    async with Admin() as admin:
        assert status_of(await admin.ask("/config", key=READ, host=host)) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "localhost.", "localhost:evil", "[::2]"]
)
@pytest_twisted.ensureDeferred
async def test_other_names(host: str) -> None:
    """
    Under any other name nothing is told, not even health: that is how a page rebinds DNS to loopback.
    """
    async with Admin() as admin:
        for path in (*OPEN, "/config"):
            answer = await admin.ask(path, key=READ, host=host)
            assert status_of(answer) == 400
            assert b"gateway_ready" not in answer


@pytest.mark.parametrize(
    "lines",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Origin: http://localhost.evil.example",),
        ("Origin: http://localhost:81",),
        ("Origin: ",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_sites(lines: tuple[str, ...]) -> None:
    """
    What another site's page sends is refused, on open paths as well, and is not carried out.
    """
    async with Admin() as admin:
        for path, method in (("/metrics", "GET"), ("/reload", "POST")):
            answer = await admin.ask(path, *lines, method=method, key=ALL)
            assert status_of(answer) == 403
            assert b"Access-Control" not in answer
        assert admin.reloads == 0
        assert [fields["reason"] for _, fields in admin.audited] in (["cross_origin"] * 2, ["cross_site"] * 2)


@pytest.mark.parametrize(
    "lines", [("Origin: http://localhost",), ("Sec-Fetch-Site: same-origin",), ("Sec-Fetch-Site: none",)]
)
@pytest_twisted.ensureDeferred
async def test_own_site(lines: tuple[str, ...]) -> None:
    """
    A page of the port itself, and an address typed in, are let through.
    """
    async with Admin() as admin:
        assert status_of(await admin.ask("/config", *lines, key=READ)) == 200


@pytest_twisted.ensureDeferred
async def test_answers_are_kept_from_browsers() -> None:
    """
    Every answer says that it must not be stored, framed, sniffed or read by other sites.
    """
    async with Admin() as admin:
        for answer in (
            await admin.ask("/metrics"),
            await admin.ask("/config", key=READ),
            await admin.ask("/config"),
            await admin.ask("/none", key=READ),
        ):
            for line in (
                b"Cache-Control: no-store",
                b"X-Content-Type-Options: nosniff",
                b"X-Frame-Options: DENY",
                b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
                b"Cross-Origin-Resource-Policy: same-origin",
                b"Referrer-Policy: no-referrer",
            ):
                assert line + b"\r\n" in answer
            assert b"Twisted" not in answer


@pytest_twisted.ensureDeferred
async def test_methods() -> None:
    """
    A path takes its method alone, and says which; HEAD is GET without the body.
    """
    async with Admin() as admin:
        answer = await admin.ask("/reload", key=ALL)
        assert status_of(answer) == 405
        assert b"Allow: POST\r\n" in answer
        answer = await admin.ask("/config", method="POST", key=ALL)
        assert status_of(answer) == 405
        assert b"Allow: GET, HEAD\r\n" in answer
        answer = await admin.ask("/metrics", method="HEAD")
        assert status_of(answer) == 200
        assert body_of(answer) == b""
        assert b"Content-Length: 18\r\n" in answer
        assert admin.reloads == 0


@pytest.mark.parametrize("target", ["//config", "/x/../config", "/%63onfig", "/config?x=1"])
@pytest_twisted.ensureDeferred
async def test_spellings_of_a_path(target: str) -> None:
    """
    A path has one meaning: another spelling is guarded like the plain one.
    """
    async with Admin() as admin:
        assert status_of(await admin.ask(target)) == 401
        assert status_of(await admin.ask(target, key=READ)) == 200


@pytest_twisted.ensureDeferred
async def test_revoke_a_token() -> None:
    """
    A token or session is revoked until a time, by default for as long as the instance lives.
    """
    async with Admin() as admin:
        for body, ends in (
            ({"token_id": "t1", "until": NOW + 60}, NOW + 60),
            ({"token_id": "s1", "ttl_s": 3600}, NOW + 3600),
            ({"token_id": "t2"}, NOW + 10 * 365 * 86400),
        ):
            answer = await admin.ask("/api/revoke", method="POST", key=REVOKE, body=json.dumps(body).encode())
            assert status_of(answer) == 200
            assert json.loads(body_of(answer)) == {"revoked": True, "until": ends}
        assert admin.revocations.is_revoked(identity(token_id="t1"))
        assert admin.revocations.is_revoked(identity(session_id="s1"))
        assert admin.revocations.is_revoked(identity(token_id="t2"))
        assert not admin.revocations.is_revoked(identity(token_id="t3"))
        assert [fields["key"] for event, fields in admin.audited if event == "admin.revoke"] == ["support"] * 3


class Away(MemoryRevocations):
    """Revocations whose store cannot be reached."""

    async def revoke(self, revocation: Revocation) -> bool:
        """It holds here."""
        self.add(revocation)
        return False


@pytest_twisted.ensureDeferred
async def test_revoke_while_the_store_is_away() -> None:
    """
    What others cannot be told yet is taken, holds here, and is said to be pending.
    """
    async with Admin(revocations=Away(lambda: NOW)) as admin:
        answer = await admin.ask("/api/revoke", method="POST", key=REVOKE, body=b'{"token_id": "t1", "ttl_s": 60}')
        assert status_of(answer) == 202
        assert json.loads(body_of(answer)) == {"revoked": True, "until": NOW + 60, "pending": True}
        assert admin.revocations.is_revoked(identity(token_id="t1"))


@pytest_twisted.ensureDeferred
async def test_revoke_a_subject() -> None:
    """
    All that a subject was issued before a time is revoked; before now, if none is said.
    """
    async with Admin() as admin:
        order = json.dumps({"subject": "alice", "issued_before": NOW - 100, "ttl_s": 60}).encode()
        assert status_of(await admin.ask("/api/revoke", method="POST", key=REVOKE, body=order)) == 200
        assert admin.revocations.is_revoked(identity(issued_at=NOW - 101))
        assert not admin.revocations.is_revoked(identity(issued_at=NOW - 99))
        await admin.ask("/api/revoke", method="POST", key=REVOKE, body=b'{"subject": "alice"}')
        assert admin.revocations.is_revoked(identity(issued_at=NOW - 99))
        assert not admin.revocations.is_revoked(identity(issued_at=NOW - 99, subject="bob"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff",
        b'{"token_id": 7}',
        b'{"token_id": ""}',
        b'{"token_id": "a", "subject": "b"}',
        b'{"token_id": "a", "issued_before": 1}',
        b'{"token_id": "a", "until": 1, "ttl_s": 1}',
        b'{"token_id": "a", "until": 1}',
        b'{"token_id": "a", "ttl_s": 0}',
        b'{"token_id": "a", "ttl_s": 1e300}',
        b'{"token_id": "a", "ttl_s": NaN}',
        b'{"token_id": "a", "until": "tomorrow"}',
        b'{"token_id": "a", "more": 1}',
    ],
)
@pytest_twisted.ensureDeferred
async def test_orders_that_are_none(body: bytes) -> None:
    """
    An order that is not exactly one is refused and changes nothing.
    """
    async with Admin() as admin:
        answer = await admin.ask("/api/revoke", method="POST", key=ALL, body=body)
        assert status_of(answer) == 400
        assert code_of(answer) == "bad_request"
        assert admin.revocations.held == 0


@pytest_twisted.ensureDeferred
async def test_bodies_are_bounded() -> None:
    """
    A body beyond 1 MiB is refused: at once where it is announced, where it passes the bound in chunks.
    """
    async with Admin() as admin:
        head = f"POST /api/revoke HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {ALL}\r\n".encode()
        announced = await admin.send(
            head + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n"
        )
        assert statuses(announced) == [413]
        client = await admin.connect()
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert statuses(await client.closed()) == [413]
        assert admin.revocations.held == 0


@pytest_twisted.ensureDeferred
async def test_strangers_cost_no_body() -> None:
    """
    Without a key the answer comes before the body, and before any 100 Continue.
    """
    async with Admin() as admin:
        answer = await admin.send(
            b"POST /api/revoke HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        )
        assert statuses(answer) == [401]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /config HTTP/1.1\r\n\r\n",
        b"GET /config HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/config HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /config HTTP/1.1\nHost: localhost\n\n",
        b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_ambiguous_requests(data: bytes) -> None:
    """
    The strictness of the clients' port holds here too: one answer that refuses, then the end.
    """
    async with Admin() as admin:
        with_key = data.replace(b"\r\nHost", b"\r\nX-API-Key: " + ALL.encode() + b"\r\nHost", 1)
        (status,) = statuses(await admin.send(with_key))
        assert 400 <= status < 500
        assert admin.reloads == 0


@pytest_twisted.ensureDeferred
async def test_reload_tells_its_faults() -> None:
    """
    A reload that was refused answers 409 with every fault.
    """
    async with Admin() as admin:
        admin.faults = ["gateway.toml:3:1: upstreams: did you mean upstream?"]
        answer = await admin.ask("/reload", method="POST", key=ALL)
        assert status_of(answer) == 409
        assert json.loads(body_of(answer)) == {"reloaded": False, "faults": admin.faults}
        assert admin.audited == [("admin.reload", {"key": "root", "faults": 1})]


@pytest_twisted.ensureDeferred
async def test_answers_that_come_later() -> None:
    """
    Metrics, upstreams and a reload that others must be asked about are answered when those have answered.
    """
    admin = Admin()
    here: Any = reactor

    def later(value: Any) -> Any:
        return lambda *_: deferLater(here, 0.01, lambda: value)

    for name, value in {"metrics": b"x 1.0\n", "upstreams": [{"name": "u"}], "reload": ["a fault"]}.items():
        object.__setattr__(admin.operations, name, later(value))
    async with admin:
        assert body_of(await admin.ask("/metrics")) == b"x 1.0\n"
        assert json.loads(body_of(await admin.ask("/upstreams", key=READ))) == [{"name": "u"}]
        assert status_of(await admin.ask("/reload", method="POST", key=ALL)) == 409
        assert admin.audited == [("admin.reload", {"key": "root", "faults": 1})]


@pytest_twisted.ensureDeferred
async def test_wrong_keys_are_told() -> None:
    """
    A key that is none and a scope that is missing are audited, without the key itself.
    """
    async with Admin() as admin:
        await admin.ask("/config", key="guessed-guessed-guessed")
        await admin.ask("/config", key=REVOKE)
        assert [(event, fields["reason"]) for event, fields in admin.audited] == [
            ("admin.refused", "admin_key_unknown"),
            ("admin.refused", "scope read of key support"),
        ]
        assert "guessed" not in repr(admin.audited)
        assert REVOKE not in repr(admin.audited)


@pytest_twisted.ensureDeferred
async def test_a_page_that_fails() -> None:
    """
    A page that fails is a 500 that tells nothing; the port goes on.
    """
    admin = Admin()

    def fail(_openly: bool) -> bytes:
        raise ZeroDivisionError("with secrets in it")

    object.__setattr__(admin.operations, "metrics", fail)
    async with admin:
        answer = await admin.ask("/metrics")
        assert status_of(answer) == 500
        assert b"secrets" not in answer
        assert status_of(await admin.ask("/health")) == 200


@pytest_twisted.ensureDeferred
async def test_other_keys_and_names_at_a_reload() -> None:
    """
    Keys and names change at once, also for connections that are open, and for who looks at the live page.
    """
    async with Admin() as admin:
        looks = await admin.connect()
        looks.send(f"GET /live/samples HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {READ}\r\n\r\n".encode())
        await looks.containing(b"event: sample")
        client = await admin.connect()
        ask = f"GET /config HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {READ}\r\n\r\n".encode()
        client.send(ask)
        await client.until(lambda: b"***" in client.data)
        new = AdminKey("new", Secret("new-new-new-new-new"), ("read",))
        admin.port.configure(Listen(admin=(ENDPOINT,), admin_hosts=("gw.internal",)), (new,))
        await looks.containing(b"\r\n0\r\n\r\n")  # The last chunk: that answer is over.
        client.clear()
        client.send(ask)
        await client.containing(b"HTTP/1.1 400")
        client.send(ask.replace(b"localhost", b"gw.internal"))
        await client.containing(b"HTTP/1.1 401")
        client.send(ask.replace(b"localhost", b"gw.internal").replace(READ.encode(), b"new-new-new-new-new"))
        await client.containing(b"HTTP/1.1 200")


@pytest_twisted.ensureDeferred
async def test_metrics_apart() -> None:
    """
    The metrics endpoints answer by any name, as containers are asked; and know nothing else, with any key.
    """
    async with Admin(listen=Listen(admin=(ENDPOINT,), metrics=(ENDPOINT,))) as admin:
        for path in ("/metrics", "/health", "/ready"):
            assert status_of(await admin.ask(path, host="10.1.2.3:9101", which=1)) == 200
        for path in (*GUARDED, "/jwks.json"):
            assert status_of(await admin.ask(path, key=ALL, method="POST", which=1)) == 401
        assert status_of(await admin.ask("/metrics", "Sec-Fetch-Site: cross-site", which=1)) == 403


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_cannot_be_opened() -> None:
    """
    When one endpoint cannot be opened none stays open, and the error names it.
    """
    async with Admin() as admin:
        address: Any = admin.port.addresses[0]
        taken = f"tcp:{address.port}:interface=127.0.0.1"
        other = Admin(listen=Listen(admin=(ENDPOINT,), metrics=(taken,)))
        with pytest.raises(ListenFailed, match=taken):
            await other.port.open(reactor)
        assert other.port.addresses == []


@pytest_twisted.ensureDeferred
async def test_half_a_request_holds_no_place() -> None:
    """
    A head that trickles in is cut when its time is up, counted from its first byte.
    """
    async with Admin() as admin:
        (site, _) = admin.port._open[0]
        site.head_timeout_s = 0.5
        client = await admin.connect()
        client.send(b"GET /metrics HTTP/1.1\r\nHost: loc")
        for _ in range(100):
            await pause(0.05)
            client.send(b"a")
            if client.lost is not None:
                break
        assert client.lost is not None
        assert statuses(client.data) == [408]


def test_every_page_but_six_needs_a_scope() -> None:
    """
    A page that forgets its scope is found here.
    """
    table = pages(Admin().operations)
    assert sorted(path for path, page in table.items() if page.scope is None) == sorted(path.encode() for path in OPEN)


@pytest_twisted.ensureDeferred
async def test_the_api_page_runs_only_its_own_program() -> None:
    """
    The API's page and its program need no key and may load nothing from elsewhere; what it shows needs one.
    """
    async with Admin() as admin:
        for path in ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"):
            answer = await admin.ask(path)
            assert status_of(answer) == 200
            assert b"script-src 'self';" in answer
            assert b"unsafe-eval" not in answer.split(b"\r\n\r\n")[0]
        assert status_of(await admin.ask("/openapi.json")) == 401
        assert json.loads(body_of(await admin.ask("/openapi.json", key=READ)))["openapi"] == "3.1.0"
