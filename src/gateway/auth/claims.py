"""
The registered claims, required, typed and held against the clock (RFC 7519, section 4.1).

PyJWT takes a token without ``exp``, an ``exp`` that is text or lies 10^292 years ahead, and
reads its own clock; so this is done here, by the clock that was handed in.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.auth.reasons import refused
from gateway.config.sections import Issuer
from gateway.core.identity import Identity

__all__ = ["check_header", "checked"]

MAX_KID: Final = 256
MAX_NAME: Final = 256
"""Characters of ``sub``, ``jti`` and ``sid``: they go into headers, logs and the keys of stores."""
END_OF_TIME: Final = 253402300800.0
"""The year 10000; a date beyond is a mistake or a trick (RFC 3339 cannot write it)."""


def check_header(header: dict[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """
    Check the JOSE header for *issuer*; what could name a key elsewhere (``jku``, ``jwk``, ``x5u``, ``x5c``) is not read.

    Returns:
        The algorithm, which is one of the issuer's, and the key id, an opaque text, if there is one.

    Raises:
        Problem: ``token_invalid``.
    """
    if "enc" in header:
        raise refused("encrypted")
    if "crit" in header or "b64" in header:
        raise refused("critical_header")
    algorithm = header.get("alg")
    if type(algorithm) is not str or algorithm not in issuer.algorithms:
        raise refused("algorithm")
    kid = header.get("kid")
    if "kid" in header and (type(kid) is not str or not 0 < len(kid) <= MAX_KID):
        raise refused("header_type")
    kind = header.get("typ")
    if kind is None:
        if "typ" in header or issuer.type is not None:
            raise refused("token_type")
    elif type(kind) is not str or _media_type(kind) != _media_type(issuer.type or "JWT"):
        raise refused("token_type")
    return algorithm, kid


def checked(claims: dict[str, Any], issuer: Issuer, token: bytes, now: float) -> Identity:
    """
    Make the identity that *claims*, whose signature is somebody else's affair, speak of.

    Args:
        now: Seconds since the epoch.

    Raises:
        Problem: ``token_invalid``.
    """
    for name in ("exp", "aud", "sub"):
        if name not in claims:
            raise refused("claim_missing")
    subject = claims["sub"]
    if type(subject) is not str or not 0 < len(subject) <= MAX_NAME:
        raise refused("claim_type")
    _check_audience(claims["aud"], issuer.audience)
    expires_at = _date(claims["exp"])
    leeway = issuer.leeway_s
    if now >= expires_at + leeway:
        raise refused("expired")
    if "nbf" in claims and _date(claims["nbf"]) > now + leeway:
        raise refused("not_yet_valid")
    issued_at: float | None = None
    if "iat" in claims:
        issued_at = _date(claims["iat"])
        if issued_at > now + leeway:
            raise refused("not_yet_valid")
    if issuer.max_lifetime_s is not None:
        if issued_at is None:
            raise refused("claim_missing")
        if expires_at - issued_at > issuer.max_lifetime_s:
            raise refused("lifetime")
    return Identity(
        subject=subject,
        issuer=issuer.issuer,
        expires_at=expires_at,
        issued_at=issued_at,
        token_id=_text(claims, "jti"),
        session_id=_text(claims, "sid"),
        scopes=_scopes(claims),
        claims=claims,
        credential=token,
    )


def _media_type(kind: str) -> str:
    """RFC 7515, section 4.1.9: without regard to case, ``application/`` may be left out."""
    kind = kind.lower()
    short = kind.removeprefix("application/")
    return kind if "/" in short else short


def _date(value: Any) -> float:
    # bool is an int to isinstance.
    if type(value) not in (int, float) or not 0 <= value < END_OF_TIME:
        raise refused("claim_type")
    return float(value)


def _check_audience(value: Any, ours: tuple[str, ...]) -> None:
    if type(value) is str:
        if value in ours:
            return
    elif type(value) is list and all(type(one) is str for one in value):
        if any(one in ours for one in value):
            return
    else:
        raise refused("claim_type")
    raise refused("audience")


def _text(claims: dict[str, Any], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    # Revocation goes by these; one that is no text could never be named there.
    if type(value) is not str or not 0 < len(value) <= MAX_NAME:
        raise refused("claim_type")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """RFC 8693, section 4.2 (``scope``); ``scp`` as other issuers write it. Each may be text or a list."""
    found: list[str] = []
    for name in ("scope", "scp"):
        value = claims.get(name)
        if type(value) is str:
            found += value.split()
        elif type(value) is list and all(type(one) is str for one in value):
            found += value
        elif value is not None:
            raise refused("claim_type")
    return frozenset(found)
