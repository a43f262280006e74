"""
The Centrifuge client protocol in Protobuf: messages preceded by their length as a varint.

Source: the protocol's published definitions; ours are in ``protos/gateway/wire/centrifuge.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from google.protobuf.message import DecodeError

from gateway.core import commands as c
from gateway.core.publications import ClientInfo, Position, Publication
from gateway.core.verdicts import ClientError
from gateway.ports.dialect import BadFrame
from gateway.protos.gateway.wire import centrifuge_pb2 as pb

__all__ = ["CentrifugeProtobuf", "delimited", "split"]

MAX_COMMANDS = 256
_decode = msgspec.json.Decoder().decode
_SEVEN_BITS = 0x7F
_MORE = 0x80
_LONGEST_VARINT = 5


def delimited(message: bytes) -> bytes:
    """
    Put the length of *message* in front of it.
    """
    size = len(message)
    if size <= _SEVEN_BITS:
        return bytes((size,)) + message
    length = bytearray()
    while size > _SEVEN_BITS:
        length.append(size & _SEVEN_BITS | _MORE)
        size >>= 7
    length.append(size)
    return bytes(length) + message


def split(frame: bytes) -> list[bytes]:
    """
    Take the messages of *frame* apart.

    Raises:
        BadFrame: a length is missing, too long, or says more than there is.
    """
    messages: list[bytes] = []
    at, end = 0, len(frame)
    while at < end:
        size = shift = 0
        while True:
            if at >= end or shift >= 7 * _LONGEST_VARINT:
                raise BadFrame("a message without its length")
            byte = frame[at]
            at += 1
            size |= (byte & _SEVEN_BITS) << shift
            if byte <= _SEVEN_BITS:
                break
            shift += 7
        if size > end - at:
            raise BadFrame("a message shorter than its length")
        messages.append(frame[at : at + size])
        at += size
        if len(messages) > MAX_COMMANDS:
            raise BadFrame("too many commands in one frame")
    return messages


def _json(data: bytes) -> bytes:
    """Let only JSON pass: what one client sends, others are sent within JSON."""
    if data:
        try:
            _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"data that is not JSON: {error}") from error
    return data


def _subscribe(asked: pb.SubscribeRequest, channel: str = "") -> c.Subscribe:
    return c.Subscribe(
        channel or asked.channel,
        asked.token,
        asked.recover,
        Position(asked.offset, asked.epoch),
        _json(asked.data),
        asked.positioned,
        asked.recoverable,
        asked.join_leave,
    )


def _connect(asked: pb.ConnectRequest) -> c.Connect:
    subs = {channel: _subscribe(sub, channel) for channel, sub in asked.subs.items()}
    return c.Connect(asked.token, _json(asked.data), subs, asked.name, asked.version, dict(asked.headers))


def _history_asked(asked: pb.HistoryRequest) -> c.HistoryAsked:
    since = Position(asked.since.offset, asked.since.epoch) if asked.HasField("since") else None
    return c.HistoryAsked(asked.channel, asked.limit, since, asked.reverse)


def _request(command: pb.Command) -> c.Request:
    has = command.HasField
    # The hottest first; of several the first one counts, as the protocol says.
    if has("rpc"):
        return c.Rpc(command.rpc.method, _json(command.rpc.data))
    if has("publish"):
        return c.Publish(command.publish.channel, _json(command.publish.data))
    if has("subscribe"):
        return _subscribe(command.subscribe)
    if has("unsubscribe"):
        return c.Unsubscribe(command.unsubscribe.channel)
    if has("connect"):
        return _connect(command.connect)
    if has("presence"):
        return c.Presence(command.presence.channel)
    if has("presence_stats"):
        return c.PresenceStats(command.presence_stats.channel)
    if has("history"):
        return _history_asked(command.history)
    if has("send"):
        return c.Send(_json(command.send.data))
    if has("refresh"):
        return c.Refresh(command.refresh.token)
    if has("sub_refresh"):
        return c.SubRefresh(command.sub_refresh.channel, command.sub_refresh.token)
    if has("ping") or command.id == 0:
        return c.Ping()  # An empty command is the answer to the server's ping.
    raise BadFrame("a command without a request")


def _info(info: ClientInfo) -> pb.ClientInfo:
    return pb.ClientInfo(user=info.user, client=info.client, conn_info=info.conn_info, chan_info=info.chan_info)


def _publication(publication: Publication) -> pb.Publication:
    told = pb.Publication(
        data=publication.data,
        offset=publication.offset,
        time=publication.time_ms,
        version=publication.version,
        tags=publication.tags,
    )
    if publication.info is not None:
        told.info.CopyFrom(_info(publication.info))
    return told


def _subscribed(result: c.Subscribed) -> pb.SubscribeResult:
    return pb.SubscribeResult(
        expires=result.expires,
        ttl=result.ttl_s,
        recoverable=result.recoverable,
        positioned=result.positioned,
        epoch=result.position.epoch,
        offset=result.position.offset,
        publications=[_publication(publication) for publication in result.publications],
        recovered=result.recovered,
        was_recovering=result.was_recovering,
        data=result.data,
    )


def _connected(result: c.Connected) -> pb.ConnectResult:
    return pb.ConnectResult(
        client=result.client,
        version=result.version,
        expires=result.expires,
        ttl=result.ttl_s,
        data=result.data,
        subs={channel: _subscribed(subscribed) for channel, subscribed in result.subs.items()},
        ping=result.ping_s,
        pong=result.pong,
        session=result.session,
        node=result.node,
    )


_DONE: dict[type[c.Request], Callable[[int], pb.Reply]] = {
    c.Unsubscribe: lambda id_: pb.Reply(id=id_, unsubscribe=pb.UnsubscribeResult()),
    c.Publish: lambda id_: pb.Reply(id=id_, publish=pb.PublishResult()),
    c.Ping: lambda id_: pb.Reply(id=id_, ping=pb.PingResult()),
}
_PING = delimited(b"")


def _reply(reply: pb.Reply) -> bytes:
    return delimited(reply.SerializeToString())


def _push(push: pb.Push) -> bytes:
    return delimited(pb.Reply(push=push).SerializeToString())


class CentrifugeProtobuf:
    """
    The Protobuf form (``ports.dialect.Dialect``).
    """

    name = "centrifuge-protobuf"
    subprotocol = "centrifuge-protobuf"
    binary = True

    def commands(self, frame: bytes) -> list[c.Command]:
        """
        Read the commands of a frame.
        """
        try:
            decoded = [pb.Command.FromString(message) for message in split(frame)]
        except DecodeError as error:
            raise BadFrame(str(error)) from error
        return [c.Command(command.id, _request(command)) for command in decoded]

    def reply(self, id_: int, result: c.Result) -> bytes:
        """
        Encode a reply.
        """
        match result:
            case c.RpcDone():
                return _reply(pb.Reply(id=id_, rpc=pb.RPCResult(data=result.data)))
            case c.Done():
                return _reply(_DONE[result.request](id_))
            case c.Subscribed():
                return _reply(pb.Reply(id=id_, subscribe=_subscribed(result)))
            case c.Connected():
                return _reply(pb.Reply(id=id_, connect=_connected(result)))
            case c.PresenceTold():
                told = {client: _info(info) for client, info in result.presence.items()}
                return _reply(pb.Reply(id=id_, presence=pb.PresenceResult(presence=told)))
            case c.PresenceStatsTold():
                stats = pb.PresenceStatsResult(num_clients=result.clients, num_users=result.users)
                return _reply(pb.Reply(id=id_, presence_stats=stats))
            case c.HistoryTold():
                history = pb.HistoryResult(
                    publications=[_publication(publication) for publication in result.publications],
                    epoch=result.position.epoch,
                    offset=result.position.offset,
                )
                return _reply(pb.Reply(id=id_, history=history))
            case c.Refreshed(channel=""):
                refreshed = pb.RefreshResult(
                    client=result.client, version=result.version, expires=result.expires, ttl=result.ttl_s
                )
                return _reply(pb.Reply(id=id_, refresh=refreshed))
            case c.Refreshed():
                sub = pb.SubRefreshResult(expires=result.expires, ttl=result.ttl_s)
                return _reply(pb.Reply(id=id_, sub_refresh=sub))

    def error(self, id_: int, error: ClientError) -> bytes:
        """
        Encode a failure.
        """
        told = pb.Error(code=error.code, message=error.text, temporary=error.temporary)
        return _reply(pb.Reply(id=id_, error=told))

    def publication(self, channel: str, publication: Publication) -> bytes:
        """
        Encode a push.
        """
        return _push(pb.Push(channel=channel, pub=_publication(publication)))

    def join(self, channel: str, info: ClientInfo) -> bytes:
        """
        Encode that somebody came.
        """
        return _push(pb.Push(channel=channel, join=pb.Join(info=_info(info))))

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        """
        Encode that somebody went.
        """
        return _push(pb.Push(channel=channel, leave=pb.Leave(info=_info(info))))

    def subscribed(
        self, channel: str, position: Position, *, recoverable: bool, positioned: bool, data: bytes
    ) -> bytes:
        """
        Encode that the server subscribed the client.
        """
        told = pb.Subscribe(
            recoverable=recoverable,
            positioned=positioned,
            epoch=position.epoch,
            offset=position.offset,
            data=data,
        )
        return _push(pb.Push(channel=channel, subscribe=told))

    def unsubscribed(self, channel: str, code: int, reason: str) -> bytes:
        """
        Encode that the server ended a subscription.
        """
        return _push(pb.Push(channel=channel, unsubscribe=pb.Unsubscribe(code=code, reason=reason)))

    def message(self, data: bytes) -> bytes:
        """
        Encode a message to this client alone.
        """
        return _push(pb.Push(message=pb.Message(data=data)))

    def refresh(self, *, expires: bool, ttl_s: int) -> bytes:
        """
        Encode a new lifetime.
        """
        return _push(pb.Push(refresh=pb.Refresh(expires=expires, ttl=ttl_s)))

    def disconnect(self, code: int, reason: str, *, reconnect: bool) -> bytes:
        """
        Encode a close, for transports without close codes.
        """
        return _push(pb.Push(disconnect=pb.Disconnect(code=code, reason=reason, reconnect=reconnect)))

    def ping(self) -> bytes:
        """
        Encode the server's ping.
        """
        return _PING

    def batch(self, messages: Iterable[bytes]) -> bytes:
        """
        Join messages; each already says its length.
        """
        return b"".join(messages)
