"""
What looks at everything lets the reactor turn in between, and what it tells is bounded.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.realtime.house import House
from tests.realtime.neighbours import done
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from gateway.console.desk import Caller, Desk
from gateway.console.verb import Face
from gateway.node import support_acts as a
from gateway.node.client import State
from gateway.node.pieces import PIECE
from gateway.node.support import House as Has
from gateway.node.support import Support
from gateway.telemetry.metrics import Metrics

MANY = 20_000


class Everybody(dict[str, "_Client"]):
    """
    Twenty thousand clients, which are few things, and count how many were looked at.
    """

    looked = 0

    def __init__(self) -> None:
        super().__init__({f"client{number}": _Client(self, number) for number in range(MANY)})


class _Client:
    def __init__(self, everybody: Everybody, number: int) -> None:
        self._everybody = everybody
        self.id = f"client{number}"
        self.user = f"user{number}"
        self.session = SimpleNamespace(id=f"session{number}")
        self.opening = SimpleNamespace(address=f"192.0.2.{number % 250}")
        self.transport = SimpleNamespace(kind="websocket")
        self.device = self.name = self.version = ""
        self.arrived_at = 0.0
        self.subscriptions: dict[str, Any] = {}
        self.outbox = SimpleNamespace(bytes=0)
        self.use = None

    @property
    def state(self) -> State:
        self._everybody.looked += 1
        return State.CONNECTED


class Turns(Clock):
    """
    Counts how often somebody lets the reactor turn.
    """

    turns = 0

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        """Count it."""
        self.turns += delay == 0
        return super().callLater(delay, *args, **kwargs)


def supported(house: House, everybody: Any) -> Support:
    """A node's support, with these clients."""
    node = house.node
    node.clients = everybody
    nothing: Any = None
    return Support(node, Has(list, nothing, nothing, nothing, dict, nothing))


def test_everybody_page_by_page() -> None:
    """
    All are listed, each once, a bounded number at a time; who comes meanwhile does not disturb the list.
    """
    house, everybody = House(""), Everybody()
    supported(house, everybody)
    act, seen, most = a.Sessions(limit=10 * PIECE), [], 0
    while True:
        before = everybody.looked
        told = done(house.node.cluster.of(house.node.instance, act))
        most = max(most, everybody.looked - before)
        seen += [row["client"] for row in told["rows"]]
        everybody[f"late{len(seen)}"] = _Client(everybody, MANY + len(seen))
        if not told["next"]:
            break
        act = a.Sessions(cursor=told["next"], limit=10 * PIECE)
    assert len(seen) == len(set(seen)) == MANY
    assert most == PIECE


def test_turns_between_pieces() -> None:
    """
    A question about all sessions takes as many turns of the reactor as there are pieces.
    """
    clock = Turns()
    house = House("", clock=clock)
    supported(house, Everybody())
    clock.turns = 0
    asked = Deferred.fromCoroutine(house.node.cluster.of(house.node.instance, a.Found(id="nobody")))
    answers: list[Any] = []
    asked.addBoth(answers.append)
    clock.advance(0)
    assert answers == [None]
    assert clock.turns == MANY // PIECE - 1


def test_lists_share_a_small_part_of_the_time() -> None:
    """
    However many list, fifty pages are made in a second for all of them together.
    """
    clock = Clock()
    house = House("", clock=clock)
    supported(house, Everybody())
    nothing: Any = None
    desk = Desk(Face(house.node, nothing, nothing, nothing), house.node.log, Metrics(), clock)
    pages = []

    async def lists(caller: Caller) -> None:
        told = await desk.do(caller, ["who"])
        while told.next:
            pages.append(caller.name)
            told = await desk.again(caller, ["who"], told.next)

    running = [Deferred.fromCoroutine(lists(Caller(name, "viewer", "ssh", "192.0.2.1"))) for name in ("anna", "vera")]
    begun = len(pages)
    clock.pump([0.01] * 200)
    made = pages[begun:]
    assert 90 <= len(made) <= 101
    assert abs(made.count("anna") - made.count("vera")) <= 1
    for each in running:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
