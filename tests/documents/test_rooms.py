"""
The pages about the code name what is there.
"""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Site

from demo.ports import free_port
from gateway.app import Gateway
from gateway.config.load import load
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "gateway"

_module = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py)`")
_name = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+\.[A-Z][A-Za-z]+)`")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_modules_that_are_named_exist(page: Path) -> None:
    """
    A file that a page names is one of the package or of the repository; a class is in the module named.
    """
    text = page.read_text("utf-8")
    named = set(_module.findall(text))
    assert {name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists()} == set()
    for dotted in _name.findall(text):
        *folders, name = dotted.split(".")
        module = SOURCE.joinpath(*folders).with_suffix(".py")
        assert re.search(rf"^class {name}\b", module.read_text("utf-8"), re.MULTILINE), dotted


def test_every_room_has_a_row() -> None:
    """
    Each folder and module at the top of the package stands in the table of rooms.
    """
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", page, re.MULTILINE))
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__"}
    assert rows == folders | modules


SECRET = "a-secret-that-only-this-test-knows"
CONFIG = """
[listen]
clients = "tcp:{port}:interface=127.0.0.1"
admin   = "tcp:{admin}:interface=127.0.0.1"

[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = "HS256"
secret     = "{secret}"

[upstream.players]
http = "http://127.0.0.1:{backend}"

[[route]]
path     = "/api/players/{{player_id}}"
methods  = ["PUT", "PATCH"]
upstream = "players"
when     = "path.player_id == claims.sub"
"""


class Echo(Resource):
    """A backend that sends back what it gets."""

    isLeaf = True

    def render_PATCH(self, request: Any) -> bytes:
        """Send it back."""
        body: bytes = request.content.read()
        return body


class _Body(Protocol):
    """Collects a body."""

    def __init__(self, whole: Deferred[bytes]) -> None:
        self._whole = whole
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._whole.callback(b"".join(self._pieces))


def _seeing(seen: set[str], frame: Any, _event: str, _argument: Any) -> None:
    seen.add(frame.f_code.co_filename)


@pytest_twisted.ensureDeferred
async def test_life_of_a_request_is_what_happens(tmp_path: Path) -> None:
    """
    Whatever module has a part in the request that the page follows is named on it.
    """
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    site = Site(Echo())
    backend = reactor.listenTCP(0, site, interface="127.0.0.1")
    port = free_port()
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(port=port, admin=free_port(), backend=backend.getHost().port, secret=SECRET))
    with (tmp_path / "log").open("wb") as log:
        sink = Sink(log.fileno())
        gateway = Gateway(reactor, load(path, {}), path, Logs(sink, pretty=False))
        await gateway.start()
        now = int(time.time())
        claims = {"iss": "https://id.example", "aud": "gateway", "sub": "alice", "iat": now, "exp": now + 600}
        # What runs beside the requests may run during one of them, not during each.
        rounds: list[set[str]] = []
        try:
            for number in range(4):
                token = jwt.encode({**claims, "jti": str(number)}, SECRET, algorithm="HS256")
                seen: set[str] = set()
                rounds.append(seen)
                sys.setprofile(partial(_seeing, seen))
                agent = Agent(reactor)
                answer: Any = await agent.request(
                    b"PATCH",
                    f"http://127.0.0.1:{port}/api/players/alice".encode(),
                    Headers({"Authorization": [f"Bearer {token}"]}),
                    FileBodyProducer(BytesIO(b'{"motto": "all in"}')),
                )
                whole: Deferred[bytes] = Deferred()
                answer.deliverBody(_Body(whole))
                assert (answer.code, await whole) == (200, b'{"motto": "all in"}')
                sys.setprofile(None)
        finally:
            sys.setprofile(None)
            await gateway.stop()
            await backend.stopListening()
            sink.stop()
    always = set.intersection(*rounds)
    visited = {str(Path(name).relative_to(SOURCE)) for name in always if Path(name).is_relative_to(SOURCE)}
    assert len(visited) > 30
    named = set(_module.findall((ROOT / "docs" / "life-of-a-request.md").read_text("utf-8")))
    assert visited - named == set()
