"""
The demo's game, played over HTTP: JSON in, gRPC out.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.installation import ROOT
from tests.system.processes import environment
from tests.system.test_demo import demo, shown

BIN = Path(sys.executable).parent


class Player:
    """
    Somebody with a token.
    """

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        made = subprocess.run(
            [BIN / "gateway", "token", "demo/gateway.toml", "--sub", name],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        self.token = made.stdout.strip()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        lines = {"Authorization": f"Bearer {self.token}", **{name.replace("_", "-"): v for name, v in headers.items()}}
        if body is not None:
            lines["Content-Type"] = "application/json"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, lines)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data else None
        finally:
            connection.close()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("game")
    with shown(demo("--data", str(folder)), folder) as it:
        yield it.curl()[0]


@pytest.fixture
def alice(port: int) -> Player:
    return Player(port, "alice")


@pytest.fixture
def bob(port: int) -> Player:
    return Player(port, "bob")


def test_a_game_is_played_to_its_end(alice: Player, bob: Player) -> None:
    """
    A table is opened, two sit down, and one wins; each refusal has its status and reason.
    """
    status, table = alice.ask("POST", "/api/tables", {"name": "friday"})
    assert (status, table["phase"]) == (200, "WAITING")
    path = f"/api/tables/{table['tableId']}"
    assert alice.ask("PUT", f"{path}/seats/RED")[1]["red"] == "alice"
    status, problem = bob.ask("PUT", f"{path}/seats/RED")
    assert (status, problem["code"], problem["reason"]) == (409, "grpc_already_exists", "SEAT_TAKEN")
    status, table = bob.ask("POST", f"{path}:sit", {"seat": "YELLOW"})
    assert (status, table["phase"], table["turn"]) == (200, "PLAYING", "RED")
    assert bob.ask("POST", f"{path}/discs", {"column": 0})[1]["reason"] == "NOT_YOUR_TURN"
    for column in (0, 1, 0, 1, 0, 1):
        player = (alice, bob)[column]
        assert player.ask("POST", f"{path}/discs", {"column": column})[0] == 200
    status, table = alice.ask("POST", f"{path}/discs", {"column": 0})
    assert (table["phase"], table["winner"]) == ("WON", "RED")
    assert table["rows"][2:] == ["R......", "RY.....", "RY.....", "RY....."]
    assert alice.ask("GET", f"{path}/permissions/chat")[1] == {"allowed": True}
    assert bob.ask("PATCH", path, {"name": "saturday"})[1]["name"] == "saturday"
    assert path.rsplit("/", maxsplit=1)[1] in {table["tableId"] for table in bob.ask("GET", "/api/tables")[1]["tables"]}


def test_who_acts_cannot_be_said(alice: Player, bob: Player) -> None:
    """
    A client cannot set what the gateway fills, in body, query or header, however it is spelled.
    """
    _, table = alice.ask("POST", "/api/tables", {"name": "mine"})
    path = f"/api/tables/{table['tableId']}"
    for said in ({"seat": "RED", "userId": "alice"}, {"seat": "RED", "user_id": "alice"}):
        status, problem = bob.ask("POST", f"{path}:sit", said)
        assert (status, problem["code"]) == (400, "message_invalid")
    assert bob.ask("PUT", f"{path}/seats/RED?userId=alice")[0] == 400
    status, table = bob.ask("PUT", f"{path}/seats/RED", None, X_User_Id="alice")
    assert table["red"] == "bob"


def test_a_key_makes_a_request_once(alice: Player) -> None:
    """
    The same idempotency key opens one table, however often it is sent.
    """
    tables = {alice.ask("POST", "/api/tables", {"name": "once"}, Idempotency_Key="k-1")[1]["tableId"] for _ in range(3)}
    assert len(tables) == 1


def test_changes_stream_as_they_happen(alice: Player) -> None:
    """
    A stream gives the table as it is, then each change, one line each.
    """
    _, table = alice.ask("POST", "/api/tables", {"name": "watched"})
    path = f"/api/tables/{table['tableId']}"
    connection = http.client.HTTPConnection("127.0.0.1", alice.port, timeout=30)
    lines = {"Authorization": f"Bearer {alice.token}", "Accept": "application/x-ndjson"}
    connection.request("GET", f"{path}/changes", headers=lines)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "application/x-ndjson"
    assert json.loads(answer.readline())["name"] == "watched"
    alice.ask("PUT", f"{path}/seats/YELLOW")
    assert json.loads(answer.readline())["yellow"] == "alice"
    # The route's two seconds end it, and it says so.
    assert json.loads(answer.readline())["error"]["code"] == "upstream_timeout"
    connection.close()


def test_without_a_token_the_game_sees_nothing(tmp_path: Path) -> None:
    """
    No method of the game is called without a valid token.
    """
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        port, _, token = it.curl()
        for bad in ("", token[:-2], token.replace(".", "..", 1), "x.y.z"):
            for method, path in (
                ("GET", "/api/tables"),
                ("POST", "/api/tables"),
                ("GET", "/api/tables/x"),
                ("PUT", "/api/tables/x/seats/RED"),
                ("DELETE", "/api/tables/x/seat"),
                ("POST", "/api/tables/x/discs"),
                ("GET", "/api/tables/x/changes"),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request(method, path, headers={"Authorization": f"Bearer {bad}"} if bad else {})
                assert connection.getresponse().status == 401
                connection.close()
        time.sleep(0.3)
        assert "game: " in it.said
        assert not [line for line in it.said.splitlines() if line.startswith("game: ") and " for " in line]


def test_schemathesis_finds_nothing(port: int, alice: Player, tmp_path: Path) -> None:
    """
    Requests generated from our own OpenAPI document are answered as the document says, good and bad ones.
    """
    document = subprocess.run(
        [BIN / "gateway", "openapi", "demo/gateway.toml"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "openapi.json").write_text(document)
    # TRACE and CONNECT are no methods of this server at all: 501, before any route is looked at.
    methods = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"]
    (tmp_path / "schemathesis.toml").write_text(f"[phases.coverage]\nunexpected-methods = {methods}\n")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method,ignored_auth"
    ran = subprocess.run(
        [
            BIN / "schemathesis",
            "run",
            str(tmp_path / "openapi.json"),
            "--url",
            f"http://127.0.0.1:{port}",
            "--header",
            f"Authorization: Bearer {alice.token}",
            "--checks",
            checks,
            "--exclude-path-regex",
            "changes$",
            "--max-examples",
            "15",
            "--seed",
            "7",
            "--generation-database",
            "none",
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
