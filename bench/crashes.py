"""
A single instance without Redis, killed with -9 again and again while sessions begin and end, and the Event Service that counts them.

In some trials that service is away, so that what happened has to outlive the crash undelivered. In the end every session whose
client was told that it is connected must have begun once and ended once there, in this order, at the time it did.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from bench.world import World, until
from demo.events.service import EventService
from demo.events.store import SessionTable
from gateway.protos.event.v1 import events_pb2, events_pb2_grpc

__all__ = ["Crashes", "measure"]

BODY = """
[upstream.event]
grpc = ["127.0.0.1:{port}"]

[events]
upstream  = "event"
call      = "event.v1.EventService/PublishEvents"
interval  = "50ms"
retry_max = "500ms"
spool     = "spool"

[realtime]
resume_window = "1s"

[limits]
connections_per_user = 0
"""

AT_ONCE = 10
"""Clients that come and go in a trial, all together."""

LIVES_S = 0.6
"""How long a trial lasts at most; the kill is somewhere in it."""

NEAR_S = 6.0
"""How far the end of a session may be from the truth: a beat, and a second."""


@dataclass
class Crashes:
    """
    What was seen.

    Attributes:
        sessions: Whose clients were told that they are connected.
        missing: Of them, how many have no beginning or no end.
        doubled: Sessions with two beginnings or two ends.
        disordered: Sessions that ended before they began.
        wrong: Sessions that ended at another time than they did, by more than ``NEAR_S``.
        again: Events that came more than once, and were told apart by their ids.
    """

    trials: int = 0
    away: int = 0
    sessions: int = 0
    events: int = 0
    missing: int = 0
    doubled: int = 0
    disordered: int = 0
    wrong: int = 0
    again: int = 0
    seconds: float = 0.0
    details: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Sessions that were not counted once, in order and in time."""
        return self.missing + self.doubled + self.disordered + self.wrong


class _Service(EventService):
    """An Event Service that is away while it is said to be."""

    away = False

    def PublishEvents(self, request: Any, context: Any) -> Any:
        """Answer, or be away."""
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return super().PublishEvents(request, context)


@contextmanager
def _serving(table: SessionTable) -> Iterator[tuple[int, _Service]]:
    server = grpc.server(ThreadPoolExecutor(4))
    service = _Service(table, lambda _: None)
    events_pb2_grpc.add_EventServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, service
    finally:
        server.stop(1.0).wait()


class _Client:
    """
    One user who comes, and may go before the crash.
    """

    def __init__(self, world: World, user: str) -> None:
        self.user = user
        self._url = world.urls[0]
        self._bearer = world.bearer(user, user)
        self._socket: ClientConnection | None = None
        self.told = False
        self.ended_at = 0.0

    async def come(self, after_s: float) -> None:
        """Connect; ``told`` if the gateway said so before it died."""
        await asyncio.sleep(after_s)
        try:
            self._socket = await connect(self._url, subprotocols=["centrifuge-json"], proxy=None, open_timeout=10)  # type: ignore[list-item]
            await self._socket.send(json.dumps({"id": 1, "connect": {"token": self._bearer}}))
            self.told = "connect" in json.loads(await self._socket.recv())
        except (OSError, TimeoutError, WebSocketException):
            return

    async def go(self, after_s: float) -> None:
        """Disconnect."""
        await asyncio.sleep(after_s)
        if self._socket is not None and self.told:
            self.ended_at = time.time()
            await self._socket.close()

    async def tidy(self) -> None:
        """Close what is left of the connection."""
        if self._socket is not None:
            await self._socket.close()


async def _trial(world: World, rng: random.Random, number: int) -> list[_Client]:
    clients = [_Client(world, f"user-{number}-{each}") for each in range(AT_ONCE)]
    begins = [rng.uniform(0.0, LIVES_S / 2) for _ in clients]
    coming = [asyncio.create_task(client.come(at)) for client, at in zip(clients, begins, strict=True)]
    going = [
        asyncio.create_task(client.go(at + rng.uniform(0.0, LIVES_S)))
        for client, at in zip(clients, begins, strict=True)
        if rng.random() < 0.3
    ]
    await asyncio.sleep(rng.uniform(LIVES_S / 6, LIVES_S))
    world.kill(0)
    killed_at = time.time()
    for task in going:
        task.cancel()
    await asyncio.gather(*coming)
    await asyncio.gather(*going, return_exceptions=True)
    for client in clients:
        if not client.ended_at or client.ended_at > killed_at:
            client.ended_at = killed_at
        await client.tidy()
    return [client for client in clients if client.told]


async def _run(trials: int, folder: Path, table: SessionTable, seed: int) -> Crashes:
    seen = Crashes()
    rng = random.Random(seed)
    began = time.monotonic()
    known: list[_Client] = []
    with _serving(table) as (port, service):
        async with World.running(folder, BODY.format(port=port), number=1, store="memory://") as world:
            for number in range(trials):
                service.away = rng.random() < 0.5
                seen.away += service.away
                known += await _trial(world, rng, number)
                seen.trials += 1
                await world.start(0)
            service.away = False

            def unended() -> int:
                rows = table.rows("SELECT user FROM session WHERE ended_at IS NOT NULL")
                return len({client.user for client in known} - {row["user"] for row in rows})

            await until(lambda: not unended(), 30.0, fail=False)
            # Whatever comes twice comes by then.
            await asyncio.sleep(1.5)
    _judge(seen, known, table)
    seen.seconds = time.monotonic() - began
    return seen


def _judge(seen: Crashes, known: list[_Client], table: SessionTable) -> None:
    rows = {row["user"]: row for row in table.rows("SELECT * FROM session")}
    lives: dict[str, list[tuple[int, int]]] = {}
    for event in table.rows("SELECT session, kind, number FROM event ORDER BY number"):
        lives.setdefault(event["session"], []).append((event["kind"], event["number"]))
    seen.sessions = len(known)
    seen.events = table.taken
    seen.again = table.again
    users = {client.user: client for client in known}
    for user in {*users, *rows}:
        row = rows.get(user)
        kinds = [kind for kind, _ in lives.get(row["id"], [])] if row is not None else []
        counts = [kinds.count(kind) for kind in (events_pb2.SESSION_STARTED, events_pb2.SESSION_ENDED)]
        if min(counts) == 0:
            # A session that no client was told of may be known to nobody, but not by half.
            seen.missing += 1
        elif max(counts) > 1:
            seen.doubled += 1
        elif kinds[0] != events_pb2.SESSION_STARTED or kinds[-1] != events_pb2.SESSION_ENDED:
            seen.disordered += 1
        elif user in users and row is not None and abs(row["ended_at"] - users[user].ended_at) > NEAR_S:
            seen.wrong += 1
        else:
            continue
        seen.details.append(f"{user}: kinds {kinds}, row {row}")


def measure(trials: int = 100, seed: int = 1) -> Crashes:
    """
    Kill it so often.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        table = SessionTable(folder / "events.sqlite3")
        try:
            return asyncio.run(_run(trials, folder, table, seed))
        finally:
            table.close()
