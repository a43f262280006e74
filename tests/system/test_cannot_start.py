"""
What cannot be served is said once, clearly, with an exit code, in the foreground and as a daemon.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.system.installation import Installation, clone
from tests.system.processes import config, run

FOREGROUND = ["-n", "--pidfile="]
DAEMON = ["--pidfile=gateway.pid", "--logfile=gateway.log"]

both = pytest.mark.parametrize("options", [FOREGROUND, DAEMON], ids=["foreground", "daemon"])


def start(twistd: str, folder: Path, options: list[str]) -> Any:
    """Start with what stands in *folder*."""
    return run([twistd, *options, "gateway", "--config", "gateway.toml"], folder)


def complaint(ended: Any) -> str:
    """Return the only thing that was written to standard error."""
    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stdout + ended.stderr
    # As a daemon's parent twistd adds this to what the daemon could not do.
    lines = [
        line for line in ended.stderr.strip().splitlines() if line != "Please look at log file for more information."
    ]
    assert len(lines) == 1, ended.stderr
    return str(lines[0])


@both
def test_missing_file(twistd: str, tmp_path: Path, options: list[str]) -> None:
    """
    A configuration that is not there is named.
    """
    said = complaint(start(twistd, tmp_path, options))
    assert "gateway.toml" in said
    assert "no such file" in said


@both
def test_bad_configuration(twistd: str, tmp_path: Path, options: list[str]) -> None:
    """
    A fault is told with file, line, column, key, and what was meant.
    """
    config(tmp_path, '[limits]\nmax_haed = "32KiB"\n')
    said = complaint(start(twistd, tmp_path, options))
    assert "gateway.toml:" in said
    assert "max_haed" in said
    assert "max_head" in said


@both
def test_every_fault_at_once(twistd: str, tmp_path: Path, options: list[str]) -> None:
    """
    Several faults are one line each, and nothing else is said.
    """
    config(tmp_path, '[limits]\nmax_haed = "32KiB"\nidle_timeout = 5\n[log]\nlevel = "loud"\n')
    ended = start(twistd, tmp_path, options)
    assert ended.returncode != 0
    assert [line.split(":")[3].strip() for line in ended.stderr.strip().splitlines()] == [
        "limits.max_haed",
        "limits.idle_timeout",
        "log.level",
    ]


@both
@pytest.mark.parametrize("which", [0, 1], ids=["clients", "admin"])
def test_port_in_use(twistd: str, tmp_path: Path, options: list[str], which: int) -> None:
    """
    A port that somebody has is named, with the reason.
    """
    ports = config(tmp_path)
    with socket.create_server(("127.0.0.1", ports[which])):
        said = complaint(start(twistd, tmp_path, options))
    assert str(ports[which]) in said
    assert "in use" in said.lower()


@both
def test_missing_certificate(twistd: str, tmp_path: Path, options: list[str]) -> None:
    """
    A file that the configuration names and that is not there is named.
    """
    (tmp_path / "gateway.toml").write_text(
        '[listen]\nadmin = []\n[[listen.clients]]\nendpoint = "tcp:0:interface=127.0.0.1"\n'
        '[[listen.clients.certificate]]\ncertificate_file = "absent.pem"\nkey_file = "absent.pem"\n'
    )
    ended = start(twistd, tmp_path, options)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "absent.pem" in ended.stderr


def test_unknown_option(twistd: str, tmp_path: Path) -> None:
    """
    A wrong command line ends with a sentence, too.
    """
    ended = run([twistd, "-n", "--pidfile=", "gateway", "--confg", "gateway.toml"], tmp_path)
    assert ended.returncode != 0
    assert "confg" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_fault_of_its_own(installed: Installation, tmp_path: Path) -> None:
    """
    What nobody foresaw is one line on the terminal, and a traceback in the log.
    """
    copy = clone(installed, tmp_path / "clone")
    (copy.packages / "gateway" / "app.py").unlink()
    config(tmp_path)
    python, twistd = copy.program("python"), copy.program("twistd")
    ended = run([python, twistd, "-n", "--pidfile=", "gateway", "--config", "gateway.toml"], tmp_path)
    assert ended.returncode != 0
    assert ended.stderr == "gateway: No module named 'gateway.app'\n"
    last = json.loads(ended.stdout.splitlines()[-1])
    assert last["event"] == "gateway.cannot_start"
    assert "Traceback" in last["exception"]
