"""
``twistd gateway`` asked to stop while many are connected.
"""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from tests.redis.server import RedisServer
from tests.system.backend import Backend
from tests.system.processes import SECRET, Answer, ask, eventually, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench.crowd import crowd

CONFIG = """
[gateway]
min_drain = "{min_drain}"
drain_window = "{window}"
drain_timeout = "20s"

[[websocket]]
path = "/ws"
sse = "/sse"
http_stream = "/stream"
emulation = "/emulation"

[channels.lobby]
subscribe = "authenticated"
presence = true
join_leave = true
join_leave_most = 100000

[rpc."slow"]
upstream = "backend"
http = "POST /api/slow/2"
"""

SHUTDOWN = 3001


def token(user: str) -> str:
    now = time.time()
    payload = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": now, "exp": now + 3600}
    return jwt.encode(payload, SECRET, "HS256")


def test_sockets_are_sent_away_evenly(twistd: str, tmp_path: Path) -> None:
    """
    R36: 300 sockets: each is closed with the code after which SDKs come back, none sees another leave, no second
    has more than one and a half times its share, and the exit code is 0.
    """
    config = CONFIG.format(min_drain="0s", window="4s").partition("[rpc")[0]
    with running(twistd, tmp_path, config) as served:
        bearers = [token(f"user{number}") for number in range(300)]
        with crowd(f"ws://127.0.0.1:{served.port}/ws", bearers, "lobby", comes_back=False) as people:
            began = time.monotonic()
            served.signal(signal.SIGTERM)
            assert served.process.wait(20) == 0
            took = time.monotonic() - began
            people.until("all were sent away", lambda: people.here() == 0)
        members = people.members
    assert Counter(code for member in members for _, code in member.closings) == {SHUTDOWN: 300}
    bins = Counter(int(at - began) for member in members for at, _ in member.closings)
    assert max(bins.values()) <= 1.5 * 300 / 4, bins
    assert 3.5 < took < 10
    assert [member.wrong for member in members if member.wrong] == []
    stopped = served.events("gateway.stopped")[-1]
    assert (stopped["requests_cut"], stopped["clients_cut"]) == (0, 0)
    assert served.events("drain.unwritten") == []


def test_a_drain_from_its_first_moment_to_its_last(twistd: str, backend: Backend, tmp_path: Path) -> None:
    """
    ``/ready`` says no at once, everybody is still let in, and told that connections end; then nobody is let in, commands
    and requests under way are answered, clients of every kind are told to come back, and it ends with 0.
    """
    body = backend.upstream + CONFIG.format(min_drain="1500ms", window="1s")
    with running(twistd, tmp_path, body) as served:
        port = served.port
        streams = [
            _Stream(port, "GET", f"/sse?cf_connect={_quoted('sse')}"),
            _Stream(port, "POST", "/stream", _first("http")),
        ]
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(ask(port, "/api/slow/2.5", bearer=token("alice"))))
        with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as early:
            early.send(_first("early"))
            assert "connect" in json.loads(early.recv(10))
            asking.start()
            assert backend.asked.wait(30)
            served.signal(signal.SIGTERM)
            served.hear("gateway.draining")
            ready = ask(port, "/ready")
            assert (ready.status, ready.headers["connection"]) == (503, "close")
            eventually(
                "the reason in the log",
                lambda: (
                    [
                        line["reason"]
                        for line in served.events("request")
                        if line["path"] == "/ready" and "reason" in line
                    ]
                    == ["draining"]
                ),
            )
            assert ask(port, "/api/hello", bearer=token("alice")).status == 200
            with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as late:
                late.send(_first("late"))
                assert "connect" in json.loads(late.recv(10))
                early.send(json.dumps({"id": 2, "rpc": {"method": "slow", "data": {}}}))
                eventually("its end of accepting", lambda: _refused(port))
                reply = _until_reply(early)
                assert "rpc" in reply, reply
                for socket in (early, late):
                    assert _closed(socket) == (SHUTDOWN, "shutdown")
        asking.join(30)
        assert [answer.status for answer in answers] == [200]
        told = {"code": SHUTDOWN, "reason": "shutdown", "reconnect": True}
        for stream in streams:
            assert stream.told[-1]["push"]["disconnect"] == told, stream.told
        assert served.process.wait(20) == 0
        stopped = served.events("gateway.stopped")[-1]
        assert (stopped["requests_cut"], stopped["clients_cut"]) == (0, 0)
    assert served.complaints() == ""


def test_a_store_that_hangs_holds_nothing_up_for_ever(twistd: str, tmp_path: Path) -> None:
    """
    With Redis hanging clients are sent away all the same, and the end comes within the bound that is documented.
    """
    redis = RedisServer(tmp_path / "redis").start()
    config = CONFIG.format(min_drain="0s", window="1s").partition("[rpc")[0].replace('"20s"', '"5s"')
    try:
        with running(twistd, tmp_path, f'{config}\n[store]\nurl = "{redis.url}"\ntimeout = "500ms"\n') as served:
            bearers = [token(f"user{number}") for number in range(20)]
            with crowd(f"ws://127.0.0.1:{served.port}/ws", bearers, "lobby", comes_back=False) as people:
                redis.pause()
                began = time.monotonic()
                served.signal(signal.SIGTERM)
                people.until("all were sent away", lambda: people.here() == 0, 5)
                assert served.process.wait(30) == 0
                assert time.monotonic() - began < 5 + 10
            assert {code for member in people.members for _, code in member.closings} == {SHUTDOWN}
    finally:
        redis.stop()


@pytest.mark.parametrize("when", ["while it accepts", "while it sends away"])
def test_a_second_signal_ends_at_once(twistd: str, tmp_path: Path, when: str) -> None:
    """
    Whoever asks twice does not wait for the window.
    """
    wait = "20s" if when == "while it accepts" else "0s"
    config = CONFIG.format(min_drain=wait, window="15s").partition("[rpc")[0]
    with running(twistd, tmp_path, config) as served:
        bearers = [token(f"user{number}") for number in range(30)]
        with crowd(f"ws://127.0.0.1:{served.port}/ws", bearers, "lobby", comes_back=False):
            served.signal(signal.SIGTERM)
            served.hear("gateway.draining")
            began = time.monotonic()
            served.signal(signal.SIGTERM)
            assert served.process.wait(10) == 1
            assert time.monotonic() - began < 1


def _first(user: str) -> str:
    return json.dumps({"id": 1, "connect": {"token": token(user)}})


def _quoted(user: str) -> str:
    return quote(_first(user))


def _refused(port: int) -> bool:
    try:
        ask(port, "/health")
    except OSError:
        return True
    return False


def _until_reply(socket: ClientConnection) -> Any:
    while True:
        message = json.loads(socket.recv(10))
        if message.get("id") == 2:
            return message


def _closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(20)
    return socket.close_code, socket.close_reason


class _Stream:
    """
    A client over SSE or an HTTP stream: what it was told, in a thread of its own.
    """

    def __init__(self, port: int, method: str, path: str, body: str | None = None) -> None:
        self.told: list[Any] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.request(method, path, body)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self._read()
        threading.Thread(target=self._follow, daemon=True).start()

    def _read(self) -> bool:
        line = self._answer.readline()
        text = line.removeprefix(b"data: ").strip()
        if text:
            self.told.append(json.loads(text))
        return bool(line)

    def _follow(self) -> None:
        while self._read():
            pass
        self._connection.close()
