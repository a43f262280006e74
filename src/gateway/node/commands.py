"""
What each command of a client does. New commands are added here, and in the dialects.

A handler answers at once with a result, or returns a coroutine that will. It raises
``ClientError`` for a failure the client is told, ``Refused`` to have the connection closed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.core import commands as c
from gateway.core.channels import ChannelMatch
from gateway.core.gcra import spend
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node.answered import answered
from gateway.node.calling import call_method
from gateway.node.facts import channel_facts, command_facts
from gateway.node.rulebook import ChannelRule, field_of
from gateway.node.subscribing import matched, refresh_subscription, subscribe

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode
    from gateway.node.subscription import Subscription

__all__ = ["HANDLERS", "lane_of"]

MOST_HISTORY = 1000
"""Publications in one answer to ``history``."""

Handler = Callable[["RealtimeNode", "Client", c.Command], "c.Result | Coroutine[Any, Any, c.Result | None] | None"]


def lane_of(request: c.Request) -> str:
    """
    Name what a command must be in order with: its channel, its method, or the connection itself.
    """
    kind = type(request)
    if kind is c.Rpc:
        return "m:" + request.method  # type: ignore[union-attr]
    if kind in (c.Refresh, c.Send, c.Ping):
        return "."
    return "c:" + request.channel  # type: ignore[union-attr]


def _subscribed(client: Client, channel: str) -> Subscription:
    subscription = client.subscriptions.get(channel)
    if subscription is None or not subscription.live:
        raise ClientError(ErrorCode.PERMISSION_DENIED)
    return subscription


def _subscribe(node: RealtimeNode, client: Client, command: c.Command) -> Coroutine[Any, Any, None]:
    return subscribe(node, client, command)


def _unsubscribe(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    request = command.request
    assert isinstance(request, c.Unsubscribe)
    subscription = client.subscriptions.get(request.channel)
    if subscription is not None:
        if subscription.server_side:
            raise ClientError(ErrorCode.PERMISSION_DENIED)
        node.leave(subscription)
    return c.Done(c.Unsubscribe)


def _publish(node: RealtimeNode, client: Client, command: c.Command) -> Coroutine[Any, Any, c.Result]:
    request = command.request
    assert isinstance(request, c.Publish)
    match = matched(node, request.channel)
    rule = match.rule
    if node.rates.muted.users:
        node.rates.muted.check(client.user)
    if rule.publish is None:
        raise ClientError(ErrorCode.PERMISSION_DENIED)
    if len(request.data) > rule.max_message_bytes:
        raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {rule.max_message_bytes} bytes are published here")
    if rule.rate is not None:
        rates = client.rates = client.rates if client.rates is not None else {}
        verdict = spend(rates.get(match.name, 0.0), node.seconds(), rule.rate.number, rule.rate.per_s)
        if not verdict.allowed:
            raise ClientError(ErrorCode.TOO_MANY_REQUESTS)
        if len(rates) >= 2 * client.settings.max_channels:
            rates.clear()
        rates[match.name] = verdict.at
    return _published(node, client, match, request, command)


async def _published(
    node: RealtimeNode, client: Client, match: ChannelMatch[ChannelRule], request: c.Publish, command: c.Command
) -> c.Result:
    """
    Publish what a client sent, if it may, as a backend may have changed it.
    """
    rule = match.rule
    decider = rule.publish
    assert decider is not None, "looked at before"
    data = request.data
    facts: dict[str, Any] = {}
    if not decider.plain:
        facts = channel_facts(client, match, data if decider.roots or decider.asks else None)
        facts["command"] = command_facts(client, command.id, data)
    decider.allow(facts, anonymous=client.identity is None)
    if decider.asks:
        answer = await decider.ask(facts, data, client.identity, node.trace(command))
        if decider.data:
            changed = field_of(answer, decider.data)
            if changed:
                data = changed
    subscription = client.subscriptions.get(match.name)
    chan_info = subscription.info.chan_info if subscription is not None and subscription.info is not None else b""
    trace = command.span.place if command.span is not None else None
    await node.publish(match, data, info=client.info(chan_info), trace=trace)
    return c.Done(c.Publish)


async def _presence(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    match = _present(node, client, command.request)
    return c.PresenceTold(await node.presence.members(match.name))


async def _presence_stats(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    match = _present(node, client, command.request)
    occupancy = await node.presence.occupancy(match.name)
    return c.PresenceStatsTold(occupancy.clients, occupancy.users)


def _present(node: RealtimeNode, client: Client, request: c.Request) -> ChannelMatch[ChannelRule]:
    assert isinstance(request, (c.Presence, c.PresenceStats))
    match = matched(node, request.channel)
    if not match.rule.presence:
        raise ClientError(ErrorCode.NOT_AVAILABLE)
    _subscribed(client, request.channel)
    return match


async def _history(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    request = command.request
    assert isinstance(request, c.HistoryAsked)
    match = matched(node, request.channel)
    if match.rule.history is None:
        raise ClientError(ErrorCode.NOT_AVAILABLE)
    _subscribed(client, request.channel)
    limit = MOST_HISTORY if request.limit < 0 else min(request.limit, MOST_HISTORY)
    history = await node.broker.history(
        match.name,
        since=request.since,
        limit=limit,
        reverse=request.reverse,
        keep_s=match.rule.history.history_ttl_s,
    )
    if request.since is not None and request.since.epoch and request.since.epoch != history.position.epoch:
        raise ClientError(ErrorCode.UNRECOVERABLE_POSITION)
    return c.HistoryTold(history.publications, history.position)


def _rpc(node: RealtimeNode, client: Client, command: c.Command) -> c.Result | Coroutine[Any, Any, c.Result]:
    request = command.request
    assert isinstance(request, c.Rpc)
    method = node.rules.method(request.method)
    if method is None:
        raise ClientError(ErrorCode.METHOD_NOT_FOUND)
    if method.echo and method.plain:
        method.allow({}, anonymous=client.identity is None)
        return c.RpcDone(request.data)
    return call_method(node, client, method, request, command)


def _send(node: RealtimeNode, client: Client, command: c.Command) -> Coroutine[Any, Any, None] | None:
    request = command.request
    assert isinstance(request, c.Send)
    method = node.rules.method("send")
    if method is None:
        answered(client, command, "unheard")
        return None
    return _sent(node, client, request, command)


async def _sent(node: RealtimeNode, client: Client, request: c.Send, command: c.Command) -> None:
    method = node.rules.method("send")
    if method is not None and not method.echo:
        await call_method(node, client, method, c.Rpc("send", request.data), command)


async def _refresh(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    request = command.request
    assert isinstance(request, c.Refresh)
    return await node.identities.refresh(client, request.token)


async def _sub_refresh(node: RealtimeNode, client: Client, command: c.Command) -> c.Result:
    request = command.request
    assert isinstance(request, c.SubRefresh)
    return await refresh_subscription(node, _subscribed(client, request.channel), request.token)


HANDLERS: Final[Mapping[type, Handler]] = {
    c.Subscribe: _subscribe,
    c.Unsubscribe: _unsubscribe,
    c.Publish: _publish,
    c.Presence: _presence,
    c.PresenceStats: _presence_stats,
    c.HistoryAsked: _history,
    c.Rpc: _rpc,
    c.Send: _send,
    c.Ping: lambda *_: c.Done(c.Ping),
    c.Refresh: _refresh,
    c.SubRefresh: _sub_refresh,
}
