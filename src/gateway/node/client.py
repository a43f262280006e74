"""
One real-time client: its state, its commands in order, what is sent to it, and its end.

It knows neither sockets nor wire formats: bytes come from and go to a transport, a dialect turns
them into commands and back. What a command does stands in ``node.commands``; this is about when
it may run. Commands on one channel or method run one after the other; others may overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure

from gateway.core import commands as c
from gateway.core.flight import Flight
from gateway.core.identity import Identity
from gateway.core.outbox import Outbox
from gateway.core.publications import ClientInfo
from gateway.core.session_use import SessionUse
from gateway.core.verdicts import CLEAN_CODES, ClientError, CloseReason, Closing, UnsubscribeReason, reconnects
from gateway.node.answered import answered
from gateway.node.connecting import connect
from gateway.node.facts import client_facts
from gateway.node.lanes import Lanes
from gateway.node.standing import gone
from gateway.ports.clients import ClientTransport, Opening
from gateway.ports.dialect import BadFrame
from gateway.ports.sessions import SessionRecord

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode
    from gateway.node.subscription import Subscription

__all__ = ["Client", "State"]

DRAIN_BYTES = 64 * 1024
"""What is given to the transport at once of what waits: the rest stays where it is bounded."""

_NEVER: Final = float("inf")


class State(Enum):
    """Where a client stands."""

    OPENING = "opening"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class Client:
    """
    The node's side of a connection (``ports.clients.ClientSide``).

    Attributes:
        id: Public: others see it in presence and publications.
        identity: Who; None for an anonymous connection and before it is connected.
        claims: What rules see: the identity's, or those of anonymous connections.
        user: The subject; empty if anonymous.
        session: As the store has it, once connected.
        subscriptions: By channel, also those being made.
        outbox: What waits because the client reads slowly.
        expires_at: Epoch seconds at which its token ends.
        heard: Something came since the last ping.
        use: What it did, counted.
        flight: What it did last.
        unheeded: How often it went on although it was told to wait, as ``core.gcra`` keeps it.
    """

    __slots__ = (
        "_facts",
        "_gathered",
        "_ping_at",
        "_pong_by",
        "arrived_at",
        "claims",
        "closing",
        "conn_info",
        "device",
        "expires_at",
        "flight",
        "heard",
        "id",
        "identity",
        "lanes",
        "name",
        "node",
        "opening",
        "outbox",
        "rates",
        "session",
        "settings",
        "state",
        "subscriptions",
        "told",
        "transport",
        "unheeded",
        "use",
        "user",
        "version",
    )

    def __init__(self, node: RealtimeNode, transport: ClientTransport, opening: Opening) -> None:
        self.node = node
        self.transport = transport
        self.opening = opening
        self.settings = opening.listener
        self.id = ""
        self.identity: Identity | None = None
        self.claims: Mapping[str, Any] = {}
        self.name = self.version = ""
        self.conn_info = b""
        self.user = self.device = ""
        self.session: SessionRecord | None = None
        self.told = 0
        self.state = State.OPENING
        self.closing: Closing | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox = Outbox(self.settings.outbox_bytes)
        self.use = SessionUse()
        self.expires_at = 0.0
        self.arrived_at = node.seconds()
        self.flight = Flight(self.arrived_at)
        self.heard = False
        self.lanes = Lanes(self)
        self.rates: dict[str, float] | None = None
        self.unheeded = 0.0
        self._facts: dict[str, Any] | None = None
        self._gathered: list[bytes] | None = None
        self._ping_at = self._pong_by = _NEVER

    # What comes in.

    def received(self, frame: bytes) -> None:
        """
        Take one message: commands, run as soon as their order lets them. Replies made at once leave together.
        """
        if self.state is State.CLOSED:
            return
        self.heard = True
        use = self.use
        use.frames_in += 1
        use.bytes_in += len(frame)
        self.node.metrics.traffic.took(len(frame))
        try:
            commands = self.transport.form.dialect.commands(frame)
        except BadFrame as bad:
            self.node.malformed(self, str(bad))
            self.close(CloseReason.BAD_REQUEST.closing)
            return
        self._gathered = []
        try:
            take = self.node.rates.frame(self) if self.node.rates.frames else self.take
            for command in commands:
                take(command)
                if self.closing is not None:
                    break
        except Exception:  # A fault of ours must end this connection, not the reactor's turn.
            self.node.crashed(self, Failure())
            self.close(CloseReason.SERVER_ERROR.closing)
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                dialect = self.transport.form.dialect
                self._send(gathered[0] if len(gathered) == 1 else dialect.batch(gathered))
            if self.closing is not None:
                self._finish()

    def take(self, command: c.Command) -> None:
        """Run a command as far as its state lets it."""
        kind = type(command.request)
        if self.state is State.OPENING:
            if kind is c.Connect and command.id:
                self.state = State.CONNECTING
                self.lanes.first(connect, command)
            else:
                self.close(CloseReason.BAD_REQUEST.closing)
        elif kind is c.Connect or (command.id == 0 and kind not in (c.Send, c.Ping)):
            self.close(CloseReason.BAD_REQUEST.closing)
        elif command.id or kind is c.Send:
            self.lanes.take(command)

    def may_go_on(self) -> bool:
        """Look whether its token still holds; closed if not."""
        if self._is_expired():
            self.close(CloseReason.EXPIRED.closing)
        return self.closing is None

    def connection_refused(self) -> bool:
        """Whether it was just told that it cannot connect; it may try again on the same connection."""
        if self.state is not State.CONNECTING:
            return False
        self.state = State.OPENING
        return True

    # What goes out.

    def answer(self, command: c.Command, result: c.Result) -> None:
        """
        Reply to *command*; those who must be sure that nothing comes before the reply do it themselves.
        """
        answered(self, command, "ok")
        if command.id:
            self.send(self.transport.form.dialect.reply(command.id, result))

    def fail(self, command: c.Command, error: ClientError) -> None:
        """
        Reply to *command* that it failed.
        """
        answered(self, command, str(error.code))
        self.flight.append((self.node.seconds(), f"error {error.code}", ""))
        if command.id:
            self.send(self.transport.form.dialect.error(command.id, error))

    def send(self, message: bytes) -> None:
        """
        Send one encoded message, in order with all others; a client that is too slow is closed.
        """
        if self._gathered is not None:
            self._gathered.append(message)
        elif self.closing is None:
            self._send(message)

    def _send(self, message: bytes) -> None:
        transport = self.transport
        framed = transport.form.frame(message)
        use = self.use
        use.frames_out += 1
        use.bytes_out += len(framed)
        self.node.metrics.traffic.gave(len(framed))
        if not transport.blocked and not self.outbox:
            transport.write(framed)
        elif not self.outbox.put(framed):
            self.close(CloseReason.SLOW.closing)

    def flush(self) -> None:
        """Send what was gathered in this turn before anything else is sent directly."""
        gathered = self._gathered
        if gathered:
            self._gathered = []
            self._send(gathered[0] if len(gathered) == 1 else self.transport.form.dialect.batch(gathered))

    def blocked(self) -> None:
        """Send nothing directly until what was written is taken."""
        self.flight.append((self.node.seconds(), "blocked", ""))
        self._replace()

    def drained(self) -> None:
        """
        Send on what waited, and directly again once nothing waits.
        """
        transport, outbox = self.transport, self.outbox
        while outbox and not transport.blocked:
            transport.write(outbox.take(DRAIN_BYTES))
        if transport.blocked or self.closing is not None:
            return
        self._replace()
        if outbox.dropped:
            dropped, outbox.dropped = outbox.dropped, {}
            self.node.tell_dropped(self, dropped)

    def _replace(self) -> None:
        hub = self.node.hub
        for subscription in self.subscriptions.values():
            if subscription.live and subscription.room is not None:
                hub.replace(subscription.room, subscription)

    # Who it is.

    def connected(self) -> None:
        """Let it in: commands that waited run after the reply to ``connect``, in order."""
        self.state = State.CONNECTED
        now = self.node.seconds()
        self._ping_at = now + self.node.random() * self.settings.ping_s
        self.node.watch(self, self.next_due(now))

    def info(self, chan_info: bytes = b"") -> ClientInfo:
        """Who it is to others."""
        return ClientInfo(self.user, self.id, self.conn_info, chan_info)

    def recent(self) -> list[str]:
        """
        Write what it did last, the oldest first, each with the seconds since it came; then what is unanswered.
        """
        return [*self.flight.told(), *(f"unanswered {lane[2:]}" for lane in self.lanes.running)]

    def facts(self) -> dict[str, Any]:
        """
        What expressions may name of it: ``claims``, ``client``, ``session``. Shared: copy before adding.
        """
        if self._facts is None:
            self._facts = client_facts(self)
        return self._facts

    def forget_facts(self) -> None:
        """Make them anew when they are next asked for: something they tell has changed."""
        self._facts = None

    def identified(self, identity: Identity | None, claims: Mapping[str, Any]) -> None:
        """Take *identity* (again, after a refresh)."""
        self.identity = identity
        self.claims = claims
        self.user = identity.subject if identity is not None else ""
        self.expires_at = identity.expires_at if identity is not None else 0.0
        self._facts = None
        if self.state is State.CONNECTED:
            self.node.watch(self, self.next_due(self.node.seconds()))

    # Time.

    def _is_expired(self) -> bool:
        return bool(self.expires_at and self.node.wall() > self.expires_at + self.node.section.expired_grace_s)

    def next_due(self, now: float) -> float:
        """When it must be looked at again, in the clock's seconds."""
        if self.state is not State.CONNECTED:
            return self.arrived_at + float(self.settings.auth_timeout_s)
        due = min(self._ping_at, self._pong_by)
        ends = [subscription.expires_at for subscription in self.subscriptions.values() if subscription.expires_at]
        if self.expires_at:
            ends.append(self.expires_at)
        if ends:
            due = min(due, now + min(ends) + self.node.section.expired_grace_s - self.node.wall())
        return due

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.state in (State.OPENING, State.CONNECTING):
            if now >= self.arrived_at + self.settings.auth_timeout_s:
                self.close(CloseReason.STALE.closing)
            else:
                self.node.watch(self, self.next_due(now))
            return
        if self.state is State.CLOSED:
            return
        if self._is_expired():
            self.close(CloseReason.EXPIRED.closing)
            return
        if now >= self._pong_by:
            self._pong_by = _NEVER
            if not self.heard:
                self.close(CloseReason.NO_PONG.closing)
                return
        if now >= self._ping_at:
            self._ping(now)
        wall = self.node.wall() - self.node.section.expired_grace_s
        for subscription in list(self.subscriptions.values()):
            if subscription.expires_at and subscription.expires_at <= wall:
                self.node.end(subscription, UnsubscribeReason.EXPIRED)
        self.node.watch(self, self.next_due(now))

    def _ping(self, now: float) -> None:
        interval = self.settings.ping_s
        self._ping_at = now + interval
        if self.heard and any(each.told_since(now - interval / 2) for each in self.subscriptions.values()):
            # It spoke and was spoken to meanwhile: nothing to find out, and its own timer was set back.
            self.heard = False
            return
        self.heard = False
        self._pong_by = now + self.settings.pong_timeout_s
        self.send(self.transport.form.dialect.ping())

    # The end.

    def close(self, closing: Closing) -> None:
        """
        Close the connection: what was sent goes out first, everything that runs for it is cancelled.
        """
        if self.closing is not None or self.state is State.CLOSED:
            return
        self.closing = closing
        if self._gathered is None:
            self._finish()

    def _finish(self) -> None:
        closing = self.closing
        assert closing is not None
        if self.state is State.CLOSED:
            return
        if self.outbox and closing.code != CloseReason.SLOW.code:
            self.transport.write(self.outbox.take(DRAIN_BYTES))
        self._end(closing, abnormal=reconnects(closing.code))
        self.transport.close(closing.code, closing.reason)

    def lost(self, code: int, reason: str, *, clean: bool) -> None:
        """The connection is gone."""
        if self.state is not State.CLOSED:
            self.closing = Closing(code, reason)
            self._end(self.closing, abnormal=not clean or code not in CLEAN_CODES)

    def _end(self, closing: Closing, *, abnormal: bool) -> None:
        was_connected = self.state is State.CONNECTED
        self.state = State.CLOSED
        self.outbox.clear()
        self.lanes.end()
        gone(self.node, self, closing, abnormal=abnormal, was_connected=was_connected)
