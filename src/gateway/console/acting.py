"""
Verbs that change something.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.console.told import Refusal, Told
from gateway.console.verb import Asked, Face
from gateway.core.identity import Revocation
from gateway.core.verdicts import CloseReason
from gateway.node import acts
from gateway.node import support_acts as a
from gateway.node.cluster import Everywhere

__all__ = ["drain", "eject", "kick", "log", "mute", "restore", "revoke", "trace", "unlimit"]

LONGEST_S: Final = 7 * 86400.0
LONGEST_TRACE_S: Final = 3600.0
LONGEST_REVOCATION_S: Final = 10 * 365 * 86400.0


async def kick(face: Face, asked: Asked) -> Told:
    """
    Close connections.
    """
    reason = CloseReason.FORCE_RECONNECT if asked["how"] == "reconnect" else CloseReason.FORCE_NO_RECONNECT
    user, session = asked["user"], "" if asked["session"] == "all" else asked["session"]
    before = await face.node.cluster.do(acts.Connections(user=user))
    meant = [
        client
        for connections in before.values.values()
        for client, each in connections.items()
        if session in ("", each["session"])
    ]
    told = await face.node.cluster.do(acts.Disconnect(user=user, session=session, code=reason.code, reason=reason.text))
    return Told(facts={"user": user, "closed": len(meant), "code": reason.code}, silent=list(told.silent))


async def revoke(face: Face, asked: Asked) -> Told:
    """
    Refuse tokens from now on.
    """
    now, for_s = face.node.wall(), _within(asked["for"], LONGEST_REVOCATION_S)
    if asked["what"] == "user":
        revocation = Revocation(now + for_s, subject=asked["name"], issued_before=now)
    else:
        revocation = Revocation(now + for_s, token_id=asked["name"])
    everywhere = await face.revocations.revoke(revocation)
    answer = Told(facts={asked["what"]: asked["name"], "for_s": for_s, "everywhere": everywhere})
    if not everywhere:
        answer.notes.append("the store is away: it holds here, and everywhere once the store is back")
    return answer


async def mute(face: Face, asked: Asked) -> Told:
    """
    Let a user publish nothing.
    """
    for_s = _within(asked["for"], LONGEST_S)
    told = await face.node.cluster.do(a.Mute(user=asked["user"], for_s=for_s))
    refused = sorted(instance for instance, done in told.values.items() if not done)
    answer = Told(facts={"user": asked["user"], "muted_s": for_s}, silent=list(told.silent))
    if refused:
        answer.notes.append(f"too many are muted already on {', '.join(refused)}")
    return answer


async def drain(face: Face, asked: Asked) -> Told:
    """
    Begin to end an instance.
    """
    if not await face.node.cluster.of(asked["instance"], a.Drain(instance=asked["instance"])):
        raise Refusal("failed", f"{asked['instance']} is called otherwise by now")
    return Told(facts={"draining": asked["instance"]})


async def eject(face: Face, asked: Asked) -> Told:
    """
    Leave a target out.
    """
    for_s = _within(asked["for"], LONGEST_S)
    if for_s <= 0:
        raise Refusal("usage", "for: more than nothing")
    return _at(
        await face.node.cluster.do(a.Target(upstream=asked["upstream"], target=asked["target"], for_s=for_s)), asked
    )


async def restore(face: Face, asked: Asked) -> Told:
    """
    Use a target again.
    """
    return _at(
        await face.node.cluster.do(a.Target(upstream=asked["upstream"], target=asked["target"], for_s=0.0)), asked
    )


def _at(told: Everywhere, asked: Asked) -> Told:
    done = sorted(instance for instance, known in told.values.items() if known)
    if not done:
        raise Refusal("failed", f"there is no target {asked['target']!r} of an upstream {asked['upstream']!r}")
    return Told(facts={"upstream": asked["upstream"], "target": asked["target"], "on": done}, silent=list(told.silent))


async def unlimit(face: Face, asked: Asked) -> Told:
    """
    Give budgets back.
    """
    told = await face.node.cluster.do(acts.Limits(who=asked["who"], reset=True))
    given = sum(answer["reset"] for answer in told.values.values())
    return Told(facts={"who": asked["who"], "reset": given}, silent=list(told.silent))


async def trace(face: Face, asked: Asked) -> Told:
    """
    Record everything that a user does.
    """
    for_s = _within(asked["for"], LONGEST_TRACE_S)
    told = await face.node.cluster.do(a.Trace(user=asked["user"], for_s=for_s))
    notes = []
    values: dict[str, Any] = told.values
    if not any(each["on"] for each in values.values()):
        notes.append("there is no collector: [tracing] otlp is not set, so nothing is recorded")
    full = sorted(instance for instance, each in values.items() if not each["done"])
    if full and for_s > 0:
        notes.append(f"too many are traced already on {', '.join(full)}")
    return Told(facts={"user": asked["user"], "traced_s": for_s}, notes=notes, silent=list(told.silent))


async def log(face: Face, asked: Asked) -> Told:
    """
    Show more or fewer log lines.
    """
    told = await face.node.cluster.do(a.Level(level=asked["level"]))
    return Told(facts={"level": asked["level"], "on": sorted(told.values)}, silent=list(told.silent))


def _within(for_s: float, most_s: float) -> float:
    if for_s > most_s:
        raise Refusal("usage", f"for: at most {most_s / 86400:g}d" if most_s >= 86400 else f"for: at most {most_s:g}s")
    return for_s
