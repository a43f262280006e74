"""
The two moments of a subscription: it stands from here on, and it is let go. And the last one of a client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.verdicts import CloseReason, Closing, cause_of, is_trouble
from gateway.node.presence import Place
from gateway.node.subscription import Subscription
from gateway.node.telling import end_of, tell
from gateway.ports.sessions import SessionRecord

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["gone", "leave", "stand", "withdraw"]


def stand(node: RealtimeNode, subscription: Subscription) -> None:
    """
    Deliver to a subscription whose reply was sent.
    """
    client, room = subscription.client, subscription.room
    assert room is not None, "entered before"
    subscription.live = True
    client.use.subscribed(subscription.match.rule.pattern)
    node.hub.live(room, subscription)
    if subscription.expires_at:
        node.watch(client, client.next_due(node.seconds()))
    tell(node, "on_subscribe", client, {"channel": room.name}, subscription.match)
    subscription.number = client.told
    node.leftovers.changed(client)


def _let_go(node: RealtimeNode, subscription: Subscription) -> Place | None:
    """
    Deliver to it no more; return the place it leaves in the channel's presence, if it had one.
    """
    client, match = subscription.client, subscription.match
    if client.subscriptions.get(match.name) is subscription:
        del client.subscriptions[match.name]
    room, subscription.room = subscription.room, None
    if room is not None:
        node.hub.leave(room, subscription)
    if subscription.live:
        subscription.live = False
        tell(node, "on_unsubscribe", client, {"channel": match.name}, match, end_of(client.id, subscription.number))
        node.leftovers.changed(client)
    place, subscription.place = subscription.place, None
    return place


def leave(node: RealtimeNode, subscription: Subscription, *, held: bool = False) -> None:
    """
    End a subscription without a word to its client.

    Args:
        held: It comes again at once, and its place is held for that.
    """
    # One that was being made may have taken a place that was held: then it is held again, for the next attempt.
    held = held or (not subscription.live and subscription.returns is not False)
    place = _let_go(node, subscription)
    if place is not None:
        node.spawn("presence.leave", node.presence.hold(place) if held else node.presence.leave(place))


def withdraw(node: RealtimeNode, client: Client) -> None:
    """
    Count a client no more as one that is let in, or about to be.
    """
    node.clients.pop(client.id, None)
    connections = node.users.get(client.user)
    if connections is not None:
        connections.pop(client, None)
        if not connections:
            del node.users[client.user]
    node.holders.drop(client)
    record = client.session
    if record is not None and node.streaming.get(record.id) is client:
        del node.streaming[record.id]


def gone(node: RealtimeNode, client: Client, closing: Closing, *, abnormal: bool, was_connected: bool) -> None:
    """
    Let a client go, whatever the cause: places, sessions, facts.
    """
    node.unwatch(client)
    withdraw(node, client)
    node.opening.pop(client, None)
    node.metrics.closed.inc(client.transport.kind, str(closing.code))
    if node.hub.taps.on is not None:
        node.hub.taps.closed(client, closing.code, closing.reason)
    record = client.session
    lost = abnormal and was_connected and record is not None
    for subscription in list(client.subscriptions.values()):
        place = _let_go(node, subscription)
        if place is not None:
            node.spawn("presence.leave", node.presence.hold(place) if lost else node.presence.leave(place))
    client.subscriptions.clear()
    if record is None or not was_connected:
        return
    record = replace(record, past=_past(client, record, closing, trouble=is_trouble(closing.code, abnormal=abnormal)))
    suspends = lost and node.sessions.window_s > 0
    told = {"code": closing.code, "reason": closing.reason, "resumable": suspends}
    tell(node, "on_disconnect", client, told, id_=end_of(client.id))
    if suspends:
        node.spawn("session.suspend", node.sessions.suspend(record))
    else:
        node.spawn("session.end", node.sessions.end(record, cause_of(closing.code, abnormal=abnormal)))


def _past(client: Client, record: SessionRecord, closing: Closing, *, trouble: bool) -> bytes:
    """What the session's connections did, up to the end of this one."""
    use, opening = client.use, client.opening
    use.code, use.late_s = closing.code, _late_s(client, closing)
    use.request_id = opening.request_id
    if opening.trace is not None:
        use.trace_id = opening.trace.trace_id
    if trouble:
        use.operations = tuple(client.recent())
    return use.after(record.past).encode()


def _late_s(client: Client, closing: Closing) -> float:
    """How long it may have been gone already when that was noticed."""
    settings = client.settings
    return settings.ping_s + settings.pong_timeout_s if closing.code == CloseReason.NO_PONG.code else 0.0
