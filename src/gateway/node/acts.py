"""
What an instance does with its own clients, and tells of them, for whoever asks: a backend here, or another instance.

Each act is a value that travels between instances as it is. Members that a newer release adds are left out by an
older one, so a release may add some with a default, and change none.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from gateway.core import commands as c
from gateway.core.publications import Position
from gateway.core.verdicts import ClientError, CloseReason, Closing, ErrorCode, UnsubscribeReason
from gateway.node import results
from gateway.node.client import Client, State
from gateway.node.subscribing import make, matched
from gateway.node.subscription import Subscription

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = [
    "ACTS",
    "Act",
    "Acts",
    "Connections",
    "Disconnect",
    "Info",
    "Limits",
    "Listeners",
    "Refresh",
    "Subscribe",
    "Unsubscribe",
]


class Act(Struct, kw_only=True, frozen=True):
    """
    One thing to do or to tell.
    """


class Whom(Act, kw_only=True, frozen=True):
    """
    The connections that are meant: all of a user, or one of them, or those of a session.
    """

    user: str
    client: str = ""
    session: str = ""


class Subscribe(Whom, kw_only=True, frozen=True):
    """Subscribe to *channel*, with JSON for the client (*data*) and for others (*info*), from a position."""

    channel: str
    data: bytes = b""
    info: bytes = b""
    since: tuple[int, str] | None = None


class Unsubscribe(Whom, kw_only=True, frozen=True):
    """End subscriptions to *channel*."""

    channel: str


class Disconnect(Whom, kw_only=True, frozen=True):
    """Close connections, but those in *spared*, with a code."""

    code: int
    reason: str
    spared: frozenset[str] = frozenset()


class Refresh(Whom, kw_only=True, frozen=True):
    """Let connections go on until *expire_at* (epoch seconds; 0: for ever), or end them as *expired*."""

    expired: bool = False
    expire_at: float = 0.0


class Connections(Act, kw_only=True, frozen=True):
    """Describe a user's connections."""

    user: str


class Listeners(Act, kw_only=True, frozen=True):
    """Count subscriptions by channel, of those that match the glob *pattern* if there is one."""

    pattern: str = ""


class Limits(Act, kw_only=True, frozen=True):
    """Tell how the budgets of *who*, a user or an address, stand, or give them back whole."""

    who: str
    reset: bool = False


class Info(Act, kw_only=True, frozen=True):
    """Describe the instance."""


ACTS: Final[dict[str, type[Act]]] = {
    kind.__name__.lower(): kind
    for kind in (Subscribe, Unsubscribe, Disconnect, Refresh, Connections, Listeners, Limits, Info)
}
"""By the name under which they travel."""


class Acts:
    """
    The acts of one instance.
    """

    def __init__(self, node: RealtimeNode) -> None:
        self._node = node
        self._started_at = node.wall()
        self._does: dict[type[Act], Callable[[Any], Coroutine[Any, Any, Any]]] = {
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            Disconnect: self._disconnect,
            Refresh: self._refresh,
            Connections: self._connections,
            Listeners: self._listeners,
            Limits: self._limits,
            Info: self._info,
        }

    def also(self, kind: type[Act], do: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
        """
        Do acts of one more *kind* with *do*.
        """
        self._does[kind] = do

    async def do(self, act: Act) -> Any:
        """
        Do *act*; what it tells are plain values.

        Raises:
            ClientError, StoreUnavailable: it was not done, or not to all.
        """
        return await self._does[type(act)](act)

    def _clients(self, whom: Whom) -> Iterator[Client]:
        for client in list(self._node.users.get(whom.user, ())):
            if client.state is not State.CONNECTED:
                continue
            session = client.session.id if client.session is not None else ""
            if (not whom.client or client.id == whom.client) and (not whom.session or session == whom.session):
                yield client

    async def _subscribe(self, act: Subscribe) -> None:
        """Those that have the channel already keep it as it is."""
        node, channel = self._node, act.channel
        for client in self._clients(act):
            if channel in client.subscriptions:
                continue
            if len(client.subscriptions) >= client.settings.max_channels:
                raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {client.settings.max_channels} subscriptions")
            subscription = Subscription(client, matched(node, channel), server_side=True)
            client.subscriptions[channel] = subscription
            await self._stand(subscription, act)

    async def _stand(self, subscription: Subscription, act: Subscribe) -> None:
        node, client = self._node, subscription.client
        since = Position(*act.since) if act.since is not None else None
        asked = c.Subscribe(act.channel, recover=since is not None, since=since or Position())
        try:
            made = (await make(node, subscription, asked, allowed=True, chan_info=act.info))()
        except BaseException:
            node.leave(subscription)
            raise
        if client.closing is not None:
            return
        dialect = client.transport.form.dialect
        client.send(
            dialect.subscribed(
                act.channel,
                made.position,
                recoverable=made.recoverable,
                positioned=made.positioned,
                data=act.data or made.data,
            )
        )
        # The push has no place for what was missed; it follows as if it came now.
        for publication in made.publications:
            client.send(dialect.publication(act.channel, publication))
        client.flush()
        node.stands(subscription)

    async def _unsubscribe(self, act: Unsubscribe) -> None:
        reason = UnsubscribeReason.SERVER
        for client in self._clients(act):
            subscription = client.subscriptions.get(act.channel)
            if subscription is not None:
                self._node.unsubscribe(subscription, reason.code, reason.text)

    async def _disconnect(self, act: Disconnect) -> None:
        for client in self._clients(act):
            if client.id not in act.spared:
                client.close(Closing(act.code, act.reason))

    async def _refresh(self, act: Refresh) -> None:
        node = self._node
        for client in self._clients(act):
            if act.expired:
                client.close(CloseReason.EXPIRED.closing)
                continue
            client.expires_at = act.expire_at
            node.watch(client, client.next_due(node.seconds()))
            ttl_s = max(1, int(act.expire_at - node.wall())) if act.expire_at else 0
            client.send(client.transport.form.dialect.refresh(expires=bool(act.expire_at), ttl_s=ttl_s))

    async def _connections(self, act: Connections) -> dict[str, Any]:
        return {
            client.id: {**results.connection(client), "channels": sorted(client.subscriptions)}
            for client in self._node.users.get(act.user, ())
            if client.state is State.CONNECTED
        }

    async def _listeners(self, act: Listeners) -> dict[str, int]:
        pattern = act.pattern
        return {
            name: room.size
            for name, room in self._node.hub.rooms.items()
            if room.size and (not pattern or fnmatch.fnmatchcase(name, pattern))
        }

    async def _limits(self, act: Limits) -> dict[str, Any]:
        rates = self._node.rates
        if act.reset:
            return {"reset": await rates.reset(act.who)}
        return {"budgets": await rates.standing(act.who)}

    async def _info(self, _act: Info) -> dict[str, Any]:
        node = self._node
        hub = node.hub.describe()
        return {
            "uid": node.instance,
            "name": node.instance,
            "version": node.version,
            "num_clients": len(node.clients),
            "num_users": len(node.users),
            "num_subs": hub["subscriptions"],
            "num_channels": hub["channels"],
            "uptime": int(node.wall() - self._started_at),
        }
