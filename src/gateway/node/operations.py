"""
What backends and operators do with channels and clients, whichever way they ask.

Each operation takes an order (``node.orders``) and gives plain values; HTTP and gRPC are two ways to
write the same down. Nothing here asks the rules of clients: whoever has the key is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from gateway.core import commands as c
from gateway.core.publications import Position, PublishOptions
from gateway.core.verdicts import ClientError, CloseReason, Closing, ErrorCode, UnsubscribeReason
from gateway.node import orders as o
from gateway.node import results
from gateway.node.api_keys import Key
from gateway.node.client import Client, State
from gateway.node.results import Result
from gateway.node.subscribing import make, matched
from gateway.node.subscription import Subscription
from gateway.ports.realtime import StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["Operations"]

MOST_CHANNELS = 10_000
"""Of one broadcast."""

MOST_COMMANDS = 1000
"""Of one batch."""

_CODES: Final = range(3000, 5000)
"""What a WebSocket may be closed with by an application (RFC 6455, section 7.4.2)."""

LONGEST_S = 10 * 365 * 86400.0
"""Of a refresh; clients are told seconds in 32 bits."""

Reaches = Callable[[str], bool]


def _any(_channel: str) -> bool:
    return True


class Operations:
    """
    The operations of one instance.
    """

    def __init__(self, node: RealtimeNode) -> None:
        self._node = node
        self._started_at = node.wall()
        self._does: dict[str, Callable[[Any], Coroutine[Any, Any, Result]]] = {
            "publish": self.publish,
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "disconnect": self.disconnect,
            "refresh": self.refresh,
            "presence": self.presence,
            "presence_stats": self.presence_stats,
            "history": self.history,
            "history_remove": self.history_remove,
            "info": self.info,
        }

    async def do(self, name: str, data: bytes, key: Key) -> Result:
        """
        Do operation *name* with parameters in JSON.

        Args:
            key: Of whoever asks: what it may do, in which channels.

        Raises:
            ClientError: it cannot be done; the code says why.
        """
        order = o.read(name, data)
        if isinstance(order, o.Batch):
            return await self._batch(order, key)
        scope = o.ORDERS[name][1]
        if not key.allows(scope):
            raise ClientError(ErrorCode.PERMISSION_DENIED, f"the key lacks the scope {scope!r}")
        try:
            if isinstance(order, o.Broadcast):
                return await self.broadcast(order, key.reaches)
            if isinstance(order, o.Channels):
                return await self.channels(order, key.reaches)
            if isinstance(order, o.Connections):
                return await self.connections(order, key.reaches)
            _reached(getattr(order, "channel", None), key.reaches)
            return await self._does[name](order)
        except StoreUnavailable as error:
            raise _unavailable() from error

    async def _batch(self, order: o.Batch, key: Key) -> Result:
        if len(order.commands) > MOST_COMMANDS:
            raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {MOST_COMMANDS} commands")
        replies: list[Result] = []
        for command in order.commands:
            try:
                if len(command) != 1:
                    # Its own error and not the batch's: what came before it was done.
                    raise ClientError(ErrorCode.BAD_REQUEST, 'a command has one member: {"publish": {...}}')
                ((name, data),) = command.items()
                if name == "batch":
                    raise ClientError(ErrorCode.BAD_REQUEST, "a batch holds no batches")
                replies.append({name: await self.do(name, bytes(data), key)})
            except ClientError as error:
                replies.append(results.failed(error))
        return {"replies": replies}

    # Channels.

    async def publish(self, order: o.Publish) -> Result:
        """
        Publish; ``offset`` and ``epoch`` say where it stands.

        Raises:
            ClientError: ``UNKNOWN_CHANNEL``, ``LIMIT_EXCEEDED`` (too large), ``BAD_REQUEST``.
        """
        return await self._publish(order.channel, o.payload(order, wanted=True), order)

    async def broadcast(self, order: o.Broadcast, reaches: Reaches = _any) -> Result:
        """
        Publish into each channel; each has its own result or error.
        """
        if len(order.channels) > MOST_CHANNELS:
            raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {MOST_CHANNELS} channels")
        data = o.payload(order, wanted=True)
        responses: list[Result] = []
        for channel in order.channels:
            try:
                _reached(channel, reaches)
                responses.append({"result": await self._publish(channel, data, order)})
            except ClientError as error:
                responses.append(results.failed(error))
            except StoreUnavailable:
                responses.append(results.failed(_unavailable()))
        return {"responses": responses}

    async def _publish(self, channel: str, data: bytes, order: o.Publish | o.Broadcast) -> Result:
        if order.delta:
            raise ClientError(ErrorCode.NOT_AVAILABLE, "delta compression is not available")
        match = matched(self._node, channel)
        rule = match.rule
        if len(data) > rule.max_message_bytes:
            raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {rule.max_message_bytes} bytes in this channel")
        kept = rule.options
        options = PublishOptions(
            0 if order.skip_history else kept.history_size,
            kept.history_ttl_s,
            order.idempotency_key,
            order.version,
            order.version_epoch,
            kept.timed,
        )
        published = await self._node.publish(match, data, tags=order.tags or None, options=options)
        return results.place(published.position)

    async def presence(self, order: o.OfChannel) -> Result:
        """
        Who is there, by connection.
        """
        self._with_presence(order.channel)
        members = await self._node.presence.members(order.channel)
        return {"presence": {client: results.info(info) for client, info in members.items()}}

    async def presence_stats(self, order: o.OfChannel) -> Result:
        """
        How many are there.
        """
        self._with_presence(order.channel)
        occupancy = await self._node.presence.occupancy(order.channel)
        return {"num_clients": occupancy.clients, "num_users": occupancy.users}

    def _with_presence(self, channel: str) -> None:
        if not matched(self._node, channel).rule.presence:
            raise ClientError(ErrorCode.NOT_AVAILABLE, "the channel has no presence")

    async def history(self, order: o.History) -> Result:
        """
        Read a stream.

        Raises:
            ClientError: ``NOT_AVAILABLE``; ``UNRECOVERABLE_POSITION`` (*since* is of another epoch).
        """
        match = self._with_history(order.channel)
        since = Position(order.since.offset, order.since.epoch) if order.since is not None else None
        history = await self._node.broker.history(
            order.channel,
            since=since,
            limit=order.limit,
            reverse=order.reverse,
            keep_s=match.rule.options.history_ttl_s,
        )
        if since is not None and since.epoch and since.epoch != history.position.epoch:
            raise ClientError(ErrorCode.UNRECOVERABLE_POSITION)
        return {
            "publications": [results.publication(publication) for publication in history.publications],
            **results.place(history.position),
        }

    async def history_remove(self, order: o.OfChannel) -> Result:
        """
        Forget a stream's publications.
        """
        self._with_history(order.channel)
        await self._node.broker.remove_history(order.channel)
        return {}

    def _with_history(self, channel: str) -> Any:
        match = matched(self._node, channel)
        if match.rule.history is None:
            raise ClientError(ErrorCode.NOT_AVAILABLE, "the channel has no history")
        return match

    async def channels(self, order: o.Channels, reaches: Reaches = _any) -> Result:
        """
        Which channels somebody listens to, on any instance, with the subscriptions of this one.
        """
        rooms = self._node.hub.rooms
        found: Result = {}
        for name, instances in (await self._node.broker.channels(order.pattern)).items():
            room = rooms.get(name)
            here = room.size if room is not None else 0
            # A channel is heard for a while after its last listener has gone.
            elsewhere = instances > (room is not None and room.heard)
            if (here or elsewhere) and reaches(name):
                found[name] = {"num_clients": here}
        return {"channels": found}

    # Clients.

    def _clients(self, order: Any) -> Iterable[Client]:
        """The connections that are meant: all of a user, or one of them."""
        for client in list(self._node.users.get(order.user, ())):
            if client.state is not State.CONNECTED:
                continue
            session = client.session.id if client.session is not None else ""
            if (not order.client or client.id == order.client) and (not order.session or session == order.session):
                yield client

    async def subscribe(self, order: o.Subscribe) -> Result:
        """
        Subscribe connections by the server; those that have the channel already keep it as it is.
        """
        match = matched(self._node, order.channel)
        data, info = o.payload(order), o.payload(order, "info")
        for client in self._clients(order):
            if order.channel in client.subscriptions:
                continue
            if len(client.subscriptions) >= client.settings.max_channels:
                raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {client.settings.max_channels} subscriptions")
            subscription = Subscription(client, match, server_side=True)
            client.subscriptions[order.channel] = subscription
            await self._stand(subscription, order, data, info)
        return {}

    async def _stand(self, subscription: Subscription, order: o.Subscribe, data: bytes, info: bytes) -> None:
        node, client = self._node, subscription.client
        since = order.recover_since
        asked = c.Subscribe(
            order.channel,
            recover=since is not None,
            since=Position(since.offset, since.epoch) if since is not None else Position(),
        )
        try:
            made = (await make(node, subscription, asked, allowed=True, chan_info=info))()
        except BaseException:
            node.leave(subscription)
            raise
        if client.closing is not None:
            return
        dialect = client.transport.form.dialect
        client.send(
            dialect.subscribed(
                order.channel,
                made.position,
                recoverable=made.recoverable,
                positioned=made.positioned,
                data=data or made.data,
            )
        )
        # The push has no place for what was missed; it follows as if it came now.
        for publication in made.publications:
            client.send(dialect.publication(order.channel, publication))
        client.flush()
        node.stands(subscription)

    async def unsubscribe(self, order: o.Unsubscribe) -> Result:
        """
        End subscriptions; the clients are told, and do not subscribe again by themselves.
        """
        reason = UnsubscribeReason.SERVER
        for client in self._clients(order):
            subscription = client.subscriptions.get(order.channel)
            if subscription is not None:
                self._node.unsubscribe(subscription, reason.code, reason.text)
        return {}

    async def disconnect(self, order: o.Disconnect) -> Result:
        """
        Close connections with a code; see ``core.verdicts.reconnects`` for what clients do next.
        """
        reason = order.disconnect or o.Reason()
        if reason.code not in _CODES:
            raise ClientError(ErrorCode.BAD_REQUEST, "a close code is from 3000 to 4999")
        for client in self._clients(order):
            if client.id not in order.whitelist:
                client.close(Closing(reason.code, reason.reason))
        return {}

    async def refresh(self, order: o.Refresh) -> Result:
        """
        Extend connections, or end them as expired.
        """
        node = self._node
        now = node.wall()
        if not order.expired and order.expire_at and order.expire_at <= now:
            raise ClientError(ErrorCode.BAD_REQUEST, "expire_at has passed; to end the connections say expired")
        if order.expire_at > now + LONGEST_S:
            raise ClientError(ErrorCode.BAD_REQUEST, "expire_at is more than ten years away; 0 is never")
        for client in self._clients(order):
            if order.expired:
                client.close(CloseReason.EXPIRED.closing)
                continue
            client.expires_at = order.expire_at
            node.watch(client, client.next_due(node.seconds()))
            ttl_s = max(1, int(order.expire_at - now)) if order.expire_at else 0
            client.send(client.transport.form.dialect.refresh(expires=bool(order.expire_at), ttl_s=ttl_s))
        return {}

    async def connections(self, order: o.Connections, reaches: Reaches = _any) -> Result:
        """
        The connections of a user on this instance.
        """
        found = {}
        for client in list(self._node.users.get(order.user, ())):
            if client.state is State.CONNECTED:
                found[client.id] = {
                    **results.connection(client),
                    "channels": sorted(name for name in client.subscriptions if reaches(name)),
                }
        return {"connections": found}

    async def info(self, _order: o.Info) -> Result:
        """
        Describe this instance.
        """
        node = self._node
        hub = node.hub.describe()
        return {
            "nodes": [
                {
                    "uid": node.instance,
                    "name": node.instance,
                    "version": node.version,
                    "num_clients": len(node.clients),
                    "num_users": len(node.users),
                    "num_subs": hub["subscriptions"],
                    "num_channels": hub["channels"],
                    "uptime": int(node.wall() - self._started_at),
                }
            ]
        }


def _reached(channel: str | None, reaches: Reaches) -> None:
    if channel is not None and not reaches(channel):
        raise ClientError(ErrorCode.PERMISSION_DENIED, "the key's channels are others")


def _unavailable() -> ClientError:
    return ClientError(ErrorCode.INTERNAL, "a store cannot be asked now", temporary=True)
