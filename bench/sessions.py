"""
Sessions that play to a script on two instances, and what an Event Service was told of them.

Many of every kind, while the Event Service is away for a while in the middle. Whatever it is told it writes
down, also what it was told before; a service that honours ids has each event once, so that is how they are counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.world import World
from demo.ports import free_port

__all__ = ["CONFIG", "EventProcess", "Person", "Played", "Session", "at_of", "judge", "play", "settled"]

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """
[upstream.event]
grpc    = ["127.0.0.1:{port}"]
timeout = "500ms"

[events]
upstream  = "event"
call      = "event.v1.EventService/PublishEvents"
interval  = "200ms"
retry_max = "2s"

[realtime]
resume_window = "{window}"

[channels."room:{{number}}"]
subscribe = "authenticated"
"""

AGENTS = {
    "web": (
        "js",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    ),
    "ios": ("swift", "tetris/1.2 CFNetwork/1490.0.4 Darwin/23.2.0"),
    "android": ("java", "okhttp/4.12.0"),
    "bot": ("tetris-bot", "Python/3.11 websockets/15.0"),
}
TYPES = {"web": "web", "ios": "mobile", "android": "mobile", "bot": "bot"}


class EventProcess:
    """
    The Event Service: a process of its own, and the file it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._path = folder / "events.jsonl"
        self._path.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.event_service", str(self.port), str(self._path)], cwd=ROOT
        )

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def told(self) -> list[dict[str, Any]]:
        """All that it was told, in this order, also what it was told twice."""
        lines = self._path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]


@dataclass
class Session:
    """
    What a client knows of its own session.

    Attributes:
        id: As the connect reply said.
        began: Epoch seconds, between the connect and its reply.
        ended: When it was closed or cut for the last time.
        sent: Frames.
    """

    kind: str
    id: str = ""
    began: float = 0.0
    ended: float = 0.0
    resumes: int = 0
    sent: int = 0
    closed: bool = False


class Person:
    """
    One device: connects, subscribes, is cut, comes back, closes.
    """

    def __init__(self, world: World, kind: str, subject: str, device: str, rng: random.Random) -> None:
        self._world = world
        self._bearer = world.bearer(subject, device)
        self._rng = rng
        self._socket: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._number = 0
        self.session = Session(kind)

    async def come(self, which: int | None = None) -> bool:
        """
        Connect to an instance, any if none is said; True if it was let in.
        """
        name, agent = AGENTS[self.session.kind]
        url = self._world.urls[self._rng.randrange(len(self._world.urls)) if which is None else which]
        asked = time.time()
        try:
            self._socket = await connect(
                url, proxy=None, open_timeout=5, ping_interval=None, close_timeout=2, user_agent_header=agent
            )
            await self._say({"connect": {"token": self._bearer, "name": name, "version": "1.2"}})
            reply = json.loads(str(await asyncio.wait_for(self._socket.recv(), 5)).splitlines()[0])
        except (TimeoutError, OSError, WebSocketException):
            return False
        session = reply["connect"]["session"]
        if not self.session.id:
            self.session.id, self.session.began = session, (asked + time.time()) / 2
        elif session == self.session.id:
            self.session.resumes += 1
        else:
            raise AssertionError("another session")
        self._reading = asyncio.create_task(self._read(self._socket))
        return True

    async def subscribe(self) -> None:
        """Subscribe to a room."""
        await self._say({"subscribe": {"channel": f"room:{self._rng.randrange(5)}"}})

    async def _say(self, command: dict[str, Any]) -> None:
        self._number += 1
        self.session.sent += 1
        await self._socket.send(json.dumps({"id": self._number, **command}))

    async def _read(self, socket: Any) -> None:
        try:
            async for text in socket:
                if "{}" in text.splitlines():
                    self.session.sent += 1
                    await socket.send("{}")
        except WebSocketException:
            return

    def cut(self) -> None:
        """Break the connection."""
        self.session.ended = time.time()
        self._socket.transport.abort()

    async def leave(self) -> None:
        """Close it."""
        self.session.ended, self.session.closed = time.time(), True
        try:
            await self._socket.close()
        except (OSError, WebSocketException):
            return


@dataclass
class Played:
    """
    What the Event Service was told, against what was played.

    Attributes:
        sessions: That were played.
        missing: Beginnings and ends that were not told.
        strange: Events of sessions that nobody played, and kinds of clients that are not what was played.
        disordered: Sessions whose events came in another order than they happened.
        repeated: Events that came more than once, under the same id.
        resumes: Told, and played.
        worst_s: The largest error of a duration.
        wrong_frames: Sessions of which fewer or more frames were told than were sent.
        told: Events, by kind.
        away_s: How long the Event Service was away.
        recovered_s: How long after its return the last event of that time was told.
    """

    sessions: int = 0
    missing: int = 0
    strange: int = 0
    disordered: int = 0
    repeated: int = 0
    resumes: tuple[int, int] = (0, 0)
    worst_s: float = 0.0
    wrong_frames: int = 0
    told: Counter[str] = field(default_factory=Counter)
    away_s: float = 0.0
    recovered_s: float = 0.0


