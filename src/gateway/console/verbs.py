"""
Every verb there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.console import acting, looking
from gateway.console.told import Refusal, Table, Told
from gateway.console.verb import Asked, Face, Param, Verb, may

__all__ = ["VERBS"]

_USER = Param("user", "A subject, as it stands in tokens.", names="user")
_FOR = "Such as 5m, 1h, 7d."


async def _help(_: Face, asked: Asked) -> Told:
    role = asked["caller"].role
    known = {name: verb for name, verb in VERBS.items() if may(role, verb.role)}
    name = asked["verb"]
    if not name:
        rows = [[verb.usage, verb.help] for verb in known.values()]
        return Told(tables=[Table(["verb", "what it does"], rows)], notes=["help VERB tells more; Tab completes"])
    verb = known.get(name)
    if verb is None:
        raise Refusal("unknown", f"there is no {name!r}")
    rows = [
        [each.name, each.doc if not each.choices else f"{each.doc} One of: {', '.join(each.choices)}."]
        for each in verb.params
    ]
    tables = [Table(["argument", "what it is"], rows)] if rows else []
    notes = [each for each in (verb.help, verb.more) if each]
    return Told(facts={"usage": verb.usage, "role": verb.role}, tables=tables, notes=notes)


VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb("help", "viewer", "Tell what can be asked.", _help, (Param("verb", "About this one.", default=""),)),
        Verb("instances", "viewer", "List the instances.", looking.instances),
        Verb(
            "who",
            "viewer",
            "List the connections of a user; without one everybody's, page by page.",
            looking.who,
            (Param("user", "A subject, as it stands in tokens.", default="", names="user"),),
        ),
        Verb(
            "session",
            "viewer",
            "Tell everything about a session: who, device, subscriptions, what waits.",
            looking.session,
            (Param("id", "Of the session, or of its connection.", names="client"),),
        ),
        Verb(
            "channel",
            "viewer",
            "Tell who listens to a channel, and where it stands.",
            looking.channel,
            (Param("channel", "Its name.", names="channel"),),
            "offset and epoch are the store's; each instance's say how far it has delivered.",
        ),
        Verb(
            "top",
            "viewer",
            "Show the busiest channels, users and addresses, again and again.",
            looking.top,
            (Param("count", "So many of each.", "number", 10),),
            "Frames of users are counted where somebody is told of sessions ([events]).",
        ),
        Verb(
            "tail",
            "viewer",
            "Show what a user, a channel or a route does, as it happens.",
            looking.tail,
            (
                Param("kind", "What is meant.", choices=("user", "channel", "route")),
                Param("name", "Its name.", names=""),
            ),
            "Payloads are never shown, only their size. At most 50 lines of a second; others are counted.",
        ),
        Verb(
            "kick",
            "operator",
            "Close the connections of a user.",
            acting.kick,
            (
                _USER,
                Param("session", "Only this session.", default="all"),
                Param(
                    "how",
                    "Whether it may come back by itself.",
                    default="stay-away",
                    choices=("stay-away", "reconnect"),
                ),
            ),
            "Who was told to stay away may connect again when its user wants to; see revoke.",
        ),
        Verb(
            "revoke",
            "operator",
            "Refuse what was issued until now: a user's tokens, or one token or session.",
            acting.revoke,
            (
                Param("what", "What is named.", choices=("user", "token")),
                Param("name", "The subject, or the jti or sid.", names="user"),
                Param("for", f"Until the tokens have expired by themselves. {_FOR}", "duration", 86400.0),
            ),
        ),
        Verb(
            "mute",
            "operator",
            "Let a user publish nothing for a while; 0s lets it again.",
            acting.mute,
            (_USER, Param("for", _FOR, "duration", 600.0)),
            "It holds on the instances that are there now.",
        ),
        Verb(
            "drain",
            "operator",
            "End an instance as SIGTERM does: its clients are asked to come back elsewhere.",
            acting.drain,
            (Param("instance", "As instances lists it."),),
        ),
        Verb(
            "limits",
            "viewer",
            "Tell how the budgets of a user or an address stand.",
            looking.limits,
            (Param("who", "A subject or an address.", names="user"),),
        ),
        Verb(
            "unlimit",
            "operator",
            "Give a user or an address its whole budgets back.",
            acting.unlimit,
            (Param("who", "A subject or an address.", names="user"),),
        ),
        Verb(
            "upstreams",
            "viewer",
            "List backends: their targets, ejections and breakers.",
            looking.upstreams,
            (Param("pattern", "Only those that match this glob.", default="", names="upstream"),),
        ),
        Verb(
            "eject",
            "operator",
            "Leave a target of an upstream out for a while.",
            acting.eject,
            (
                Param("upstream", "Its name.", names="upstream"),
                Param("target", "As upstreams lists it.", names="target"),
                Param("for", _FOR, "duration", 300.0),
            ),
        ),
        Verb(
            "restore",
            "operator",
            "Use a target again.",
            acting.restore,
            (
                Param("upstream", "Its name.", names="upstream"),
                Param("target", "As upstreams lists it.", names="target"),
            ),
        ),
        Verb(
            "trace",
            "operator",
            "Record all that a user does as traces, for a while; 0s ends it.",
            acting.trace,
            (_USER, Param("for", f"At most an hour. {_FOR}", "duration", 600.0)),
        ),
        Verb("events", "viewer", "Tell what waits to be told of sessions.", looking.events),
        Verb(
            "config",
            "viewer",
            "Show the configuration in force without secrets, or what the last reload changed.",
            looking.config,
            (
                Param("what", "What to show.", default="all", choices=("all", "changed")),
                Param("pattern", "Only keys that match this glob.", default=""),
            ),
        ),
        Verb(
            "log",
            "operator",
            "Show log lines of a level and above, until the next reload.",
            acting.log,
            (Param("level", "The least severe level.", choices=("debug", "info", "warning", "error")),),
        ),
    )
}
