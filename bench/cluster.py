"""
Two instances on one Redis: what they cost, and what clients see when Redis or an instance goes away.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.following import Follower
from bench.http_client import Http
from bench.machine import Layout, layout, tree
from bench.realtime import INSTRUMENTS
from bench.targets import need
from bench.world import KEY, World, until

__all__ = ["SCENES", "Seen", "measure"]

CHANNELS = """
[channels."c{number}"]
subscribe = "authenticated"

[channels."kept:{number}"]
subscribe = "authenticated"
history   = { size = 5000, ttl = "10m" }

[channels."room:{number}"]
subscribe  = "authenticated"
presence   = true

[limits]
connections_per_user = 0

[realtime]
resume_window = "1s"

[upstream.nobody]
http = "http://127.0.0.1:1"

[[route]]
path = "/api/players/**"
upstream = "nobody"
"""

ECHO = """
[rpc.echo]
echo = true

[limits]
connections_per_user = 0
"""

KEPT = Path(__file__).resolve().parent.parent / ".run" / "cluster.json"
"""What the scenes showed the last time."""

CROWD = 1000
ENDINGS = 10_000
GHOSTS = 5000
HERD = 2000
REVOKED = 100
AWAY_S = 30.0


@dataclass
class Seen:
    """
    What was seen, by the name of the figure.
    """

    numbers: dict[str, float] = field(default_factory=dict)


Scene = Callable[[Path, Layout, Seen, Callable[[str], None]], Awaitable[None]]


async def outage(folder: Path, _cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """Redis hangs for half a minute, then is killed for as long: nobody is disconnected, everybody is told the rest."""
    async with World.running(folder, CHANNELS, number=2) as world:
        bearer = world.bearer()
        followers = [
            Follower([world.urls[number % 2]], bearer, ["kept:1"], random.Random(number)) for number in range(CROWD)
        ]
        running = [asyncio.create_task(follower.run()) for follower in followers]
        await until(lambda: all(follower.live for follower in followers), 60)
        ended = 0
        for hangs in (True, False):
            if hangs:
                world.redis.pause()
            else:
                world.redis.kill()
            await asyncio.sleep(AWAY_S)
            ended += sum(follower.ended for follower in followers)
            if hangs:
                world.redis.resume()
            else:
                world.redis.start()
            started = asyncio.get_running_loop().time()
            told = await _published(world, "kept:1", {"n": int(hangs)}, 20)
            await until(lambda: all(follower.at("kept:1") >= told for follower in followers), 30)  # noqa: B023
            name = "hung" if hangs else "killed"
            seen.numbers[f"whole again after s, {name}"] = asyncio.get_running_loop().time() - started
        seen.numbers["disconnected by outages"] = float(ended)
        for follower in followers:
            await follower.stop()
        await asyncio.gather(*running, return_exceptions=True)


async def _published(world: World, channel: str, data: Any, within_s: float) -> int:
    """Publish until it is taken; return its offset."""
    http = Http()
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        body = {"channel": channel, "data": data}
        try:
            answer = await http.post(world.admins[0], "/api/publish", body, {"X-API-Key": KEY}, 5.0)
        except (TimeoutError, OSError, EOFError, ValueError):
            answer = {}
        if "result" in answer:
            http.close()
            return int(answer["result"]["offset"])
        if asyncio.get_running_loop().time() > deadline:
            raise SystemExit(f"bench: nothing can be published: {answer}")
        await asyncio.sleep(0.05)


async def ghosts(folder: Path, _cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """An instance with many sessions is killed; how long its clients are still shown as present, beyond the hold time."""
    for name, beat, lease in (("short leases", "500ms", "1500ms"), ("default leases", "5s", "15s")):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        async with World.running(place, CHANNELS, number=2, beat=beat, lease=lease) as world:
            sockets = await _sockets(world, world.urls[0], GHOSTS, "room:1")
            there = await world.ask(1, "presence_stats", channel="room:1")
            if there["num_clients"] != GHOSTS:
                raise SystemExit(f"bench: {there} instead of {GHOSTS} present")
            loop = asyncio.get_running_loop()
            world.kill(0)
            started = loop.time()
            while (await world.ask(1, "presence_stats", channel="room:1"))["num_clients"]:
                if loop.time() - started > 60:
                    raise SystemExit("bench: ghosts are left after a minute")
                await asyncio.sleep(0.05)
            seen.numbers[f"ghosts gone after s, {name}"] = loop.time() - started
            for socket in sockets:
                socket.transport.abort()


async def _sockets(world: World, url: str, number: int, channel: str = "") -> list[Any]:
    """Connect so many users, each to *channel*."""
    gate = asyncio.Semaphore(50)

    async def one(which: int) -> Any:
        async with gate:
            socket = await connect(url, proxy=None, open_timeout=30, ping_interval=None)
            bearer = world.bearer(f"user-{which}", f"device-{which}")
            commands: list[dict[str, Any]] = [{"id": 1, "connect": {"token": bearer}}]
            if channel:
                commands.append({"id": 2, "subscribe": {"channel": channel}})
            await socket.send("\n".join(map(json.dumps, commands)))
            wanted = len(commands)
            while wanted:
                for line in str(await asyncio.wait_for(socket.recv(), 30)).splitlines():
                    wanted -= '"id"' in line
                    if '"error"' in line:
                        raise SystemExit(f"bench: {line}")
            return socket

    return list(await asyncio.gather(*(one(which) for which in range(number))))


async def herd(folder: Path, cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """Everybody is cut at once and comes back at once, to both instances."""
    program = _wsload(folder)
    async with World.running(folder, CHANNELS, number=2) as world:
        lines = folder / "tokens"
        lines.write_text("".join(world.bearer(f"user-{n}", f"device-{n}") + "\n" for n in range(HERD // 2)))
        first = '{"id":1,"connect":{"token":"{k}"}}\n{"id":2,"subscribe":{"channel":"kept:1"}}'
        common = ["--path", "/ws", "--lines", str(lines), "--first", first, "--expect", "1", "--expect-match", '"id":2']
        common += ["--conns", str(HERD // 2)]
        taskset = [need("taskset"), "-c", str(cores.load), str(program)]
        holding = []
        for port in world.ports:
            command = [*taskset, "idle", "--port", str(port), *common, "--rate", "500", "--duration", "60"]
            holding.append(await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL))
        await until_async(lambda: _connected(world), HERD, 40)
        for process in holding:
            process.kill()
            await process.wait()
        storms = []
        for port in world.ports:
            command = [*taskset, "storm", "--port", str(port), *common, "--rate", "100000"]
            storms.append(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE))
        back, late = 0, 0.0
        for storm in storms:
            output, _ = await storm.communicate()
            opened = json.loads(output.decode().strip().splitlines()[-1])["open"]
            back += opened["ready"]
            late = max(late, opened["ready_from_schedule_us"]["max"] / 1e6)
        seen.numbers["herd: not back"] = float(HERD - back)
        seen.numbers["herd: last back after s"] = late


async def _connected(world: World) -> int:
    nodes = (await world.ask(0, "info"))["nodes"]
    return sum(node["num_clients"] for node in nodes)


async def until_async(look: Callable[[], Awaitable[int]], wanted: int, within_s: float) -> None:
    """Wait until *look* gives *wanted*."""
    deadline = asyncio.get_running_loop().time() + within_s
    while (got := await look()) != wanted:
        if asyncio.get_running_loop().time() > deadline:
            raise SystemExit(f"bench: {got} instead of {wanted}")
        await asyncio.sleep(0.2)


def _wsload(folder: Path) -> Path:
    program = folder / "wsload"
    subprocess.run([need("gcc"), "-O2", "-o", str(program), str(INSTRUMENTS / "wsload.c")], check=True)
    return program


async def _load(program: Path, cores: Layout, *options: str) -> Any:
    command = [need("taskset"), "-c", str(cores.load), str(program), *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    try:
        return json.loads(output.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise SystemExit(f"bench: wsload said nothing: {errors.decode()[-500:]}") from None


def _subscribing(world: World, channel: str) -> list[str]:
    said = json.dumps({"id": 1, "connect": {"token": world.bearer()}})
    first = f'{said}\n{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'
    return ["--path", "/ws", "--first", first, "--expect", "1", "--expect-match", '"id":2', "--match", '"push"']


def _publishing(world: World, which: int, channel: str) -> list[str]:
    body = '{"channel":"' + channel + '","data":{"t":{t},"n":{n},"p":"{pad}"}}'
    return [
        *("--pub-mode", "http", "--pub-port", str(world.admins[which]), "--pub-path", "/api/publish"),
        *("--pub-header", f"X-API-Key: {KEY}", "--pub-msg", body, "--size", "200", "--pub-intended"),
    ]


async def latency(folder: Path, cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """Connects to one of two instances; publications that go in at the one and come out at the other."""
    program = _wsload(folder)
    async with World.running(folder, CHANNELS, number=2) as world:
        port = ("--port", str(world.ports[1]))
        listening = _subscribing(world, "c{c}")
        opened = (await _load(program, cores, "storm", *port, *listening, "--conns", "5000", "--rate", "1000"))["open"]
        if opened["ready"] != 5000:
            raise SystemExit(f"bench: only {opened['ready']} of 5000 connections")
        wrong = 0
        seen.numbers["connect p99 ms"] = opened["ready_from_schedule_us"]["p99"] / 1e3
        for name, conns, channels, rate in (("one channel", "1000", "1", "100"), ("500 tables", "3000", "500", "500")):
            options = [*listening, *_publishing(world, 0, "c{c}"), "--conns", conns, "--channels", channels]
            fan = (await _load(program, cores, "fanout", *port, *options, "--pub-rate", rate, "--duration", "5"))[
                "fanout"
            ]
            if not fan["delivered"]:
                raise SystemExit(f"bench: nothing was delivered: {fan}")
            seen.numbers[f"delivery p99 ms, {name}"] = fan["delivery_us"]["p99"] / 1e3
            wrong += abs(fan["missing"]) + fan["out_of_order"]
        seen.numbers["deliveries missing or out of order"] = float(wrong)


async def commands(folder: Path, _cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """How many commands Redis does for a publication, at 1 subscriber and at 1,000 on each instance."""
    async with World.running(folder, CHANNELS, number=2) as world:
        most = 0.0
        for channel in ("c1", "kept:1"):
            sockets: list[Any] = []
            for subscribers in (1, CROWD):
                for url in world.urls:
                    sockets += await _sockets(world, url, subscribers - len(sockets) // 2, channel)
                await asyncio.sleep(2.0)
                loop = asyncio.get_running_loop()
                rates = []
                for number in (0, 300):
                    before, started = await _calls(world), loop.time()
                    for _ in range(number):
                        await world.ask(0, "publish", channel=channel, data=1)
                    await asyncio.sleep(max(0.0, 4.0 - (loop.time() - started)))
                    rates.append((await _calls(world) - before) / (loop.time() - started))
                most = max(most, (rates[1] - rates[0]) * (loop.time() - started) / 300)
            for socket in sockets:
                socket.transport.abort()
        seen.numbers["commands per publication"] = most


async def _calls(world: World) -> int:
    told = (await world.redis.ask("INFO", "commandstats")).decode()
    names = ("evalsha", "eval")  # What scripts do inside is not sent by anybody.
    return sum(int(calls) for name, calls in re.findall(r"cmdstat_([a-z]+):calls=(\d+)", told) if name in names)


async def cost(folder: Path, cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """CPU per delivery with Redis against memory, in interleaved rounds."""
    program = _wsload(folder)
    ratios = []
    for number in range(5):
        spent = {}
        for store in ("memory://", ""):
            place = folder / f"cost-{number}-{'memory' if store else 'redis'}"
            place.mkdir()
            async with World.running(place, CHANNELS, number=1, store=store, core=[cores.measured]) as world:
                options = [*_subscribing(world, "c1"), *_publishing(world, 0, "c1"), "--pid", str(world.pid(0))]
                options += ["--port", str(world.ports[0]), "--conns", "1000", "--pub-rate", "20", "--duration", "4"]
                fan = await _load(program, cores, "fanout", *options)
                spent[store] = fan["fanout"]["server"]["us_per_delivery"]
        ratios.append(spent[""] / spent["memory://"])
        say(f"cost: Redis {spent['']:.2f} us, memory {spent['memory://']:.2f} us a delivery")
    seen.numbers["CPU per delivery, Redis / memory"] = median(ratios)


async def revocation(folder: Path, _cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """Tokens revoked at one instance; a second later nothing passes with them at either."""
    async with World.running(folder, CHANNELS, number=2) as world:
        sockets = [*await _sockets(world, world.urls[0], REVOKED), *await _sockets(world, world.urls[1], REVOKED)]
        bearers = [world.bearer(f"user-{number}", f"device-{number}") for number in range(REVOKED)]
        http = Http()
        for number in range(REVOKED):
            order = {"subject": f"user-{number}"}
            await http.post(world.admins[0], "/api/revoke", order, {"X-API-Key": KEY}, 5.0)
        await asyncio.sleep(1.0)
        passed = 0
        for socket in sockets:
            try:
                await socket.send(json.dumps({"id": 9, "ping": {}}))
                await asyncio.wait_for(socket.recv(), 0.2)
                passed += 1
            except (TimeoutError, WebSocketException, OSError):
                continue
        for port in world.ports:
            for bearer in bearers:
                status = await http.status(port, "/api/players/x", {"Authorization": f"Bearer {bearer}"})
                passed += status != 401
        http.close()
        seen.numbers["passed with a revoked token"] = float(passed)


async def endings(_folder: Path, _cores: Layout, seen: Seen, _say: Callable[[str], None]) -> None:
    """Sessions that end in every way, one instance killed, two survivors racing."""
    test = "tests/redis/test_survivors.py::test_mixed_endings_end_once"
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "900", test]
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"SESSIONS": str(ENDINGS)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode not in (0, 1):
        raise SystemExit(f"bench: {output.decode()[-1000:]}")
    seen.numbers["sessions ended twice or never"] = float(process.returncode or 0)


async def workers(folder: Path, _cores: Layout, seen: Seen, say: Callable[[str], None]) -> None:
    """The same echoes with one process and with two that share the port, in interleaved rounds."""
    program = _wsload(folder)
    usable = sorted(os.sched_getaffinity(0))
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for number in range(3):
        for count in (1, 2):
            place = folder / f"workers-{number}-{count}"
            place.mkdir()
            listen = f"workers = {count}\n"
            async with World.running(place, ECHO, number=1, listen=listen, core=usable[:count]) as world:
                if count > 1:
                    # Before, all connections would be the first one's.
                    await until(partial(_holds, place / "gateway-0.log", "workers.started"), 30)
                said = json.dumps({"id": 1, "connect": {"token": world.bearer()}})
                options = ["echo", "--port", str(world.ports[0]), "--path", "/ws", "--first", said, "--expect", "1"]
                options += ["--echo-msg", '{"id":1{n},"rpc":{"method":"echo","data":{"n":{n}}}}']
                options += ["--conns", "100", "--duration", "4"]
                pids = [part for pid in tree(world.pid(0)) for part in ("--pid", str(pid))]
                loads = [
                    asyncio.create_task(_load(program, Layout(0, core), *options, *(pids if not which else ())))
                    for which, core in enumerate(usable[2:4] or usable[-1:])
                ]
                echoes = [(await load)["echo"] for load in loads]
                per_s = sum(echo["per_s"] for echo in echoes)
                found[count].append((per_s, echoes[0]["server"]["cpu_s"] / (per_s * echoes[0]["seconds"]) * 1e6))
        say(f"workers: {found}")
    seen.numbers["cores"] = float(len(usable))
    seen.numbers["throughput of 1 worker / 2 workers"] = median(
        one[0] / two[0] for one, two in zip(found[1], found[2], strict=True)
    )
    seen.numbers["CPU per operation, 2 workers / 1"] = median(
        two[1] / one[1] for one, two in zip(found[1], found[2], strict=True)
    )


def _holds(file: Path, text: str) -> bool:
    return text in file.read_text()


SCENES: dict[str, Scene] = {
    "outage": outage,
    "ghosts": ghosts,
    "herd": herd,
    "latency": latency,
    "commands": commands,
    "cost": cost,
    "revocation": revocation,
    "endings": endings,
    "workers": workers,
}


def measure(cores: Layout, say: Callable[[str], None], only: Sequence[str] = ()) -> Seen:
    """
    Let every scene happen once, or some of them: then what was seen of the others before is kept.
    """
    seen = Seen()
    if only and KEPT.exists():
        seen.numbers.update(json.loads(KEPT.read_text()))
    for name in only or SCENES:
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            asyncio.run(SCENES[name](Path(place), cores, seen, say))  # type: ignore[arg-type]
        say(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in seen.numbers.items()))
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(seen.numbers))
    return seen


if __name__ == "__main__":
    measure(layout(None), lambda line: print(line, flush=True), sys.argv[1:])
