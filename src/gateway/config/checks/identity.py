"""
Issuers, their keys and algorithms, and where a token may stand.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from gateway.config.faults import KeyPath
from gateway.config.sections import Config, Issuer
from gateway.config.walk import Walk, suggest

__all__ = ["check"]

_HMAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithm to the least length of its secret (RFC 7518, section 3.2)."""

_ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_SOURCES: Final = ("secret", "public_key_file", "jwks_url", "jwks_file")
_token = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_parameter = re.compile(r"[A-Za-z0-9._~-]+").fullmatch


def check(config: Config, walk: Walk) -> None:
    """
    Report what is wrong with how callers prove who they are.
    """
    auth = config.auth
    seen: dict[str, int] = {}
    for index, issuer in enumerate(auth.issuer):
        path: KeyPath = ("auth", "issuer", index)
        if issuer.issuer in seen:
            walk.fault(
                (*path, "issuer"),
                f"{issuer.issuer!r} is auth.issuer[{seen[issuer.issuer]}] already; "
                "one issuer has one table, with all its audiences",
                ("auth", "issuer", seen[issuer.issuer], "issuer"),
            )
        seen.setdefault(issuer.issuer, index)
        _keys(issuer, path, walk)
        _algorithms(issuer, path, walk)
        if issuer.jwks_max_stale_s < issuer.jwks_ttl_s:
            walk.fault(
                (*path, "jwks_max_stale"), "is less than jwks_ttl: keys would expire before they are fetched again"
            )
    if auth.cookie is not None and not _token(auth.cookie):
        walk.fault(("auth", "cookie"), f"{auth.cookie!r} is no name of a cookie")
    if auth.query is not None and not _parameter(auth.query):
        walk.fault(("auth", "query"), f"{auth.query!r} is no plain name of a query parameter")


def _keys(issuer: Issuer, path: KeyPath, walk: Walk) -> None:
    given = [name for name in _SOURCES if getattr(issuer, name) is not None]
    sources = [(*path, name) for name in _SOURCES]
    if len(given) != 1:
        wrong = f"has {' and '.join(given)}" if given else "has no key"
        walk.fault(path, f"{wrong}; exactly one of {', '.join(_SOURCES)} is needed", *sources)
    if issuer.jwks_url is not None:
        url = urlsplit(issuer.jwks_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            walk.fault((*path, "jwks_url"), f"{issuer.jwks_url!r} is no http:// or https:// URL")
    if issuer.jwks_ca_file is not None and not (issuer.jwks_url or "").startswith("https:"):
        walk.fault(
            (*path, "jwks_ca_file"), "is only used with a jwks_url that begins with https://", (*path, "jwks_url")
        )
    if issuer.private_key_file is not None and issuer.secret is not None:
        walk.fault((*path, "private_key_file"), "is never used: this issuer's tokens are signed with its secret")


def _algorithms(issuer: Issuer, path: KeyPath, walk: Walk) -> None:
    here = (*path, "algorithms")
    known = [*_HMAC_BYTES, *_ASYMMETRIC]
    for index, name in enumerate(issuer.algorithms):
        if name.lower() == "none":
            walk.fault((*here, index), f"{name!r} accepts tokens that nobody signed; there is no way to allow that")
        elif name not in known:
            walk.fault((*here, index), f"{name!r} is no algorithm that is accepted here{suggest(name, known)}")
    hmac = [name for name in issuer.algorithms if name in _HMAC_BYTES]
    signed = [name for name in issuer.algorithms if name in _ASYMMETRIC]
    if hmac and signed:
        walk.fault(
            here,
            f"mixes {hmac[0]}, which takes a secret, with {signed[0]}, which takes a key pair: whoever has the public "
            "key could sign with it; use one family, or two issuers",
        )
    elif issuer.secret is not None:
        if signed:
            walk.fault(
                here, f"{signed[0]} takes a public key, not a secret; with a secret use HS256", (*path, "secret")
            )
        needed = max((_HMAC_BYTES[name] for name in hmac), default=0)
        length = len(issuer.secret.reveal().encode())
        if length < needed:
            name = next(name for name in hmac if _HMAC_BYTES[name] == needed)
            walk.fault(
                (*path, "secret"),
                f"has {length} bytes, and {name} needs at least {needed}; `openssl rand -hex {needed}` makes one",
            )
    elif hmac and any(getattr(issuer, name) is not None for name in _SOURCES):
        walk.fault(here, f"{hmac[0]} takes a secret, not a public key", *((*path, name) for name in _SOURCES))
