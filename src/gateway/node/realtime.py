"""
The node: everything real-time on one instance, between the edges above it and the stores below.

It owns the clients, the hub, presence, sessions and their timers. Edges give it connections
(``accept``), backends act on it through ``node.operations``; it sees neither sockets nor Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gateway.config.expressions import Expression
from gateway.config.realtime_sections import Realtime
from gateway.config.store_section import Store
from gateway.core import commands as c
from gateway.core.channels import ChannelMatch
from gateway.core.identity import Revocation
from gateway.core.publications import ClientInfo, Published, PublishOptions
from gateway.core.trace import TraceContext
from gateway.core.trace import new as new_trace
from gateway.core.verdicts import CloseReason, UnsubscribeReason
from gateway.core.wheel import Wheel
from gateway.node.background import Background
from gateway.node.client import Client
from gateway.node.cluster import Cluster
from gateway.node.drain import flushed
from gateway.node.facts import ids_of
from gateway.node.holders import Holders
from gateway.node.hub import Hub
from gateway.node.identities import Identities
from gateway.node.membership import Membership
from gateway.node.presence import Presence
from gateway.node.rate_limits import RateLimits
from gateway.node.realtime_spans import producing
from gateway.node.rulebook import ChannelRule, Rulebook, encoded
from gateway.node.sessions import SessionEvents, SessionWitness
from gateway.node.standing import leave, stand
from gateway.node.subscription import Subscription
from gateway.node.telling import Telling
from gateway.ports.backends import Backend
from gateway.ports.clients import ClientTransport, Opening
from gateway.ports.identity import Authenticator, Revocations
from gateway.ports.stores import Stores
from gateway.telemetry.realtime import RealtimeMetrics
from gateway.telemetry.seldom import Seldom
from gateway.telemetry.spans import Spans

__all__ = ["RealtimeNode"]

SLOT_S = 0.25
"""How late a client's timers may be."""

SWEEP_S = 1.0

LOOK_S = 0.25
"""How late a place is ended that was held long enough."""

STOP_S = 2.0
"""How long stores and backends may take to hear of clients that a stop has closed."""


