"""
A whole gateway that tells of its sessions, at a webhook and into a stream.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from tests.events.test_sinks import webhook
from tests.telemetry.collector import over_grpc

from bench.event_service import Recorder, serve
from bench.sessions import Person
from bench.world import World
from demo.ports import free_port

WEBHOOK = """
[upstream.events]
http = ["http://127.0.0.1:{port}"]

[events]
upstream = "events"
http     = "POST /sessions"
interval = "10s"

[channels."room:{{number}}"]
subscribe = "authenticated"
"""

TRACED = """
[upstream.event]
grpc = ["127.0.0.1:{port}"]

[events]
upstream = "event"
call     = "event.v1.EventService/PublishEvents"
interval = "100ms"

[tracing]
otlp   = "http://127.0.0.1:{collector}"
sample = 1
delay  = "100ms"

[channels."room:{{number}}"]
subscribe = "authenticated"
"""

STREAM = """
[events]
stream   = "sessions"
interval = "100ms"

[channels."room:{number}"]
subscribe = "authenticated"
"""


def test_an_end_in_order_loses_nothing() -> None:
    """
    A gateway on memory that is asked to stop ends its sessions and tells of all, those too that could still be resumed.
    """

    async def run(folder: Path, port: int) -> list[Person]:
        rng = random.Random(1)
        async with World.running(folder, WEBHOOK.format(port=port), number=1, store="memory://") as world:
            people = [Person(world, "web", f"p{number}", f"{number}", rng) for number in range(3)]
            for person in people:
                assert await person.come()
            people[0].cut()
            await people[1].leave()
            await asyncio.sleep(0.3)
        return people

    with tempfile.TemporaryDirectory() as folder, webhook([(200, b"")] * 20) as (port, seen):
        people = asyncio.run(run(Path(folder), port))
    events = [event for _, body in seen for event in body["events"]]
    causes = {event["session"]: event["cause"] for event in events if event["kind"] == "SESSION_ENDED"}
    assert causes == dict(zip([person.session.id for person in people], ["lost", "closed", "shutdown"], strict=True))
    assert len(events) == len({event["id"] for event in events}) == 6


def test_sessions_in_a_stream() -> None:
    """
    What happens to sessions stands in the stream that the configuration names, in order.
    """

    async def run(folder: Path) -> tuple[str, bytes]:
        async with World.running(folder, STREAM, number=1) as world:
            person = Person(world, "ios", "alice", "phone", random.Random(1))
            assert await person.come()
            await person.leave()
            entries = b""
            for _ in range(100):
                entries = await world.redis.ask("XRANGE", "gateway:1:{stream:sessions}", "-", "+")
                if b"SESSION_ENDED" in entries:
                    break
                await asyncio.sleep(0.05)
            return person.session.id, entries

    with tempfile.TemporaryDirectory() as folder:
        session, entries = asyncio.run(run(Path(folder)))
    kinds: list[Any] = [line for line in entries.split(b"\r\n") if line.startswith(b"SESSION_")]
    assert kinds == [b"SESSION_STARTED", b"SESSION_ENDED"]
    assert f"{session}-started".encode() in entries
    assert b'"client_type":"mobile"' in entries


def test_one_trace_leads_to_the_event_service(tmp_path: Path) -> None:
    """
    The trace of a connect command goes on through the batch that tells of its session, into the Event Service's own call.
    """

    async def run(port: int, collector: int) -> None:
        body = TRACED.format(port=port, collector=collector)
        async with World.running(tmp_path, body, number=1, store="memory://") as world:
            person = Person(world, "web", "alice", "tab", random.Random(1))
            assert await person.come()
            await asyncio.sleep(0.5)
            await person.leave()

    recorder = Recorder(tmp_path / "events")
    port = free_port()
    server = serve(port, recorder)
    try:
        with over_grpc() as collector:
            asyncio.run(run(port, collector.port))
            command = collector.one("connect")
            batches = [span for span in collector.spans() if span.name == "publish events"]
            calls = [span for span in collector.spans() if span.said.get("rpc.method", "").endswith("PublishEvents")]
    finally:
        server.stop(0).wait(5)
    assert [(span.trace, span.parent) for span in batches] == [(command.trace, command.id)] * len(batches)
    assert len(batches) == 2
    assert {span.parent for span in calls} == {span.id for span in batches}
    assert {call["traceparent"].split("-")[1] for call in recorder.calls} == {command.trace}
    assert {call["traceparent"].split("-")[2] for call in recorder.calls} == {span.id for span in calls}
