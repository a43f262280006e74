"""
A gateway that runs out of something, or is attacked: what it then does is written down, and those who behave are served.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.system.attacks import ATTACKS, frame, idle, opened, over, resident, slow_head, waited
from tests.system.backend import Backend
from tests.system.processes import ask, eventually, running, token

REALTIME = '[[websocket]]\npath = "/ws"\nanonymous = true\ncompression = true\nping = "60s"\n'
MIB = 1024 * 1024


def test_attacks(twistd: str, tmp_path: Path) -> None:
    """
    Each attack on a WebSocket ends with its code, costs bounded memory, and others are answered meanwhile.
    """
    with running(twistd, tmp_path, REALTIME) as served:
        for attack, _ in ATTACKS.values():
            attack(served.port)
        before = resident(served.process.pid)
        for name, (attack, codes) in ATTACKS.items():
            for _ in range(3):
                assert (name, attack(served.port)) in [(name, code) for code in codes]
            assert ask(served.port, "/health").status == 200
        assert resident(served.process.pid) - before < 30 * MIB
        assert served.end() == 0
    assert served.complaints() == ""


def test_idle_and_slow(twistd: str, tmp_path: Path) -> None:
    """
    Connections that say nothing, or a byte now and then, are cut at the deadline of a head; others are served.
    """
    with running(twistd, tmp_path, '[limits]\nhead_timeout = "1s"\n') as served:
        quiet = idle(served.port, 400)
        slow = [slow_head(served.port) for _ in range(50)]
        began = time.monotonic()
        assert ask(served.port, "/health").status == 200
        assert time.monotonic() - began < 1.0
        time.sleep(0.6)
        for connection in slow:
            # The byte comes before it is missed, and moves no deadline.
            with suppress(OSError):
                connection.sendall(b"t")
        assert waited([*quiet, *slow], 5.0) == 0
        assert ask(served.port, "/health").status == 200


def test_no_descriptors_left(twistd: str, tmp_path: Path) -> None:
    """
    Where every descriptor is used, who is connected is served on, and a second after some are free newcomers are, too.
    """
    limits = "[limits]\nconnections = 10000\nhead_timeout = '60s'\n"
    with running(twistd, tmp_path, limits, wrapper=["prlimit", "--nofile=100:100"]) as served:
        kept = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        crowd = idle(served.port, 150)
        folder = Path(f"/proc/{served.process.pid}/fd")
        eventually("none is left", lambda: len(list(folder.iterdir())) >= 98)
        for _ in range(3):
            kept.request("GET", "/health")
            answer = kept.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        for connection in crowd:
            connection.close()
        began = time.monotonic()
        eventually("newcomers are served", lambda: ask(served.port, "/health").status == 200)
        assert time.monotonic() - began < 5.0
        kept.close()
        assert served.end() == 0


def library() -> str:
    """Where libfaketime is; empty where it is not."""
    try:
        told = subprocess.run(["faketime", "-f", "+0", "env"], capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return ""
    lines = [line for line in told.stdout.splitlines() if line.startswith("LD_PRELOAD=")]
    return lines[0].partition("=")[2] if lines else ""


def test_clock_steps(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    A step of the clock by an hour, forward and back, disconnects nobody; tokens alone expire by it, and are good again.
    """
    preload = library()
    if not preload:
        pytest.fail("libfaketime is missing; on Debian, as root: apt-get install faketime")
    step = tmp_path / "step"
    step.write_text("+0")
    extra = {
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": str(step),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with running(twistd, tmp_path, REALTIME + backend.upstream, extra=extra) as served:
        bearer = token(gateway, tmp_path)
        socket_ = opened(served.port)
        with closing(socket_):
            socket_.sendall(_connect())
            assert b'"connect"' in socket_.recv(4096)
            kept = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)

            def status() -> int:
                kept.request("GET", "/api/hello", headers={"Authorization": f"Bearer {bearer}"})
                answer = kept.getresponse()
                answer.read()
                return answer.status

            assert status() == 200
            step.write_text("+7200")
            # The clock is another one, and nothing of what waits is due for it.
            eventually("the token is over", lambda: status() == 401)
            time.sleep(0.5)
            assert not over(socket_)
            step.write_text("-7200")
            eventually("the token is good, or not yet", lambda: status() in {200, 401})
            time.sleep(0.5)
            assert not over(socket_)
            step.write_text("+0")
            eventually("the token is good again", lambda: status() == 200)
            assert not over(socket_)
            kept.close()
        assert served.end() == 0


def _connect() -> bytes:
    """An anonymous client's first message."""
    return frame(1, b'{"id":1,"connect":{}}')
