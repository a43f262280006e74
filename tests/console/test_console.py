"""
The console of a gateway that runs, with real clients: who may do what, and what is written down of it.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.console.people import KEY, PASSWORD, Console, Telnet, console, plain

OPERATORS = [
    "kick alice",
    "revoke user alice",
    "mute alice",
    "drain nobody",
    "unlimit alice",
    "eject players nobody",
    "restore players nobody",
    "trace alice",
    "log info",
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """One gateway for all that leaves it as it was."""
    with console(tmp_path_factory.mktemp("console"), section="python = true") as made:
        yield made


def test_one_command_over_ssh(at: Console) -> None:
    """
    A command given to ssh is answered as text, as JSON with --json, and with an exit code.
    """
    before = len(at.audit())
    asked = at.run("vera", "who alice")
    assert (asked.returncode, asked.stdout.split()) == (0, ["user", "alice", "connections", "0"])
    assert at.told("vera", "who alice") == {"facts": {"user": "alice", "connections": 0}}
    refused = at.run("vera", "whom alice")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "did you mean 'who'?" in refused.stderr
    assert at.audit(before + 3)[before:] == [
        ("vera", "ssh", "who alice", "ok"),
        ("vera", "ssh", "who alice", "ok"),
        ("vera", "ssh", "whom alice", "unknown"),
    ]


def test_nobody_does_what_is_not_theirs(at: Console) -> None:
    """
    Nothing that an operator may runs for a viewer or a key without the scope, over any way in; each attempt has a line.
    """
    before = len(at.audit())
    for line in OPERATORS:
        ended = at.run("vera", line)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "is for the role operator; yours is viewer" in ended.stderr
    telnet = Telnet(at.telnet)
    telnet.log_in("vera")
    for line in OPERATORS:
        telnet.expect("gateway> ")
        telnet.say(f"{line}\r")
        telnet.expect("is for the role operator; yours is viewer")
    telnet.close()
    for key, why in ((f"{KEY}-to-look", "yours is viewer"), (f"{KEY}-to-publish", "yours is none")):
        ended = at.ctl(*OPERATORS[0].split(), key=key)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert why in ended.stderr
    assert at.ctl("who", key=f"{KEY}-to-publish").returncode == 1
    tried = at.audit(before + 2 * len(OPERATORS) + 3)[before:]
    assert len(tried) == 2 * len(OPERATORS) + 3
    assert {outcome for _, _, _, outcome in tried} == {"denied"}


def test_python_is_for_developers_over_ssh_with_a_key(at: Console) -> None:
    """
    The prompt opens for a developer's key alone; for nobody else, by no other way, and each wish is written down.
    """
    before = len(at.audit())
    for user in ("vera", "otto"):
        assert "python is for developers" in typed(at, user, "python\r", "exit\r")
    assert at.run("dora", "python").returncode == 1
    telnet = Telnet(at.telnet)
    telnet.log_in("dora")
    telnet.expect("gateway> ")
    telnet.say("python\r")
    telnet.expect("python is for developers, over ssh with a key")
    telnet.close()
    assert at.ctl("python").returncode == 1
    shown = typed(at, "dora", "python\r", "len(node.clients) + 41\r", "\x04", "exit\r")
    assert "\n41\n" in shown
    outcomes = [(who, over, outcome) for who, over, _, outcome in at.audit(before + 7)[before:]]
    assert outcomes == [
        ("vera", "ssh", "denied"),
        ("otto", "ssh", "denied"),
        ("dora", "ssh", "denied"),
        ("dora", "telnet", "denied"),
        ("scripts", "ctl", "unknown"),
        ("dora", "ssh", "ok"),
        ("dora", "ssh", "ok"),
    ]


def test_scripts_ask_over_the_admin_port(at: Console) -> None:
    """
    `gateway ctl` tells what the console tells, as text and as JSON; without a key it is told nothing.
    """
    before = len(at.audit())
    asked = at.ctl("who", "alice", "--json")
    assert json.loads(asked.stdout) == {"facts": {"user": "alice", "connections": 0}}
    assert "kick USER" in at.ctl("help").stdout
    refused = at.ctl("who", "alice", key="not-a-key")
    assert (refused.returncode, refused.stdout) == (1, "")
    refused = at.ctl("mute", "alice", "soon")
    assert "expected a duration" in refused.stderr
    assert at.audit(before + 3)[-1] == ("scripts", "ctl", "mute alice soon", "usage")


def test_telnet_asks_for_a_password(at: Console) -> None:
    """
    A wrong password is told so, without a word about whether there is such a user.
    """
    before = len(at.logins())
    telnet = Telnet(at.telnet)
    telnet.log_in("nobody")
    telnet.expect("Not so.")
    telnet.log_in("vera", "wrong")
    telnet.expect("Not so.")
    telnet.log_in("vera")
    telnet.expect("You are vera, viewer.")
    telnet.expect("gateway> ")
    telnet.say("exit\r")
    assert telnet.closed()
    assert at.logins(before + 3)[before:] == [("nobody", "refused"), ("vera", "refused"), ("vera", "in")]


def test_tab_completes(at: Console) -> None:
    """
    Tab completes verbs and arguments, and lists what there is to choose from; only what one may do.
    """
    telnet = Telnet(at.telnet)
    telnet.log_in("otto")
    telnet.expect("gateway> ")
    telnet.say("inst\t")
    telnet.expect("instances ")
    telnet.say("\x15re\t")
    telnet.expect("restore  revoke")
    telnet.say("\x15log de\t\r")
    telnet.expect("log debug")
    telnet.expect("level")
    telnet.say("log info\r")
    telnet.expect("level")
    telnet.close()
    viewer = Telnet(at.telnet)
    viewer.log_in("vera")
    viewer.expect("gateway> ")
    viewer.say("re\t\t instances\r")
    assert "restore" not in viewer.expect("there is no 're'")
    viewer.close()


def test_long_answers_come_page_by_page(at: Console) -> None:
    """
    More than a screen waits for a key: a line with Enter, a page with space, the rest with a, nothing more with q.
    """
    shown = typed(at, "vera", "config\r", " ", "\r", "q", "exit\r", rows=10)
    assert shown.count("-- more") == 3
    rows = len(at.told("vera", "config")["tables"][0]["rows"])
    whole = typed(at, "vera", "config\r", "a", "exit\r", rows=10)
    assert whole.count("-- more") == 1
    assert whole.count("\n") > rows


def test_the_host_key_is_ours_alone(at: Console) -> None:
    """
    The server's key is made at the first start, is Ed25519, and can be read by nobody else.
    """
    path = at.served.folder / "console_host_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    assert "(ED25519)" in shown
    assert at.served.events("console.host_key")[0]["fingerprint"] in shown


def test_what_is_not_a_session_is_refused(at: Console) -> None:
    """
    The door forwards nothing and has no subsystems.
    """
    forwarded = subprocess.run(
        [*at.command("otto", "", "-W", f"127.0.0.1:{at.served.admin}")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert forwarded.returncode != 0
    subsystem = subprocess.run(
        [*at.command("otto", "", "-s"), "sftp"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert subsystem.returncode != 0


def test_who_fails_too_often_is_locked_out(tmp_path: Path) -> None:
    """
    After so many wrong passwords not even the right one, nor the key, is looked at from there; another user is let in.
    """
    with console(tmp_path, section='[console.lockout]\ntries = 3\nfor = "1m"') as at:
        telnet = Telnet(at.telnet)
        for _ in range(3):
            telnet.log_in("vera", "wrong")
        assert telnet.closed()
        again = Telnet(at.telnet)
        again.log_in("vera", PASSWORD)
        again.expect("Not so.")
        assert at.run("vera", "who").returncode == 255
        assert at.run("otto", "who alice").returncode == 0
        # A key that is nobody's is a failed try, however many a client offers.
        assert at.run("otto", "who", key="vera").returncode == 255
        again.close()
        # Others may come in, and those who were may not, without a restart.
        users = at.served.folder / "users.toml"
        users.write_text(users.read_text().replace("[user.dora]", "[user.doris]"))
        at.served.signal(signal.SIGHUP)
        at.served.hear("config.taken")
        assert at.run("doris", "who alice", key="dora").returncode == 0
        assert at.run("dora", "who alice").returncode == 255
        users.write_text("[user.nobody]\n")
        at.served.signal(signal.SIGHUP)
        assert "users.toml:1:7: user.nobody" in str(at.served.hear("config.refused")["faults"])
    outcomes = at.logins()
    assert outcomes[:3] == [("vera", "refused")] * 3
    assert set(outcomes[3:5]) == {("vera", "locked")}
    assert ("otto", "in") in outcomes
    assert ("otto", "refused") in outcomes
    assert outcomes[-2:] == [("doris", "in"), ("dora", "refused")]
    assert at.served.complaints() == ""


def typed(at: Console, user: str, *keys: str, rows: int = 40) -> str:
    """What a terminal shows of somebody who types *keys*, each when there is a prompt or a page to be turned."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    os.system(f"stty rows {rows} cols 200 < {os.ttyname(slave)}")
    client = subprocess.Popen(
        at.command(user, "", "-tt"), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    shown, left, until, asked = b"", list(keys), time.monotonic() + 30, 0
    try:
        while time.monotonic() < until:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:
                    break
                continue
            text = plain(shown)
            if left and text[asked:].endswith(("> ", "--", "... ")):
                asked = len(text)
                os.write(master, left.pop(0).encode())
            elif client.poll() is not None:
                break
    finally:
        if client.poll() is None:
            client.kill()
        client.wait()
        os.close(master)
    return plain(shown)
