"""
What backends and operators do with channels and clients, whichever way they ask.

Each operation takes an order (``node.orders``) and gives plain values; HTTP and gRPC are two ways to
write the same down. Nothing here asks the rules of clients: whoever has the key is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults

from gateway.core.publications import Position, PublishOptions
from gateway.core.trace import TraceContext
from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node import acts, results
from gateway.node import orders as o
from gateway.node.api_keys import Key
from gateway.node.cluster import Everywhere, unavailable
from gateway.node.realtime_spans import tell_operation
from gateway.node.results import Result
from gateway.node.subscribing import matched
from gateway.ports.realtime import StoreUnavailable

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["Operations"]

MOST_CHANNELS = 10_000
"""Of one broadcast."""

AT_ONCE = 100
"""Of them published at the same time."""

LEAST_WAIT_S = 0.01

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
    The operations, asked of one instance and done by all.
    """

    def __init__(self, node: RealtimeNode) -> None:
        self._node = node
        self._cluster = node.cluster
        self._does: dict[str, Callable[[Any], Coroutine[Any, Any, Result]]] = {
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

    async def do(
        self, name: str, data: bytes, key: Key, trace: TraceContext | None = None, *, over: str = "http"
    ) -> Result:
        """
        Do operation *name* with parameters in JSON.

        Args:
            key: Of whoever asks: what it may do, in which channels.
            trace: The asker's, which is continued: whoever has a key is believed.
            over: ``http`` or ``grpc``, for the span.

        Raises:
            ClientError: it cannot be done; the code says why.
        """
        node = self._node
        place = node.spans.child(trace) if trace is not None else node.spans.draw()
        if place is None or not place.sampled:
            return await self._do(name, data, key, place)
        began, outcome = node.seconds(), "failed"
        try:
            result = await self._do(name, data, key, place)
            outcome = "ok"
            return result
        except ClientError as error:
            outcome = str(error.code)
            raise
        finally:
            ended = node.seconds()
            tell_operation(node.spans, place, trace, began, ended, name=name, key=key.name, outcome=outcome, over=over)

    async def _do(self, name: str, data: bytes, key: Key, place: TraceContext | None) -> Result:
        order = o.read(name, data)
        if isinstance(order, o.Batch):
            return await self._batch(order, key, place)
        scope = o.ORDERS[name][1]
        if not key.allows(scope):
            raise ClientError(ErrorCode.PERMISSION_DENIED, f"the key lacks the scope {scope!r}")
        if self._node.rates.server_api:
            await self._node.rates.operation(key.name, name)
        try:
            if isinstance(order, o.Broadcast):
                return await self.broadcast(order, key.reaches, place)
            if isinstance(order, o.Channels):
                return await self.channels(order, key.reaches)
            if isinstance(order, o.Connections):
                return await self.connections(order, key.reaches)
            _reached(getattr(order, "channel", None), key.reaches)
            if isinstance(order, o.Publish):
                return await self.publish(order, place)
            return await self._does[name](order)
        except StoreUnavailable as error:
            raise unavailable() from error

    async def _batch(self, order: o.Batch, key: Key, place: TraceContext | None) -> Result:
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
                replies.append({name: await self._do(name, bytes(data), key, place)})
            except ClientError as error:
                replies.append(results.failed(error))
        return {"replies": replies}

    # Channels.

    async def publish(self, order: o.Publish, trace: TraceContext | None = None) -> Result:
        """
        Publish; ``offset`` and ``epoch`` say where it stands, ``replicas`` how many have it if it was waited for them.

        Raises:
            ClientError: ``UNKNOWN_CHANNEL``, ``LIMIT_EXCEEDED`` (too large), ``BAD_REQUEST``.
        """
        return await self._publish(order.channel, o.payload(order, wanted=True), order, order.wait_ms / 1000, trace)

    async def broadcast(self, order: o.Broadcast, reaches: Reaches = _any, trace: TraceContext | None = None) -> Result:
        """
        Publish into each channel; each has its own result or error.
        """
        if len(order.channels) > MOST_CHANNELS:
            raise ClientError(ErrorCode.LIMIT_EXCEEDED, f"at most {MOST_CHANNELS} channels")
        data = o.payload(order, wanted=True)
        ends_at = self._node.seconds() + order.wait_ms / 1000
        responses: list[Result] = []
        for first in range(0, len(order.channels), AT_ONCE):
            # What they wait for is one deadline for all of them.
            wait_s = max(LEAST_WAIT_S, ends_at - self._node.seconds())
            published = [
                Deferred.fromCoroutine(self._one(channel, data, order, wait_s, reaches, trace))
                for channel in order.channels[first : first + AT_ONCE]
            ]
            try:
                responses += await gatherResults(published, consumeErrors=True)
            except FirstError as error:
                error.subFailure.raiseException()
        return {"responses": responses}

    async def _one(
        self,
        channel: str,
        data: bytes,
        order: o.Broadcast,
        wait_s: float,
        reaches: Reaches,
        trace: TraceContext | None,
    ) -> Result:
        try:
            _reached(channel, reaches)
            return {"result": await self._publish(channel, data, order, wait_s, trace)}
        except ClientError as error:
            return results.failed(error)
        except StoreUnavailable:
            return results.failed(unavailable())

    async def _publish(
        self,
        channel: str,
        data: bytes,
        order: o.Publish | o.Broadcast,
        wait_s: float,
        trace: TraceContext | None,
    ) -> Result:
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
            order.wait_replicas,
            wait_s,
        )
        published = await self._node.publish(match, data, tags=order.tags or None, options=options, trace=trace)
        return results.published(published, asked=bool(order.wait_replicas))

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
        Which channels somebody listens to, with their subscriptions on all instances.
        """
        counts: dict[str, int] = {}
        told = await self._cluster.do(acts.Listeners(pattern=order.pattern))
        for channels in told.values.values():
            for name, number in channels.items():
                counts[name] = counts.get(name, 0) + number
        return _told({"channels": {name: {"num_clients": counts[name]} for name in counts if reaches(name)}}, told)

    # Clients, on whichever instance they are.

    async def subscribe(self, order: o.Subscribe) -> Result:
        """
        Subscribe connections by the server; those that have the channel already keep it as it is.
        """
        matched(self._node, order.channel)
        since = order.recover_since
        act = acts.Subscribe(
            user=order.user,
            client=order.client,
            session=order.session,
            channel=order.channel,
            data=o.payload(order),
            info=o.payload(order, "info"),
            since=(since.offset, since.epoch) if since is not None else None,
        )
        return _told({}, await self._cluster.do(act))

    async def unsubscribe(self, order: o.Unsubscribe) -> Result:
        """
        End subscriptions; the clients are told, and do not subscribe again by themselves.
        """
        act = acts.Unsubscribe(user=order.user, client=order.client, session=order.session, channel=order.channel)
        return _told({}, await self._cluster.do(act))

    async def disconnect(self, order: o.Disconnect) -> Result:
        """
        Close connections with a code; see ``core.verdicts.reconnects`` for what clients do next.
        """
        reason = order.disconnect or o.Reason()
        if reason.code not in _CODES:
            raise ClientError(ErrorCode.BAD_REQUEST, "a close code is from 3000 to 4999")
        act = acts.Disconnect(
            user=order.user,
            client=order.client,
            session=order.session,
            code=reason.code,
            reason=reason.reason,
            spared=frozenset(order.whitelist),
        )
        return _told({}, await self._cluster.do(act))

    async def refresh(self, order: o.Refresh) -> Result:
        """
        Extend connections, or end them as expired.
        """
        now = self._node.wall()
        if not order.expired and order.expire_at and order.expire_at <= now:
            raise ClientError(ErrorCode.BAD_REQUEST, "expire_at has passed; to end the connections say expired")
        if order.expire_at > now + LONGEST_S:
            raise ClientError(ErrorCode.BAD_REQUEST, "expire_at is more than ten years away; 0 is never")
        act = acts.Refresh(
            user=order.user,
            client=order.client,
            session=order.session,
            expired=order.expired,
            expire_at=order.expire_at,
        )
        return _told({}, await self._cluster.do(act))

    async def connections(self, order: o.Connections, reaches: Reaches = _any) -> Result:
        """
        The connections of a user.
        """
        told = await self._cluster.do(acts.Connections(user=order.user))
        found: Result = {}
        for connections in told.values.values():
            for client, connection in connections.items():
                channels = [name for name in connection["channels"] if reaches(name)]
                found[client] = {**connection, "channels": channels}
        return _told({"connections": found}, told)

    async def info(self, _order: o.Info) -> Result:
        """
        Describe every instance.
        """
        told = await self._cluster.do(acts.Info())
        return _told({"nodes": list(told.values.values())}, told)


def _told(result: Result, told: Everywhere) -> Result:
    """Say who did not answer, if somebody did not."""
    return {**result, "silent": list(told.silent)} if told.silent else result


def _reached(channel: str | None, reaches: Reaches) -> None:
    if channel is not None and not reaches(channel):
        raise ClientError(ErrorCode.PERMISSION_DENIED, "the key's channels are others")
