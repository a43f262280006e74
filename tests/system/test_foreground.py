"""
``twistd -n gateway``, installed from the wheel, as an operator or a container runs it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import threading
from pathlib import Path

import pytest
from tests.system.backend import Backend
from tests.system.installation import Installation, clone
from tests.system.processes import Answer, alive, ask, eventually, run, running, token

SLOW = "/api/slow/1.5"


def test_serves_from_anywhere(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    Installed from the wheel it serves from a folder that has nothing but a configuration.
    """
    with running(twistd, tmp_path, backend.upstream) as served:
        bearer = token(gateway, tmp_path)
        answer = ask(served.port, "/api/hello", bearer=bearer)
        assert (answer.status, answer.json) == (200, {"backend": "says hello"})
        assert b"X-User-Id: alice" in backend.heads[-1]
        assert ask(served.port, "/api/hello").status == 401
        assert len(backend.heads) == 1
        assert served.end() == 0
    assert served.complaints() == ""


def test_every_line_is_json(twistd: str, backend: Backend, tmp_path: Path) -> None:
    """
    In JSON mode each line on standard output is one object, twistd's own lines included.
    """
    with running(twistd, tmp_path, backend.upstream) as served:
        ask(served.port, "/nowhere?what=%0a%22", headers={"User-Agent": 'a "quoted" agent\t'})
        served.signal(signal.SIGHUP)
        served.hear("config.taken")
        served.end()
    lines = served.lines()
    events = [json.loads(line) for line in lines]
    assert all(isinstance(event, dict) and event["level"] and event["ts"] for event in events)
    told = " ".join(event["event"] for event in events)
    assert "twistd" in told
    assert [event["signal"] for event in events if event["event"] == "signal.received"] == ["SIGTERM"]
    assert "gateway.started" in told
    assert served.complaints() == ""


def test_descriptor_limit_is_raised(twistd: str, tmp_path: Path) -> None:
    """
    The soft limit becomes the hard one, and the log says how many connections that allows.
    """
    with running(twistd, tmp_path, wrapper=["prlimit", "--nofile=256:2048"]) as served:
        told = served.hear("descriptors.raised")
        assert (told["before"], told["now"]) == (256, 2048)
        assert 0 < told["most_connections"] < 2048
        limits = Path(f"/proc/{served.process.pid}/limits").read_text()
        assert re.search(r"Max open files +2048 +2048 ", limits)


