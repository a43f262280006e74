"""
The file of the console's users.

.. code-block:: toml

    [user.anna]
    role = "operator"
    keys = ["ssh-ed25519 AAAAC3… anna@laptop"]
    password = "scrypt:32768:8:1:…"
"""

from __future__ import annotations

import tomllib
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from gateway.config.faults import ConfigErrors
from gateway.config.fields import Secret
from gateway.config.fields import key as _
from gateway.config.positions import scan
from gateway.config.shape import section
from gateway.config.walk import Walk
from gateway.core.passwords import BadHash, read_hash

__all__ = ["ROLES", "ConsoleUser", "load_users", "public_key"]

Role = Literal["viewer", "operator", "developer"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "developer")
"""Each may do what those before it may."""

_KINDS: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True, slots=True)
class ConsoleUser:
    """Somebody who may come in."""

    name: str = field(metadata=_("The name to come in with.", key=True))
    role: Role = field(metadata=_("`viewer`, `operator` or `developer`: each may do what those before it may."))
    keys: tuple[str, ...] = field(default=(), metadata=_("Public keys, as in `~/.ssh/id_ed25519.pub`."))
    password: Secret | None = field(default=None, metadata=_("As `gateway console-password` writes it."))


@dataclass(frozen=True, slots=True)
class _Users:
    """The file."""

    user: tuple[ConsoleUser, ...] = field(default=(), metadata=_("By name."))


def load_users(path: Path) -> tuple[ConsoleUser, ...]:
    """
    Read the users of *path*.

    Raises:
        ConfigErrors: with every fault and its line; also when the file cannot be read.
    """
    from gateway.config.load import read, syntax_fault  # It loads the checks, and they load this.

    text = read(path)
    try:
        raw = tomllib.loads(text)
        walk = Walk(scan(text), {}, path.absolute().parent)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors(str(path), [syntax_fault(error, text)]) from error
    users: tuple[ConsoleUser, ...] = walk.section(section(_Users), raw, ()).user
    for user in users:
        _check(user, walk)
    if walk.faults:
        raise ConfigErrors(str(path), walk.faults)
    return users


def _check(user: ConsoleUser, walk: Walk) -> None:
    path = ("user", user.name)
    if not user.keys and user.password is None:
        walk.fault(path, "has neither keys nor a password, and could not come in", (*path, "keys"), (*path, "password"))
    for index, key in enumerate(user.keys):
        try:
            public_key(key)
        except ValueError as error:
            walk.fault((*path, "keys", index), str(error))
    if user.password is not None:
        try:
            read_hash(user.password.reveal())
        except BadHash as bad:
            walk.fault((*path, "password"), str(bad))


def public_key(text: str) -> bytes:
    """
    Return the blob of a public key as ssh writes it.

    Raises:
        ValueError: it is none that is taken.
    """
    kind, _, rest = text.strip().partition(" ")
    if kind not in _KINDS:
        raise ValueError(f"is no public key; it begins with one of {', '.join(_KINDS)}")
    try:
        blob = b64decode(rest.partition(" ")[0], validate=True)
    except ValueError:
        raise ValueError("is no public key: what follows its kind is no base64") from None
    size = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + size] != kind.encode("ascii") or len(blob) <= 4 + size + 4:
        raise ValueError(f"is no public key of the kind {kind}")
    return blob
