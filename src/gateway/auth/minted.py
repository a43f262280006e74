"""
The gateway's own short tokens, for backends that trust no plain header.

One ES256 key is made when the gateway starts and never leaves it; workers have their parent's. Its public half is
published as a JWK Set on the admin port. ES256 because every JOSE library of every language verifies it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jwt.algorithms import ECAlgorithm

from gateway.core.identity import Identity

__all__ = ["LIFETIME_S", "Minter"]

LIFETIME_S: Final = 60
"""How long a minted token is good."""

_CANONICAL = '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}'


class Minter:
    """
    Signs tokens that say who calls.

    Args:
        issuer: The ``iss`` claim.
        wall: Seconds since the epoch.
        key: What ``private`` of another one gave, to sign alike; None makes a new key.

    Attributes:
        kid: The key's id: its thumbprint (RFC 7638).
        wall: As given.
    """

    def __init__(self, issuer: str, wall: Callable[[], float], key: bytes | None = None) -> None:
        self._issuer = issuer
        self.wall = wall
        made = ec.generate_private_key(ec.SECP256R1()) if key is None else load_der_private_key(key, None)
        if not isinstance(made, ec.EllipticCurvePrivateKey):
            raise TypeError("not a key of an elliptic curve")
        self._key = made
        public: dict[str, Any] = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        canonical = _CANONICAL % (public["x"], public["y"])
        self.kid = jwt.utils.base64url_encode(hashlib.sha256(canonical.encode()).digest()).decode()
        self._public = {**public, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def private(self) -> bytes:
        """
        Return the key itself (PKCS #8, DER), for another process of this gateway and nobody else.
        """
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def jwks(self) -> dict[str, Any]:
        """
        Return the JWK Set with which backends verify (RFC 7517, section 5).
        """
        return {"keys": [dict(self._public)]}

    def mint(self, identity: Identity, upstream: str, carried: tuple[str, ...] = ()) -> bytes:
        """
        Sign a token about *identity* that *upstream* alone may take, good for 60 s from now.

        Args:
            carried: Claims of the caller's own token to state again, where it has them.
        """
        now = int(self.wall())
        claims = {
            **{name: identity.claims[name] for name in carried if name in identity.claims},
            "iss": self._issuer,
            "aud": upstream,
            "sub": identity.subject,
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, self._key, "ES256", {"kid": self.kid}).encode("ascii")
