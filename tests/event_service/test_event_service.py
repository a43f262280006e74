"""
The demo's Event Service as a process: what it keeps of events, and what its page makes of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import grpc
import pytest
from tests.page.browser import chromium
from tests.system.installation import ROOT
from tests.system.processes import eventually

from demo.ports import free_port
from gateway.protos.event.v1 import events_pb2, events_pb2_grpc

_open = build_opener(ProxyHandler({})).open
DAY_S = 86400.0


class Service:
    """
    A service that runs.
    """

    def __init__(self, port: int, page: int) -> None:
        self.page = f"http://127.0.0.1:{page}"
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = events_pb2_grpc.EventServiceStub(self._channel)

    def publish(self, *events: Any) -> list[str]:
        """Tell of *events*; return the ids of those refused."""
        answer = self._stub.PublishEvents(events_pb2.PublishEventsRequest(events=events), timeout=10)
        return [refusal.id for refusal in answer.refused]

    def figures(self) -> Any:
        """What the page is made of."""
        return json.loads(_open(f"{self.page}/figures.json").read())

    def close(self) -> None:
        self._channel.close()


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """
    Run the service on a database in *folder* until the block ends.
    """
    port, page = free_port(), free_port()
    command = [sys.executable, "-m", "demo.events", "--port", str(port), "--page-port", str(page)]
    with (folder / "output").open("ab") as out:
        process = subprocess.Popen(
            [*command, "--db", str(folder / "events.sqlite3")],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    said = folder / "output"

    def ready() -> bool:
        assert process.poll() is None, said.read_text()
        return f"listening on 127.0.0.1:{port}," in said.read_text()

    try:
        eventually("the service", ready)
        it = Service(port, page)
        yield it
        it.close()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def event(session: str, kind: str, at: float, **more: Any) -> Any:
    """
    One event; its id is made of the session, the kind and the time.
    """
    made = events_pb2.Event(id=f"{session}-{kind}-{at}", kind=f"SESSION_{kind}", session=session, **more)
    made.at.FromMicroseconds(int(at * 1e6))
    return made


def visit(session: str, user: str, began: float, lasted: float, **more: Any) -> list[Any]:
    """
    Beginning and end of a session.
    """
    ended = event(session, "ENDED", began + lasted, user=user, duration_s=lasted, cause="closed", **more)
    ended.started_at.FromMicroseconds(int(began * 1e6))
    ended.ended_at.FromMicroseconds(int((began + lasted) * 1e6))
    return [event(session, "STARTED", began, user=user, **more), ended]


def test_an_event_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    """
    Whatever comes again changes nothing, in the same call, in another, or at the next process on the same file.
    """
    now = time.time()
    first = visit("s1", "alice", now - 100, 42.0, client_type="web")
    with service(tmp_path) as it:
        assert it.publish(*first, *first) == []
        assert it.publish(first[0], event("s2", "STARTED", now - 5, user="bob", client_type="mobile")) == []
        found = it.figures()
        assert found["events"] == {"taken": 3, "again": 3}
    with service(tmp_path) as it:
        assert it.publish(*first) == []
        found = it.figures()
        assert found["events"] == {"taken": 0, "again": 2}
        assert found["live"] == 1
        assert found["by_client_type"] == [
            {"name": "mobile", "sessions": 1, "live": 1},
            {"name": "web", "sessions": 1, "live": 0},
        ]
        bob, alice = found["latest"]
        assert (bob["user"], bob["ended_at"]) == ("bob", None)
        assert (alice["user"], alice["duration_s"], alice["cause"]) == ("alice", 42.0, "closed")


def test_a_life_in_order_and_one_with_gaps(tmp_path: Path) -> None:
    """
    A session is resumed and ends; of one whose beginning was lost the end says enough; nonsense is refused by its id.
    """
    now = time.time()
    with service(tmp_path) as it:
        it.publish(
            event("s1", "STARTED", now - 60, user="alice"),
            event("s1", "RESUMED", now - 40),
            event("s1", "RESUMED", now - 30),
        )
        assert it.figures()["latest"][0]["resumes"] == 2
        it.publish(*visit("s1", "alice", now - 60, 50.0)[1:])
        it.publish(visit("s2", "bob", now - 600, 500.0)[1])
        found = it.figures()
        assert found["live"] == 0
        assert [(row["user"], row["duration_s"]) for row in found["latest"]] == [("alice", 50.0), ("bob", 500.0)]
        counted = {row["name"]: row["sessions"] for row in found["durations"]}
        assert (counted["to 1 min"], counted["to 15 min"], sum(counted.values())) == (1, 1, 2)
        assert it.publish(events_pb2.Event(id="odd"), *visit("s3", "", now - 9, 1.0)) == ["odd"]
        assert it.figures()["live"] == 0


def test_who_came_back(tmp_path: Path) -> None:
    """
    After one and after seven days: of those whose first day was that long ago, who came on just that day.
    """
    now = time.time()
    noon = now - now % DAY_S - DAY_S / 2
    events = []
    for user, days in {"ann": (10, 9, 3), "ben": (10, 8), "cat": (8, 1), "dan": (1,), "": (10, 9)}.items():
        for day in days:
            events += visit(f"{user}{day}", user, noon - day * DAY_S, 60.0)
    with service(tmp_path) as it:
        it.publish(*events)
        returned = it.figures()["returned"]
    # One day after the first: ann. Seven days: ann and cat, of whom dan is too new to be asked.
    assert (returned["1"]["users"], returned["1"]["returned"]) == (4, 1)
    assert (returned["7"]["users"], returned["7"]["returned"]) == (3, 2)


@pytest.fixture
def looks() -> Iterator[Any]:
    with chromium() as running:
        yield running.window()


def test_the_page(tmp_path: Path, looks: Any) -> None:
    """
    The page shows what came, by itself also what comes later; it fits a phone in light and dark, and markup in names is text.
    """
    now = time.time()
    with service(tmp_path) as it:
        it.publish(*visit("s1", "<b>alice", now - 100, 42.0, client_type="web", browser="Chrome", os="Linux"))
        looks.open(it.page)
        assert looks.run("document.querySelector('#live b').innerText") == "0"
        assert "<b>alice" in looks.text("latest")
        assert "closed after 42 s" in looks.text("latest")
        it.publish(event("s2", "STARTED", now, user="bob", client_type="mobile"))
        looks.until("document.querySelector('#live b').innerText === '1'")
        assert "mobile" in looks.text("types")
        for scheme in ("light", "dark"):
            looks.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            looks.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
            assert looks.run("document.documentElement.scrollWidth <= 360")
            dark = looks.run("getComputedStyle(document.body).color") == "rgb(255, 255, 255)"
            assert dark == (scheme == "dark")
