"""
The samples behind the page for operators: one a second for all who look, and none while nobody does.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from gateway.core.problems import Problem
from gateway.node.api_keys import Key
from gateway.web.admin_pages import Answer, Operations
from gateway.web.live_samples import KEPT, MOST_BEHIND, MOST_VIEWERS, Samples, read_metrics

TEXT = b"""# HELP gateway_clients Real-time clients connected now.
# TYPE gateway_clients gauge
gateway_clients{transport="websocket",worker="1"} 3.0
gateway_clients{transport="sse",worker="2"} 1.0
gateway_http_requests_total{route="a{b}",method="GET",status="200"} 5.0
gateway_http_requests_total{route="x",method="GET",status="200"} 2.0
gateway_http_requests_total{route="x",method="GET",status="502"} 1.0
gateway_store_up{worker="1"} 1.0
gateway_store_up{worker="2"} 0.0
process_cpu_seconds_total 1.5
other_total 7.0
"""


class Viewer:
    """The other side of a stream."""

    def __init__(self) -> None:
        self.data = b""
        self.producer: Any = None
        self.cut = self.finished = False

    def start(self, status: int, reason: bytes, block: bytes, length: int, data: bytes, ended: bool) -> None:
        assert (status, length, ended) == (200, -1, False)
        assert block == b"Content-Type: text/event-stream\r\nA: b\r\n"
        self.data += data

    def write(self, data: bytes) -> None:
        self.data += data

    def register(self, producer: Any) -> None:
        self.producer = producer

    def abort(self) -> None:
        self.cut = True

    def finish(self) -> None:
        self.finished = True

    def events(self) -> list[tuple[str, Any]]:
        """What came, by name."""
        found = []
        for event in self.data.decode().split("\n\n")[:-1]:
            name, data = event.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found


class Watched:
    """Samples of made-up operations."""

    def __init__(self) -> None:
        self.asked = 0
        self.clock = Clock()
        self.text: Any = TEXT
        operations: Any = Operations(
            metrics=self.metrics,
            ready=lambda: True,
            upstreams=lambda: [{"upstream": "u"}],
            wall=self.clock.seconds,
            **dict.fromkeys(("readiness", "config", "jwks", "openapi", "revocations", "reload", "audit")),  # type: ignore[arg-type]
        )
        info = Answer(b'{"result":{"nodes":[{"uid":"1"}]}}')
        self.samples = Samples(operations, lambda: info, lambda key: {"reload": key.allows("operate")})
        self.samples.open(self.clock)

    def metrics(self, _openly: bool) -> bytes:
        self.asked += 1
        if isinstance(self.text, Exception):
            raise self.text
        text: bytes = self.text
        return text

    def watch(self, *scopes: str) -> tuple[Viewer, Any]:
        viewer: Any = Viewer()
        return viewer, self.samples.watch(Key("k", scopes), viewer, b"A: b\r\n")


def test_what_a_sample_says() -> None:
    """
    Numbers of several workers are one; requests are told apart by status, whatever stands in other labels.
    """
    read = read_metrics(TEXT.decode())
    assert read["gateway_clients"] == 4
    assert read["gateway_http_requests_total by status"] == {"200": 7, "502": 1}
    assert read["gateway_store_up"] == 0
    assert read["process_cpu_seconds_total"] == 1.5
    assert read["gateway_users"] == 0
    assert "other_total" not in read


def test_one_sample_for_all() -> None:
    """
    However many look, they share one sample a second; who comes later gets the earlier ones; with the last one it ends, and
    begins anew with the next.
    """
    watched = Watched()
    first, first_gone = watched.watch("read", "operate")
    watched.clock.pump([1.0] * 5)
    second, second_gone = watched.watch("read")
    watched.clock.advance(1.0)
    assert watched.asked == 7
    hello, *samples = first.events()
    assert hello == ("hello", {"key": "k", "may": {"reload": True}, "every_s": 1.0})
    assert [sample["at"] for _, sample in samples] == [0, 1, 2, 3, 4, 5, 6]
    assert [at for at, (_, sample) in enumerate(samples) if "instances" in sample] == [0, 5]
    assert second.events()[0][1]["may"] == {"reload": False}
    assert second.events()[1:] == samples
    first_gone()
    watched.clock.advance(1.0)
    assert watched.asked == 8
    second_gone()
    watched.clock.pump([1.0] * 10)
    assert (watched.asked, watched.clock.getDelayedCalls()) == (8, [])
    again, _ = watched.watch("read")
    assert "instances" in again.events()[1][1], "who looks after a rest waits for no fifth sample"


def test_what_cannot_be_told() -> None:
    """
    A sample that fails says so, and the next one is as before.
    """
    watched = Watched()
    watched.text = ZeroDivisionError("no")
    viewer, _ = watched.watch()
    watched.text = TEXT
    watched.clock.advance(1.0)
    _, (_, failed), (_, well) = viewer.events()
    assert failed["failed"] == "no"
    assert "failed" not in well


def test_bounds() -> None:
    """
    Only so many look at once; what is kept for others is bounded; one that does not read is cut, and the others go on.
    """
    watched = Watched()
    slow, _ = watched.watch()
    slow.producer.pauseProducing()
    well = [watched.watch()[0] for _ in range(MOST_VIEWERS - 1)]
    with pytest.raises(Problem):
        watched.watch()
    watched.clock.pump([1.0] * (MOST_BEHIND + 1))
    assert (slow.cut, any(each.cut for each in well)) == (True, False)
    watched.clock.pump([1.0] * (2 * KEPT))
    late, _ = watched.watch()
    assert len(late.events()) == KEPT + 1
    watched.samples.close()
    assert all(each.finished for each in (*well, late))
    assert watched.clock.getDelayedCalls() == []
