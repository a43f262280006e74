"""
The section of the support console: where people who look after a running gateway ask it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.fields import key as _

__all__ = ["Console", "Lockout"]


@dataclass(frozen=True, slots=True)
class Lockout:
    """What happens to those who try to get in. `[console.lockout]`."""

    tries: int = field(
        default=5,
        metadata=_(
            "So many failed tries of an address for a user, and it is not let in; four times as many for any.", most=100
        ),
    )
    for_s: float = field(default=300.0, metadata=_("For how long, from the last try.", least=1, most=86400))


@dataclass(frozen=True, slots=True)
class Console:
    """The support console. Off unless it says where; see docs/console.md."""

    ssh: str | None = field(
        default=None, metadata=_("Endpoint of the console over ssh, `tcp:4022:interface=127.0.0.1`; without it none.")
    )
    telnet: str | None = field(
        default=None,
        metadata=_("The same over telnet, which is not encrypted: on loopback or a unix socket only."),
    )
    users_file: Path | None = field(
        default=None, metadata=_("TOML file of those who may come in: `[user.NAME]` with role, keys and password.")
    )
    host_key_folder: Path | None = field(
        default=None,
        metadata=_(
            "Folder of `console_host_key`, the server's Ed25519 key, which is made at the first start; without it that "
            "of `users_file`.",
            folder=True,
        ),
    )
    python: bool = field(
        default=False,
        metadata=_("Give a `developer` who came over ssh with a key a Python prompt inside the process."),
    )
    idle_s: float = field(default=900.0, metadata=_("Who says nothing for so long is put out.", least=10, most=86400))
    lockout: Lockout = field(default_factory=Lockout, metadata=_("What happens to those who try to get in."))
