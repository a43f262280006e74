"""
Several workers behind one port: one command, and no process too many or too few whatever happens.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.redis.server import RedisServer
from tests.system.backend import Backend
from tests.system.processes import Answer, Running, alive, ask, config, eventually, run, running, token
from tests.system.test_plain_protos import ROUTES, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from demo.ports import free_port

KEY = "a-key-of-the-system-tests"
ADMIN = f'[[admin.key]]\nname = "test"\nsecret = "{KEY}"\nscopes = ["*"]\n'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The section of a store that workers can share."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield f'[store]\nurl = "{server.url}"\n'
    finally:
        server.kill()


def status(served: Running) -> list[dict[str, Any]]:
    """What the parent says of its workers."""
    workers: list[dict[str, Any]] = ask(served.admin, "/status", bearer=KEY).json["workers"]
    return workers


def pids(served: Running) -> list[int]:
    """The processes of the workers, in their order."""
    return [worker["pid"] for worker in status(served)]


@contextmanager
def several(twistd: str, folder: Path, body: str, *, number: int = 2, listen: str = "") -> Iterator[Running]:
    """
    Run a gateway with workers, all of which serve when the block begins; none is left behind it.
    """
    seen: set[int] = set()
    with running(twistd, folder, body + ADMIN, listen=f"workers = {number}\n{listen}") as served:
        try:
            served.hear("workers.started")
            yield served
        finally:
            seen |= {event["pid"] for event in served.events("worker.started")}
    assert {json.loads(line)["worker"] for line in served.lines()} == {"parent", *map(str, range(1, number + 1))}
    left = [pid for pid in seen if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not alive(pid)


def samples(served: Running, name: str) -> dict[str, float]:
    """The values of one metric without other labels, by worker; of a counter those of its series added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(ask(served.admin, "/metrics").body.decode()):
        for sample in family.samples:
            if sample.name == name:
                worker = sample.labels["worker"]
                found[worker] = found.get(worker, 0.0) + sample.value
    return found


def served_by(served: Running, path: str) -> set[str]:
    """The workers that logged requests for *path*."""
    return {event["worker"] for event in served.events("request") if event["path"] == path}


