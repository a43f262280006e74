"""
A gateway with a backend, and SDK clients in front of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.sdk.backend import Backend, serving
from tests.sdk.driving import Driver, driving
from tests.system.processes import SECRET, Running, running

TWISTD = str(Path(sys.executable).with_name("twistd"))

CONFIG = """
[upstream.rules]
http = ["http://127.0.0.1:{backend}"]

[[websocket]]
path = "/ws"
sse = "/sse"
http_stream = "/stream"
emulation = "/emulation"
ping = "2s"
pong_timeout = "1s"
info = "{{'name': claims.name}}"

[realtime]
expired_grace = "1s"
on_connect = {{ upstream = "rules", http = "POST /on-connect", set = {{ user = "claims.sub" }} }}
on_disconnect = {{ upstream = "rules", http = "POST /told" }}
on_subscribe = {{ upstream = "rules", http = "POST /told" }}
on_unsubscribe = {{ upstream = "rules", http = "POST /told" }}

[channels.lobby]
subscribe = "authenticated"
publish = {{ upstream = "rules", http = "POST /may-say", data = "said", set = {{ user = "claims.sub", text = "data.text" }} }}
presence = true
join_leave = true
history = {{ size = 100, ttl = "5m" }}

[channels."table:{{table_id}}"]
subscribe = {{ upstream = "rules", http = "POST /may-watch", set = {{ user = "claims.sub", table = "channel.table_id" }} }}
publish = "authenticated"
snapshot = {{ upstream = "rules", http = "POST /state", data = "board", version = "version", set = {{ table = "channel.table_id" }} }}
history = {{ size = 100, ttl = "5m" }}

[channels."secret:{{name}}"]
subscribe = "token"

[channels."user:{{id}}"]
subscribe = "channel.id == claims.sub"
server_side = true
publish = "authenticated"

[rpc.echo]
echo = true

[rpc."game.move"]
upstream = "rules"
http = "POST /move"
set = {{ user = "claims.sub" }}
errors = {{ "409" = "1409" }}
"""


def token(user: str, *, ttl_s: float = 3600, **claims: Any) -> str:
    """
    Make a token of the tests' issuer.
    """
    now = time.time()
    payload = {"iss": "https://id.example", "aud": "gateway", "sub": user, "iat": now, "exp": now + ttl_s}
    return jwt.encode({**payload, "name": user.title(), **claims}, SECRET, "HS256")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def gateway(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with running(TWISTD, folder, CONFIG.format(backend=backend.port)) as process:
        yield process


@pytest.fixture(scope="module", params=["js", "python"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driving(request.param) as driver:
        yield driver
