"""
The Centrifuge client protocol in JSON: one object a line.

Decoded by msgspec into structs that mirror the protocol's messages; payloads (``data``) stay the
JSON text they are. Encoded by hand where it is hot, since a push is a template around bytes
that are JSON already. Source: the protocol's published definitions and its "client protocol" page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from gateway.core import commands as c
from gateway.core.publications import ClientInfo, Position, Publication
from gateway.core.verdicts import ClientError
from gateway.ports.dialect import BadFrame

__all__ = ["CentrifugeJson"]

MAX_COMMANDS = 256
"""Most commands in one frame; an SDK batches far fewer."""


class _Position(Struct):
    offset: int = 0
    epoch: str = ""


class _Subscribe(Struct):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: Raw = field(default_factory=Raw)
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class _Connect(Struct):
    token: str = ""
    data: Raw = field(default_factory=Raw)
    subs: dict[str, _Subscribe] = field(default_factory=dict)
    name: str = ""
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class _Channel(Struct):
    channel: str = ""


class _Publish(Struct):
    channel: str = ""
    data: Raw = field(default_factory=Raw)


class _History(Struct):
    channel: str = ""
    limit: int = 0
    since: _Position | None = None
    reverse: bool = False


class _Rpc(Struct):
    method: str = ""
    data: Raw = field(default_factory=Raw)


class _Send(Struct):
    data: Raw = field(default_factory=Raw)


class _Token(Struct):
    token: str = ""


class _SubToken(Struct):
    channel: str = ""
    token: str = ""


class _Empty(Struct):
    pass


class _Command(Struct):
    id: int = 0
    connect: _Connect | UnsetType = UNSET
    subscribe: _Subscribe | UnsetType = UNSET
    unsubscribe: _Channel | UnsetType = UNSET
    publish: _Publish | UnsetType = UNSET
    presence: _Channel | UnsetType = UNSET
    presence_stats: _Channel | UnsetType = UNSET
    history: _History | UnsetType = UNSET
    ping: _Empty | UnsetType = UNSET
    send: _Send | UnsetType = UNSET
    rpc: _Rpc | UnsetType = UNSET
    refresh: _Token | UnsetType = UNSET
    sub_refresh: _SubToken | UnsetType = UNSET


def _subscribe(asked: _Subscribe, channel: str = "") -> c.Subscribe:
    return c.Subscribe(
        channel or asked.channel,
        asked.token,
        asked.recover,
        Position(asked.offset, asked.epoch),
        bytes(asked.data),
        asked.positioned,
        asked.recoverable,
        asked.join_leave,
    )


def _request(command: _Command) -> c.Request:
    # The hottest first; of several the first one counts, as the protocol says.
    if (rpc := command.rpc) is not UNSET:
        return c.Rpc(rpc.method, bytes(rpc.data))
    if (publish := command.publish) is not UNSET:
        return c.Publish(publish.channel, bytes(publish.data))
    if (subscribe := command.subscribe) is not UNSET:
        return _subscribe(subscribe)
    if (unsubscribe := command.unsubscribe) is not UNSET:
        return c.Unsubscribe(unsubscribe.channel)
    if (connect := command.connect) is not UNSET:
        subs = {channel: _subscribe(asked, channel) for channel, asked in connect.subs.items()}
        return c.Connect(connect.token, bytes(connect.data), subs, connect.name, connect.version, connect.headers)
    if (presence := command.presence) is not UNSET:
        return c.Presence(presence.channel)
    if (stats := command.presence_stats) is not UNSET:
        return c.PresenceStats(stats.channel)
    if (history := command.history) is not UNSET:
        since = history.since
        position = Position(since.offset, since.epoch) if since is not None else None
        return c.HistoryAsked(history.channel, history.limit, position, history.reverse)
    if (send := command.send) is not UNSET:
        return c.Send(bytes(send.data))
    if (refresh := command.refresh) is not UNSET:
        return c.Refresh(refresh.token)
    if (sub_refresh := command.sub_refresh) is not UNSET:
        return c.SubRefresh(sub_refresh.channel, sub_refresh.token)
    if command.ping is not UNSET or command.id == 0:
        return c.Ping()  # An empty object is the answer to the server's ping.
    raise BadFrame("a command without a request")


_text = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Command)

_DONE = {
    c.Unsubscribe: b"unsubscribe",
    c.Publish: b"publish",
    c.Ping: b"ping",
}


def _info(info: ClientInfo) -> dict[str, Any]:
    told: dict[str, Any] = {"user": info.user, "client": info.client}
    if info.conn_info:
        told["conn_info"] = Raw(info.conn_info)
    if info.chan_info:
        told["chan_info"] = Raw(info.chan_info)
    return told


def _publication(publication: Publication) -> dict[str, Any]:
    told: dict[str, Any] = {"data": Raw(publication.data or b"null")}
    if publication.info is not None:
        told["info"] = _info(publication.info)
    if publication.offset:
        told["offset"] = publication.offset
    if publication.tags:
        told["tags"] = publication.tags
    if publication.time_ms:
        told["time"] = publication.time_ms
    if publication.version:
        told["version"] = publication.version
    return told


def _subscribed(result: c.Subscribed) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if result.expires:
        told["expires"] = True
        told["ttl"] = result.ttl_s
    if result.recoverable:
        told["recoverable"] = True
    if result.positioned:
        told["positioned"] = True
    if result.position.epoch:
        told["epoch"] = result.position.epoch
    if result.position.offset:
        told["offset"] = result.position.offset
    if result.publications:
        told["publications"] = [_publication(publication) for publication in result.publications]
    if result.recovered:
        told["recovered"] = True
    if result.was_recovering:
        told["was_recovering"] = True
    if result.data:
        told["data"] = Raw(result.data)
    return told


def _connected(result: c.Connected) -> dict[str, Any]:
    told: dict[str, Any] = {"client": result.client, "version": result.version}
    if result.expires:
        told["expires"] = True
        told["ttl"] = result.ttl_s
    if result.data:
        told["data"] = Raw(result.data)
    if result.subs:
        told["subs"] = {channel: _subscribed(subscribed) for channel, subscribed in result.subs.items()}
    if result.ping_s:
        told["ping"] = result.ping_s
    if result.pong:
        told["pong"] = True
    if result.session:
        told["session"] = result.session
    if result.node:
        told["node"] = result.node
    return told


def _refreshed(result: c.Refreshed) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if not result.channel:
        told["client"] = result.client
        told["version"] = result.version
    if result.expires:
        told["expires"] = True
        told["ttl"] = result.ttl_s
    return told


def _history(result: c.HistoryTold) -> dict[str, Any]:
    return {
        "publications": [_publication(publication) for publication in result.publications],
        "epoch": result.position.epoch,
        "offset": result.position.offset,
    }


class CentrifugeJson:
    """
    The JSON form (``ports.dialect.Dialect``).
    """

    name = "centrifuge-json"
    subprotocol = "centrifuge-json"
    binary = False

    def commands(self, frame: bytes) -> list[c.Command]:
        """
        Read the commands of a frame, one a line; empty lines are passed over.
        """
        try:
            if not frame.isascii():
                frame.decode()  # Data is passed on unread, and a binary frame may hold anything.
            decoded = _decode.decode_lines(frame) if b"\n" in frame else [_decode.decode(frame)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFrame(str(error)) from error
        if len(decoded) > MAX_COMMANDS:
            raise BadFrame(f"{len(decoded)} commands in one frame")
        return [c.Command(command.id, _request(command)) for command in decoded]

    def reply(self, id_: int, result: c.Result) -> bytes:
        """
        Encode a reply; an RPC's data is put in as it is.
        """
        if type(result) is c.RpcDone:
            return b'{"id":%d,"rpc":{"data":%b}}' % (id_, result.data or b"null")
        if type(result) is c.Done:
            return b'{"id":%d,"%b":{}}' % (id_, _DONE[result.request])
        if type(result) is c.Subscribed:
            return b'{"id":%d,"subscribe":%b}' % (id_, _text(_subscribed(result)))
        if type(result) is c.Connected:
            return b'{"id":%d,"connect":%b}' % (id_, _text(_connected(result)))
        if type(result) is c.PresenceTold:
            told = {client: _info(info) for client, info in result.presence.items()}
            return b'{"id":%d,"presence":{"presence":%b}}' % (id_, _text(told))
        if type(result) is c.PresenceStatsTold:
            return b'{"id":%d,"presence_stats":{"num_clients":%d,"num_users":%d}}' % (id_, result.clients, result.users)
        if type(result) is c.HistoryTold:
            return b'{"id":%d,"history":%b}' % (id_, _text(_history(result)))
        if type(result) is c.Refreshed:
            key = b"sub_refresh" if result.channel else b"refresh"
            return b'{"id":%d,"%b":%b}' % (id_, key, _text(_refreshed(result)))
        raise TypeError(type(result).__name__)

    def error(self, id_: int, error: ClientError) -> bytes:
        """
        Encode a failure.
        """
        told: dict[str, Any] = {"code": error.code, "message": error.text}
        if error.temporary:
            told["temporary"] = True
        return b'{"id":%d,"error":%b}' % (id_, _text(told))

    def publication(self, channel: str, publication: Publication) -> bytes:
        """
        Encode a push; the plain case is one formatting of bytes.
        """
        if publication.info is None and not publication.tags and not publication.time_ms and not publication.version:
            data = publication.data or b"null"
            if publication.offset:
                return b'{"push":{"channel":%b,"pub":{"data":%b,"offset":%d}}}' % (
                    _text(channel),
                    data,
                    publication.offset,
                )
            return b'{"push":{"channel":%b,"pub":{"data":%b}}}' % (_text(channel), data)
        return b'{"push":{"channel":%b,"pub":%b}}' % (_text(channel), _text(_publication(publication)))

    def join(self, channel: str, info: ClientInfo) -> bytes:
        """
        Encode that somebody came.
        """
        return _push(channel, b"join", {"info": _info(info)})

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        """
        Encode that somebody went.
        """
        return _push(channel, b"leave", {"info": _info(info)})

    def subscribed(
        self, channel: str, position: Position, *, recoverable: bool, positioned: bool, data: bytes
    ) -> bytes:
        """
        Encode that the server subscribed the client.
        """
        told: dict[str, Any] = {}
        if recoverable:
            told["recoverable"] = True
        if position.epoch:
            told["epoch"] = position.epoch
        if position.offset:
            told["offset"] = position.offset
        if positioned:
            told["positioned"] = True
        if data:
            told["data"] = Raw(data)
        return _push(channel, b"subscribe", told)

    def unsubscribed(self, channel: str, code: int, reason: str) -> bytes:
        """
        Encode that the server ended a subscription.
        """
        return _push(channel, b"unsubscribe", {"code": code, "reason": reason})

    def message(self, data: bytes) -> bytes:
        """
        Encode a message to this client alone.
        """
        return b'{"push":{"message":{"data":%b}}}' % (data or b"null")

    def refresh(self, *, expires: bool, ttl_s: int) -> bytes:
        """
        Encode a new lifetime.
        """
        told = {"expires": True, "ttl": ttl_s} if expires else {}
        return b'{"push":{"refresh":%b}}' % _text(told)

    def disconnect(self, code: int, reason: str, *, reconnect: bool) -> bytes:
        """
        Encode a close, for transports without close codes.
        """
        told: dict[str, Any] = {"code": code, "reason": reason}
        if reconnect:
            told["reconnect"] = True
        return b'{"push":{"disconnect":%b}}' % _text(told)

    def ping(self) -> bytes:
        """
        Encode the server's ping.
        """
        return b"{}"

    def batch(self, messages: Iterable[bytes]) -> bytes:
        """
        Join messages, one a line.
        """
        return b"\n".join(messages)


def _push(channel: str, kind: bytes, told: dict[str, Any]) -> bytes:
    return b'{"push":{"channel":%b,"%b":%b}}' % (_text(channel), kind, _text(told))
