"""
Verbs that look, and change nothing.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Final

import msgspec

from gateway.console.told import Refusal, Table, Told
from gateway.console.verb import Asked, Face
from gateway.core.verdicts import ClientError
from gateway.node import acts
from gateway.node import support_acts as a
from gateway.node.cluster import Everywhere
from gateway.ports.realtime import StoreUnavailable

__all__ = ["channel", "config", "events", "instances", "limits", "session", "tail", "top", "upstreams", "who"]

PAGE: Final = 25
"""Connections that are asked of an instance at once: a millisecond of work there and here."""

PAGE_OF_DATA: Final = 100
"""The same where they are asked for over the admin port: what is not laid out as text costs less, and each page is a command."""

MOST_OF_USER: Final = 200

AGAIN_S: Final = 2.0
TAIL_S: Final = 1.0

_WHO: Final = ["user", "session", "address", "transport", "app", "for_s", "channels", "waiting_bytes"]


class _Cursor(msgspec.Struct, array_like=True):
    """
    Where a list of all connections goes on: the instances that are left, and the place in the first of them.
    """

    left: list[str]
    place: str = ""


async def who(face: Face, asked: Asked) -> Told:
    """
    Connections of a user, or all of them, page by page.
    """
    user = asked["user"]
    if user:
        told = await face.node.cluster.do(a.Sessions(user=user, limit=MOST_OF_USER))
        rows = [
            [instance, *(row[name] for name in _WHO)] for instance, some in told.values.items() for row in some["rows"]
        ]
        answer = Told(tables=[Table(["instance", *_WHO], rows)] if rows else [], silent=list(told.silent))
        answer.facts = {"user": user, "connections": len(rows)}
        if len(rows) >= MOST_OF_USER:
            answer.notes.append(f"only the first {MOST_OF_USER} of each instance")
        return answer
    if not asked.next:
        told = await face.node.cluster.do(acts.Info())
        everybody = _Cursor(list(told.values))
        answer = await _page(face, asked, everybody)
        answer.silent = sorted({*answer.silent, *told.silent})
        answer.facts = {"connections": sum(info["num_clients"] for info in told.values.values())}
        return answer
    return await _page(face, asked, _read(asked.next, _Cursor))


async def _page(face: Face, asked: Asked, cursor: _Cursor) -> Told:
    limit = PAGE_OF_DATA if asked["caller"].over == "ctl" else PAGE
    rows: list[list[Any]] = []
    silent: list[str] = []
    while cursor.left and not rows:
        instance = cursor.left[0]
        try:
            page = await face.node.cluster.of(instance, a.Sessions(cursor=cursor.place, limit=limit))
        except ClientError:
            silent.append(instance)
            page = {"rows": [], "next": ""}
        rows = [[instance, *(row[name] for name in _WHO)] for row in page["rows"]]
        cursor.place = page["next"]
        if not cursor.place:
            cursor.left.pop(0)
    more = _written(cursor) if cursor.left else ""
    return Told(tables=[Table(["instance", *_WHO], rows)] if rows else [], silent=silent, next=more)


async def session(face: Face, asked: Asked) -> Told:
    """
    Everything about a session, by its id or its connection's.
    """
    told = await face.node.cluster.do(a.Found(id=asked["id"]))
    for instance, found in told.values.items():
        if found is None:
            continue
        subscriptions, recent = found.pop("subscriptions"), found.pop("recent")
        columns = ["channel", "live", "by", "offset", "epoch"]
        rows = [[each[name] for name in columns] for each in subscriptions]
        facts = {"instance": instance, **{name: value for name, value in found.items() if value is not None}}
        tables = [
            Table(columns, rows, "subscriptions"),
            Table(["what"], [[each] for each in recent], "what it did last, with the seconds since it came"),
        ]
        return Told(facts=facts, tables=tables, silent=list(told.silent))
    record = await _record(face, asked["id"])
    if record is not None:
        return Told(facts=record, notes=["it has no connection now"], silent=list(told.silent))
    raise Refusal("failed", f"there is no session or connection {asked['id'][:64]!r}{_but(told)}")


async def _record(face: Face, session: str) -> dict[str, Any] | None:
    """A session that is suspended, as it is stored."""
    try:
        record = await face.sessions.get(session)
    except (StoreUnavailable, ValueError):
        return None
    if record is None:
        return None
    return {
        "session": record.id,
        "user": record.user,
        "device": record.device,
        "instance": record.instance,
        "client": record.client,
        "session_began": record.started_at,
        "seen": record.seen_at,
        "cause": record.cause or "open",
        "resumes": record.resumes,
    }


async def channel(face: Face, asked: Asked) -> Told:
    """
    A channel: who is there, where it stands.
    """
    name = asked["channel"]
    told = await face.node.cluster.do(a.Room(channel=name))
    columns = ["pattern", "subscriptions", "offset", "epoch", "published", "quiet_s", "joining", "mending", "behind"]
    here = {instance: room for instance, room in told.values.items() if room is not None}
    rows = [[instance, *(room[column] for column in columns)] for instance, room in here.items()]
    facts: dict[str, Any] = {"channel": name, "subscriptions": sum(room["subscriptions"] for room in here.values())}
    answer = Told(facts=facts, silent=list(told.silent))
    match = face.node.rules.channels.match(name)
    if match is None:
        answer.notes.append("no pattern of the configuration has this channel")
    else:
        facts["pattern"] = match.rule.pattern
        if match.rule.history is not None:
            history = await face.node.broker.history(name, limit=0, keep_s=match.rule.options.history_ttl_s)
            facts |= {"offset": history.position.offset, "epoch": history.position.epoch}
        if match.rule.presence:
            occupancy = await face.node.presence.occupancy(name)
            facts |= {"present_clients": occupancy.clients, "present_users": occupancy.users}
    if rows:
        answer.tables.append(Table(["instance", *columns], rows, "instances"))
        some = [
            [instance, each["user"], each["client"], each["waiting_bytes"]]
            for instance, room in here.items()
            for each in room["clients"]
        ]
        answer.tables.append(Table(["instance", "user", "client", "waiting_bytes"], some, "some who listen"))
    else:
        answer.notes.append("nobody listens")
    return answer


async def top(face: Face, asked: Asked) -> Told:
    """
    What is busiest.
    """
    count = asked["count"]
    told = await face.node.cluster.do(a.Top(count=min(100, 2 * count)))
    tables = []
    for kind, name, sums in (
        ("channels", "channel", ("deliveries", "rate", "subscriptions")),
        ("users", "user", ("frames", "connections")),
        ("addresses", "address", ("connections",)),
    ):
        merged: dict[str, dict[str, Any]] = {}
        for answer in told.values.values():
            for each in answer[kind]:
                known = merged.setdefault(each[name], dict.fromkeys(sums, 0))
                for column in sums:
                    # The same publications come to each instance; those who listen are others.
                    value = each[column]
                    known[column] = max(known[column], value) if column == "rate" else round(known[column] + value, 2)
        best = sorted(merged.items(), key=lambda item: (*(-item[1][column] for column in sums), item[0]))
        rows = [[each, *(values[column] for column in sums)] for each, values in best[:count]]
        per_s = [f"{column}/s" if column in ("deliveries", "rate", "frames") else column for column in sums]
        tables.append(Table([name, *per_s], rows, kind))
    return Told(tables=tables, silent=list(told.silent), next="again", again_s=AGAIN_S)


async def tail(face: Face, asked: Asked) -> Told:
    """
    What a user, channel or route does, as it happens.
    """
    since: dict[str, int] = _read(asked.next, dict[str, int]) if asked.next else {}
    first = not asked.next
    everywhere = [*since] if not first else None
    kind, name = asked["kind"], asked["name"]
    told = await face.node.cluster.do(a.Tail(kind=kind, name=name, since=min(since.values(), default=0)))
    rows: list[list[Any]] = []
    notes: list[str] = []
    for instance, each in told.values.items():
        seen = since.get(instance, 0)
        fresh = each["last"] - seen
        heard = each["heard"][-fresh:] if fresh > 0 else []
        since[instance] = each["last"]
        if first or (everywhere is not None and instance not in everywhere):
            continue  # What others asked to hear is theirs.
        rows += [[at, instance, what, user, detail] for at, what, user, detail in heard]
        if each["left_out"]:
            notes.append(f"{instance}: {each['left_out']} left out, more than are shown of a second")
    if first:
        notes.append("payloads are not shown; Ctrl-C ends it")
    rows.sort(key=lambda row: float(row[0]))
    tables = [Table(["at", "instance", "what", "user", "detail"], rows)] if rows else []
    return Told(tables=tables, notes=notes, silent=list(told.silent), next=_written(since), again_s=TAIL_S)


async def limits(face: Face, asked: Asked) -> Told:
    """
    How the budgets of a user or an address stand.
    """
    told = await face.node.cluster.do(acts.Limits(who=asked["who"]))
    columns = ["policy", "remaining", "most", "retry_after_s", "full_after_s", "store", "blocked_s"]
    rows = [
        [instance, *(budget[column] for column in columns)]
        for instance, answer in told.values.items()
        for budget in answer["budgets"]
    ]
    muted = face.node.rates.muted.left_s(asked["who"])
    facts: dict[str, Any] = {"who": asked["who"]}
    if muted:
        facts["muted_s"] = round(muted, 1)
    notes = [] if rows else ["no policy of the configuration counts it"]
    return Told(
        facts=facts,
        tables=[Table(["instance", *columns], rows, "budgets")] if rows else [],
        notes=notes,
        silent=list(told.silent),
    )


async def upstreams(face: Face, asked: Asked) -> Told:
    """
    Backends and their targets, as each instance sees them.
    """
    told = await face.node.cluster.do(a.Upstreams())
    rows = []
    pattern = asked["pattern"]
    for instance, some in told.values.items():
        for each in some:
            if pattern and not fnmatch.fnmatchcase(each["upstream"], pattern):
                continue
            for target in each["targets"]:
                columns = ("target", "healthy", "ejected_s", "in_flight", "attempts", "failures")
                rows.append([instance, each["upstream"], each["breaker"], *(target[column] for column in columns)])
    columns_ = [
        "instance",
        "upstream",
        "breaker",
        "target",
        "healthy",
        "ejected_s",
        "in_flight",
        "attempts",
        "failures",
    ]
    return Told(tables=[Table(columns_, rows)], silent=list(told.silent))


async def events(face: Face, _: Asked) -> Told:
    """
    What waits to be told of sessions.
    """
    backlog = await face.outbox.backlog()
    facts: dict[str, Any] = {"waiting": backlog.waiting, "lost": backlog.lost}
    if backlog.waiting:
        facts["oldest_s"] = round(max(0.0, face.node.wall() - backlog.oldest_at), 1)
    return Told(facts=facts)


async def config(face: Face, asked: Asked) -> Told:
    """
    The configuration in force, without secrets.
    """
    told = await face.node.cluster.do(a.Settings())
    own = told.values[face.node.instance]
    digests = {instance: each["digest"] for instance, each in told.values.items()}
    answer = Told(facts={"digest": own["digest"], "source": own["source"]}, silent=list(told.silent))
    if own["reload_fault"]:
        answer.facts["reload_fault"] = own["reload_fault"]
    others = sorted(instance for instance, digest in digests.items() if digest != own["digest"])
    if others:
        answer.notes.append(f"others have another configuration: {', '.join(others)}")
    if asked["what"] == "changed":
        answer.tables = [Table(["key", "before", "now"], own["changed"], "changed by the last reload")]
        if not own["changed"]:
            answer.notes.append("no reload has changed anything")
        return answer
    found = [row for row in own["keys"] if not asked["pattern"] or fnmatch.fnmatchcase(row[0], asked["pattern"])]
    answer.tables = [Table(["key", "value"], found)]
    return answer


async def instances(face: Face, _: Asked) -> Told:
    """
    Everybody who is there.
    """
    told = await face.node.cluster.do(acts.Info())
    columns = ["version", "num_clients", "num_users", "num_channels", "num_subs", "uptime"]
    rows = [[instance, *(info[column] for column in columns)] for instance, info in told.values.items()]
    names = ["version", "connections", "users", "channels", "subscriptions", "up_s"]
    return Told(
        facts={"asked": face.node.instance}, tables=[Table(["instance", *names], rows)], silent=list(told.silent)
    )


def _but(told: Everywhere) -> str:
    return f"; {', '.join(told.silent)} did not answer" if told.silent else ""


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode("ascii")


def _read(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        raise Refusal("usage", "that is no place to go on from") from None
