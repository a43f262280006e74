"""
A master, its replica and three sentinels: processes of our own on loopback.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.redis.server import RedisServer
from tests.web.certificates import Authority, Made

__all__ = ["SERVICE", "Sentinel", "Sentinels"]

SERVICE = "main"
DOWN_MS = 500


class Sentinels:
    """
    Servers and those who watch them.

    Args:
        tls: All speak TLS alone, with this certificate.
        password: Of the sentinels themselves.
    """

    def __init__(
        self, folder: Path, *, tls: Made | None = None, authority: Authority | None = None, password: str = ""
    ) -> None:
        self.folder = folder
        self.tls = tls
        self.authority = authority
        options = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "3"]
        options += self._tls_options() if tls is not None else []
        self.servers = [RedisServer(folder / f"server{number}", options, tls=tls) for number in range(2)]
        self.servers[1].options += ["--replicaof", "127.0.0.1", str(self.servers[0].port)]
        self.sentinels = [Sentinel(folder / f"sentinel{number}", password, tls) for number in range(3)]

    def _tls_options(self) -> list[str]:
        assert self.authority is not None
        return ["--tls-replication", "yes", "--tls-ca-cert-file", str(self.authority.file)]

    def url(self, *, known: int = 3, service: str = SERVICE) -> str:
        """Where the sentinels are, for ``[store]``; *known* of them are named."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels[:known])
        return f"{'rediss' if self.tls else 'redis'}+sentinel://{hosts}/{service}"

    def start(self) -> Sentinels:
        """
        Start everything, and wait until the replica has its master and the sentinels each other.
        """
        for server in self.servers:
            server.start()
        for each in self.sentinels:
            others = [other for other in self.sentinels if other is not each]
            more = self._tls_options() if self.tls is not None else []
            each.start(self.servers[0].port, others, [self.servers[1].port], more)
        self.until(lambda: b"master_link_status:up" in self.servers[1].ask("INFO", "replication"))
        self.until(
            lambda: all(
                b"flags\r\n$6\r\nmaster\r\n" in each.ask("SENTINEL", "MASTER", SERVICE) for each in self.sentinels
            )
        )
        return self

    @property
    def master(self) -> RedisServer:
        """Who the first sentinel that runs says is master."""
        sentinel = next(each for each in self.sentinels if each.process is not None)
        answer = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(each for each in self.servers if str(each.port).encode() in answer)

    @staticmethod
    def until(true: object, within_s: float = 20.0) -> None:
        """Wait, with the reactor, until *true* is."""
        assert callable(true)
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.05)

    def stop(self) -> None:
        """
        End everything.
        """
        for each in (*self.sentinels, *self.servers):
            each.stop()


class Sentinel(RedisServer):
    """
    One sentinel; it writes its file anew as it learns.
    """

    def __init__(self, folder: Path, password: str = "", tls: Made | None = None) -> None:
        super().__init__(folder, password=password, tls=tls)
        self.id = secrets.token_hex(20)

    def start(
        self, master: int = 0, others: Sequence[Sentinel] = (), replicas: Sequence[int] = (), more: Sequence[str] = ()
    ) -> Sentinel:
        """
        Start it, knowing everybody, or again as it was.
        """
        program = shutil.which("redis-server")
        assert program
        file = self.folder / "sentinel.conf"
        if master:
            lines = [f"sentinel myid {self.id}", f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2"]
            lines += [
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_MS}",
                f"sentinel failover-timeout {SERVICE} 3000",
            ]
            lines += [f"sentinel known-replica {SERVICE} 127.0.0.1 {port}" for port in replicas]
            lines += [f"sentinel known-sentinel {SERVICE} 127.0.0.1 {each.port} {each.id}" for each in others]
            lines += [f"requirepass {self.password}"] if self.password else []
            lines += [" ".join(more[at : at + 2]).removeprefix("--") for at in range(0, len(more), 2)]
            lines += [f"dir {self.folder}", "bind 127.0.0.1", "protected-mode no"]
            if self.tls is None:
                lines.append(f"port {self.port}")
            else:
                lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
                lines += [f"tls-cert-file {self.tls.certificate}", f"tls-key-file {self.tls.key}"]
            file.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, str(file), "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait()
        return self
