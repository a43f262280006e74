"""
Spans of real time: each command a short one of its own, linked to the connection's opening; publications and fan-out.

A connection has no span: one that lasts for an hour is told when nobody looks for it any more. Of a publication whose
trace is recorded each instance tells its fan-out, the larger the more seldom. By OpenTelemetry's conventions for
messaging (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/) and RPC where they have a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.core import commands as c
from gateway.core.publications import Publication
from gateway.core.trace import TraceContext, parse
from gateway.core.verdicts import ErrorCode
from gateway.node.orders import ORDERS
from gateway.telemetry.spans import CONSUMER, INTERNAL, PRODUCER, SERVER, Spans

if TYPE_CHECKING:
    from gateway.core.channels import ChannelMatch
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode
    from gateway.node.room import Room
    from gateway.node.rulebook import ChannelRule

__all__ = ["CommandSpan", "begun", "linked", "producing", "tell_deliveries", "tell_fact", "tell_operation"]

OFTEN: Final = 10
"""Subscribers up to whom every fan-out is told; of one to a hundred each tenth, of one to ten thousand each thousandth."""

SYSTEM: Final = "gateway"

_NAMES: Final = {
    c.Connect: "connect",
    c.Subscribe: "subscribe",
    c.Unsubscribe: "unsubscribe",
    c.Publish: "publish",
    c.Presence: "presence",
    c.PresenceStats: "presence_stats",
    c.HistoryAsked: "history",
    c.Rpc: "rpc",
    c.Send: "send",
    c.Ping: "ping",
    c.Refresh: "refresh",
    c.SubRefresh: "sub_refresh",
}
_OURS: Final = str(ErrorCode.INTERNAL.code)
"""The outcome of what failed behind the gateway, or in it."""

_decode: Final = msgspec.json.Decoder().decode
_Said = dict[str, str | int | bool | float]


def begun(client: Client, command: c.Command) -> c.Command:
    """
    Begin a command: with a span if its trace is recorded, which few are; as it is else.
    """
    spans, opening = client.node.spans, client.opening
    if opening.believed:
        given = _given(command.request)
        if given is not None:
            place = spans.child(given)
            return c.Command(command.id, command.request, CommandSpan(client, command, place, parent=given))
    if not spans.on:
        return command
    user = client.user or (opening.identity.subject if opening.identity is not None else "")
    drawn = spans.draw(user)
    return command if drawn is None else c.Command(command.id, command.request, CommandSpan(client, command, drawn))


class CommandSpan:
    """
    The span of a command under way.

    Attributes:
        place: Passed on to whoever is asked because of it.
    """

    __slots__ = ("_began", "_client", "_command", "_ended", "_parent", "place")

    def __init__(
        self, client: Client, command: c.Command, place: TraceContext, *, parent: TraceContext | None = None
    ) -> None:
        self._client = client
        self._command = command
        self._parent = parent
        self._began = client.node.seconds()
        self._ended = False
        self.place = place

    def end(self, outcome: str) -> None:
        """
        Tell it; the first end counts.

        Args:
            outcome: ``ok``, an error's code, or another word.
        """
        if self._ended:
            return
        self._ended = True
        client, request, spans = self._client, self._command.request, self._client.node.spans
        if not self.place.sampled:
            return
        kind = _NAMES[type(request)]
        said: _Said = {
            "gateway.command": kind,
            "gateway.client": client.id,
            "gateway.outcome": outcome,
            "client.address": client.opening.address,
            "network.protocol.name": client.transport.kind,
        }
        if client.user:
            said["user.id"] = client.user
        if client.session is not None:
            said["session.id"] = client.session.id
        name = f"{kind} {target}" if (target := _target(client, request, said)) else kind
        if outcome != "ok":
            said["error.type"] = outcome
        spans.tell(
            name,
            SERVER,
            self.place,
            self._began,
            client.node.seconds(),
            said,
            parent=self._parent,
            remote=True,
            links=linked(client, None if self._parent is not None else _given(request)),
            failed=outcome == _OURS,
        )


def linked(client: Client, given: TraceContext | None = None) -> Sequence[TraceContext]:
    """
    List what a span of *client* has to do with: its opening, and what it says itself.
    """
    return [link for link in (client.opening.trace, given) if link is not None]


def _target(client: Client, request: c.Request, said: _Said) -> str:
    """Name the method or the channel by its rule; what a client called it is said, and bounded."""
    rules = client.node.rules
    method = request.method if isinstance(request, c.Rpc) else "send" if isinstance(request, c.Send) else ""
    if method:
        rule = rules.method(method)
        said["rpc.system.name"] = SYSTEM
        said["rpc.method"] = method if rule is not None else "_OTHER"
        return rule.name if rule is not None and isinstance(request, c.Rpc) else ""
    channel = getattr(request, "channel", "")
    if not channel:
        return ""
    match = rules.channels.match(channel)
    said["messaging.system"] = SYSTEM
    said["messaging.destination.name"] = channel
    if match is None:
        return ""
    said["messaging.destination.template"] = match.rule.pattern
    return match.rule.pattern


def _given(request: c.Request) -> TraceContext | None:
    """Read the context that a client gave: in the headers of ``connect``, or as a member of the data of others."""
    if isinstance(request, c.Connect):
        text: Any = request.headers.get("traceparent", "")
    else:
        data = getattr(request, "data", b"")
        if b'"traceparent"' not in data:
            return None
        try:
            read = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        text = read.get("traceparent") if isinstance(read, dict) else None
    return parse(text.encode("ascii", "replace")) if isinstance(text, str) else None


# Publications.


def producing(
    node: RealtimeNode, match: ChannelMatch[ChannelRule], data: bytes, trace: TraceContext | None
) -> AbstractContextManager[str]:
    """
    Make what is around a publication below *trace*: it gives the ``traceparent`` that goes along, empty if that is not recorded.
    """
    return _Producing(node, match, data, trace) if trace is not None and trace.sampled else _UNRECORDED


_UNRECORDED: Final = nullcontext("")


class _Producing(AbstractContextManager[str]):
    __slots__ = ("_began", "_match", "_node", "_parent", "_place", "_size")

    def __init__(self, node: RealtimeNode, match: ChannelMatch[ChannelRule], data: bytes, parent: TraceContext) -> None:
        self._node = node
        self._match = match
        self._size = len(data)
        self._parent = parent
        self._place = node.spans.child(parent)
        self._began = node.seconds()

    def __enter__(self) -> str:
        return self._place.header().decode("ascii")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        node, pattern = self._node, self._match.rule.pattern
        said = _messaging(self._match.name, pattern, "publish", "send")
        said["messaging.message.body.size"] = self._size
        if kind is not None:
            said["error.type"] = kind.__name__
        node.spans.tell(
            f"publish {pattern}",
            PRODUCER,
            self._place,
            self._began,
            node.seconds(),
            said,
            parent=self._parent,
            failed=kind is not None,
        )


def tell_deliveries(spans: Spans, room: Room, publications: Sequence[Publication], began: float, ended: float) -> None:
    """
    Tell that those of *publications* that are recorded were given to everybody here; large fan-outs seldom.
    """
    for publication in publications:
        if not publication.trace or not spans.lucky(OFTEN / max(room.size, OFTEN)):
            continue
        parent = parse(publication.trace.encode("ascii"))
        if parent is None:
            continue
        said = _messaging(room.name, room.rule.pattern, "deliver", "process")
        said["messaging.batch.message_count"] = len(publications)
        said["gateway.deliveries"] = room.size
        place = spans.child(parent)
        spans.tell(f"deliver {room.rule.pattern}", CONSUMER, place, began, ended, said, parent=parent, remote=True)


def _messaging(channel: str, pattern: str, name: str, kind: str) -> _Said:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": channel,
        "messaging.destination.template": pattern,
    }


# What backends are told and order.


def tell_fact(
    spans: Spans, place: TraceContext, links: Sequence[TraceContext], began: float, ended: float, kind: str, lost: str
) -> None:
    """
    Tell that a backend was told of something, after however many attempts; *lost* says why it was not.
    """
    said: _Said = {"error.type": lost} if lost else {}
    spans.tell(kind, INTERNAL, place, began, ended, said, links=links, failed=bool(lost))


def tell_operation(
    spans: Spans,
    place: TraceContext,
    parent: TraceContext | None,
    began: float,
    ended: float,
    *,
    name: str,
    key: str,
    outcome: str,
    over: str,
) -> None:
    """
    Tell that somebody with a key ordered something.

    Args:
        outcome: ``ok``, or an error's code.
        over: ``http`` or ``grpc``.
    """
    said: _Said = {"gateway.key": key, "gateway.outcome": outcome}
    name = name if name in ORDERS else "_OTHER"
    if over == "grpc":
        title = "gateway.v1.GatewayApi/" + "".join(word.capitalize() for word in name.split("_"))
        said |= {"rpc.system.name": "grpc", "rpc.method": title, "rpc.response.status_code": "OK"}
    else:
        title = f"POST /api/{name}"
        said |= {"http.request.method": "POST", "http.route": f"/api/{name}", "http.response.status_code": 200}
    if outcome != "ok":
        said["error.type"] = outcome
    spans.tell(title, SERVER, place, began, ended, said, parent=parent, remote=True, failed=outcome == _OURS)
