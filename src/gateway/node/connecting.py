"""
Letting a client in: who it is, which session it goes on with, what it is subscribed to by us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.config.expressions import Denied
from gateway.core import commands as c
from gateway.core.identity import Identity
from gateway.core.verdicts import ClientError, CloseReason, Refused
from gateway.node.rulebook import encoded, json_of
from gateway.node.standing import withdraw
from gateway.node.subscribing import make, matched
from gateway.node.subscription import Subscription

if TYPE_CHECKING:
    from gateway.node.client import Client
    from gateway.node.realtime import RealtimeNode

__all__ = ["connect"]

MOST_DEVICE = 128
"""Longest ``data.device``; a longer one is none."""

MOST_VERSION = 64


async def connect(node: RealtimeNode, client: Client, command: c.Command) -> None:
    """
    Connect, reply, and deliver to its server-side subscriptions from then on.

    Raises:
        ClientError: it may try again, on the same connection.
        Refused: it is closed.
    """
    asked = command.request
    assert isinstance(asked, c.Connect)
    if node.rates.failures:
        blocked = node.rates.blocked(client.opening.address)
        if blocked is not None:
            raise node.rates.refusal(client, blocked.refused[0][1].retry_after_s)
    identity = await _identity(node, client, asked)
    if client.closing is not None:
        return
    client.id = node.new_id()
    client.name, client.version = asked.name[:64], asked.version[:64]
    client.identified(identity, identity.claims if identity is not None else dict(client.settings.anonymous_claims))
    if node.rates.connects:
        waiting = node.rates.connect(client)
        if waiting is not None:
            await waiting
            if client.closing is not None:
                return
    if identity is not None and not node.has_room(client.user):
        raise Refused(CloseReason.CONNECTION_LIMIT.closing)
    node.holders.put(client)
    client.device = _device(client, identity, asked)
    client.conn_info = _info(client)
    node.count_user(client)
    try:
        await _let_in(node, client, command, asked)
    except BaseException:
        # It is nobody until it tries again.
        withdraw(node, client)
        client.session = None
        node.opening[client] = None
        raise


async def _let_in(node: RealtimeNode, client: Client, command: c.Command, asked: c.Connect) -> None:
    welcome = await _vetoed(node, client, command, asked)
    if client.closing is not None:
        return
    session, goes_on = await node.sessions.open(client.id, client.user, client.device, _session_facts(client, command))
    client.session = session
    if client.transport.kind != "websocket":
        node.streaming[session.id] = client
    client.forget_facts()
    try:
        made = await _server_side(node, client, command, asked, welcome.get("channels") or ())
        subs = {channel: finish() for channel, finish in made.items()} if client.closing is None else {}
    except BaseException:
        node.spawn("session.give_up", node.sessions.give_up(session, goes_on=goes_on))
        raise
    if client.closing is not None:
        await node.sessions.give_up(session, goes_on=goes_on)
        return
    data = welcome.get("data")
    client.connected()
    client.answer(
        command,
        c.Connected(
            client=client.id,
            version=node.version,
            expires=bool(client.expires_at),
            ttl_s=max(1, int(client.expires_at - node.wall())) if client.expires_at else 0,
            data=encoded(data) if data is not None else b"",
            subs=subs,
            ping_s=round(client.settings.ping_s),
            pong=True,
            session=session.id,
            node=node.instance,
        ),
    )
    client.flush()
    for channel in subs:
        node.stands(client.subscriptions[channel])


async def _identity(node: RealtimeNode, client: Client, asked: c.Connect) -> Identity | None:
    opened = client.opening.identity
    if asked.token and "command" in client.settings.credentials:
        identity = await node.identities.verify_or_close(asked.token, client.opening.address)
        if opened is not None and opened.subject != identity.subject:
            raise Refused(CloseReason.INVALID_TOKEN.closing)
        return identity
    if opened is not None:
        # It was verified before the upgrade; it may have been revoked or have ended since.
        if not node.identities.holds(opened):
            raise Refused(CloseReason.INVALID_TOKEN.closing)
        return opened
    if client.settings.anonymous:
        return None
    node.identities.refused("missing")
    raise Refused(CloseReason.INVALID_TOKEN.closing)


def _device(client: Client, identity: Identity | None, asked: c.Connect) -> str:
    """What makes it one device: the token's ``sid``, by option what it says of itself, else the connection."""
    if identity is not None and identity.session_id:
        return identity.session_id
    if identity is not None and client.settings.device == "data":
        device = _said(asked, "device", MOST_DEVICE)
        if device:
            return "data:" + device
    return client.id


def _said(asked: c.Connect, name: str, most: int) -> str:
    """Read a text that a client says of itself in its data; empty if it is none, or too long."""
    data = json_of(asked.data) if asked.data else None
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, str) and len(value) <= most else ""


def _info(client: Client) -> bytes:
    expression = client.node.conn_info(client.settings)
    if expression is None:
        return b""
    try:
        return encoded(expression.value(client.facts()))
    except Denied:
        return b""


def _session_facts(client: Client, command: c.Command) -> dict[str, Any]:
    opening, asked = client.opening, command.request
    facts = {
        "client": client.id,
        "address": opening.address,
        "user_agent": opening.user_agent,
        "name": client.name,
        "version": client.version,
        "transport": client.transport.kind,
    }
    assert isinstance(asked, c.Connect)
    more = {
        "app_version": opening.headers.get("x-app-version", "")[:MOST_VERSION]
        or _said(asked, "app_version", MOST_VERSION),
        "country": opening.country,
    }
    if command.span is not None and command.span.place.sampled:
        more["trace"] = command.span.place.header().decode("ascii")
    return facts | {name: value for name, value in more.items() if value}


async def _vetoed(node: RealtimeNode, client: Client, command: c.Command, asked: c.Connect) -> Mapping[str, Any]:
    """Ask ``on_connect``; what it answers may hold ``data`` for the client and ``channels`` to subscribe it to."""
    hook = node.on_connect
    if hook is None:
        return {}
    body = {
        "id": node.new_id(),
        "client": client.id,
        "user": client.user,
        "device": client.device,
        "name": client.name,
        "version": client.version,
        "data": json_of(asked.data),
    }
    facts = {**client.facts(), "command": {"id": body["id"], "kind": "on_connect"}, "data": body["data"] or {}}
    try:
        answer = json_of(await hook.ask(facts, encoded(body), client.identity, node.trace(command)))
    except ClientError as error:
        if error.temporary:
            raise
        raise Refused(CloseReason.PERMISSION_DENIED.closing) from error
    return answer if isinstance(answer, dict) else {}


async def _server_side(
    node: RealtimeNode, client: Client, command: c.Command, asked: c.Connect, more: Any
) -> dict[str, Any]:
    """Make the subscriptions that every such connection has, from where it stood before if it says so."""
    names: dict[str, bool] = {}
    for personal in node.rules.personal:
        name = personal.name(client.facts())
        if name is not None and (client.identity is not None or personal.pattern == name):
            names[name] = False
    if isinstance(more, (list, tuple)):
        names.update({name: True for name in more if isinstance(name, str)})
    made = {}
    for name, allowed in names.items():
        before = asked.subs.get(name)
        wanted = before if before is not None else c.Subscribe(name, join_leave=True)
        try:
            match = matched(node, name)
            subscription = client.subscriptions[name] = Subscription(client, match, server_side=True)
            made[name] = await make(node, subscription, wanted, allowed=allowed, command=command)
        except ClientError as error:
            found = client.subscriptions.get(name)
            if found is not None:
                node.leave(found)
            if error.temporary:
                raise
    return made