def test_workers_share_a_port(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    Connections to one port land on every worker, each an instance of its own; SIGTERM ends all with exit code 0.
    """
    with several(twistd, tmp_path, backend.upstream + store) as served:
        bearer = token(gateway, tmp_path)
        assert {ask(served.port, "/api/hello", bearer=bearer).status for _ in range(40)} == {200}
        eventually("both have served", lambda: served_by(served, "/api/hello") == {"1", "2"})
        workers = status(served)
        assert [worker["worker"] for worker in workers] == ["1", "2"]
        assert len({worker["instance"] for worker in workers}) == 2
        assert len({os.getsid(worker["pid"]) for worker in workers} | {os.getsid(served.process.pid)}) == 3
        assert ask(served.admin, "/ready").status == 200
        running_ = [worker["pid"] for worker in workers]
        assert served.end() == 0
        assert [alive(pid) for pid in running_] == [False, False]
    assert served.complaints() == ""
    named = {(line["worker"], line["instance"]) for line in served.events("request")}
    assert named == {(worker["worker"], worker["instance"]) for worker in workers}
    assert len(served.events("gateway.stopped")) == 3


def test_a_dead_worker_comes_back(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    Killed, a worker is started again as another instance; meanwhile the other answers every new connection.
    """
    # With gRPC's threads in the parent a process that was forked, not spawned, could be found stuck.
    listen = f'api = "127.0.0.1:{free_port()}"\n'
    with several(twistd, tmp_path, backend.upstream + store, listen=listen) as served:
        bearer = token(gateway, tmp_path)
        before = status(served)
        os.kill(before[0]["pid"], signal.SIGKILL)
        # What it had accepted, or the kernel had for it, is lost; once it was waited for, nothing goes there.
        died = served.hear("worker.died")
        answers = []
        while not served.events("worker.started")[2:]:
            answers.append(ask(served.port, "/api/hello", bearer=bearer).status)
            assert ask(served.admin, "/ready").status == 200
        assert set(answers) == {200}
        assert len(answers) > 10
        assert (died["number"], died["pid"], died["status"]) == (1, before[0]["pid"], "SIGKILL")
        now = status(served)
        assert now[1]["pid"] == before[1]["pid"]
        assert (now[0]["ends"], now[0]["last_end"], now[1]["ends"]) == (1, "SIGKILL", 0)
        assert now[0]["instance"] not in {worker["instance"] for worker in before}
        assert samples(served, "gateway_worker_ends_total") == {"1": 1.0}
        for _ in range(40):
            ask(served.port, "/api/again", bearer=bearer)
        eventually("both serve", lambda: served_by(served, "/api/again") == {"1", "2"})


ROOM = """
[[websocket]]
path = "/ws"

[channels.lobby]
subscribe = "authenticated"
"""


class Guest:
    """A real-time client of a worker, subscribed to the lobby."""

    def __init__(self, served: Running, user: str, bearer: str) -> None:
        self.user = user
        self.socket = connect(f"ws://127.0.0.1:{served.port}/ws", proxy=None, legacy=True)
        self.socket.send(json.dumps({"id": 1, "connect": {"token": bearer}}))
        self.instance = str(self.read()["connect"]["node"])
        self.socket.send(json.dumps({"id": 2, "subscribe": {"channel": "lobby"}}))
        self.read(lambda said: said.get("id") == 2)

    def read(self, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Return the next that is *wanted*, of what comes within 20 s."""
        deadline = time.monotonic() + 20
        while True:
            for line in str(self.socket.recv(max(0.1, deadline - time.monotonic()))).splitlines():
                said: dict[str, Any] = json.loads(line)
                if wanted(said):
                    return said

    def hears(self) -> Any:
        """The data of the next publication."""
        return self.read(lambda said: "pub" in said.get("push", {}))["push"]["pub"]["data"]


def guests(served: Running, gateway: str, folder: Path) -> list[Guest]:
    """One client at each of two workers."""
    found: dict[str, Guest] = {}
    for number in range(60):
        user = f"user{number}"
        guest = Guest(served, user, token(gateway, folder, "--claim", f"sub={user}"))
        if guest.instance in found:
            guest.socket.close()
        found.setdefault(guest.instance, guest)
        if len(found) == 2:
            break
    assert len(found) == 2
    return list(found.values())


def order(served: Running, name: str, **params: Any) -> Any:
    """What the parent's server API answers."""
    connection = http.client.HTTPConnection("127.0.0.1", served.admin, timeout=30)
    connection.request("POST", f"/api/{name}", json.dumps(params), {"X-API-Key": KEY})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_operations_at_the_parent(twistd: str, gateway: str, store: str, tmp_path: Path) -> None:
    """
    What is ordered at the parent is done at every worker: a publication is heard by all, everybody is counted, and found.
    """
    with several(twistd, tmp_path, store + ROOM) as served:
        here = guests(served, gateway, tmp_path)
        assert {guest.instance for guest in here} == {worker["instance"] for worker in status(served)}
        assert "error" not in order(served, "publish", channel="lobby", data={"round": 1})
        assert [guest.hears() for guest in here] == [{"round": 1}] * 2
        nodes = {node["uid"]: node["num_clients"] for node in order(served, "info")["result"]["nodes"]}
        assert sorted(nodes.values()) == [0, 1, 1]
        for guest in here:
            order(served, "disconnect", user=guest.user)
            with pytest.raises(ConnectionClosed):
                guest.hears()


def test_a_dead_worker_s_affairs_are_taken_over_at_once(twistd: str, gateway: str, store: str, tmp_path: Path) -> None:
    """
    The parent knows that a worker is dead, so others tidy up after its instance long before its lease would lapse.
    """
    slow = store + 'lease = "10m"\nbeat = "500ms"\n'
    with several(twistd, tmp_path, slow + ROOM) as served:
        here = guests(served, gateway, tmp_path)
        dead = next(worker for worker in status(served) if worker["instance"] == here[0].instance)
        os.kill(dead["pid"], signal.SIGKILL)
        assert served.hear("instance.tidied")["instance"] == dead["instance"]
        assert len({event["worker"] for event in served.events("instance.lost")}) == 1
        for guest in here:
            guest.socket.close()


def test_one_key_for_minted_tokens(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    Backends find the key of every worker's tokens at the admin port, also of one that was started anew.
    """
    upstream = backend.upstream.replace("http = ", 'identity = "minted"\nhttp = ')

    def kids() -> set[str]:
        seen = re.findall(rb"Bearer ([^\r]+)", b"\r\n".join(backend.heads))
        return {jwt.get_unverified_header(each.decode())["kid"] for each in seen}

    with several(twistd, tmp_path, upstream + store) as served:
        bearer = token(gateway, tmp_path)
        os.kill(pids(served)[0], signal.SIGKILL)
        served.hear("worker.started", 3)
        for _ in range(30):
            ask(served.port, "/api/hello", bearer=bearer)
        eventually("both have served", lambda: served_by(served, "/api/hello") == {"1", "2"})
        assert kids() == {key["kid"] for key in ask(served.admin, "/jwks.json").json["keys"]}


def test_a_worker_starts_while_a_backend_is_away(twistd: str, gateway: str, store: str, tmp_path: Path) -> None:
    """
    What a gRPC backend told of itself is handed to a worker that is started anew.
    """
    port = free_port()
    text = f'[upstream.plain]\ngrpc = ["127.0.0.1:{port}"]\nreflection = true\n{ROUTES}'
    with serving(reflects=True, port=port):
        context = several(twistd, tmp_path, text + store)
        served = context.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(context)
        os.kill(pids(served)[0], signal.SIGKILL)
        served.hear("worker.started", 3)
        bearer = token(gateway, tmp_path)
        codes = {ask(served.port, "/hello/x", bearer=bearer).json["code"] for _ in range(20)}
        assert codes == {"upstream_unreachable"}


def slowly(served: Running, bearer: str, path: str, answers: list[Answer]) -> threading.Thread:
    """Ask for what takes a while, in a thread."""
    thread = threading.Thread(target=lambda: answers.append(ask(served.port, path, bearer=bearer)))
    thread.start()
    return thread


def under_way(served: Running) -> int:
    return sum(worker.get("requests", 0) for worker in status(served))


@pytest.mark.parametrize("whom", ["parent", "parent, workers", "workers, parent"])
def test_drain(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path, whom: str) -> None:
    """
    Requests under way at any worker are answered, whether the parent alone gets SIGTERM or all do, as from systemd.
    """
    answers: list[Answer] = []
    with several(twistd, tmp_path, backend.upstream + store) as served:
        bearer = token(gateway, tmp_path)
        asking = [slowly(served, bearer, "/api/slow/3", answers) for _ in range(8)]
        eventually("all are under way", lambda: under_way(served) == 8)
        assert all(worker["requests"] for worker in status(served))
        workers = pids(served)
        for each in whom.split(", "):
            for pid in [served.process.pid] if each == "parent" else workers:
                os.kill(pid, signal.SIGTERM)
            served.hear("gateway.draining", 2)
        assert ask(served.admin, "/ready").status == 503
        assert served.process.wait(40) == 0
        for thread in asking:
            thread.join(30)
        assert [answer.status for answer in answers] == [200] * 8
        assert [alive(pid) for pid in workers] == [False, False]


def test_a_second_signal_ends_all_at_once(
    twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path
) -> None:
    """
    Whoever asks twice does not wait, and leaves no worker behind.
    """
    with several(twistd, tmp_path, backend.upstream + store) as served:
        bearer = token(gateway, tmp_path)

        def asking() -> None:
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(served.port, "/api/slow/20", bearer=bearer)

        thread = threading.Thread(target=asking)
        thread.start()
        assert backend.asked.wait(30)
        workers = pids(served)
        served.signal(signal.SIGTERM)
        served.hear("workers.draining")
        served.signal(signal.SIGTERM)
        assert served.process.wait(10) != 0
        for pid in workers:
            eventually("no worker", gone(pid), within_s=5)
        thread.join(30)


def test_workers_outlive_no_parent(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    A parent that is killed takes its workers along, by way of the drain: what is under way ends, the port is free.
    """
    answers: list[Answer] = []
    with several(twistd, tmp_path, backend.upstream + store + '[gateway]\nmin_drain = "60s"\n') as served:
        bearer = token(gateway, tmp_path)
        asking = slowly(served, bearer, "/api/slow/2", answers)
        assert backend.asked.wait(30)
        workers = pids(served)
        served.process.kill()
        served.hear("worker.orphaned", 2)
        asking.join(30)
        assert [answer.status for answer in answers] == [200]
        for pid in workers:
            eventually("no worker", gone(pid), within_s=20)
        with socket.create_server(("127.0.0.1", served.port)):
            pass


def test_a_worker_that_hangs_is_left_out(twistd: str, store: str, tmp_path: Path) -> None:
    """
    Metrics come from those that answer; who does not is counted, costs a bounded time, and returns when it can.
    """
    with several(twistd, tmp_path, store) as served:
        stopped = pids(served)[1]
        assert set(samples(served, "process_open_fds")) == {"parent", "1", "2"}
        os.kill(stopped, signal.SIGSTOP)
        try:
            before = time.monotonic()
            assert set(samples(served, "process_open_fds")) == {"parent", "1"}
            assert time.monotonic() - before < 8
            assert samples(served, "gateway_worker_silent_total")["2"] >= 1
            listed = ask(served.admin, "/upstreams", bearer=KEY).json
            assert listed == [{"worker": "2", "silent": "upstreams: no answer within 2 s"}]
            served.hear("worker.silent")
            assert ask(served.admin, "/ready").status == 200
        finally:
            os.kill(stopped, signal.SIGCONT)
        eventually("both", lambda: set(samples(served, "process_open_fds")) == {"parent", "1", "2"})


def test_metrics_and_upstreams_of_all(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    The admin port answers for every worker: each series and each upstream says whose it is.
    """
    with several(twistd, tmp_path, backend.upstream + store, number=3) as served:
        bearer = token(gateway, tmp_path)
        for _ in range(60):
            ask(served.port, "/api/hello", bearer=bearer)
        counted = samples(served, "gateway_http_requests_total")
        assert counted.keys() == {"1", "2", "3"}
        # /ready was asked until the first had started.
        assert sum(counted.values()) >= 61
        assert samples(served, "gateway_worker_up") == {"1": 1.0, "2": 1.0, "3": 1.0}
        assert set(samples(served, "gateway_ready").values()) == {1.0}
        listed = ask(served.admin, "/upstreams", bearer=KEY).json
        assert [(each["worker"], each["upstream"]) for each in listed] == [(number, "backend") for number in "123"]
        told = ask(served.admin, "/config", bearer=KEY).json
        assert told["listen"]["workers"] == 3
        assert told["listen"]["clients"]


def test_reload_reaches_all_or_none(twistd: str, gateway: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    SIGHUP and POST /reload change every worker; a fault changes none, not even one that is started afterwards.
    """
    file = tmp_path / "gateway.toml"
    with several(twistd, tmp_path, backend.upstream + store) as served:
        bearer = token(gateway, tmp_path)
        good = file.read_text()

        def statuses(path: str) -> set[int]:
            return {ask(served.port, path, bearer=bearer).status for _ in range(30)}

        file.write_text(good + '[[route]]\npath = "/new/**"\nupstream = "backend"\n')
        served.signal(signal.SIGHUP)
        served.hear("config.taken", 3)
        assert statuses("/new/x") == {200}

        taken = file.read_text()
        file.write_text(taken + '[[route]]\npath = "/newer/**"\nupstream = "nobody"\n')
        answer = ask(served.admin, "/reload", method="POST", bearer=KEY)
        assert answer.status == 409
        assert "nobody" in answer.json["faults"][0]
        assert "nobody" in ask(served.admin, "/status", bearer=KEY).json["config"]["reload_fault"]
        os.kill(pids(served)[0], signal.SIGKILL)
        served.hear("worker.started", 3)
        assert statuses("/new/x") == {200}
        assert statuses("/newer/x") == {404}
        assert len({worker["digest"] for worker in status(served)}) == 1

        file.write_text(good)
        assert ask(served.admin, "/reload", method="POST", bearer=KEY).json == {"reloaded": True, "faults": []}
        assert statuses("/new/x") == {404}


def test_what_needs_a_restart_waits_for_all(twistd: str, backend: Backend, store: str, tmp_path: Path) -> None:
    """
    A worker that starts after a reload has the listeners that the others have, not those that need a restart.
    """
    file = tmp_path / "gateway.toml"
    with several(twistd, tmp_path, backend.upstream + store) as served:
        text = file.read_text().replace("workers = 2", "workers = 3")
        file.write_text(text.replace(f"tcp:{served.port}:", "tcp:1:"))
        assert ask(served.admin, "/reload", method="POST", bearer=KEY).status == 200
        served.hear("config.taken", 3)
        told = [event["needs_restart"] for event in served.events("config.taken")]
        assert ["listen.workers"] in told
        assert sum("tcp:1:interface=127.0.0.1" in each for each in told) == 2
        os.kill(pids(served)[0], signal.SIGKILL)
        served.hear("worker.started", 3)
        os.kill(pids(served)[1], signal.SIGKILL)
        served.hear("worker.died", 2)
        assert ask(served.port, "/health").status == 200


@pytest.mark.parametrize(
    "options", [["-n", "--pidfile="], ["--pidfile=pid", "--logfile=log"]], ids=["foreground", "daemon"]
)
@pytest.mark.parametrize("shared", [False, True])
def test_a_stranger_on_the_port(twistd: str, store: str, tmp_path: Path, options: list[str], *, shared: bool) -> None:
    """
    Another process that listens on the clients' port is told of in one line, also one that would share it.
    """
    port, _ = config(tmp_path, store, listen="workers = 2\n")
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        ended = run([twistd, *options, "gateway", "--config", "gateway.toml"], tmp_path)
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if "Please look at" not in line]
    assert len(said) == 1
    # As a daemon's parent twistd tells the first hundred signs.
    assert f"gateway: tcp:{port}:interface=127.0.0.1: address in use by another process" in said[0]


def test_a_second_gateway_on_the_port(twistd: str, store: str, tmp_path: Path) -> None:
    """
    The same command again is refused, and takes nothing from the first.
    """
    again = tmp_path / "again"
    again.mkdir()
    with several(twistd, tmp_path, store) as served:
        config(again, store, listen="workers = 2\n")
        text = (tmp_path / "gateway.toml").read_text()
        (again / "gateway.toml").write_text(text.replace(f"tcp:{served.admin}:", "tcp:0:"))
        ended = run([twistd, "-n", "--pidfile=", "gateway", "--config", "gateway.toml"], again)
        assert ended.returncode == 1
        assert "in use by another process" in ended.stderr
        assert {ask(served.port, "/health").status for _ in range(20)} == {200}


def test_memory_is_kept_by_each_alone(twistd: str, gateway: str, tmp_path: Path) -> None:
    """
    Workers without a store that all see are refused before anything is opened, by ``gateway check`` too.
    """
    config(tmp_path, listen="workers = 2\n")
    for command in ([twistd, "-n", "--pidfile=", "gateway", "--config"], [gateway, "check"]):
        ended = run([*command, "gateway.toml"], tmp_path)
        assert ended.returncode == 1
        assert "listen.workers: 2 workers need a store that all of them see" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_one_log_of_all(twistd: str, store: str, tmp_path: Path) -> None:
    """
    As a daemon all write whole lines to one file; after a rotation SIGHUP makes all of them write to the new one.
    """
    port, _ = config(tmp_path, store + ADMIN, listen="workers = 2\n")
    log = tmp_path / "gateway.log"
    command = [twistd, f"--pidfile={tmp_path / 'pid'}", f"--logfile={log}", "gateway", "--config", "gateway.toml"]
    started = run(command, tmp_path)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    pid = int(eventually("a pid file", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    try:
        eventually("all", lambda: "workers.started" in log.read_text())
        noise = [threading.Thread(target=lambda: [ask(port, "/" + "n" * 900) for _ in range(50)]) for _ in range(4)]
        for thread in noise:
            thread.start()
        log.rename(tmp_path / "gateway.log.1")
        os.kill(pid, signal.SIGHUP)
        for thread in noise:
            thread.join(60)
        eventually("the reload", lambda: log.read_text().count("config.taken") == 3)
        for _ in range(30):
            ask(port, "/after")
        eventually("lines of both", lambda: log.read_text().count('"/after"') == 30)
        after = [json.loads(line) for line in log.read_text().splitlines()]
        before = [json.loads(line) for line in (tmp_path / "gateway.log.1").read_text().splitlines()]
        assert {line["worker"] for line in after if line.get("path") == "/after"} == {"1", "2"}
        assert len([line for line in before + after if line["event"] == "request" and "nnn" in line["path"]]) == 200
        workers = {line["pid"] for line in before if line["event"] == "worker.started"}
        assert len(workers) == 2
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually("its end", gone(pid), within_s=40)
    assert not any(alive(worker) for worker in workers)


def test_a_worker_of_nobody(installed: Any, tmp_path: Path) -> None:
    """
    The worker's program says in one line that it is not started by hand.
    """
    ended = run([installed.program("python"), "-m", "gateway.workers.worker", "1"], tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "started by its gateway" in ended.stderr
