"""
``make demo-cluster``, from the checkout, on ports of its own: two people play while an instance dies.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.page.browser import Browser, Window, chromium
from tests.page.test_page import arrive, board, drop, player
from tests.system.installation import ROOT
from tests.system.processes import alive, ask, environment, eventually
from tests.system.test_demo import READY, Shown

from demo.cluster import PORTS
from demo.ports import free_port

ALONE = """
window.looked = window.alone = 0;
new MutationObserver(() => { window.looked += 1; window.alone += !document.getElementById('watching').innerText.includes('OTHER'); })
  .observe(document.getElementById('watching'), { childList: true, subtree: true });
"""
"""Counts how often a window shows that the other one is not there."""


@dataclass(frozen=True, slots=True)
class Cluster(Shown):
    """
    A cluster that runs.

    Attributes:
        ports: By the names of ``demo.cluster``.
    """

    ports: dict[str, int]

    @property
    def page(self) -> str:
        """Where haproxy lets clients in."""
        return f"http://127.0.0.1:{self.ports['GATEWAY_PORT']}/"

    def clients(self, number: str) -> int:
        """How many real-time clients an instance has."""
        text = ask(self.ports[f"ADMIN{number}_PORT"], "/metrics").body.decode()
        return sum(int(float(found)) for found in re.findall(r"^gateway_clients\{[^}]*\} (\S+)", text, re.MULTILINE))

    def live(self) -> dict[str, int]:
        """Who is there as the Event Service knows it, and how often each session has gone on."""
        latest = ask(self.ports["SESSIONS_PORT"], "/figures.json").json["latest"]
        return {row["user"]: row["resumes"] for row in latest if row["ended_at"] is None}

    def pid(self, number: str) -> int:
        """The process of an instance, as it was told last."""
        told = re.findall(rf"gateway-{number}(?: is)? +process (\d+)", self.said)
        return int(told[-1])


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "demo.cluster", "--data", str(folder)]


@contextmanager
def shown(command: list[str], folder: Path) -> Iterator[Cluster]:
    """
    Run a cluster until the block ends; it was ready at the block's begin.
    """
    ports: dict[str, int] = {}
    for name, _ in PORTS:
        while ports.setdefault(name, free_port()) in [port for other, port in ports.items() if other != name]:
            del ports[name]
    with (folder / "output").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment({name: str(port) for name, port in ports.items()}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    it = Cluster(process, folder / "output", ports)

    def ready() -> bool:
        assert process.poll() is None, it.said
        return READY in it.said

    try:
        eventually("the cluster", ready)
        yield it
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(90)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def turn(window: Window) -> None:
    window.until("document.getElementById('turn').innerText === 'Your turn'")


def test_two_play_while_an_instance_is_killed(browser: Browser, tmp_path: Path) -> None:
    """
    Two windows on two instances; one instance is killed with -9 in the middle of a game. Its window comes back to the
    other one, both see every move and word once and each other all the while, the game is played to its end, and the
    instance is started again.
    """
    prefix = Path(sys.prefix)
    make = ["make", "--no-print-directory", "-o", str(prefix / ".installed"), "demo-cluster", f"VENV={prefix}"]
    with shown([*make, f"ARGS=--data {tmp_path}"], tmp_path) as it:
        red, yellow = player(browser, it.page, "Rosa"), player(browser, it.page, "Yves")
        while [it.clients(number) for number in "12"] != [1, 1]:
            # haproxy chose while something else was under way at the other one.
            arrive(yellow, it.page, "Yves")
        red.type("table-name", "Blue Room")
        red.until("document.getElementById('title').innerText === 'Blue Room'")
        yellow.until("document.getElementById('tables').innerText.includes('Blue Room')")
        yellow.click("#tables button")
        yellow.until("document.getElementById('title').innerText === 'Blue Room'")
        # Who is there is true on both instances.
        for window, other in ((red, "Yves"), (yellow, "Rosa")):
            window.until(f"document.getElementById('watching').innerText.includes('{other}')")
            window.run(ALONE.replace("OTHER", other))
        red.click("button[data-seat=RED]")
        yellow.click("button[data-seat=YELLOW]")
        for column, window in ((3, red), (3, yellow)):
            turn(window)
            drop(window, column)
        turn(red)
        yellow.type("text", "before")
        red.until("document.getElementById('chat').innerText.includes('Yves: before')")

        killed = it.pid("1")
        os.kill(killed, signal.SIGKILL)
        # Whoever was there comes back by itself; the other one plays and talks on meanwhile.
        eventually("everybody is on the other instance", lambda: it.clients("2") == 2, within_s=15)
        drop(red, 2)
        red.type("text", "still there?")
        turn(yellow)
        yellow.until("document.getElementById('chat').innerText.includes('Rosa: still there?')")
        drop(yellow, 3)
        for column, window in ((2, red), (3, yellow), (2, red), (0, yellow), (2, red)):
            turn(window)
            drop(window, column)
        red.until("document.getElementById('turn').innerText === 'You won'")
        yellow.until("document.getElementById('turn').innerText === 'rosa won'")
        assert board(red) == board(yellow)
        assert board(red).count("R") + board(red).count("Y") == 9
        for window in (red, yellow):
            assert window.run("window.alone") == 0
            assert [window.text("chat").count(said) for said in ("before", "still there?")] == [1, 1]
            assert window.text("trouble") == ""
        assert red.run("window.looked") + yellow.run("window.looked") > 0

        # Whoever was on it goes on with one session, and is shown so once the other one tells what the dead one would have.
        eventually(
            "the sessions page", lambda: it.live() == {"rosa": 1, "yves": 0} or it.live() == {"rosa": 0, "yves": 1}
        )

        eventually("the instance is started again", lambda: it.pid("1") != killed, within_s=20)
        eventually("it serves", lambda: ask(it.ports["GATEWAY1_PORT"], "/ready").status == 200)
        assert "gateway-1 was killed by SIGKILL" in it.said
        children = it.children()
        it.process.terminate()
        it.process.wait(90)
        assert "demo: stopped" in it.said
        assert "Traceback" not in it.said
    assert not [pid for pid in children if alive(pid)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """
    Without Redis or haproxy it says what to install, and leaves nothing running.
    """
    bare = environment({name: str(free_port()) for name, _ in PORTS} | {"PATH": "/nonexistent"})
    ended = subprocess.run(
        command(tmp_path), cwd=ROOT, env=bare, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "missing: redis-server" in ended.stderr
    assert "apt-get install" in ended.stderr
    assert "Traceback" not in ended.stderr
