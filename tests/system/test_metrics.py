"""
Metrics tell the truth: after a scripted run they are what the script itself counted, and nothing that it made up is a label.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.system.backend import Backend
from tests.system.processes import SECRET, Running, ask, eventually, running
from websockets.sync.client import ClientConnection, connect

KEY = "a-key-of-the-system-tests"
CONFIG = f"""
[[admin.key]]
name = "test"
secret = "{KEY}"
scopes = ["*"]

[[websocket]]
path = "/ws"

[rpc.echo]
echo = true

[channels."table:{{id}}"]
subscribe = "authenticated"
publish = "authenticated"
history = {{ size = 100, ttl = "5m" }}
"""


def bearer(user: str) -> str:
    now = int(time.time())
    claims = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": now, "exp": now + 600}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture
def served(twistd: str, backend: Backend, tmp_path: Path) -> Iterator[Running]:
    """A gateway in front of a backend."""
    with running(twistd, tmp_path, CONFIG + backend.upstream) as gateway:
        yield gateway


def scraped(gateway: Running) -> dict[str, dict[tuple[str, ...], float]]:
    """Values of every sample, by name and the values of its labels in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(ask(gateway.admin, "/metrics").body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@contextmanager
def client(gateway: Running, user: str) -> Iterator[ClientConnection]:
    """A connected client; it says goodbye behind the block."""
    with connect(f"ws://127.0.0.1:{gateway.port}/ws", proxy=None) as socket:
        said(socket, connect={"token": bearer(user)})
        yield socket


def said(socket: ClientConnection, **command: Any) -> Any:
    """Send a command, and return its reply; pushes before it are passed over."""
    socket.send(json.dumps({"id": 1, **command}))
    while True:
        for line in str(socket.recv(20)).splitlines():
            reply = json.loads(line)
            if reply.get("id") == 1:
                return reply


def test_counters_are_what_was_counted(served: Running) -> None:
    """
    Requests by status, refusals, commands, publications, deliveries, recoveries, sessions, frames: as often as they happened.
    """
    token = bearer("alice")
    before = scraped(served)
    for number in range(7):
        assert ask(served.port, f"/api/{number}", bearer=token).status == 200
    for number in range(3):
        assert ask(served.port, f"/api/{number}").status == 401
    assert ask(served.port, "/nowhere", bearer=token).status == 404
    sent = Counter[str]()
    with client(served, "alice") as alice, client(served, "bob") as bob:
        since = {}
        for socket in (alice, bob):
            since = said(socket, subscribe={"channel": "table:1"})["subscribe"]
        for number in range(5):
            said(alice, publish={"channel": "table:1", "data": number})
        for _ in range(4):
            said(bob, rpc={"method": "echo", "data": 1})
        assert "error" in said(bob, rpc={"method": "none", "data": 1})
        said(bob, unsubscribe={"channel": "table:1"})
        position = {"recover": True, "epoch": since["epoch"], "offset": 2}
        assert said(bob, subscribe={"channel": "table:1", **position})["subscribe"]["recovered"]
        sent["frames"] = 2 + 2 + 5 + 4 + 1 + 1 + 1
    now = eventually(
        "both sessions are over",
        lambda: found if (found := scraped(served))["gateway_sessions_closed_total"].get(("closed",)) == 2 else None,
    )

    def more(name: str, *labels: str) -> float:
        after: float = now.get(name, {}).get(labels, 0.0)
        return after - before.get(name, {}).get(labels, 0.0)

    api = "/api/**"
    assert more("gateway_http_requests_total", "GET", api, "200") == 7
    assert more("gateway_http_requests_total", "GET", api, "401") == 3
    assert more("gateway_http_request_duration_seconds_count", api) == 10
    assert more("gateway_refusals_total", "credential_missing") == 3
    assert more("gateway_refusals_total", "no_route") == 1
    assert more("gateway_upstream_attempts_total", "ok", "backend") == 7
    assert more("gateway_commands_total", "Connect", "ok") == 2
    assert more("gateway_commands_total", "Subscribe", "ok") == 3
    assert more("gateway_commands_total", "Publish", "ok") == 5
    assert more("gateway_commands_total", "Rpc", "ok") == 4
    assert more("gateway_commands_total", "Rpc", "104") == 1
    assert more("gateway_publications_total", "table:{id}", "made") == 5
    assert more("gateway_deliveries_total", "table:{id}") == 10
    assert 1 <= more("gateway_delivery_duration_seconds_count", "table:{id}") <= 5, "some were sent together"
    assert more("gateway_publish_duration_seconds_count", "table:{id}") == 5
    assert more("gateway_recoveries_total", "table:{id}", "recovered") == 1
    assert more("gateway_sessions_opened_total") == 2
    assert more("gateway_client_frames_total", "in") == sent["frames"]
    assert more("gateway_client_frames_total", "out") == sent["frames"]
    assert now["gateway_sessions"][()] == now["gateway_subscriptions"][()] == 0


def test_what_clients_make_up_is_no_label(served: Running) -> None:
    """
    Paths, users, channels and methods that differ every time: the same series as after the first of them.
    """

    def play(number: int) -> None:
        user = f"user-{number}"
        for path in (f"/api/{number}/x", f"/none/{number}"):
            ask(served.port, path, bearer=bearer(user), method=f"M{number}" if number % 2 else "GET")
        with client(served, user) as socket:
            said(socket, subscribe={"channel": f"table:{number}"})
            said(socket, publish={"channel": f"table:{number}", "data": 1})
            said(socket, subscribe={"channel": f"none:{number}"})
            said(socket, rpc={"method": f"method-{number}", "data": 1})

    def series() -> set[tuple[str, tuple[str, ...]]]:
        return {
            (name, labels) for name, values in scraped(served).items() for labels in values if name[:8] == "gateway_"
        }

    for number in (0, 1):
        play(number)
    eventually("sessions are over", lambda: scraped(served)["gateway_sessions_closed_total"].get(("closed",)) == 2)
    first = series()
    for number in range(2, 40):
        play(number)
    eventually("sessions are over", lambda: scraped(served)["gateway_sessions_closed_total"].get(("closed",)) == 40)
    assert series() == first
