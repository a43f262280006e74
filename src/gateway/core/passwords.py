"""
Passwords of people, kept as what only they can be compared with: scrypt (RFC 7914).

As text: ``scrypt:N:R:P:SALT:HASH``, salt and hash in base64url without padding.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

__all__ = ["SALT_BYTES", "BadHash", "hashed", "matches", "read_hash"]

SALT_BYTES: Final = 16

_N: Final = 1 << 15
_R: Final = 8
_P: Final = 1
_HASH_BYTES: Final = 32

_LEAST_N: Final = 1 << 14
_MOST_N: Final = 1 << 17
"""128 MiB while it is computed."""

_form = re.compile(r"scrypt:(\d{1,7}):(\d{1,2}):(\d):([A-Za-z0-9_-]{16,64}):([A-Za-z0-9_-]{43,86})", re.ASCII).fullmatch

Hash = tuple[int, int, int, bytes, bytes]


class BadHash(ValueError):
    """
    A text that is no hash of a password; it is not quoted.
    """


def hashed(password: str, salt: bytes) -> str:
    """
    Write what is kept of *password*. Takes 32 MiB and some 70 ms.

    Args:
        salt: ``SALT_BYTES`` random bytes.
    """
    digest = _digest(password, _N, _R, _P, salt, _HASH_BYTES)
    return f"scrypt:{_N}:{_R}:{_P}:{_text(salt)}:{_text(digest)}"


def read_hash(text: str) -> Hash:
    """
    Take a hash apart.

    Raises:
        BadHash: it is none, or one that is too weak or too dear.
    """
    found = _form(text)
    if found is None:
        raise BadHash("is no hash of a password; `gateway console-password` makes one")
    n, r, p = int(found[1]), int(found[2]), int(found[3])
    if not _LEAST_N <= n <= _MOST_N or n & (n - 1) or r != _R or not 1 <= p <= 4:
        raise BadHash(f"N is a power of two from {_LEAST_N} to {_MOST_N}, r is {_R}, and p from 1 to 4")
    try:
        return n, r, p, _bytes(found[4]), _bytes(found[5])
    except ValueError:
        raise BadHash("its salt or hash is no base64url") from None


def matches(password: str, kept: str) -> bool:
    """
    Whether *kept* was made from *password*. Takes as long as ``hashed``: not on the reactor's thread.

    Raises:
        BadHash: *kept* is none.
    """
    n, r, p, salt, digest = read_hash(kept)
    return hmac.compare_digest(_digest(password, n, r, p, salt, len(digest)), digest)


def _digest(password: str, n: int, r: int, p: int, salt: bytes, size: int) -> bytes:
    raw = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p, maxmem=256 * r * n * p, dklen=size)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
