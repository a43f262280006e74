"""
What those who look after the instances ask of each: values that travel as they are, like those of ``node.acts``.
"""

from __future__ import annotations

from gateway.node.acts import Act

__all__ = [
    "Drain",
    "Found",
    "Level",
    "Mute",
    "Names",
    "Room",
    "Sessions",
    "Settings",
    "Tail",
    "Target",
    "Top",
    "Trace",
    "Upstreams",
]


class Sessions(Act, kw_only=True, frozen=True):
    """List connections: of *user*, or all, page by page from *cursor*."""

    user: str = ""
    cursor: str = ""
    limit: int = 200


class Found(Act, kw_only=True, frozen=True):
    """Describe the connection or session *id*."""

    id: str


class Room(Act, kw_only=True, frozen=True):
    """Describe a channel, with the first *limit* of those who listen."""

    channel: str
    limit: int = 20


class Names(Act, kw_only=True, frozen=True):
    """Names of a *kind* (``user``, ``channel``, ``client``, ``upstream``, ``target``) that begin with *prefix*."""

    kind: str
    prefix: str = ""


class Top(Act, kw_only=True, frozen=True):
    """The *count* busiest channels, users and addresses."""

    count: int = 10


class Tail(Act, kw_only=True, frozen=True):
    """What happened to a ``user``, ``channel`` or ``route`` after number *since*."""

    kind: str
    name: str
    since: int = 0


class Mute(Act, kw_only=True, frozen=True):
    """Let *user* publish nothing for so many seconds; 0: let it again."""

    user: str
    for_s: float


class Trace(Act, kw_only=True, frozen=True):
    """Record all that *user* does for so many seconds; 0: no longer."""

    user: str
    for_s: float


class Upstreams(Act, kw_only=True, frozen=True):
    """Describe every upstream."""


class Target(Act, kw_only=True, frozen=True):
    """Leave a target out for so many seconds; 0: use it again."""

    upstream: str
    target: str
    for_s: float


class Level(Act, kw_only=True, frozen=True):
    """Show log lines of *level* and above."""

    level: str


class Settings(Act, kw_only=True, frozen=True):
    """Show the configuration in force, without secrets."""


class Drain(Act, kw_only=True, frozen=True):
    """Begin to end *instance*."""

    instance: str
