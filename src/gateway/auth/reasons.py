"""
Why a token was refused: the closed list that the log and ``gateway_auth_failures`` know.

The caller is told none of it (RFC 6750, section 3.1, leaves it to us): whoever tries out tokens
must not learn how far one of them got.
"""

from __future__ import annotations

from typing import Final

from gateway.core.problems import Problem

__all__ = ["REASONS", "refused"]

REASONS: Final = {
    "too_long": "The token is longer than `max_token`.",
    "malformed": "It is not three parts of strict base64url that hold two JSON objects.",
    "duplicate_member": "A JSON object in it has a member twice.",
    "encrypted": "It is encrypted (JWE).",
    "critical_header": "Its header has `crit` or `b64`.",
    "header_type": "A header parameter has the wrong type or length.",
    "token_type": "Its `typ` is not the one expected.",
    "issuer_unknown": "Its `iss` is not configured.",
    "algorithm": "Its `alg` is not one of the issuer's.",
    "key_unknown": "The issuer has no such key.",
    "signature": "The signature is not by any key of the issuer.",
    "claim_missing": "`exp`, `iss`, `aud`, `sub` or, with `max_lifetime`, `iat` is missing.",
    "claim_type": "A registered claim has the wrong type or is out of range.",
    "audience": "Its `aud` has none of ours.",
    "expired": "Its `exp` has passed.",
    "not_yet_valid": "Its `nbf` or `iat` lies in the future.",
    "lifetime": "It lives longer than `max_lifetime`.",
    "certificate_subject": "A client certificate does not say, or not in one way, who its holder is.",
    "revoked": "It, its session or its subject was revoked.",
}
"""Reason to what it means for the operator."""

_HEADERS: Final = ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),)


def refused(reason: str) -> Problem:
    """
    Make the 401 for a token refused for *reason*, a key of ``REASONS`` (RFC 6750, section 3.1).
    """
    assert reason in REASONS, reason
    return Problem("token_invalid", headers=_HEADERS, reason=reason)
