"""
Gateways as processes: started, waited for, asked and ended, each by the test that started it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.ports import free_port

__all__ = ["Answer", "Running", "alive", "ask", "config", "eventually", "run", "running", "token"]

START_S = 60.0
SECRET = "a-secret-that-only-these-tests-know"

ISSUER = f"""
[[auth.issuer]]
issuer     = "https://id.example"
audience   = "gateway"
algorithms = ["HS256"]
secret     = "{SECRET}"
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP, its names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def ask(
    port: int, path: str, *, method: str = "GET", bearer: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """
    Send one request on a connection of its own.

    Raises:
        OSError, http.client.HTTPException: nobody answers there.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        given = dict(headers or {})
        if bearer:
            given["Authorization"] = f"Bearer {bearer}"
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        body = answer.read()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
    finally:
        connection.close()


def eventually(what: str, look: Callable[[], Any], *, within_s: float = START_S) -> Any:
    """
    Return the first true value of *look*; errors of the network count as not yet.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            seen = look()
        except (OSError, http.client.HTTPException):
            seen = None
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.03)


def alive(pid: int) -> bool:
    """
    Whether the process runs; one that ended and was not waited for does not.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return the environment without what points Python or the gateway at the checkout.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GATEWAY", "PYTEST"))}
    return kept | dict(extra or {})


def run(command: Sequence[str], folder: Path, *, extra: Mapping[str, str] | None = None) -> Any:
    """
    Run *command* to its end; return what ``subprocess.run`` does, with text.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@dataclass(slots=True)
class Running:
    """
    One gateway that runs in the foreground.

    Attributes:
        port: For clients.
        admin: The admin port.
        api: The server API's port, set by the test that configured one.
        folder: Where it runs; its configuration is ``gateway.toml`` in there.
    """

    process: subprocess.Popen[bytes]
    port: int
    admin: int
    folder: Path
    api: int = 0
    _seen: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What it wrote to its standard output, as far as there are whole lines."""
        return (self.folder / "stdout").read_text().rpartition("\n")[0].splitlines()

    def complaints(self) -> str:
        """What it wrote to its standard error."""
        return (self.folder / "stderr").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines whose event is *name*."""
        return [event for event in map(json.loads, self.lines()) if event.get("event") == name]

    def hear(self, name: str, times: int = 1) -> dict[str, Any]:
        """
        Wait for the event *name* to stand in the log so often; return the last.
        """
        found: list[dict[str, Any]] = eventually(
            f"{name} {times} times in {self.folder}/stdout",
            lambda: self.events(name) if len(self.events(name)) >= times else [],
        )
        return found[-1]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, within_s: float = 40.0) -> int:
        """
        Ask it to stop; return its exit code.
        """
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(within_s)


def config(folder: Path, body: str = "", *, issuer: str = ISSUER, listen: str = "") -> tuple[int, int]:
    """
    Write ``gateway.toml`` into *folder*; return its clients' and its admin port.
    """
    port, admin = free_port(), free_port()
    listening = (
        f'[listen]\nclients = ["tcp:{port}:interface=127.0.0.1"]\nadmin = ["tcp:{admin}:interface=127.0.0.1"]\n{listen}'
    )
    (folder / "gateway.toml").write_text(listening + issuer + body)
    return port, admin


@contextmanager
def running(
    twistd: str,
    folder: Path,
    body: str = "",
    *,
    extra: Mapping[str, str] | None = None,
    listen: str = "",
    issuer: str = ISSUER,
    wrapper: Sequence[str] = (),
    stdout: int | None = None,
    options: Sequence[str] = (),
) -> Iterator[Running]:
    """
    Run a gateway in *folder*, in the foreground; it is ready when the block begins, and has ended behind it.

    Args:
        twistd: The program.
        body: What the configuration has beside listeners and an issuer.
        wrapper: A command that becomes the one behind it, such as prlimit.
        stdout: A descriptor for its output, instead of the file that ``Running.lines`` reads.
        options: More for twistd.
    """
    port, admin = config(folder, body, listen=listen, issuer=issuer)
    command = [*wrapper, twistd, "-n", "--pidfile=", *options, "gateway", "--config", "gateway.toml"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(extra),
            stdin=subprocess.DEVNULL,
            stdout=out if stdout is None else stdout,
            stderr=err,
        )
    gateway = Running(process, port, admin, folder)

    def ready() -> bool:
        assert process.poll() is None, f"ended with {process.returncode}: {gateway.complaints()}{gateway.lines()}"
        return ask(port, "/ready").status == 200

    try:
        eventually("ready", ready)
        yield gateway
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def token(program: str, folder: Path, *arguments: str) -> str:
    """
    Return a token of ``gateway token`` for alice.
    """
    made = run([program, "token", "gateway.toml", "--sub", "alice", *arguments], folder)
    assert made.returncode == 0, made.stderr
    return str(made.stdout.strip())
