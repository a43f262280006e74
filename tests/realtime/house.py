"""
A whole real-time node in one synchronous test: memory stores, a clock, clients without sockets.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gateway.auth.reasons import refused
from gateway.config.checks.realtime import CLIENT_ROOTS
from gateway.config.expressions import Expression, compile_expression
from gateway.config.load import parse
from gateway.config.realtime_sections import BackendCall
from gateway.config.sections import Config
from gateway.core.identity import Identity
from gateway.core.trace import TraceContext
from gateway.dialects.centrifuge_json import CentrifugeJson
from gateway.memory.broker import MemoryBroker, MemoryChannels
from gateway.memory.bus import MemoryBus, MemoryCluster
from gateway.memory.limits import MemoryLimiter
from gateway.memory.presence import Attendance, MemoryPresence
from gateway.memory.revocations import MemoryRevocations
from gateway.memory.stores import memory_stores
from gateway.node.client import Client
from gateway.node.rate_limits import RateLimits
from gateway.node.realtime import RealtimeNode
from gateway.node.rulebook import Rulebook
from gateway.node.sessions import SessionEvents, SessionWitness
from gateway.ports.backends import Facts
from gateway.ports.clients import ClientSide, Opening
from gateway.ports.cluster import ClusterBus
from gateway.ports.dialect import Dialect
from gateway.ports.identity import Revocations
from gateway.ports.sessions import SessionRecord
from gateway.ports.stores import Stores
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.spans import Spans
from gateway.telemetry.tally import Tally

BASE = """
[[auth.issuer]]
issuer = "test"
audience = ["gateway"]
secret = "0123456789abcdef0123456789abcdef"
algorithms = ["HS256"]

[upstream.backend]
http = ["http://127.0.0.1:1"]

[[websocket]]
path = "/ws"
"""

START = 1.8e9


class PlainForm:
    """
    Messages as they are, each on a line of its own.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def frame(self, message: bytes) -> bytes:
        """End the line."""
        return message + b"\n"


JSON_FORM = PlainForm(CentrifugeJson())


class Wire:
    """
    A client without a socket (``ports.clients.ClientTransport``): what it was sent, and how it ended.

    Args:
        takes: Bytes the reader takes until it stops reading; None reads for ever.
    """

    kind = "websocket"

    def __init__(self, form: PlainForm = JSON_FORM, takes: int | None = None) -> None:
        self.form = form
        self.direct: Callable[[bytes], int] | None = self._send
        self.blocked = False
        self.sent = b""
        self.buffered = b""
        self.closed: tuple[int, str] | None = None
        self.paused = False
        self.side: ClientSide
        self.takes = takes
        self.sends = 0

    def _send(self, framed: bytes) -> int:
        assert not self.blocked, "sent directly while bytes were waiting"
        self.sends += 1
        if self.takes is None:
            self.sent += framed
            return len(framed)
        taken = framed[: self.takes]
        if not taken:
            raise BlockingIOError
        self.takes -= len(taken)
        self.sent += taken
        return len(taken)

    def write(self, framed: bytes) -> None:
        """Send, and keep what the reader does not take."""
        if self.closed is not None:
            return
        if self.blocked:
            self.buffered += framed
            return
        try:
            taken = self._send(framed)
        except BlockingIOError:
            taken = 0
        if taken < len(framed):
            self.buffered += framed[taken:]
            self.blocked = True
            self.side.blocked()

    def read(self, takes: int | None = None) -> None:
        """Let the reader take what waits, and *takes* more bytes."""
        self.takes = None if takes is None else max(0, takes - len(self.buffered))
        self.sent += self.buffered
        self.buffered = b""
        if self.blocked:
            self.blocked = False
            self.side.drained()

    def close(self, code: int, reason: str) -> None:
        """Note how it was closed."""
        if self.closed is None:
            self.closed = (code, reason)

    def abort(self) -> None:
        """Cut."""
        self.close(1006, "aborted")

    def pause(self) -> None:
        """Read no more."""
        self.paused = True

    def resume(self) -> None:
        """Read again."""
        self.paused = False


