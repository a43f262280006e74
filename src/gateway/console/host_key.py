"""
The server's key of the console over ssh: made once, read by nobody else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, FingerprintFormats, Key

__all__ = ["NAME", "fingerprint", "host_key"]

NAME: Final = "console_host_key"


def host_key(folder: Path) -> tuple[Key, bool]:
    """
    Read the key in *folder*, or make it there.

    Returns:
        The key, and whether it was made.

    Raises:
        OSError: it can neither be read nor made.
        ValueError: others can read it, or it is no Ed25519 key.
    """
    path = folder / NAME
    try:
        # Whoever comes second finds what the first one made.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(path), False
    key = Key(Ed25519PrivateKey.generate())
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.toString("OPENSSH"))
        file.flush()
        os.fsync(file.fileno())
    return key, True


def fingerprint(key: Key) -> str:
    """
    Write the fingerprint of *key* as ssh shows it to whoever comes for the first time.
    """
    return f"SHA256:{key.fingerprint(FingerprintFormats.SHA256_BASE64).rstrip('=')}"


def _read(path: Path) -> Key:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ValueError(f"{path} can be read by others; chmod 600 it, or remove it to have another one made")
        data = file.read(64 * 1024)
    try:
        key: Key = Key.fromString(data)
    except (BadKeyError, EncryptedKeyError, ValueError) as error:
        raise ValueError(f"{path} is no key without a passphrase: {error}") from error
    if key.type() != "Ed25519" or key.isPublic():
        raise ValueError(f"{path} is no private Ed25519 key")
    return key