async def _script(world: World, number: int, over_s: float, window_s: float, rng: random.Random) -> list[Session]:
    """One person: which kind of client and what it does hangs on its number."""
    kind = ("web", "ios", "android", "bot")[number % 4]
    devices = ["one", "two"] if number % 10 == 0 else ["one"]  # A second tab, with a session of its own.
    await asyncio.sleep(rng.uniform(0, over_s))
    return list(
        await asyncio.gather(
            *(_device(Person(world, kind, f"p{number}", f"{number}-{each}", rng), window_s, rng) for each in devices)
        )
    )


async def _device(person: Person, window_s: float, rng: random.Random) -> Session:
    assert await person.come(), "let in"
    await person.subscribe()
    for _ in range(rng.choice((0, 0, 1, 2))):
        await asyncio.sleep(rng.uniform(0.2, 2.0))
        person.cut()
        await asyncio.sleep(rng.uniform(0.05, window_s / 3))
        assert await person.come(), "let in again"
    await asyncio.sleep(rng.uniform(0.2, 3.0))
    if rng.random() < 0.7:
        await person.leave()
    else:
        person.cut()
    return person.session


async def _play(folder: Path, number: int, over_s: float, away_s: float, window_s: float, seed: int) -> Played:
    rng = random.Random(seed)
    service = EventProcess(folder)
    service.start()
    body = CONFIG.format(port=service.port, window=f"{round(window_s * 1000)}ms")
    try:
        async with World.running(folder, body, number=2) as world:
            playing = asyncio.gather(*(_script(world, each, over_s, window_s, rng) for each in range(number)))
            await asyncio.sleep(over_s * 0.25)
            service.stop()
            await asyncio.sleep(away_s)
            service.start()
            back = time.time()
            sessions = [session for some in await playing for session in some]
            await settled(service, sessions, window_s + 30)
    finally:
        service.stop()
    seen = judge(service.told(), sessions)
    seen.away_s = away_s
    late = [event["told"] for event in service.told() if at_of(event["at"]) < back]
    seen.recovered_s = max(0.0, max(late, default=back) - back)
    return seen


async def settled(service: EventProcess, sessions: Sequence[Session], within_s: float) -> None:
    """
    Wait until every session's end was told, or so long.
    """
    until = time.time() + within_s
    wanted = {session.id for session in sessions if session.id}
    while time.time() < until:
        ended = {event["session"] for event in service.told() if event["kind"] == "SESSION_ENDED"}
        if wanted <= ended:
            return
        await asyncio.sleep(0.5)


def judge(told: Sequence[dict[str, Any]], sessions: Sequence[Session]) -> Played:
    """
    Compare what was told with what was played.
    """
    first: dict[str, dict[str, Any]] = {}
    for event in told:
        first.setdefault(event["id"], event)
    of: dict[str, list[dict[str, Any]]] = {}
    for event in first.values():
        of.setdefault(event["session"], []).append(event)
    seen = Played(len(sessions), told=Counter(event["kind"] for event in first.values()))
    seen.repeated = len(told) - len(first)
    known = {session.id: session for session in sessions}
    seen.strange = sum(len(some) for id_, some in of.items() if id_ not in known)
    resumes = 0
    for id_, session in known.items():
        events = of.get(id_, [])
        kinds = [event["kind"] for event in events]
        begun, ended = kinds.count("SESSION_STARTED"), kinds.count("SESSION_ENDED")
        seen.missing += abs(1 - begun) + abs(1 - ended)
        resumes += kinds.count("SESSION_RESUMED")
        times = [at_of(event["at"]) for event in events]
        if times != sorted(times) or (kinds and (kinds[0] != "SESSION_STARTED" or kinds[-1] != "SESSION_ENDED")):
            seen.disordered += 1
        if any(event.get("client_type") != TYPES[session.kind] for event in events):
            seen.strange += 1
        if begun and ended:
            end = events[-1]
            seen.worst_s = max(seen.worst_s, abs(end.get("duration_s", 0.0) - (session.ended - session.began)))
            seen.wrong_frames += int(end.get("frames_in", 0)) != session.sent
    seen.resumes = (resumes, sum(session.resumes for session in sessions))
    return seen


def play(
    number: int = 1000, *, over_s: float = 120.0, away_s: float = 60.0, window_s: float = 4.0, seed: int = 1
) -> Played:
    """
    Play *number* people over *over_s* seconds, with the Event Service away for *away_s* in the middle.
    """
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_play(Path(folder), number, over_s, away_s, window_s, seed))


def at_of(text: str) -> float:
    """
    Read a time as events have it, in epoch seconds.
    """
    return datetime.fromisoformat(text).timestamp()
