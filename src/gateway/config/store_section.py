"""
The section of the store: where channels, presence and sessions are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.config.fields import Secret
from gateway.config.fields import key as _
from gateway.config.upstream_sections import UpstreamTls

__all__ = ["Store"]


@dataclass(frozen=True, slots=True)
class Store:
    """Where channels, presence and sessions are kept: in this process, or in Redis for many instances."""

    url: str = field(
        default="memory://",
        metadata=_(
            "`memory://`, `redis://host:6379/0`, `rediss://host:6380`, `redis+unix:///run/redis.sock`, "
            "`redis+sentinel://s1:26379,s2:26379/service`, `redis+cluster://n1:6379,n2:6379`."
        ),
    )
    username: str | None = field(default=None, metadata=_("The ACL user; without it Redis's default one."))
    password: Secret | None = field(default=None, metadata=_("Its password."))
    sentinel_username: str | None = field(
        default=None, metadata=_("The ACL user at the sentinels, which have users of their own.")
    )
    sentinel_password: Secret | None = field(
        default=None, metadata=_("Its password; without one the sentinels ask for none.")
    )
    prefix: str = field(
        default="gateway", metadata=_("First part of every key and topic: tells installations in one Redis apart.")
    )
    timeout_s: float = field(
        default=2.0, metadata=_("A server that owes an answer this long is taken for lost.", least=0.1, most=60)
    )
    beat_s: float = field(
        default=5.0, metadata=_("How often an instance says that it is alive.", least=0.05, most=3600)
    )
    lease_s: float = field(
        default=15.0,
        metadata=_(
            "An instance silent this long is dead: others end its sessions. At least three times `beat`.", least=0.1
        ),
    )
    journal: int = field(
        default=100_000,
        metadata=_("Openings and ends of sessions kept while Redis is away; those beyond are lost and counted."),
    )
    tls: UpstreamTls = field(default_factory=UpstreamTls, metadata=_("How `rediss://` is verified."))
