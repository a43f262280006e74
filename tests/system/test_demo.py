"""
``make demo``, from the checkout, on ports of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.system.installation import ROOT
from tests.system.processes import Answer, alive, ask, environment, eventually

from demo.ports import free_port

READY = "Ctrl-C stops it all."


@dataclass(frozen=True, slots=True)
class Shown:
    """
    A demo that runs.

    Attributes:
        process: ``make``, or the demo itself.
        output: A file with all that it and its children wrote.
    """

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        """What was written so far."""
        return self.output.read_text()

    def curl(self) -> tuple[int, str, str]:
        """The port, the path and the token of the curl command that is printed."""
        line = next(line for line in self.said.splitlines() if line.strip().startswith("curl "))
        words = shlex.split(line)
        assert words[:3] == ["curl", "-i", "-H"]
        url = urlsplit(words[4])
        assert url.hostname == "127.0.0.1"
        return url.port or 0, url.path, words[3].removeprefix("Authorization: Bearer ")

    def asked(self) -> list[str]:
        """What the backend says it was asked, health checks left out."""
        lines = re.findall(r"players: ([A-Z]+ /\S*) for (\S+): (\d+)", self.said)
        return [" ".join(found) for found in lines if found[0] != "GET /health"]

    def children(self) -> list[int]:
        """Process ids of all that it started."""
        found, looked = [], [self.process.pid]
        while looked:
            # Not ps, which a small system need not have.
            tasks = Path(f"/proc/{looked.pop()}/task").glob("*/children")
            pids = [int(pid) for task in tasks for pid in task.read_text().split()]
            found += pids
            looked += pids
        return found


def demo(*options: str) -> list[str]:
    """
    Return the command that ``make demo`` is.
    """
    return [sys.executable, "-m", "demo.run", *options]


@contextmanager
def shown(command: list[str], folder: Path, ports: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Iterator[Shown]:
    """
    Run a demo until the block ends; it was ready at the block's begin.
    """
    names = ("GATEWAY_PORT", "ADMIN_PORT", "PLAYERS_PORT", "GAME_PORT")
    chosen = {name: str(port or free_port()) for name, port in zip(names, ports, strict=True)}
    chosen |= {name: str(free_port()) for name in ("API_PORT", "EVENTS_PORT", "SESSIONS_PORT")}
    with (folder / "output").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(chosen),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    it = Shown(process, folder / "output")

    def ready() -> bool:
        assert process.poll() is None, it.said
        return READY in it.said

    try:
        eventually("the demo", ready)
        yield it
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def test_printed_curl_works_and_no_token_does_not(tmp_path: Path) -> None:
    """
    The command that ``make demo`` prints is answered 200; without its token 401, and the backend saw nothing.
    """
    # The stamp of the installation counts as new: a test does not install.
    prefix = Path(sys.prefix)
    make = ["make", "--no-print-directory", "-o", str(prefix / ".installed"), "demo", f"VENV={prefix}"]
    with shown([*make, f"ARGS=--data {tmp_path}"], tmp_path) as it:
        port, path, token = it.curl()
        without: Answer = ask(port, path)
        assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
        answer = ask(port, path, bearer=token)
        assert (answer.status, answer.json["name"]) == (200, "Alice")
        eventually("the backend's line", lambda: len(it.asked()) > 0)
        assert it.asked() == ["GET /api/players/alice alice 200"]
        children = it.children()
        assert len(children) >= 3
        it.process.send_signal(signal.SIGTERM)
        it.process.wait(60)
    assert not [pid for pid in children if alive(pid)]


def test_what_it_invites_to_holds(tmp_path: Path) -> None:
    """
    The other requests that the demo names are answered as it says.
    """
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        port, _, token = it.curl()
        assert ask(port, "/api/status").json == {"players": 12}
        assert ask(port, "/api/players/bob", method="PATCH", bearer=token).status == 403
        assert len(ask(port, "/api/players/export?bytes=5000000", bearer=token).body) == 5_000_000
        assert ask(port, "/api/players/slow?seconds=9", bearer=token).json["code"] == "upstream_timeout"
        spoofed = ask(port, "/api/players/alice", bearer=token, headers={"X-User-Id": "bob", "X_User_Id": "bob"})
        assert spoofed.status == 200
        eventually("the backend's lines", lambda: "GET /api/players/alice alice 200" in it.asked())
        assert not [line for line in it.asked() if " bob " in line or "PATCH" in line]
        assert "whoever asked has gone" in it.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """
    It stops the gateway first, which drains, then the backend, and ends with 0.
    """
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        children = it.children()
        it.process.send_signal(number)
        assert it.process.wait(60) == 0
        said = it.said
    assert not [pid for pid in children if alive(pid)]
    assert said.index("gateway.stopped") < said.index("players: stopped") < said.index("demo: stopped")
    assert "Traceback" not in said


def test_children_end_when_it_is_killed(tmp_path: Path) -> None:
    """
    Even KILL leaves nothing behind.
    """
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        children = it.children()
        it.process.kill()
        it.process.wait(10)
        eventually("the end of its children", lambda: not [pid for pid in children if alive(pid)])


@pytest.mark.parametrize("which", [0, 1, 2], ids=["gateway", "admin", "players"])
def test_taken_port_is_named(tmp_path: Path, which: int) -> None:
    """
    A port that somebody has is told with its number and with what to do, and nothing is left running.
    """
    names = ("GATEWAY_PORT", "ADMIN_PORT", "PLAYERS_PORT", "GAME_PORT")
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        taken = it.curl()[0]
        ports = {name: str(taken if index == which else free_port()) for index, name in enumerate(names)}
        second = subprocess.run(
            demo("--data", str(tmp_path)),
            cwd=ROOT,
            env=environment(ports),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert second.returncode == 1
    assert f"port {taken} of 127.0.0.1 cannot be used: address already in use" in second.stderr
    assert f"{names[which]}=" in second.stderr
    assert "Traceback" not in second.stderr


def test_gateway_that_dies_ends_the_demo(tmp_path: Path) -> None:
    """
    When one of the processes ends by itself the demo says which, stops the rest, and ends with 1.
    """
    with shown(demo("--data", str(tmp_path)), tmp_path) as it:
        children = it.children()
        twistd = next(pid for pid in children if b"twistd" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(twistd, signal.SIGKILL)
        assert it.process.wait(60) == 1
        assert "gateway ended by itself" in it.said
    assert not [pid for pid in children if alive(pid)]
