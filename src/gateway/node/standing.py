"""
The two moments of a subscription: it stands from here on, and it is let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.node.sessions import Place
from gateway.node.subscription import Subscription
from gateway.node.telling import tell

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["let_go", "stand"]


def stand(node: RealtimeNode, subscription: Subscription) -> None:
    """
    Deliver to a subscription whose reply was sent.
    """
    client, room = subscription.client, subscription.room
    assert room is not None, "entered before"
    subscription.live = True
    node.hub.live(room, subscription)
    if subscription.expires_at:
        node.watch(client, client.next_due(node.seconds()))
    tell(node, "on_subscribe", client, {"channel": room.name}, subscription.match)


def let_go(node: RealtimeNode, subscription: Subscription) -> Place | None:
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
        tell(node, "on_unsubscribe", client, {"channel": match.name}, match)
    if not subscription.present or subscription.info is None:
        return None
    subscription.present = False
    return Place(match.name, subscription.info, match.rule.join_leave)
