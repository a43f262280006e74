"""
A parent changes all of its workers over or none, ends all, and says of them what is so.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from tests.redis.server import RedisServer
from tests.system.processes import alive
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from demo.ports import free_port
from gateway.config.load import load, read
from gateway.telemetry.logs import Logs
from gateway.telemetry.sink import Sink
from gateway.web.listen import ListenFailed
from gateway.workers.parent import Parent
from gateway.workers.supervised import CannotServe, State

HERE: Any = reactor
PROGRAM = str(Path(__file__).with_name("program.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a store that workers can share."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server.url
    finally:
        server.kill()


class Family:
    """
    A parent, and workers that do as they are told: for each the ways of its processes, the last one again and again.
    """

    def __init__(self, folder: Path, store: str, *how: list[str]) -> None:
        self.how = how
        self.path = folder / "gateway.toml"
        self.port = free_port()
        self.text = (
            f'[listen]\nclients = "tcp:{self.port}:interface=127.0.0.1"\nadmin = []\nworkers = {len(how)}\n'
            f'[gateway]\ndrain_timeout = "2s"\n[store]\nurl = "{store}"\n'
            '[upstream.u]\nhttp = "http://127.0.0.1:1"\n[[route]]\npath = "/"\nupstream = "u"\nauth = "none"\n'
        )
        self.path.write_text(self.text)
        self.log = (folder / "log").open("wb")
        self.sink = Sink(self.log.fileno())
        logs = Logs(self.sink, pretty=False)
        self.pids: list[int] = []
        self.parent = Parent(HERE, read(self.path), load(self.path, {}), self.path, logs, self.spawn)

    def spawn(self, number: int, protocol: Any, line: int) -> Any:
        ways = self.how[number - 1]
        way = ways.pop(0) if len(ways) > 1 else ways[0]
        made = HERE.spawnProcess(
            protocol,
            sys.executable,
            [sys.executable, PROGRAM, way],
            env=os.environ,
            childFDs={0: 0, 1: 1, 2: 2, 3: line},
        )
        self.pids.append(made.pid)
        return made

    @property
    def taken(self) -> list[str]:
        """The configurations that the workers have, by what they told last."""
        return [worker.facts.get("text", "") for worker in self.parent.workers]

    def rewrite(self, comment: str) -> str:
        """Change the file; return what stands there then."""
        text = f"{self.text}# {comment}\n"
        self.path.write_text(text)
        return text


@asynccontextmanager
async def family(folder: Path, store: str, *how: list[str]) -> AsyncIterator[Family]:
    """
    Run a parent with workers; none is left behind.
    """
    made = Family(folder, store, *how)
    try:
        await made.parent.start()
        yield made
    finally:
        await made.parent.stop()
        made.sink.stop()
        made.log.close()
        left = [pid for pid in made.pids if alive(pid)]
        assert left == []


async def eventually(look: Callable[[], Any], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline
        await deferLater(HERE, 0.01)


@pytest_twisted.ensureDeferred
async def test_all_take_it(tmp_path: Path, store: str) -> None:
    """
    A good configuration is in force at every worker, and reaches those that start later.
    """
    async with family(tmp_path, store, ["serves"], ["serves"]) as made:
        text = made.rewrite("new")
        assert await made.parent.reload() == []
        await eventually(lambda: made.taken == [text, text])
        assert len(made.pids) == 2
        made.parent.workers[0].kill()
        await eventually(lambda: len(made.pids) == 3 and made.taken == [text, text])


@pytest_twisted.ensureDeferred
async def test_a_fault_that_only_one_worker_has(tmp_path: Path, store: str) -> None:
    """
    Where one worker cannot use a configuration nobody takes it, and the fault says which worker; likewise for later ones.
    """
    async with family(tmp_path, store, ["serves"], ["refuses"]) as made:
        made.rewrite("new")
        assert await made.parent.reload() == ["worker 2: not this one"]
        assert made.parent.gateway.reloading.fault == "worker 2: not this one"
        made.parent.workers[0].kill()
        await eventually(lambda: len(made.pids) == 3 and made.taken == [made.text, made.text])
        assert made.parent.gateway.metrics.config_reloads.value("taken") == 0


@pytest_twisted.ensureDeferred
async def test_a_fault_that_the_parent_finds(tmp_path: Path, store: str) -> None:
    """
    What the parent cannot use no worker is asked about.
    """
    async with family(tmp_path, store, ["serves"], ["serves"]) as made:
        made.path.write_text(made.text + "[nonsense]\n")
        (fault,) = await made.parent.reload()
        assert "nonsense" in fault
        made.path.unlink()
        (fault,) = await made.parent.reload()
        assert "no such file" in fault
        assert made.taken == [made.text] * 2


@pytest.mark.parametrize("way", ["cannot take", "breaks"])
@pytest_twisted.ensureDeferred
async def test_who_breaks_its_word_is_replaced(tmp_path: Path, store: str, way: str) -> None:
    """
    A worker that had prepared a configuration and then does not take it makes room for one that has it.
    """
    async with family(tmp_path, store, ["serves"], [way, "serves"]) as made:
        text = made.rewrite("new")
        assert await made.parent.reload() == []
        await eventually(lambda: made.taken == [text, text])
        assert len(made.pids) == 3
        assert [worker.ends for worker in made.parent.workers] == [0, 0]


@pytest_twisted.ensureDeferred
async def test_reloads_wait_for_each_other(tmp_path: Path, store: str) -> None:
    """
    Two at once end with what the file says last, at all; who asks and leaves changes nothing.
    """
    async with family(tmp_path, store, ["serves"], ["serves"]) as made:
        made.rewrite("first")
        first = made.parent.reload()
        text = made.rewrite("second")
        second = made.parent.reload()
        first.cancel()
        first.addErrback(lambda _: None)
        assert await second == []
        await eventually(lambda: made.taken == [text, text])


@pytest_twisted.ensureDeferred
async def test_one_ready_worker_is_enough(tmp_path: Path, store: str) -> None:
    """
    Ready while at least one worker is: not before, and not while all end.
    """
    async with family(tmp_path, store, ["unready"], ["unready", "serves"]) as made:
        assert made.parent.why_not_ready() == "workers"
        made.parent.workers[1].kill()
        await eventually(lambda: len(made.pids) == 3 and not made.parent.why_not_ready())
        ending = Deferred.fromCoroutine(made.parent.stop())
        assert made.parent.why_not_ready() == "draining"
        await ending


@pytest_twisted.ensureDeferred
async def test_a_worker_that_cannot_start(tmp_path: Path, store: str) -> None:
    """
    If one cannot serve at the start, all end, the port is free again, and its words are the reason.
    """
    made = Family(tmp_path, store, ["serves"], ["cannot"])
    with pytest.raises(CannotServe, match=r"^worker 2: the moon is in the way$"):
        await made.parent.start()
    assert [alive(pid) for pid in made.pids] == [False, False]
    assert [worker.state for worker in made.parent.workers] == [State.ENDED] * 2
    with socket.create_server(("127.0.0.1", made.port)):
        pass
    made.sink.stop()
    made.log.close()


@pytest_twisted.ensureDeferred
async def test_a_stop_during_the_start(tmp_path: Path, store: str) -> None:
    """
    Who is asked to stop before all serve ends in time, with no complaint and no process.
    """
    made = Family(tmp_path, store, ["serves"], ["hesitates"])
    starting = Deferred.fromCoroutine(made.parent.start())
    await eventually(lambda: made.parent.workers[0].state is State.SERVING)
    await made.parent.stop()
    await starting
    assert [alive(pid) for pid in made.pids] == [False, False]
    made.sink.stop()
    made.log.close()


@pytest_twisted.ensureDeferred
async def test_nobody_is_started_where_a_stranger_listens(tmp_path: Path, store: str) -> None:
    """
    The port is looked at before there is a worker.
    """
    made = Family(tmp_path, store, ["serves"], ["serves"])
    with socket.create_server(("127.0.0.1", made.port)), pytest.raises(ListenFailed, match="in use by another process"):
        await made.parent.start()
    assert made.pids == []
    made.sink.stop()
    made.log.close()
