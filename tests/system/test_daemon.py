"""
``twistd gateway`` as a daemon.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.processes import alive, ask, config, eventually, run, token


@contextmanager
def daemon(twistd: str, folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """
    Run a daemon in *folder*; yield its process id and its clients' port.
    """
    port, _ = config(folder)
    pid_file = folder / "gateway.pid"
    command = [twistd, f"--pidfile={pid_file}", f"--logfile={folder / 'gateway.log'}", *options]
    started = run([*command, "gateway", "--config", "gateway.toml"], folder)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    pid = int(eventually("a pid file", lambda: pid_file.exists() and pid_file.read_text()))
    try:
        yield pid, port
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_daemon_answers_and_stops(twistd: str, tmp_path: Path) -> None:
    """
    The command returns at once; the daemon answers /health, and TERM ends it and removes the pid file.
    """
    with daemon(twistd, tmp_path) as (pid, port):
        assert eventually("/health", lambda: ask(port, "/health").status == 200)
        assert alive(pid)
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGTERM)
        eventually("its end", lambda: not alive(pid), within_s=40)
        assert not (tmp_path / "gateway.pid").exists()
        log = (tmp_path / "gateway.log").read_text()
        assert "gateway.started" in log
        assert "gateway.stopped" in log


def test_daemon_serves_wherever_it_stands(twistd: str, gateway: str, tmp_path: Path) -> None:
    """
    It leaves the folder where it was started for ``--rundir``, and finds its files and takes a reload all the same.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    port, _ = config(tmp_path)
    command = [twistd, f"--pidfile={tmp_path / 'pid'}", f"--rundir={elsewhere}", f"--logfile={tmp_path / 'log'}"]
    started = run([*command, "gateway", "--config", str(tmp_path / "gateway.toml")], tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int(eventually("a pid file", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    try:
        eventually("/ready", lambda: ask(port, "/ready").status == 200)
        assert Path(f"/proc/{pid}/cwd").resolve() == elsewhere
        os.kill(pid, signal.SIGHUP)
        eventually("the reload", lambda: "config.taken" in (tmp_path / "log").read_text())
        assert token(gateway, tmp_path).count(".") == 2
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually("its end", lambda: not alive(pid), within_s=40)


def test_log_is_opened_again(twistd: str, tmp_path: Path) -> None:
    """
    After a rotation SIGHUP makes the daemon write to a new file.
    """
    with daemon(twistd, tmp_path) as (pid, port):
        eventually("/health", lambda: ask(port, "/health").status == 200)
        log = tmp_path / "gateway.log"
        log.rename(tmp_path / "gateway.log.1")
        os.kill(pid, signal.SIGHUP)
        eventually("a new log", lambda: log.exists() and "config.taken" in log.read_text())
        ask(port, "/no/such/path")
        eventually("a line in it", lambda: "/no/such/path" in log.read_text())
        assert "/no/such/path" not in (tmp_path / "gateway.log.1").read_text()
        os.kill(pid, signal.SIGTERM)
        eventually("its end", lambda: not alive(pid), within_s=40)


def test_a_log_that_cannot_be_opened_again(twistd: str, tmp_path: Path) -> None:
    """
    Where the log's folder is gone lines go on to the old file, which says so, and the reload is done all the same.
    """
    folder = tmp_path / "logs"
    folder.mkdir()
    with daemon(twistd, tmp_path, f"--logfile={folder / 'gateway.log'}") as (pid, port):
        eventually("/health", lambda: ask(port, "/health").status == 200)
        moved = folder.rename(tmp_path / "moved") / "gateway.log"
        os.kill(pid, signal.SIGHUP)
        eventually("the reload", lambda: "config.taken" in moved.read_text())
        assert "log.not_opened" in moved.read_text()
        os.kill(pid, signal.SIGTERM)
        eventually("its end", lambda: not alive(pid), within_s=40)
        assert "gateway.stopped" in moved.read_text()


def test_daemon_becomes_another_user(twistd: str, tmp_path: Path) -> None:
    """
    ``--uid`` and ``--gid``: it serves, and reloads, as that user.
    """
    uid, gid = (65534, 65534) if _everybody_reads(Path(twistd)) and os.geteuid() == 0 else (os.getuid(), os.getgid())
    tmp_path.chmod(0o755)
    with daemon(twistd, tmp_path, f"--uid={uid}", f"--gid={gid}") as (pid, port):
        eventually("/ready", lambda: ask(port, "/ready").status == 200)
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert next(line for line in status if line.startswith("Uid:")).split()[1:] == [str(uid)] * 4
        os.kill(pid, signal.SIGTERM)
        eventually("its end", lambda: not alive(pid), within_s=40)


def _everybody_reads(program: Path) -> bool:
    """
    Whether another user could import what *program* imports: folders of tests and of some interpreters are private.
    """
    folders = {*program.parents, *Path(os.path.realpath(program.parent / "python")).parents}
    return all(folder.stat().st_mode & 0o001 for folder in folders)
