"""
Who a caller is, once proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Identity", "Revocation"]


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The result of verifying one credential.

    Attributes:
        subject: The ``sub`` claim; never empty.
        issuer: The ``iss`` claim, which is one of the configured issuers.
        expires_at: The ``exp`` claim, seconds since the epoch.
        issued_at: The ``iat`` claim if there is one, seconds since the epoch.
        token_id: The ``jti`` claim if there is one.
        session_id: The ``sid`` claim if there is one.
        scopes: From ``scope`` (space separated) or ``scp`` (list).
        claims: All claims, as verified.
        credential: The token itself, for upstreams configured to receive it. Never shown.
    """

    subject: str
    issuer: str
    expires_at: float
    issued_at: float | None = None
    token_id: str | None = None
    session_id: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    credential: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    What is refused before its time: one token or session, or all that a subject was issued before a time.

    Attributes:
        until: When it may be forgotten: not before the tokens meant have expired. Epoch seconds.
        token_id: A ``jti`` or ``sid``; empty if a subject is meant.
        subject: Empty if a token is meant.
        issued_before: Of a subject's tokens; epoch seconds.
    """

    until: float
    token_id: str = ""
    subject: str = ""
    issued_before: float = 0.0
