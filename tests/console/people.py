"""
People who come to the console of a gateway that runs: with ssh, with telnet, over the admin port.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.system.processes import Running, running
from twisted.conch.ssh.keys import Key

import gateway
from demo.ports import free_port
from gateway.core.passwords import hashed

__all__ = ["KEY", "PASSWORD", "Console", "Telnet", "console", "plain"]

PASSWORD = "correct horse battery"
HASH = hashed(PASSWORD, b"sixteen bytes ok")
KEY = "a-key-of-the-console-tests"

BODY = """
[[websocket]]
path = "/ws"

[channels."table:{id}"]
subscribe = "authenticated"
publish   = "authenticated"
history   = { size = 10, ttl = "1m" }
presence  = true
"""

CHECKOUT = Path(gateway.__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": f"{CHECKOUT / 'src'}:{CHECKOUT}"}
TWISTD = str(Path(sys.executable).parent / "twistd")


@dataclass(slots=True)
class Console:
    """
    A gateway with a console, and how to come in.
    """

    served: Running
    ssh: int
    telnet: int

    def run(self, user: str, line: str, *, key: str = "", within_s: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Give one command with ssh."""
        return subprocess.run(
            [*self.command(user, key), line],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip

    def told(self, user: str, line: str) -> Any:
        """The same, as data."""
        ended = self.run(user, f"{line} --json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def command(self, user: str, key: str = "", *options: str) -> list[str]:
        """The command line of a client."""
        known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        quiet = ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", "none"]
        identity = ["-i", str(self.served.folder / (key or user))]
        return ["ssh", *known, *quiet, *identity, "-p", str(self.ssh), *options, f"{user}@127.0.0.1"]

    def ctl(self, *words: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
        """Ask over the admin port."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", "ctl", "--url", f"http://127.0.0.1:{self.served.admin}", *words],
            env={**os.environ, **ENVIRONMENT, "GATEWAY_ADMIN_KEY": key},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    def logins(self, number: int = 0) -> list[tuple[str, str]]:
        """Who came in or did not, in the order of the log, which has *number* of them at least."""
        if number:
            self.served.hear("console.login", number)
        return [(each["operator"], each["outcome"]) for each in self.served.events("console.login")]

    def audit(self, number: int = 0) -> list[tuple[str, str, str, str]]:
        """Who gave which command over what, and what became of it, in the order of the log, which has *number* at least."""
        if number:
            self.served.hear("console.command", number)
        return [
            (each["operator"], each["over"], each["command"], each["outcome"])
            for each in self.served.events("console.command")
        ]


class Telnet:
    """
    Somebody at a telnet client.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.seen = ""

    def expect(self, text: str, within_s: float = 10.0) -> str:
        """Read until *text* comes; return what came up to it."""
        until = time.monotonic() + within_s
        while text not in self.seen:
            self._socket.settimeout(max(0.1, until - time.monotonic()))
            data = self._socket.recv(65536)
            assert data, f"closed before {text!r}: {self.seen[-500:]!r}"
            self.seen += plain(data)
        before, _, self.seen = self.seen.partition(text)
        return before

    def say(self, text: str) -> None:
        """Type; a line ends as telnet wants it (RFC 854)."""
        self._socket.sendall(text.replace("\r\n", "\r").replace("\r", "\r\n").encode())

    def log_in(self, user: str, password: str = PASSWORD) -> None:
        """Answer both questions."""
        self.expect("Username: ")
        self.say(f"{user}\r\n")
        self.expect("Password: ")
        self.say(f"{password}\r\n")

    def closed(self) -> bool:
        """Whether the other end hangs up."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def plain(data: bytes) -> str:
    """What a terminal would show: without its sequences and telnet's."""
    data = re.sub(rb"\xff[\xfb-\xfe].|\xff\xfa.*?\xff\xf0|\xff[\xf0-\xfa]", b"", data, flags=re.DOTALL)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace")).replace("\r", "")


@contextmanager
def console(
    folder: Path, *, section: str = "", body: str = BODY, users: Sequence[tuple[str, str]] = (), listen: str = ""
) -> Iterator[Console]:
    """
    Run a gateway with a console; a viewer, an operator and a developer have keys, and all have the password.
    """
    folder.mkdir(exist_ok=True)
    lines = []
    for name, role in users or (("vera", "viewer"), ("otto", "operator"), ("dora", "developer")):
        key = Key(Ed25519PrivateKey.generate())
        with open(folder / name, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:  # noqa: PTH123
            file.write(key.toString("OPENSSH"))
        public = key.public().toString("OPENSSH").decode()
        lines.append(f'[user.{name}]\nrole = "{role}"\nkeys = ["{public}"]\npassword = "{HASH}"\n')
    (folder / "users.toml").write_text("\n".join(lines))
    ssh, telnet = free_port(), free_port()
    text = f"""
[console]
ssh = "tcp:{ssh}:interface=127.0.0.1"
telnet = "tcp:{telnet}:interface=127.0.0.1"
users_file = "users.toml"
{section}
[[admin.key]]
name = "scripts"
secret = "{KEY}"
scopes = ["read", "operate"]
[[admin.key]]
name = "looks"
secret = "{KEY}-to-look"
scopes = ["read"]
[[admin.key]]
name = "publishes"
secret = "{KEY}-to-publish"
scopes = ["publish"]
"""
    with running(TWISTD, folder, body + text, extra=ENVIRONMENT, listen=listen) as served:
        yield Console(served, ssh, telnet)
