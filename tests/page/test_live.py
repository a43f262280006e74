"""
The page for operators, in a real browser: what it shows is what happens, and it orders only what its key may.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from tests.page.browser import Browser, Window, chromium
from tests.system.backend import recording
from tests.system.conftest import installed  # noqa: F401  # a fixture
from tests.system.installation import Installation
from tests.system.processes import SECRET, Running, ask, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

ALL, LOOK = "a-key-that-may-do-everything", "a-key-that-may-look"
CONFIG = f"""
[[admin.key]]
name = "root"
secret = "{ALL}"
scopes = ["*"]
[[admin.key]]
name = "viewer"
secret = "{LOOK}"
scopes = ["read"]

[[websocket]]
path = "/ws"

[channels.lobby]
subscribe = "authenticated"
publish = "authenticated"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
def served(installed: Installation, tmp_path: Path) -> Iterator[Running]:  # noqa: F811
    with recording() as backend, running(installed.program("twistd"), tmp_path, CONFIG + backend.upstream) as gateway:
        yield gateway


def client(gateway: Running) -> ClientConnection:
    now = int(time.time())
    claims = {"iss": "https://id.example", "aud": "gateway", "sub": "alice", "iat": now, "exp": now + 600}
    socket = connect(f"ws://127.0.0.1:{gateway.port}/ws", proxy=None, legacy=True)
    for command in ({"connect": {"token": jwt.encode(claims, SECRET, "HS256")}}, {"subscribe": {"channel": "lobby"}}):
        socket.send(json.dumps({"id": 1, **command}))
        socket.recv(10)
    return socket


def looking(browser: Browser, gateway: Running, key: str) -> Window:
    window = browser.window()
    window.open(f"http://127.0.0.1:{gateway.admin}/live")
    window.type("key", key)
    return window


def test_what_happens_is_shown(browser: Browser, served: Running) -> None:
    """
    Numbers and charts move with what clients do; the instance, the backend and the channel are there; a user is disconnected.
    """
    window = looking(browser, served, ALL)
    window.until("document.getElementById('state').innerText === 'Live, as root.'")
    assert window.run("document.querySelectorAll('#charts canvas').length") >= 10
    # The policy lets uPlot place its parts, and nothing else be styled or run from within the page.
    assert window.run("document.querySelector('.u-over').clientWidth > 100")
    assert window.run("getComputedStyle(document.querySelector('.u-over')).left !== '0px'")
    policy = "fetch('/live').then((got) => { window.policy = got.headers.get('content-security-policy') })"
    window.run(f"void {policy}")
    window.until("window.policy")
    assert "unsafe" not in window.run("window.policy")
    socket = client(served)
    window.until("document.getElementById('numbers').innerText.includes('1\\nclients')")
    for number in range(30):
        socket.send(json.dumps({"id": number + 2, "publish": {"channel": "lobby", "data": number}}))
        ask(served.port, "/api/x")
    tables = "document.getElementById('tables').innerText"
    window.until(f"/lobby\\s+[\\d.]+\\s+[\\d.]+/.test({tables})")
    window.until(f"{tables}.includes('backend') && {tables}.includes('used')")
    window.until(f"/Instances[\\s\\S]*\\d+ min/i.test({tables})")
    window.until("samples.filter((s, at) => CHARTS[0][2][1][1](s, samples[at - 1]) > 0).length > 0")  # 401s are 4xx

    window.type("user", "alice")
    window.until("document.getElementById('said').innerText.includes('alice')")
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(10)
    window.until("document.getElementById('numbers').innerText.includes('0\\nclients')")

    # The window is a phone's: nothing is wider than it.
    assert window.run("innerWidth") <= 500
    assert window.run("document.documentElement.scrollWidth <= innerWidth")


def test_who_may_only_look(browser: Browser, served: Running) -> None:
    """
    A key without more sees no orders, a wrong one sees nothing and is told so.
    """
    window = looking(browser, served, "wrong")
    window.until("document.getElementById('state').className === 'bad'")
    assert window.run("document.getElementById('main').hidden")
    window = looking(browser, served, LOOK)
    window.until("document.getElementById('state').innerText === 'Live, as viewer.'")
    assert window.run("document.getElementById('orders').hidden")
