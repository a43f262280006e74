"""
A query as it may be shown: names, and values that are plainly no secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

__all__ = ["REDACTED", "shown_query"]

REDACTED: Final = "REDACTED"
_LONGEST: Final = 64
_MOST: Final = 32

_secret = re.compile(
    r"token|secret|passw|pwd|auth|sig|key|code|session|jwt|cred|otp|pin|cookie|hash|cf_connect|eyJ", re.IGNORECASE
).search


def shown_query(query: bytes, secrets: Collection[str] = ()) -> str:
    """
    Write *query* so that it can be told to operators.

    A value is replaced where the name or the value looks like one of a secret, where it is long, as tokens and
    documents are, and where its name is among *secrets*. Rather too many than one too few.
    """
    pairs = query.decode("latin-1").split("&", _MOST)
    shown = [_shown(pair, secrets) for pair in pairs[:_MOST]]
    return "&".join([*shown, "…"] if len(pairs) > _MOST else shown)


def _shown(pair: str, secrets: Collection[str]) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        # Without a name it may be anything.
        return pair if len(pair) <= _LONGEST and not _secret(pair) else REDACTED
    name = name[:_LONGEST]
    if name in secrets or len(value) > _LONGEST or _secret(pair):
        return f"{name}={REDACTED}"
    return f"{name}={value}"
