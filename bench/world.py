"""
A small world to measure in: several instances on one Redis, all processes of our own on loopback.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.http_client import Http
from bench.targets import BIN, ISSUER, make_key, need, token
from demo.ports import free_port

__all__ = ["KEY", "RedisProcess", "World", "until"]

KEY = "a-key-of-the-bench-to-publish-with"

CONFIG = """
[listen]
clients = ["tcp:{port}:interface=127.0.0.1"]
admin   = ["tcp:{admin}:interface=127.0.0.1"]
{listen}
[store]
url     = "{store}"
timeout = "1s"
beat    = "{beat}"
lease   = "{lease}"

[[auth.issuer]]
issuer          = "{issuer}"
audience        = "gateway"
algorithms      = ["ES256"]
public_key_file = "public.pem"

[[websocket]]
path = "/ws"
ping = "2m"            # The load does not answer pings.
pong_timeout = "1m"

[[admin.key]]
name   = "bench"
secret = "{key}"
scopes = ["*"]

[log]
access = false
"""


class RedisProcess:
    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self._folder = folder
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("bench: redis-server is missing. As root: apt-get install redis-server")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([program, *options, *self._options], stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it hang."""
        assert self._process is not None, "started before"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None, "started before"
        self._process.send_signal(signal.SIGCONT)

    async def ask(self, *command: str) -> bytes:
        """Send one command; return the first 64 KiB of the raw answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(c), c.encode()) for c in command))
        answer = await reader.read(65536)
        writer.close()
        return answer


class World:
    """
    The instances, as processes.
    """

    def __init__(self, folder: Path, body: str, *, number: int, store: str, beat: str, lease: str, listen: str) -> None:
        self.folder = folder
        self._key = make_key(folder)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * number
        self.ports = [free_port() for _ in range(number)]
        self.admins = [free_port() for _ in range(number)]
        self.urls = [f"ws://127.0.0.1:{port}/ws" for port in self.ports]
        for which, (port, admin) in enumerate(zip(self.ports, self.admins, strict=True)):
            settings = {"port": port, "admin": admin, "store": store, "beat": beat, "lease": lease, "listen": listen}
            (folder / f"gateway-{which}.toml").write_text(CONFIG.format(**settings, issuer=ISSUER, key=KEY) + body)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        folder: Path,
        body: str,
        *,
        number: int,
        redis_options: Sequence[str] = (),
        beat: str = "500ms",
        lease: str = "1500ms",
        listen: str = "",
        store: str = "",
        core: Sequence[int] = (),
    ) -> AsyncIterator[World]:
        """
        Run *number* instances on a Redis of their own while the block lasts.

        Args:
            body: What their configuration has beside listeners, store, issuer and the WebSocket.
            store: Instead of the Redis.
            core: Cores that they run on; any if none is said.
        """
        redis = RedisProcess(folder / "redis", redis_options)
        redis.start()
        world = cls(
            folder,
            body,
            number=number,
            store=store or f"redis://127.0.0.1:{redis.port}",
            beat=beat,
            lease=lease,
            listen=listen,
        )
        world.core = core
        world.redis = redis
        try:
            await asyncio.gather(*(world.start(which) for which in range(number)))
            yield world
        finally:
            world.stop()
            redis.kill()

    redis: RedisProcess
    core: Sequence[int] = ()

    def bearer(self, subject: str = "player-4711", device: str = "") -> str:
        """Make a token."""
        return token(self._key, subject=subject, device=device)

    def pid(self, which: int) -> int:
        """The process of an instance."""
        process = self._processes[which]
        assert process is not None, "started before"
        return process.pid

    async def ask(self, which: int, operation: str, **parameters: Any) -> Any:
        """
        Do an operation of the server API; return its result.
        """
        http = Http()
        try:
            answer = await http.post(self.admins[which], f"/api/{operation}", parameters, {"X-API-Key": KEY}, 10.0)
        finally:
            http.close()
        if "result" not in answer:
            raise SystemExit(f"bench: {operation}: {answer}")
        return answer["result"]

    async def start(self, which: int) -> None:
        """Start one, and wait until it is ready."""
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "gateway", "--config", f"gateway-{which}.toml"]
        if self.core:
            command = [need("taskset"), "-c", ",".join(map(str, self.core)), *command]
        with (self.folder / f"gateway-{which}.log").open("ab") as log:
            self._processes[which] = subprocess.Popen(  # noqa: ASYNC220  # at once, and nobody else waits
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = asyncio.get_running_loop().time() + 20
        while not await self.ready(self.ports[which]):
            if asyncio.get_running_loop().time() > deadline:
                raise SystemExit(f"bench: instance {which} is not ready; see {self.folder}/gateway-{which}.log")
            await asyncio.sleep(0.05)

    def kill(self, which: int) -> None:
        """End one as a crash would."""
        process = self._processes[which]
        assert process is not None, "started before"
        process.kill()
        process.wait()

    async def replace(self, which: int) -> None:
        """Kill one, and start it again after its lease has lapsed."""
        self.kill(which)
        await asyncio.sleep(2.5)
        await self.start(which)

    def stop(self) -> None:
        """End them all."""
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.terminate()
        for process in self._processes:
            if process is not None:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @staticmethod
    async def ready(port: int) -> bool:
        """Whether whoever listens there is ready."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 2)
            writer.close()
        except (TimeoutError, OSError):
            return False
        return b" 200 " in answer[:20]


async def until(look: Callable[[], bool], within_s: float, *, fail: bool = True) -> None:
    """
    Wait until *look* is true.

    Raises:
        SystemExit: it was not in time, unless *fail* is false.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not look():
        if loop.time() > deadline:
            if fail:
                raise SystemExit("bench: it did not come so far in time")
            return
        await asyncio.sleep(0.02)