class Person:
    """
    One client, speaking JSON.
    """

    def __init__(self, house: House, wire: Wire, side: Client) -> None:
        self.house = house
        self.wire = wire
        self.side = side
        self.answers_pings = True
        self._seen = 0
        self._number = 0

    def say(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame."""
        self.side.received(b"\n".join(json.dumps(command).encode() for command in commands))

    def ask(self, **request: Any) -> Any:
        """Send one command with the next number; return the number."""
        self._number += 1
        self.say({"id": self._number, **request})
        return self._number

    def told(self) -> list[Any]:
        """Everything that came since this was last asked."""
        text = self.wire.sent[self._seen :]
        self._seen += len(text)
        return [json.loads(line) for line in text.splitlines() if line]

    def reply(self, **request: Any) -> Any:
        """Send one command and return its reply; what came beside it is dropped."""
        number = self.ask(**request)
        found = [message for message in self.told() if message.get("id") == number]
        assert len(found) == 1, f"{len(found)} replies"
        return found[0]

    def pushes(self) -> list[Any]:
        """The pushes among what came."""
        return [message["push"] for message in self.told() if "push" in message]

    @property
    def session(self) -> str:
        """The id of its session."""
        assert self.side.session is not None, "not connected"
        return self.side.session.id

    def lose(self) -> None:
        """Let the connection be lost without a word."""
        self.side.lost(1006, "", clean=False)

    def leave(self) -> None:
        """Close in an orderly way."""
        self.side.lost(1000, "", clean=True)


@dataclass
class Witness:
    """
    Who notes when sessions begin and end.
    """

    events: list[tuple[str, str, str]] = field(default_factory=list)

    def started(self, record: SessionRecord) -> None:
        """Note a beginning."""
        self.events.append(("started", record.id, record.user))

    def ended(self, record: SessionRecord, cause: str, ended_at: float) -> None:
        """Note an end."""
        del ended_at
        self.events.append(("ended", record.id, cause))


class Asked:
    """
    A backend in the test's own process: a function, and what it was asked.
    """

    def __init__(self, name: str, answers: Mapping[str, Any]) -> None:
        self.name = name
        self._answers = answers
        self.calls: list[tuple[dict[str, Any], bytes, Identity | None]] = []
        self.traces: list[TraceContext | None] = []

    async def ask(
        self, facts: Facts, data: bytes, identity: Identity | None, trace: TraceContext | None = None
    ) -> bytes:
        """Answer as the test wants it."""
        self.traces.append(trace)
        self.calls.append((dict(facts), data, identity))
        answer = self._answers[self.name]
        if callable(answer):
            answer = answer(facts, data)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


class Tokens:
    """
    Tokens of the form ``user`` or ``user;claim=value;ttl=60``, believed as they are.
    """

    def __init__(self, wall: Callable[[], float], revocations: Revocations) -> None:
        self._wall = wall
        self._revocations = revocations

    def authenticate(self, token: bytes, now: float) -> Identity:
        """Read the token."""
        user, *more = token.decode().split(";")
        claims: dict[str, Any] = {"sub": user, **dict(pair.split("=") for pair in more)}
        if not user or user == "bad":
            raise refused("signature")
        expires = now + float(claims.get("ttl", 3600))
        if expires <= now:
            raise refused("expired")
        identity = Identity(user, "test", expires, now, claims.get("jti"), claims.get("sid"), frozenset(), claims)
        if self._revocations.is_revoked(identity):
            raise refused("revoked")
        return identity

    def ready(self) -> bool:
        """Always."""
        return True


class House:
    """
    Nodes on one set of memory stores.

    Args:
        text: TOML beside ``BASE``.
        answers: What backends answer, by ``http`` path or ``call`` of the configuration.
        clock: A real reactor, where something real takes part.
    """

    tells: SessionEvents | None = None
    watches: tuple[SessionWitness, ...] = ()
    spans: Spans | None = None

    def __init__(
        self, text: str, answers: Mapping[str, Any] | None = None, *, base: str = BASE, clock: Any = None
    ) -> None:
        self.clock: Any = clock or Clock()
        self.config: Config = parse(base + text, str(Path.cwd() / "test.toml"), {})
        self.answers: dict[str, Any] = dict(answers or {})
        self.backends: dict[str, Asked] = {}
        self.channels = MemoryChannels(self.clock.seconds, self.wall)
        self.cluster = MemoryCluster()
        self.revocations: Any = MemoryRevocations(self.wall)
        self.witness = Witness()
        self.random = random.Random(7)
        self.attendance = Attendance(self.channels, self.wall)
        self.limiter = MemoryLimiter(self.clock.seconds)
        self.decisions = Tally("decisions", "", ("policy", "decision", "store"))
        self.stores = memory_stores(self.channels, self.make_bus(), self.wall)
        self.nodes: list[RealtimeNode] = []
        self.people: list[Person] = []
        self.node = self.add()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return START + float(self.clock.seconds())

    def make_bus(self) -> ClusterBus:
        """The bus of a node that is being made."""
        return MemoryBus(self.cluster, self.clock, lambda name, failure: failure.raiseException())

    def stores_of(self, stores: Stores) -> Stores:
        """The stores of one more node."""
        return stores

    def backend(self, call: BackendCall, roots: frozenset[str]) -> Asked:
        """The backend of a call of the configuration."""
        del roots
        name = call.http or call.call
        return self.backends.setdefault(name, Asked(name, self.answers))

    def add(self) -> RealtimeNode:
        """Add one more node on the same stores."""
        config = self.config
        hooks = {
            name: self.backend(getattr(config.realtime, name), frozenset())
            for name in ("on_connect", "on_disconnect", "on_subscribe", "on_unsubscribe")
            if getattr(config.realtime, name) is not None
        }

        def info(section: Any) -> Expression | None:
            return compile_expression(section.info, CLIENT_ROOTS) if section.info else None

        bus = self.make_bus()
        rates = RateLimits(self.limiter, MemoryLimiter(self.clock.seconds), self.decisions, self.clock.seconds)
        rates.configure(config.limits)
        node = RealtimeNode(
            clock=self.clock,
            wall=self.wall,
            bits=self.random.getrandbits,
            random=self.random.random,
            instance=f"node-{len(self.nodes) + 1}",
            version="test",
            section=config.realtime,
            connections_per_user=config.limits.connections_per_user,
            rates=rates,
            rules=Rulebook(config.channels, config.rpc, self.backend),
            hooks=hooks,
            conn_infos=info,
            stores=self.stores_of(
                replace(
                    self.stores, broker=MemoryBroker(self.channels), presence=MemoryPresence(self.attendance), bus=bus
                )
            ),
            store=config.store,
            authenticator=Tokens(self.wall, self.revocations),
            revocations=self.revocations,
            metrics=RealtimeMetrics(CollectorRegistry(), Tally("auth_failures", "", ("reason",))),
            log=structlog.get_logger(),
            events=self.tells,
            witnesses=(self.witness, *self.watches),
            spans=self.spans,
        )
        node.start()
        self.nodes.append(node)
        return node

    def come(
        self, *, node: RealtimeNode | None = None, takes: int | None = None, identity: Identity | None = None
    ) -> Person:
        """Open a connection."""
        wire = Wire(takes=takes)
        opening = Opening("192.0.2.1", self.config.websocket[0], "test/1.0", identity=identity)
        side = (node or self.node).accept(wire, opening)
        wire.side = side
        person = Person(self, wire, side)
        person.answers_pings = False
        self.people.append(person)
        return person

    def enter(self, token: str = "alice", **more: Any) -> Person:
        """Open a connection and connect with *token*."""
        person = self.come(**more)
        person.ask(connect={"token": token})
        person.answers_pings = True
        return person

    def connected(self, token: str = "alice", **more: Any) -> Person:
        """The same; its reply must be a success, and is dropped."""
        person = self.enter(token, **more)
        told = person.told()
        assert len(told) == 1, told
        assert "connect" in told[0], told
        return person

    def publish(self, channel: str, data: Any, node: RealtimeNode | None = None) -> None:
        """Publish as a backend does."""
        at = node or self.node
        match = at.rules.channels.match(channel)
        assert match is not None
        done = Deferred.fromCoroutine(at.publish(match, json.dumps(data).encode()))
        assert done.called
        done.addErrback(lambda failure: failure.raiseException())

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in small steps, as a reactor does; people answer pings meanwhile."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for person in self.people:
                if person.answers_pings:
                    person.say({})
