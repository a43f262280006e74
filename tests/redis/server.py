"""
A real Redis: a process of our own on loopback, ended by its pid.
"""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.web.certificates import Made

from demo.ports import free_port

__all__ = ["RedisServer"]

START_S = 20.0


class RedisServer:
    """
    One redis-server, without persistence unless *options* say so.

    Args:
        folder: Its own; what it keeps and its log are in there.
        options: More of its command line: ``["--appendonly", "yes"]``.
        port: Its TCP port; a free one if it is not said.
        password: What ``ask`` says first.
        tls: It speaks TLS alone, with this certificate.
    """

    def __init__(
        self, folder: Path, options: Sequence[str] = (), port: int = 0, *, password: str = "", tls: Made | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = list(options)
        self.port = port or free_port()
        self.password = password
        self.tls = tls
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, for ``[store]``."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        """
        Start it (again), and wait until it answers.
        """
        self.launch()
        self.wait()
        return self

    def launch(self) -> None:
        """Start it."""
        program = shutil.which("redis-server")
        assert program, "redis-server is missing; on Debian, as root: apt-get install redis-server"
        command = [program, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        if self.tls is None:
            command += ["--port", str(self.port)]
        else:
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.tls.certificate), "--tls-key-file", str(self.tls.key)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--appendonly", "no", *self.options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """
        Wait until it answers.
        """
        deadline = time.monotonic() + START_S
        while True:
            assert self.process is not None, "started before"
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                if self.ask("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def ask(self, *command: str | bytes | int) -> bytes:
        """
        Send one command on a connection of its own; return the first 64 KiB of the raw answer.
        """
        with self._connected() as connection:
            if self.password:
                connection.sendall(_encoded(("AUTH", self.password)))
                connection.recv(65536)
            connection.sendall(_encoded(command))
            return connection.recv(65536)

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if self.tls is None:
            return connection
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        return trusting.wrap_socket(connection)

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """
        End it; once is enough.
        """
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "started before"
        self.process.send_signal(number)


def _encoded(command: Sequence[str | bytes | int]) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