def test_drain_finishes_what_is_under_way(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    At SIGTERM a request that the backend has is answered, new connections are refused, then it ends.
    """
    answers: list[Answer] = []
    with running(twistd, tmp_path, backend.upstream) as served:
        bearer = token(gateway, tmp_path)
        asking = threading.Thread(target=lambda: answers.append(ask(served.port, SLOW, bearer=bearer)))
        asking.start()
        assert backend.asked.wait(30)
        served.signal(signal.SIGTERM)
        served.hear("gateway.draining")

        def refused() -> bool:
            try:
                return ask(served.port, "/health").status == 503
            except OSError:
                return True

        eventually("new connections are refused", refused)
        asking.join(30)
        assert [answer.status for answer in answers] == [200]
        assert served.process.wait(40) == 0
        assert served.events("gateway.stopped")[-1]["requests_cut"] == 0


def test_drain_gives_up_at_its_deadline(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    What does not end within ``drain_timeout`` is answered 503 by the gateway, which then ends.
    """
    answers: list[Answer] = []
    body = backend.upstream + '[gateway]\ndrain_timeout = "500ms"\n'
    with running(twistd, tmp_path, body) as served:
        bearer = token(gateway, tmp_path)
        asking = threading.Thread(target=lambda: answers.append(ask(served.port, "/api/slow/20", bearer=bearer)))
        asking.start()
        assert backend.asked.wait(30)
        served.end()
        asking.join(30)
        assert [(answer.status, answer.json["code"]) for answer in answers] == [(503, "draining")]
        assert served.events("gateway.stopped")[-1]["requests_cut"] == 1


def test_second_signal_ends_at_once(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    Whoever asks twice does not wait for the drain.
    """
    with running(twistd, tmp_path, backend.upstream) as served:
        bearer = token(gateway, tmp_path)

        def asking() -> None:
            with pytest.raises((OSError, Exception)):
                ask(served.port, "/api/slow/20", bearer=bearer)

        thread = threading.Thread(target=asking)
        thread.start()
        assert backend.asked.wait(30)
        served.signal(signal.SIGTERM)
        served.hear("gateway.draining")
        served.signal(signal.SIGTERM)
        assert served.process.wait(10) != 0
        thread.join(30)


def test_reload_keeps_the_last_good_one(twistd: str, gateway: str, backend: Backend, tmp_path: Path) -> None:
    """
    SIGHUP takes a good file; a bad one is told in the log and on the admin port, and changes nothing.
    """
    key = '[[admin.key]]\nname = "test"\nsecret = "a-key-of-the-system-tests"\nscopes = ["*"]\n'
    with running(twistd, tmp_path, backend.upstream + key) as served:
        bearer = token(gateway, tmp_path)
        good = (tmp_path / "gateway.toml").read_text()

        (tmp_path / "gateway.toml").write_text(good + "[limits]\nmax_head = 7parsecs\n")
        served.signal(signal.SIGHUP)
        refused = served.hear("config.refused")
        assert "gateway.toml" in str(refused["faults"])
        assert ask(served.port, "/api/hello", bearer=bearer).status == 200
        admin = {"Authorization": "Bearer a-key-of-the-system-tests"}
        told = ask(served.admin, "/status", headers=admin)
        assert "gateway.toml" in told.json["config"]["reload_fault"]

        (tmp_path / "gateway.toml").write_text(good.replace("/api/**", "/moved/**") + '[events]\nspool = "spool"\n')
        served.signal(signal.SIGHUP)
        assert served.hear("config.taken")["needs_restart"] == ["events.spool"]
        assert ask(served.port, "/api/hello", bearer=bearer).status == 404
        assert ask(served.port, "/moved/hello", bearer=bearer).status == 200


def test_read_only_installation_starts_silently(installed: Installation, tmp_path: Path) -> None:
    """
    Where site-packages cannot be written and twistd's plugin cache is missing, nothing is said about it.
    """
    copy = clone(installed, tmp_path / "clone")
    plugins = copy.packages / "twisted" / "plugins"
    (plugins / "dropin.cache").unlink()
    plugins.chmod(stat.S_IRUSR | stat.S_IXUSR)
    # root would write nevertheless.
    may_not = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    wrapper = [*may_not, copy.program("python")]
    try:
        with running(copy.program("twistd"), tmp_path, wrapper=wrapper) as served:
            served.end()
        assert not (plugins / "dropin.cache").exists()
    finally:
        plugins.chmod(stat.S_IRWXU)
    assert "cache" not in "".join(served.lines())
    assert served.complaints() == ""


def test_help_explains_itself(twistd: str, tmp_path: Path) -> None:
    """
    ``twistd gateway --help`` tells how to run it both ways, and what the signals do.
    """
    told = run([twistd, "gateway", "--help"], tmp_path)
    assert told.returncode == 0
    for word in ("--config", "twistd -n gateway", "--pidfile", "--logfile", "SIGHUP", "SIGTERM", "gateway check"):
        assert word in told.stdout, word
    listed = run([twistd, "--help"], tmp_path)
    assert re.search(r"^ +gateway +\S", listed.stdout, re.MULTILINE)


def test_ends_with_its_process(twistd: str, tmp_path: Path) -> None:
    """
    SIGINT, as from Ctrl-C, ends it as SIGTERM does.
    """
    with running(twistd, tmp_path) as served:
        served.signal(signal.SIGINT)
        served.process.wait(30)
        assert not alive(served.process.pid)
        assert served.events("gateway.stopped")
