"""
Telling backends what happens to sessions: at least once while the process lives, in order for each session.

A fact has an id that stays the same however often and by whomever it is told, and its connection's
sequence number: a backend that remembers ids sees each once. Nobody's connection waits for it. What
cannot be told in time, or no longer fits, is lost, counted and logged. What an instance that died
left untold is ``node.leftovers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gateway.core.backoff import backoff
from gateway.core.channels import ChannelMatch
from gateway.core.identity import Identity
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError
from gateway.node.background import Background
from gateway.node.facts import channel_facts
from gateway.node.realtime_spans import linked, tell_fact
from gateway.node.rulebook import ChannelRule, encoded
from gateway.ports.backends import Backend, Facts
from gateway.telemetry.spans import Spans

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["Fact", "Telling", "body_of", "end_of", "tell"]

AT_ONCE = 64
"""Facts that are told at the same time, of different sessions."""

_OVERHEAD = 256
_FIRST_S = 0.2
_MOST_S = 5.0


@dataclass(frozen=True, slots=True)
class Fact:
    """
    One thing that happened.

    Attributes:
        kind: ``on_disconnect``, ``on_subscribe``, ``on_unsubscribe``.
        session: What its order is kept within.
        facts: What expressions of the call may name.
        body: The fact as JSON.
        until: Seconds of the clock after which it is given up.
        trace: The place that the telling has.
        links: What else it has to do with.
        settled: Called when it was told, or never will be.
    """

    kind: str
    session: str
    facts: Facts
    body: bytes
    identity: Identity | None
    until: float
    settled: Callable[[], None]
    trace: TraceContext
    links: Sequence[TraceContext]


class Telling:
    """
    The facts that wait to be told.

    Args:
        backends: By kind; a kind without one is told to nobody.
        lost: Called with the kind and why, for each fact that was not told.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        clock: IReactorTime,
        background: Background,
        random: Callable[[], float],
        *,
        most_bytes: int,
        for_s: float,
        lost: Callable[[str, str], None],
        spans: Spans,
    ) -> None:
        self.backends = backends
        self._spans = spans
        self.bytes = 0
        self._clock = clock
        self._background = background
        self._random = random
        self.most_bytes = most_bytes
        self._for_s = for_s
        self._lost = lost
        self._queues: dict[str, deque[Fact]] = {}
        self._gate = DeferredSemaphore(AT_ONCE)

    def tell(
        self,
        kind: str,
        body: Mapping[str, Any],
        facts: Facts,
        identity: Identity | None,
        settled: Callable[[], None] = lambda: None,
        links: Sequence[TraceContext] = (),
    ) -> None:
        """
        Tell the backend of *kind*, now or as soon as what happened before in the session is told.

        Args:
            body: The fact; see ``body_of``.
            facts: What expressions may name of the client and the channel.
            settled: Called when it was told, or never will be; not if this process ends first.
            links: What else than its own its trace has to do with.
        """
        if kind not in self.backends:
            settled()
            return
        session = body["session"]
        command = {"id": body["id"], "kind": kind, "sequence": body["sequence"]}
        facts = {**facts, "command": command, "data": body}
        trace = self._spans.begin(identity.subject if identity is not None else "")
        until = self._clock.seconds() + self._for_s
        fact = Fact(kind, session, facts, encoded(body), identity, until, settled, trace, links)
        size = len(fact.body) + _OVERHEAD
        if self.bytes + size > self.most_bytes:
            self._lost(kind, "overflow")
            settled()
            return
        self.bytes += size
        queue = self._queues.get(session)
        if queue is not None:
            queue.append(fact)
            return
        self._queues[session] = deque((fact,))
        self._background.spawn("facts.tell", self._work(session))

    async def _work(self, session: str) -> None:
        queue = self._queues[session]
        try:
            while queue:
                fact = queue[0]
                began, lost = self._clock.seconds(), "stopped"
                try:
                    lost = await self._told(fact)
                finally:
                    if fact.trace.sampled:
                        ended = self._clock.seconds()
                        tell_fact(self._spans, fact.trace, fact.links, began, ended, fact.kind, lost)
                queue.popleft()
                self.bytes -= len(fact.body) + _OVERHEAD
                fact.settled()
        finally:
            for fact in queue:
                self.bytes -= len(fact.body) + _OVERHEAD
            del self._queues[session]

    async def _told(self, fact: Fact) -> str:
        """Tell *fact* until it is told; else say why it was not."""
        attempt = 0
        while True:
            backend = self.backends.get(fact.kind)
            if backend is None:
                return "nobody"
            await self._gate.acquire()
            try:
                await backend.ask(fact.facts, fact.body, fact.identity, fact.trace)
            except ClientError as error:
                if not error.temporary:
                    self._lost(fact.kind, "refused")
                    return "refused"
            except CancelledError:
                self._lost(fact.kind, "stopped")
                raise
            else:
                return ""
            finally:
                self._gate.release()
            attempt += 1
            wait = backoff(attempt, _FIRST_S, _MOST_S, self._random)
            if self._clock.seconds() + wait > fact.until:
                self._lost(fact.kind, "time")
                return "time"
            await deferLater(self._clock, wait)

    def waiting(self) -> int:
        """
        How many facts wait.
        """
        return sum(len(queue) for queue in self._queues.values())


def body_of(
    *, id_: str, sequence: int, session: str, client: str, user: str, at: float, more: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Make what is told of a client.

    Args:
        id_: The same however often it is told.
        sequence: Grows with each fact of a connection.
        at: Epoch seconds.
    """
    return {
        "id": id_,
        "sequence": sequence,
        "session": session,
        "client": client,
        "user": user,
        "at": round(at, 3),
        **more,
    }


def tell(
    node: RealtimeNode,
    kind: str,
    client: Client,
    more: Mapping[str, Any],
    match: ChannelMatch[ChannelRule] | None = None,
    id_: str = "",
) -> None:
    """
    Tell a backend what happened to a client, if one wants to know.

    Args:
        id_: The fact's, if others than this instance may have to tell it; else one of its number is made.
    """
    if client.session is None:
        return
    client.told += 1
    if kind not in node.telling.backends:
        return
    body = body_of(
        id_=id_ or f"{client.id}-{client.told}",
        sequence=client.told,
        session=client.session.id,
        client=client.id,
        user=client.user,
        at=node.wall(),
        more=more,
    )
    facts = client.facts() if match is None else channel_facts(client, match)
    node.telling.tell(kind, body, facts, client.identity, links=linked(client))


def end_of(client: str, subscription: int = 0) -> str:
    """
    Make the id of a connection's end, or of the end of its subscription with this number.
    """
    return f"{client}-{subscription}-end" if subscription else f"{client}-end"
