"""
Several nodes on one set of stores, some of which die, hang, or lose their stores for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.realtime.house import House, Person
from twisted.internet.defer import Deferred

from gateway.core.partitions import PARTITIONS
from gateway.memory.instances import MemoryInstances
from gateway.memory.outbox import MemoryOutbox
from gateway.memory.sessions import MemorySessions
from gateway.node.realtime import RealtimeNode
from gateway.ports.realtime import StoreUnavailable
from gateway.ports.sessions import Event, OutboxEvent, SessionRecord
from gateway.ports.stores import Stores

__all__ = ["Neighbours", "Telling", "done"]


def done(running: Any) -> Any:
    """
    Run a coroutine that has nothing to wait for; return its result.
    """
    results: list[Any] = []
    Deferred.fromCoroutine(running).addBoth(results.append)
    assert results, "it waits for something"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


class Telling:
    """
    Writes an event for every beginning and end (``node.sessions.SessionEvents``).
    """

    def started(self, record: SessionRecord) -> Event:
        """Name the session."""
        return Event(f"{record.id}-started", record.user.encode())

    def resumed(self, record: SessionRecord) -> Event:
        """Name the connection."""
        return Event(f"{record.client}-resumed", record.user.encode())

    def ended(self, record: SessionRecord, cause: str) -> Event:
        """Name the session and the cause."""
        return Event(f"{record.id}-ended", cause.encode())


class _Gate:
    """
    A store that may be away: then each method fails, before or after it has done what it does.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.away = ""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        async def gated(*args: Any, **kwargs: Any) -> Any:
            if self.away == "before":
                raise StoreUnavailable("away")
            result = await method(*args, **kwargs)
            if self.away == "after":
                raise StoreUnavailable("the answer was lost")
            return result

        return gated


class Neighbours(House):
    """
    A house whose stores can be taken away, and whose nodes can be ended as a crash would.
    """

    tells = Telling()

    def __init__(self, text: str = "", answers: Mapping[str, Any] | None = None) -> None:
        self.gates: list[_Gate] = []
        self.memory: Any = None
        super().__init__(text, answers)

    def stores_of(self, stores: Stores) -> Stores:
        """The same stores for every node, behind gates."""
        if not self.gates:
            self.flush()
            self.gates = [_Gate(store) for store in self.memory]
        sessions, instances, events, owed = self.gates
        found: Any = {"sessions": sessions, "instances": instances, "events": events, "owed": owed}
        return replace(stores, **found)

    def flush(self) -> None:
        """Let the stores forget everything."""
        events, owed = MemoryOutbox(self.wall), MemoryOutbox(self.wall)
        self.memory = [MemorySessions(self.wall, events, owed), MemoryInstances(self.wall), events, owed]
        for gate, store in zip(self.gates, self.memory, strict=False):
            gate.store = store

    def away(self, how: str = "before") -> None:
        """Take the stores away; ``after`` loses answers only."""
        for gate in self.gates:
            gate.away = how

    def back(self) -> None:
        """Let the stores answer again."""
        self.away("")

    def kill(self, node: RealtimeNode) -> None:
        """End a node as a crash would: nothing is written, nobody is told."""
        done(node.background.stop())
        self.cluster.buses.pop(node.instance, None)
        for person in self.people:
            if person.side.node is node:
                person.answers_pings = False

    def stored(self, session: str) -> SessionRecord | None:
        """A session as the store has it."""
        found: SessionRecord | None = done(self.memory[0].get(session))
        return found

    def events(self) -> list[OutboxEvent]:
        """What is to be told of sessions."""
        found: list[OutboxEvent] = done(self.memory[2].take("test", range(PARTITIONS), 10_000))
        return found

    def ends(self, person: Person) -> list[str]:
        """The causes of the ends of a person's session."""
        return [event.data.decode() for event in self.events() if event.id == f"{person.session}-ended"]
