"""
What an instance tells and does for those who look after it, beside what backends may ask (``node.acts``).

Answers are plain values, bounded in number. What needs to look at everything is done in pieces, so that no turn of
the reactor takes long.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.core.verdicts import ClientError, ErrorCode
from gateway.node import support_acts as a
from gateway.node.acts import Act
from gateway.node.busiest import Busiest
from gateway.node.client import Client, State
from gateway.node.pieces import PIECE, in_pieces

if TYPE_CHECKING:
    from gateway.node.realtime import RealtimeNode

__all__ = ["House", "Support"]

LIST_S: Final = 60.0
"""How long a list that is read page by page is kept."""

MOST_LISTS: Final = 4

MOST_CHANNELS: Final = 200
MOST_NAMES: Final = 50


@dataclass(frozen=True, slots=True)
class House:
    """
    What an instance has beside its node; the application hands it in.

    Attributes:
        upstreams: Each upstream and the state of its targets.
        eject: Leaves a target out: upstream, target, seconds. False if there is none of that name.
        restore: Uses it again.
        level: Shows log lines from this level on.
        config: The configuration in force without secrets, and what changed with the last reload.
        drain: Begins to end this instance.
    """

    upstreams: Callable[[], list[dict[str, Any]]]
    eject: Callable[[str, str, float], bool]
    restore: Callable[[str, str], bool]
    level: Callable[[str], None]
    config: Callable[[], dict[str, Any]]
    drain: Callable[[], None]


class Support:
    """
    The support of one instance: made before its node is heard by others.
    """

    def __init__(self, node: RealtimeNode, house: House) -> None:
        self._node = node
        self._house = house
        self._lists: dict[str, tuple[float, list[Client]]] = {}
        self._busiest = Busiest(node)
        does: dict[type[Act], Callable[[Any], Coroutine[Any, Any, Any]]] = {
            a.Sessions: self._sessions,
            a.Found: self._found,
            a.Room: self._room,
            a.Names: self._names,
            a.Top: self._busiest.top,
            a.Tail: self._tail,
            a.Mute: self._mute,
            a.Trace: self._trace,
            a.Upstreams: self._upstreams,
            a.Target: self._target,
            a.Level: self._level,
            a.Settings: self._settings,
            a.Drain: self._drain,
        }
        for kind, do in does.items():
            node.cluster.also(kind, do)

    # Who is here.

    async def _sessions(self, act: a.Sessions) -> dict[str, Any]:
        if act.user:
            some = [each for each in self._node.users.get(act.user, ()) if each.state is State.CONNECTED]
            return {"rows": [self._row(client) for client in some[: act.limit]], "next": ""}
        name, at = self._list_of(act)
        _, clients = self._lists[name]
        end = at + min(act.limit, PIECE)
        rows = [self._row(client) for client in clients[at:end] if client.state is State.CONNECTED]
        if end >= len(clients):
            del self._lists[name]
            return {"rows": rows, "next": ""}
        return {"rows": rows, "next": f"{name}:{end}"}

    def _list_of(self, act: a.Sessions) -> tuple[str, int]:
        """What is read page by page stays what it was at the first one."""
        now = self._node.seconds()
        self._lists = {name: each for name, each in self._lists.items() if each[0] > now}
        if act.cursor:
            name, _, at = act.cursor.partition(":")
            if name not in self._lists or not at.isdecimal():
                raise ClientError(ErrorCode.NOT_AVAILABLE, "the list has been put away; begin again")
            position = int(at)
        else:
            if len(self._lists) >= MOST_LISTS:
                del self._lists[min(self._lists, key=lambda name: self._lists[name][0])]
            name, position = self._node.new_id()[:12], 0
            self._lists[name] = (now, list(self._node.clients.values()))
        self._lists[name] = (now + LIST_S, self._lists[name][1])
        return name, position

    def _row(self, client: Client) -> dict[str, Any]:
        session = client.session
        return {
            "client": client.id,
            "user": client.user,
            "session": session.id if session is not None else "",
            "device": client.device,
            "address": client.opening.address,
            "transport": client.transport.kind,
            "app": f"{client.name} {client.version}".strip(),
            "for_s": round(self._node.seconds() - client.arrived_at, 1),
            "channels": len(client.subscriptions),
            "waiting_bytes": client.outbox.bytes,
        }

    async def _found(self, act: a.Found) -> dict[str, Any] | None:
        client = self._node.clients.get(act.id)
        if client is None:
            async for piece in in_pieces(self._node.clock, list(self._node.clients.values())):
                for each in piece:
                    if each.session is not None and each.session.id == act.id:
                        return self._described(each)
        return None if client is None else self._described(client)

    def _described(self, client: Client) -> dict[str, Any]:
        node, identity, record, use = self._node, client.identity, client.session, client.use
        muted_s = node.rates.muted.left_s(client.user)
        facts: dict[str, Any] = {
            **self._row(client),
            "dialect": "protobuf" if client.transport.form.dialect.binary else "json",
            "token_id": identity.token_id if identity is not None else None,
            "issuer": identity.issuer if identity is not None else None,
            "token_ends_in_s": round(client.expires_at - node.wall(), 1) if client.expires_at else None,
            "resumes": record.resumes if record is not None else 0,
            "session_began": record.started_at if record is not None else None,
            "blocked": client.transport.blocked,
            "outbox_limit_bytes": client.outbox.limit,
            "dropped": dict(itertools.islice(client.outbox.dropped.items(), MOST_NAMES)),
            "muted_s": round(muted_s, 1),
        }
        if use is not None:
            facts |= {
                "frames_in": use.frames_in,
                "frames_out": use.frames_out,
                "bytes_in": use.bytes_in,
                "bytes_out": use.bytes_out,
            }
        facts["recent"] = client.recent()
        facts["subscriptions"] = [
            {
                "channel": name,
                "live": subscription.live,
                "by": "server" if subscription.server_side else "client",
                "offset": subscription.room.offset if subscription.room is not None else 0,
                "epoch": subscription.room.epoch if subscription.room is not None else "",
            }
            for name, subscription in itertools.islice(client.subscriptions.items(), MOST_CHANNELS)
        ]
        return facts

    # Channels and names.

    async def _room(self, act: a.Room) -> dict[str, Any] | None:
        room = self._node.hub.rooms.get(act.channel)
        if room is None:
            return None
        clients = [subscription.client for subscription in itertools.islice(room, act.limit)]
        now = self._node.seconds()
        return {
            "pattern": room.rule.pattern,
            "subscriptions": room.size,
            "joining": len(room.joining),
            "offset": room.offset,
            "epoch": room.epoch,
            "mending": room.mended is not None,
            "quiet_s": round(now - room.last_at, 1) if room.last_at > 0 else None,
            "published": max((group.frames for group in room.groups.values()), default=0),
            "behind": sum(len(group.queued) for group in room.groups.values()),
            "clients": [{"client": each.id, "user": each.user, "waiting_bytes": each.outbox.bytes} for each in clients],
        }

    async def _names(self, act: a.Names) -> list[str]:
        node = self._node
        kinds: dict[str, Mapping[str, Any]] = {"user": node.users, "channel": node.hub.rooms, "client": node.clients}
        known = kinds.get(act.kind, {})
        if act.kind == "upstream":
            known = {each["upstream"]: None for each in self._house.upstreams()}
        elif act.kind == "target":
            known = {target["target"]: None for each in self._house.upstreams() for target in each["targets"]}
        found: list[str] = []
        async for piece in in_pieces(node.clock, list(known)):
            found += [name for name in piece if name.startswith(act.prefix)]
            if len(found) >= MOST_NAMES:
                break
        return sorted(found[:MOST_NAMES])

    # What goes on.

    async def _tail(self, act: a.Tail) -> dict[str, Any]:
        heard, last, left_out = self._node.hub.taps.look(act.kind, act.name, act.since)
        ago_s = self._node.wall() - self._node.seconds()
        return {
            "heard": [[each.at + ago_s, each.what, each.who, each.detail] for each in heard],
            "last": last,
            "left_out": left_out,
        }

    async def _mute(self, act: a.Mute) -> bool:
        return self._node.rates.muted.mute(act.user, act.for_s)

    async def _trace(self, act: a.Trace) -> dict[str, Any]:
        spans = self._node.spans
        if act.for_s > 0:
            done = spans.sampling.choose(act.user, act.for_s)
        else:
            done = spans.sampling.let_go(act.user)
        return {"on": spans.on, "done": done}

    # What it has beside its node.

    async def _upstreams(self, _: a.Upstreams) -> list[dict[str, Any]]:
        return self._house.upstreams()

    async def _target(self, act: a.Target) -> bool:
        if act.for_s > 0:
            return self._house.eject(act.upstream, act.target, act.for_s)
        return self._house.restore(act.upstream, act.target)

    async def _level(self, act: a.Level) -> None:
        self._house.level(act.level)

    async def _settings(self, _: a.Settings) -> dict[str, Any]:
        return self._house.config()

    async def _drain(self, act: a.Drain) -> bool:
        if act.instance == self._node.instance:
            # Whoever asked is answered first.
            self._node.clock.callLater(0.1, self._house.drain)
            return True
        return False