class RealtimeNode:
    """
    One instance's real-time side.

    Args:
        clock: Monotonic time and timers.
        wall: Seconds since the epoch.
        bits: So many random bits, as a number.
        random: A number from 0 to 1.
        log: A structlog logger.
        store: How leases are kept, and what waits while the stores are away.
        conn_infos: By WebSocket section, the expression that says what others are told of a connection.
        hooks: Lifecycle calls by kind (``on_connect``, …).
        spans: Without any nothing is recorded.
        rates: What may be done how often.

    Attributes:
        clients: By public id, those that are connected.
        users: By subject, the connections of each user, also those that are connecting.
        streaming: By session, clients whose commands come in requests of their own.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        bits: Callable[[int], int],
        random: Callable[[], float],
        instance: str,
        version: str,
        section: Realtime,
        connections_per_user: int,
        rules: Rulebook,
        hooks: Mapping[str, Backend],
        conn_infos: Callable[[Any], Expression | None],
        stores: Stores,
        store: Store,
        authenticator: Authenticator,
        revocations: Revocations,
        metrics: RealtimeMetrics,
        log: Any,
        events: SessionEvents | None = None,
        witnesses: tuple[SessionWitness, ...] = (),
        spans: Spans | None = None,
        rates: RateLimits,
    ) -> None:
        self.spans = spans or Spans.off()
        self.clock = clock
        self.seconds = clock.seconds
        self.wall = wall
        self.bits = bits
        self.random = random
        self.version = version
        self.section = section
        self.connections_per_user = connections_per_user
        self.rates = rates
        self.rules = rules
        self.conn_info = conn_infos
        self.broker = stores.broker
        self.idempotency = stores.idempotency
        self.bus = stores.bus
        self.metrics = metrics
        self.log = log
        self.clients: dict[str, Client] = {}
        self.users: dict[str, dict[Client, None]] = {}
        self.holders = Holders(self.users)
        self.opening: dict[Client, None] = {}
        self.streaming: dict[str, Client] = {}
        self.identities = Identities(authenticator, revocations, wall, metrics.auth_failures.inc, rates.failed)
        self._wheel: Wheel[Client] = Wheel(SLOT_S)
        self._seldom = Seldom(clock.seconds)
        self.background = Background(clock, self._task_failed)
        self.presence = Presence(
            stores.presence, instance=instance, seconds=clock.seconds, hold_s=self._hold_s, count=metrics.place
        )
        self.hub = Hub(
            stores.broker,
            clock,
            insufficient=self.end,
            came=self.presence.came,
            counted=metrics.delivered,
            spawn=self.spawn,
            random=random,
            check_s=section.position_check_s,
            spans=self.spans,
        )
        self.telling = Telling(
            hooks,
            clock,
            self.background,
            random,
            most_bytes=section.told_most_bytes,
            for_s=section.told_for_s,
            lost=self.fact_lost,
            spans=self.spans,
        )
        self.cluster = Cluster(self)
        self.membership = Membership(
            self, stores, store, instance=instance, events=events, witnesses=(metrics, *witnesses)
        )
        self.sessions = self.membership.sessions
        self.leftovers = self.membership.leftovers
        metrics.watch(self)
        revocations.watch(self._revoked)

    def start(self) -> None:
        """
        Begin what runs by itself.
        """
        self.membership.start()
        every = self.background.every
        every("clients.tick", SLOT_S, self._turn)
        every(
            "presence.tell", self.section.join_leave_tick_s, lambda: self.spawn("presence.tell", self.presence.tick())
        )
        every("presence.sweep", LOOK_S, lambda: self.spawn("presence.sweep", self.presence.sweep()))
        every("realtime.sweep", SWEEP_S, lambda: self.spawn("realtime.sweep", self._sweep()))

    def configure(
        self, section: Realtime, connections_per_user: int, rules: Rulebook, hooks: Mapping[str, Backend]
    ) -> None:
        """
        Take new rules; subscriptions that stand keep the rule they were made by.
        """
        self.section = section
        self.connections_per_user = connections_per_user
        self.rules = rules
        self.telling.backends = hooks
        self.sessions.window_s = section.resume_window_s
        self.leftovers.configured()
        self.hub.mending.check_s = section.position_check_s

    @property
    def instance(self) -> str:
        """What it is called in connect replies and session records. It changes if the others took it for dead."""
        return self.membership.keeper.instance

    @property
    def on_connect(self) -> Backend | None:
        """Who is asked before a client is let in."""
        return self.telling.backends.get("on_connect")

    async def stop(self) -> None:
        """
        Close every client, telling it to come back elsewhere, and end what runs.
        """
        left = [*self.opening, *self.clients.values()]
        for client in left:
            client.close(CloseReason.SHUTDOWN.closing)
        if left:
            await flushed(self, STOP_S)
        await self.membership.keeper.leave()
        self.hub.stop()
        await self.bus.leave()
        await self.background.stop()

    # Clients.

    def accept(self, transport: ClientTransport, opening: Opening) -> Client:
        """
        Take a connection: what it sends goes to the client returned.
        """
        client = Client(self, transport, opening)
        self.opening[client] = None
        self._wheel.set(client, client.next_due(self.seconds()))
        return client

    def watch(self, client: Client, due: float) -> None:
        """
        Have ``client.tick`` called at *due*, instead of when it would have been.
        """
        self._wheel.set(client, due)

    def unwatch(self, client: Client) -> None:
        """
        Look at it no more.
        """
        self._wheel.drop(client)

    def _turn(self) -> None:
        now = self.seconds()
        for client in self._wheel.turn(now):
            client.tick(now)

    def new_id(self) -> str:
        """
        Make an id: 128 random bits, in 32 hexadecimal digits.
        """
        return f"{self.bits(128):032x}"

    def has_room(self, user: str) -> bool:
        """Whether *user* may have one more connection."""
        most = self.connections_per_user
        return not most or len(self.users.get(user, ())) < most

    def count_user(self, client: Client) -> None:
        """
        Count a client that is about to be let in.
        """
        if client.user:
            self.users.setdefault(client.user, {})[client] = None
        self.opening.pop(client, None)
        self.clients[client.id] = client

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self.clients.values()))

    # Channels.

    async def publish(
        self,
        match: ChannelMatch[ChannelRule],
        data: bytes,
        *,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        options: PublishOptions | None = None,
        trace: TraceContext | None = None,
    ) -> Published:
        """
        Publish into a channel. JSON text of several lines becomes one line, which frames demand.

        Args:
            trace: The place that this is below; it goes with the publication if it is recorded.
        """
        if b"\n" in data or b"\r" in data:
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        began = self.seconds()
        with producing(self, match, data, trace) as told:
            published = await self.broker.publish(
                match.name, data, options or match.rule.options, info=info, tags=tags, trace=told
            )
        self.metrics.published(match.rule.pattern, published.suppressed or "made", self.seconds() - began)
        return published

    def stands(self, subscription: Subscription) -> None:
        """
        Deliver to a subscription whose reply was sent.
        """
        stand(self, subscription)

    def leave(self, subscription: Subscription) -> None:
        """
        End a subscription without a word to its client.
        """
        leave(self, subscription)

    def end(self, subscription: Subscription, reason: UnsubscribeReason) -> None:
        """
        End a subscription and tell its client why.
        """
        self.unsubscribe(subscription, reason.code, reason.text)

    def unsubscribe(self, subscription: Subscription, code: int, reason: str) -> None:
        """
        The same with any code.
        """
        client = subscription.client
        live = subscription.live
        client.flight.append((self.seconds(), f"unsubscribed {code}", subscription.match.name))
        leave(self, subscription, held=code == UnsubscribeReason.INSUFFICIENT_STATE.code)
        if live and client.closing is None:
            if subscription.server_side and code >= UnsubscribeReason.INSUFFICIENT_STATE.code:
                # Its SDK does not subscribe to it again by itself; a new connection brings it back whole.
                client.close(CloseReason.INSUFFICIENT_STATE.closing)
                return
            client.send(client.transport.form.dialect.unsubscribed(subscription.match.name, code, reason))

    def _hold_s(self, channel: str) -> float:
        """How long the place of a lost connection is held."""
        match = self.rules.channels.match(channel)
        hold_s = match.rule.hold_s if match is not None else None
        return self.section.resume_window_s if hold_s is None else hold_s

    # What backends are told and asked.

    def trace(self, command: c.Command | None) -> TraceContext:
        """
        The place of what leads to a backend: of its command if that is recorded, else of a trace that nobody records.
        """
        return command.span.place if command is not None and command.span is not None else new_trace(self.bits)

    def tell_dropped(self, client: Client, dropped: Mapping[str, int]) -> None:
        """
        Tell a client that read slowly how many publications it was not sent.
        """
        for channel, number in dropped.items():
            client.send(
                client.transport.form.dialect.message(encoded({"dropped": {"channel": channel, "count": number}}))
            )

    # Beside the commands.

    async def _sweep(self) -> None:
        await self.hub.sweep()
        self.hub.mending.check()

    def _revoked(self, revocation: Revocation) -> None:
        """Close those whose token was revoked."""
        for client in self.holders.of(revocation):
            if client.identity is not None and self.identities.is_revoked(client.identity):
                client.close(CloseReason.INVALID_TOKEN.closing)

    def malformed(self, client: Client, reason: str) -> None:
        """Log a frame that is not of the dialect."""
        self.metrics.malformed.inc(client.transport.kind)
        self.log.info("client.malformed", **ids_of(client), reason=reason[:200])

    def crashed(self, client: Client, failure: Failure) -> None:
        """Report a fault of our own."""
        self.log.error("client.crashed", **ids_of(client), exception=failure.getTraceback())

    def fact_lost(self, kind: str, why: str) -> None:
        """Count a fact that will not be told."""
        self.metrics.facts_lost.inc(kind, why)
        if times := self._seldom.times(kind, why):
            self.log.warning("fact.lost", kind=kind, why=why, times=times)

    def _task_failed(self, name: str, failure: Failure) -> None:
        self.log.error("background.failed", task=name, exception=failure.getTraceback())

    def spawn(self, name: str, coroutine: Any) -> None:
        """Run a coroutine that nobody waits for."""
        self.background.spawn(name, coroutine)
