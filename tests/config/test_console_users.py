"""
The console's section and its users' file: each fault with its line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.console_users import load_users, public_key
from gateway.config.faults import ConfigErrors
from gateway.config.load import parse
from gateway.core.passwords import BadHash, hashed, matches, read_hash

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTbcHqAOKo1xoFBKVGZ9zmdOEQHAxtHUYWKQVNEa6Bw anna@laptop"
HASH = hashed("correct horse battery", b"sixteen bytes ok")

SOUND = f"""
[user.anna]
role = "operator"
keys = ["{PUBLIC}"]

[user.vera]
role = "viewer"
password = "{HASH}"
"""

BROKEN = f"""
[user.anna]
role = "boss"
keys = ["ssh-ed25519 AAAA", "{PUBLIC}"]

[user.vera]
role = "viewer"
password = "{HASH[:-1]}!"

[user.otto]
role = "operator"
"""


def faults(folder: Path, section: str, users: str = SOUND) -> list[str]:
    """What is wrong with a configuration that has *section*."""
    (folder / "users.toml").write_text(users)
    with pytest.raises(ConfigErrors) as raised:
        parse(section, str(folder / "gateway.toml"), {})
    return [str(fault) for fault in raised.value.faults]


def test_a_sound_file(tmp_path: Path) -> None:
    """
    Users have a role, keys and a password, which is never shown.
    """
    (tmp_path / "users.toml").write_text(SOUND)
    anna, vera = load_users(tmp_path / "users.toml")
    assert (anna.role, anna.keys, anna.password) == ("operator", (PUBLIC,), None)
    assert vera.password is not None
    assert "scrypt" not in repr(vera)


def test_every_fault_with_its_line(tmp_path: Path) -> None:
    """
    All that is wrong with the users is told with the configuration's other faults, without a hash in it.
    """
    found = faults(tmp_path, '[console]\nssh = "tcp:4022"\nusers_file = "users.toml"\n', BROKEN)
    path = tmp_path / "users.toml"
    begin = f"3:1: console.users_file: {path}:"
    assert {each.removeprefix(begin) for each in found} == {
        "3:1: user.anna.role: expected one of viewer, operator, developer, got 'boss'",
        "4:9: user.anna.keys[0]: is no public key of the kind ssh-ed25519",
        "8:1: user.vera.password: is no hash of a password; `gateway console-password` makes one",
        "10:7: user.otto: has neither keys nor a password, and could not come in",
    }


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ('telnet = "tcp:4023"', "console.telnet: tcp:4023 can be reached from beyond this machine"),
        ('telnet = "tcp:4023:interface=0.0.0.0"', "console.telnet: tcp:4023:interface=0.0.0.0 can be reached"),
        ('telnet = "systemd:domain=INET:index=0"', "console.telnet: systemd:domain=INET:index=0 can be reached"),
        ('ssh = "tcp:9100:interface=127.0.0.1"', "console.ssh: tcp:9100:interface=127.0.0.1 is already listened on"),
        ('telnet = "tcp:4023:interface=127.0.0.1"\npython = true', "console.python: is only had over ssh"),
        ('ssh = "tcp:4022"\nhost_key_folder = "nowhere"', "console.host_key_folder: there is no folder"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, section: str, fault: str) -> None:
    """
    Telnet that others could reach, ports that are taken, and what would never be used are refused.
    """
    (found,) = faults(tmp_path, f'[console]\nusers_file = "users.toml"\n{section}\n')
    assert fault in found


def test_somebody_must_be_able_to_come_in(tmp_path: Path) -> None:
    """
    A console without users, and telnet without a password, are faults.
    """
    (found,) = faults(tmp_path, '[console]\nssh = "tcp:4022"\n')
    assert "nobody could come in" in found
    section = '[console]\ntelnet = "unix:/tmp/console.sock"\nusers_file = "users.toml"\n'
    (found,) = faults(tmp_path, section, SOUND.partition("[user.vera]")[0])
    assert "has a password" in found


def test_passwords() -> None:
    """
    A hash is made of one password alone, and a hash that costs too little or too much is none.
    """
    assert matches("correct horse battery", HASH)
    assert not matches("correct horse batter", HASH)
    for bad in ("", "scrypt:1024:" + HASH.partition(":8:")[2], HASH.replace("32768", "999999"), HASH + "x" * 60):
        with pytest.raises(BadHash):
            read_hash(bad)


@pytest.mark.parametrize(
    "text", ["", "ssh-dss AAAA", "ssh-ed25519", "ssh-ed25519 !!!!", PUBLIC.replace("ed25519", "rsa", 1)]
)
def test_what_is_no_key(text: str) -> None:
    """
    A key is of a kind that is taken, and is what it says it is.
    """
    with pytest.raises(ValueError, match="no public key"):
        public_key(text)
