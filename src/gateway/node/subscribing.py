"""
How a subscription is made so that nothing is missing and nothing comes twice.

Live publications are kept from before the stream's position is read; a snapshot is asked for after
that. So whatever happens in between is in the snapshot, in what is kept, or in both (then its
version tells), and the reply with the first publications leaves before the first live one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.config.expressions import Denied
from gateway.core import commands as c
from gateway.core.channels import ChannelMatch
from gateway.core.identity import Identity
from gateway.core.publications import Position, Publication
from gateway.core.streams import is_recovered, until_hole
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.facts import channel_facts
from gateway.node.rulebook import ChannelRule, encoded
from gateway.node.subscription import Subscription

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["make", "matched", "refresh_subscription", "subscribe"]


def matched(node: RealtimeNode, channel: str) -> ChannelMatch[ChannelRule]:
    """
    Find the rule of *channel*.

    Raises:
        ClientError: no pattern has it.
    """
    match = node.rules.channels.match(channel)
    if match is None:
        raise ClientError(ErrorCode.UNKNOWN_CHANNEL)
    return match


async def subscribe(node: RealtimeNode, client: Client, command: c.Command) -> None:
    """
    Subscribe as the client asked, reply, and deliver from then on.
    """
    asked = command.request
    assert isinstance(asked, c.Subscribe)
    match = matched(node, asked.channel)
    if asked.channel in client.subscriptions:
        raise ClientError(ErrorCode.ALREADY_SUBSCRIBED)
    if len(client.subscriptions) >= client.settings.max_channels:
        raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {client.settings.max_channels} subscriptions")
    subscription = client.subscriptions[asked.channel] = Subscription(client, match)
    try:
        result = (await make(node, subscription, asked, command=command))()
    except BaseException:
        node.leave(subscription)
        raise
    if client.closing is not None:
        return
    client.answer(command, result)
    client.flush()
    node.stands(subscription)


class _Made:
    """
    A subscription of which all is known but what came in the last moment.
    """

    __slots__ = ("_data", "_publications", "_recovered", "_recovering", "_subscription", "_top", "_version")

    def __init__(
        self,
        subscription: Subscription,
        top: Position | None,
        publications: tuple[Publication, ...],
        *,
        recovering: bool,
        recovered: bool,
        data: bytes,
        version: int,
    ) -> None:
        self._subscription = subscription
        self._top = top
        self._publications = publications
        self._recovering = recovering
        self._recovered = recovered
        self._data = data
        self._version = version

    def __call__(self) -> c.Subscribed:
        """
        Make the result; whoever gets it must let the subscription be live before anything else happens.

        Raises:
            ClientError: something was missed meanwhile; asking again helps.
        """
        subscription = self._subscription
        kept = subscription.kept()
        if subscription.broken:
            raise ClientError(ErrorCode.INTERNAL, "the channel was interrupted; subscribe again")
        position = self._top
        publications = list(kept)
        if position is not None:
            room = subscription.room
            publications, position, whole = until_hole(self._publications if self._recovered else (), position, kept)
            if not whole and (room is None or room.mended is None):
                raise ClientError(ErrorCode.INTERNAL, "the channel was interrupted; subscribe again")
            # What is missing is being read for the whole room, and comes with what follows.
            subscription.offset = position.offset
        if self._version:
            publications = [each for each in publications if not each.version or each.version > self._version]
        node = subscription.client.node
        expires_at = subscription.expires_at
        return c.Subscribed(
            position or Position(),
            recoverable=position is not None,
            positioned=position is not None,
            recovered=self._recovered,
            was_recovering=self._recovering,
            publications=tuple(publications),
            data=self._data,
            expires=bool(expires_at),
            ttl_s=max(1, int(expires_at - node.wall())) if expires_at else 0,
        )


async def make(
    node: RealtimeNode,
    subscription: Subscription,
    asked: c.Subscribe,
    *,
    allowed: bool = False,
    chan_info: bytes = b"",
    command: c.Command | None = None,
) -> _Made:
    """
    Do everything that takes time: decide, hear the channel, read its stream, ask for its state.

    Args:
        allowed: A server asked for it: the rule is not asked.
        chan_info: What others are told of it, instead of what the rule says.
        command: What it is made for.

    Raises:
        ClientError, StoreUnavailable: the caller lets the subscription go.
    """
    client, match = subscription.client, subscription.match
    rule = match.rule
    facts = channel_facts(client, match)
    trace: TraceContext | None = None
    if not allowed:
        trace = await _decide(node, subscription, asked, facts, command)
    subscription.join_leave = asked.join_leave and rule.join_leave
    subscription.info = client.info(chan_info or _chan_info(rule, facts))
    subscription.room = room = await node.hub.enter(match, subscription)
    top: Position | None = None
    publications: tuple[Publication, ...] = ()
    recovered = False
    if rule.history is not None:
        history = await node.broker.history(
            match.name,
            since=asked.since if asked.recover else None,
            limit=-1 if asked.recover else 0,
            keep_s=rule.history.history_ttl_s,
        )
        top, publications = history.position, history.publications
        node.hub.known(room, top)
        recovered = asked.recover and is_recovered(asked.since, top, publications)
        if asked.recover:
            node.metrics.recoveries.inc(rule.pattern, "recovered" if recovered else "lost")
    if rule.presence:
        await node.presence.enter(subscription)
    data, version = b"", 0
    if rule.snapshot is not None and not recovered:
        data, version = await rule.snapshot.take(facts, client.identity, trace or node.trace(command))
    return _Made(
        subscription,
        top,
        publications,
        recovering=asked.recover,
        recovered=recovered,
        data=data,
        version=version,
    )


async def _decide(
    node: RealtimeNode,
    subscription: Subscription,
    asked: c.Subscribe,
    facts: Mapping[str, Any],
    command: c.Command | None,
) -> TraceContext | None:
    client = subscription.client
    decider = subscription.match.rule.subscribe
    if decider.token:
        subscription.expires_at = (await _verified(node, client, asked.channel, asked.token)).expires_at
        return None
    decider.allow(facts, anonymous=client.identity is None)
    if not decider.asks:
        return None
    trace = node.trace(command)
    await decider.ask(facts, asked.data, client.identity, trace)
    return trace


async def _verified(node: RealtimeNode, client: Client, channel: str, token: str) -> Identity:
    """Verify a subscription token: an issuer's, of the same subject, with a ``channel`` claim."""
    if not token:
        raise ClientError(ErrorCode.PERMISSION_DENIED, "a subscription token is needed")
    identity = await node.identities.verify(token)
    if identity.claims.get("channel") != channel or identity.subject != client.user:
        raise ClientError(ErrorCode.PERMISSION_DENIED)
    return identity


def _chan_info(rule: ChannelRule, facts: Mapping[str, Any]) -> bytes:
    if rule.info is None:
        return b""
    try:
        return encoded(rule.info.value(facts))
    except Denied:
        return b""  # A claim that is not there: nothing to tell about this one.


async def refresh_subscription(node: RealtimeNode, subscription: Subscription, token: str) -> c.Refreshed:
    """
    Extend a subscription by a newer token.
    """
    client, channel = subscription.client, subscription.match.name
    if not subscription.match.rule.subscribe.token:
        raise ClientError(ErrorCode.BAD_REQUEST, "this subscription does not live by a token")
    identity = await _verified(node, client, channel, token)
    subscription.expires_at = identity.expires_at
    node.watch(client, client.next_due(node.seconds()))
    return c.Refreshed(channel=channel, expires=True, ttl_s=max(1, int(identity.expires_at - node.wall())))
